//! Subnets that were just found without free addresses, known to all jobs of the manager: the next ones try the
//! others first, instead of each losing a task's start to the same discovery.
//!
//! Subnet ids are unique over all accounts, so one file holds them all.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// A subnet is tried again after this many seconds: addresses come back when tasks end.
const AVOIDED: u64 = 300;

/// By subnet: when it was found full, in seconds since 1970.
type Found = BTreeMap<String, u64>;

/// What is known of full subnets.
#[derive(Debug)]
pub(crate) struct FullSubnets {
    path: PathBuf,
}

impl FullSubnets {
    /// Kept in the state directory `state`.
    pub(crate) fn open(state: &Path) -> Self {
        Self { path: state.join("full-subnets.json") }
    }

    /// Tells the others. What cannot be written costs them a try.
    pub(crate) fn note(&self, subnet: &str) {
        self.note_at(subnet, now());
    }

    /// A task that got an address there proves otherwise.
    pub(crate) fn forget(&self, subnet: &str) {
        // Mostly there is no file, and it need not be locked to see that.
        if self.path.exists() {
            let _ = self.change(now(), |found| found.remove(subnet));
        }
    }

    /// Those of `subnets` that were found full lately.
    pub(crate) fn among(&self, subnets: &[String]) -> Vec<String> {
        self.among_at(subnets, now())
    }

    fn note_at(&self, subnet: &str, now: u64) {
        let _ = self.change(now, |found| found.insert(subnet.to_owned(), now));
    }

    fn among_at(&self, subnets: &[String], now: u64) -> Vec<String> {
        if !self.path.exists() {
            return Vec::new();
        }
        let is_full = |found: &Found| -> Vec<String> {
            subnets.iter().filter(|subnet| found.contains_key(*subnet)).cloned().collect()
        };
        self.change(now, |found| is_full(found)).unwrap_or_default()
    }

    fn change<T>(&self, now: u64, change: impl FnOnce(&mut Found) -> T) -> io::Result<T> {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(&self.path)?;
        file.lock()?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        // A process that was killed while it wrote leaves half a text: nothing is known then.
        let mut found: Found = serde_json::from_str(&text).unwrap_or_default();
        // Also those of a clock that was ahead.
        found.retain(|_, at| now.abs_diff(*at) < AVOIDED);
        let answer = change(&mut found);
        let changed = serde_json::to_string(&found)?;
        if changed != text {
            file.seek(SeekFrom::Start(0))?;
            file.write_all(changed.as_bytes())?;
            file.set_len(changed.len() as u64)?;
        }
        Ok(answer)
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_subnets_are_known_to_all_for_five_minutes() {
        let state = tempfile::tempdir().unwrap();
        let (one, other) = (FullSubnets::open(state.path()), FullSubnets::open(state.path()));
        let all = ["subnet-1".to_owned(), "subnet-2".to_owned()];
        let none = Vec::<String>::new();
        assert_eq!(other.among_at(&all, 1000), none);
        one.note_at("subnet-1", 1000);
        one.note_at("subnet-3", 1000);
        assert_eq!(other.among_at(&all, 1299), ["subnet-1"]);
        assert_eq!(other.among_at(&all, 1300), none);
        one.note_at("subnet-2", 1400);
        assert_eq!(other.among_at(&all, 1000), none, "a clock that was set back");
    }

    #[test]
    fn a_damaged_file_and_a_proof_to_the_contrary_clear_it() {
        let state = tempfile::tempdir().unwrap();
        let full = FullSubnets::open(state.path());
        let all = ["subnet-1".to_owned()];
        full.note("subnet-1");
        assert_eq!(full.among(&all), all);
        full.forget("subnet-1");
        assert_eq!(full.among(&all), Vec::<String>::new());
        full.note("subnet-1");
        std::fs::write(state.path().join("full-subnets.json"), "{\"subnet-1\": 1").unwrap();
        assert_eq!(full.among(&all), Vec::<String>::new());
    }
}

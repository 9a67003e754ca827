//! The API's request budget, shared by all processes of one runner manager: token buckets in a file.
//!
//! AWS refuses calls above the token buckets of an account and Region (ECS API reference, "Request
//! throttling"; developer guide, "AWS Fargate throttling quotas"). Each stage is a process of its own, so
//! the buckets lie in a file under `flock`. They are smaller than AWS's, since others use the account too;
//! and when AWS refuses a call all the same, they refill more slowly for a while.
//!
//! A process takes its token at once and then sleeps until the bucket would have had it: the bucket goes
//! below zero instead of having everybody ask again and again.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Of AWS's buckets.
const SHARE: f64 = 0.8;

/// After a refusal the bucket refills at this part of its rate …
const SLOWED: f64 = 0.5;

/// … at the least at this part …
const SLOWEST: f64 = 1.0 / 16.0;

/// … and gains so much of it back each second.
const RECOVERY: f64 = 0.05;

/// Refusals that come together are one piece of news.
const ONE_REFUSAL: f64 = 1.0;

/// A bucket of AWS's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bucket {
    /// Fargate's own limit on RunTask, the tighter one of those that a launch meets: 20 at once, 20 a second.
    Run,
    /// "Cluster resource modify": 100 at once, 40 a second.
    Modify,
    /// "Cluster resource read": 100 at once, 20 a second.
    Read,
}

impl Bucket {
    fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Modify => "modify",
            Self::Read => "read",
        }
    }

    /// How many at once, how many a second: AWS's defaults.
    fn limits(self) -> (f64, f64) {
        match self {
            Self::Run => (20.0, 20.0),
            Self::Modify => (100.0, 40.0),
            Self::Read => (100.0, 20.0),
        }
    }
}

/// The budget of one account and Region.
#[derive(Debug)]
pub(super) struct Budget {
    path: PathBuf,
    /// How many times AWS's default quotas the account has.
    quota: f64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Level {
    /// Below zero: promised to those who sleep.
    tokens: f64,
    /// Part of the full rate.
    pace: f64,
    /// Seconds since 1970.
    at: f64,
    /// When AWS last refused a call.
    refused_at: f64,
}

type Levels = BTreeMap<String, Level>;

impl Budget {
    /// The budget that the file `<directory>/<account>.json` keeps.
    ///
    /// # Errors
    ///
    /// Fails when the directory cannot be made.
    pub(super) fn open(directory: &Path, account: &str, quota: u32) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        Ok(Self { path: directory.join(format!("{account}.json")), quota: f64::from(quota) })
    }

    /// Takes one token of each bucket, and answers how long to sleep before using them.
    pub(super) fn take(&self, buckets: &[Bucket]) -> Duration {
        self.take_at(buckets, now())
    }

    /// The same at `now`, in seconds since 1970.
    fn take_at(&self, buckets: &[Bucket], now: f64) -> Duration {
        self.change(|levels| {
            let waits = buckets.iter().map(|bucket| self.level(levels, *bucket, now).take());
            Duration::from_secs_f64(waits.fold(0.0, f64::max))
        })
        // A budget that cannot be kept must not keep jobs from starting; AWS's own refusals remain.
        .unwrap_or_default()
    }

    /// Notes that AWS refused a call: all processes slow down.
    pub(super) fn refused(&self, buckets: &[Bucket]) {
        let now = now();
        let _ = self.change(|levels| {
            for bucket in buckets {
                self.level(levels, *bucket, now).refuse(now);
            }
        });
    }

    /// Calls a second that the bucket allows when nobody is refused.
    pub(super) fn rate(&self, bucket: Bucket) -> f64 {
        bucket.limits().1 * SHARE * self.quota
    }

    fn level<'l>(&self, levels: &'l mut Levels, bucket: Bucket, now: f64) -> Slot<'l> {
        let burst = bucket.limits().0 * SHARE * self.quota;
        let rate = self.rate(bucket);
        let level = levels.entry(bucket.name().to_owned()).or_insert(Level {
            tokens: burst,
            pace: 1.0,
            at: now,
            refused_at: 0.0,
        });
        level.refill(burst, rate, now);
        Slot { level, rate }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Levels) -> T) -> io::Result<T> {
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&self.path)?;
        file.lock()?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        // A process that was killed while it wrote leaves half a text: full buckets then.
        let mut levels: Levels = serde_json::from_str(&text).unwrap_or_default();
        let answer = change(&mut levels);
        let text = serde_json::to_string(&levels)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(text.as_bytes())?;
        file.set_len(text.len() as u64)?;
        Ok(answer)
    }

    /// Forgets all; for tests.
    #[cfg(test)]
    fn forget(&self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

struct Slot<'l> {
    level: &'l mut Level,
    rate: f64,
}

impl Slot<'_> {
    /// Seconds to wait.
    fn take(self) -> f64 {
        self.level.tokens -= 1.0;
        (-self.level.tokens).max(0.0) / (self.rate * self.level.pace)
    }

    fn refuse(self, now: f64) {
        if now - self.level.refused_at >= ONE_REFUSAL {
            self.level.refused_at = now;
            self.level.pace = (self.level.pace * SLOWED).max(SLOWEST);
            self.level.tokens = self.level.tokens.min(0.0);
        }
    }
}

impl Level {
    fn refill(&mut self, burst: f64, rate: f64, now: f64) {
        // A clock that was set back gives nothing and takes nothing.
        let passed = (now - self.at).max(0.0);
        self.at = now;
        self.tokens = (self.tokens + passed * rate * self.pace).min(burst);
        self.pace = (self.pace + passed * RECOVERY).min(1.0);
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(quota: u32) -> (tempfile::TempDir, Budget) {
        let directory = tempfile::tempdir().unwrap();
        let budget = Budget::open(directory.path(), "eu-west-1", quota).unwrap();
        (directory, budget)
    }

    /// A moment at which all is taken, so that no time passes between two takes.
    const NOW: f64 = 1_000_000.0;

    #[test]
    fn a_burst_is_free_and_what_comes_after_waits_its_turn() {
        let (_directory, budget) = budget(1);
        for call in 0..80 {
            assert_eq!(budget.take_at(&[Bucket::Read], NOW), Duration::ZERO, "call {call}");
        }
        // 16 a second from here on.
        for call in 1..=32 {
            let wait = budget.take_at(&[Bucket::Read], NOW).as_secs_f64();
            assert!((wait - f64::from(call) / 16.0).abs() < 1e-6, "call {call}: {wait}");
        }
        // A second later as many have had their turn.
        let wait = budget.take_at(&[Bucket::Read], NOW + 1.0).as_secs_f64();
        assert!((wait - 17.0 / 16.0).abs() < 1e-6, "{wait}");
        // The buckets are apart.
        assert_eq!(budget.take_at(&[Bucket::Modify], NOW), Duration::ZERO);
    }

    #[test]
    fn processes_share_it_and_a_damaged_file_starts_anew() {
        let (directory, budget) = budget(1);
        let other = Budget::open(directory.path(), "eu-west-1", 1).unwrap();
        for _ in 0..16 {
            let _ = budget.take_at(&[Bucket::Run, Bucket::Modify], NOW);
        }
        assert!(other.take_at(&[Bucket::Run], NOW) > Duration::ZERO);
        std::fs::write(directory.path().join("eu-west-1.json"), "{\"run\":{\"tok").unwrap();
        assert_eq!(other.take_at(&[Bucket::Run], NOW), Duration::ZERO);
        other.forget();
        assert_eq!(budget.take_at(&[Bucket::Run], NOW), Duration::ZERO);
    }

    #[test]
    fn a_refusal_halves_the_pace_once_and_it_recovers() {
        let mut level = Level { tokens: 10.0, pace: 1.0, at: 100.0, refused_at: 0.0 };
        for _ in 0..20 {
            Slot { level: &mut level, rate: 20.0 }.refuse(100.2);
        }
        assert_eq!((level.pace, level.tokens), (0.5, 0.0));
        for second in 1..20 {
            Slot { level: &mut level, rate: 20.0 }.refuse(100.2 + f64::from(second));
        }
        assert_eq!(level.pace, SLOWEST);
        level.refill(80.0, 16.0, 110.0);
        assert!((level.pace - (SLOWEST + 0.5)).abs() < 1e-9);
        level.refill(80.0, 16.0, 200.0);
        assert_eq!((level.pace, level.tokens), (1.0, 80.0));
        level.refill(80.0, 16.0, 150.0);
        assert_eq!(level.tokens, 80.0);
    }

    #[test]
    fn a_raised_quota_raises_all() {
        let (_directory, budget) = budget(10);
        assert_eq!(budget.rate(Bucket::Read), 160.0);
        for call in 0..160 {
            assert_eq!(budget.take_at(&[Bucket::Run], NOW), Duration::ZERO, "call {call}");
        }
        assert!(budget.take_at(&[Bucket::Run], NOW) > Duration::ZERO);
    }
}

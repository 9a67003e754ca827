//! What the state directory tells of attempts, one file after the other: as much memory for a hundred thousand
//! records as for one.
//!
//! Looks only: nothing is made, changed or removed, so an operator may look while jobs run.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};

use super::{AttemptId, ScriptRun, StateError, failed};

/// A record has at most 64 KiB of variables, and some KiB beside them.
const MAX_FILE: u64 = 8 << 20;

/// A record is written when its attempt has ended, so an older file cannot have a younger attempt; a day's slack for
/// clocks that were set.
const SLACK: SignedDuration = SignedDuration::from_hours(24);

/// Which files are opened: those that can be meant, told by name and age alone.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Of this pipeline.
    pub pipeline: Option<u64>,
    /// Of this job.
    pub job: Option<u64>,
    /// This one.
    pub attempt: Option<AttemptId>,
    /// Decided then or later.
    pub since: Option<Timestamp>,
}

/// A file that was looked at.
#[derive(Debug)]
pub struct Seen<'a> {
    /// Below the state directory.
    pub path: &'a Path,
    /// Whether the attempt has not ended.
    pub living: bool,
    /// What is in it, or why that is not known.
    pub text: Result<&'a [u8], String>,
}

/// Shows `see` every record below the state directory `directory` that can be `wanted`, in no order, and then the
/// attempts that live. An attempt that ends meanwhile is shown once.
///
/// # Errors
///
/// Fails when the directory itself cannot be read; of the files each is told.
pub fn visit(
    directory: &Path,
    wanted: &Wanted,
    see: &mut dyn FnMut(Seen<'_>),
) -> Result<(), StateError> {
    let mut buffer = Vec::new();
    // First, since one that ends meanwhile turns up among the records, and would be in neither the other way round.
    let mut living: BTreeMap<String, (PathBuf, Vec<u8>)> = BTreeMap::new();
    for entry in entries(&directory.join("attempts"))? {
        let Some((path, name)) = file(&entry) else { continue };
        let id = name.strip_suffix(".json").and_then(|id| AttemptId::parse(id).ok());
        if id.as_ref().is_some_and(|id| !wanted.names(id)) {
            continue;
        }
        match read(&path, &mut buffer) {
            _ if id.is_none() => see(Seen { path: &path, living: true, text: Err(no_name()) }),
            Ok(()) => drop(living.insert(name, (path, buffer.clone()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => see(Seen { path: &path, living: true, text: Err(error.to_string()) }),
        }
    }
    let records = directory.join("records");
    for folder in entries(&records)? {
        let path = folder.path();
        if !folder.file_type().is_ok_and(|kind| kind.is_dir()) {
            if !is_unfinished(&folder) {
                see(Seen { path: &path, living: false, text: Err(no_name()) });
            }
            continue;
        }
        if wanted.pipeline.is_some_and(|id| folder.file_name() != *format!("{:02x}", id % 256)) {
            continue;
        }
        let inside = match entries(&path) {
            Ok(inside) => inside,
            Err(error) => {
                let source = std::error::Error::source(&error).map(ToString::to_string);
                let why = source.unwrap_or_else(|| error.to_string());
                see(Seen { path: &path, living: false, text: Err(why) });
                continue;
            }
        };
        for entry in inside {
            let Some((path, name)) = file(&entry) else { continue };
            let Some((pipeline, id)) = record_name(&name) else {
                see(Seen { path: &path, living: false, text: Err(no_name()) });
                continue;
            };
            let _ = living.remove(&format!("{id}.json"));
            if !wanted.names(&id)
                || wanted.pipeline.is_some_and(|wanted| wanted != pipeline)
                || wanted.since.is_some_and(|since| is_older(&entry, since))
            {
                continue;
            }
            let text = read(&path, &mut buffer).map_err(|error| error.to_string());
            see(Seen { path: &path, living: false, text: text.map(|()| &buffer[..]) });
        }
    }
    for (path, text) in living.values() {
        see(Seen { path, living: true, text: Ok(text) });
    }
    Ok(())
}

/// The scripts that ran so far in the living attempt `id`.
pub fn scripts_of_living(directory: &Path, id: &AttemptId) -> Vec<ScriptRun> {
    let path = directory.join("scripts").join(format!("{id}.jsonl"));
    let lines = fs::read_to_string(path).unwrap_or_default();
    lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

impl Wanted {
    fn names(&self, id: &AttemptId) -> bool {
        let job = id.as_str().split_once('-').and_then(|(job, _)| job.parse().ok());
        self.attempt.as_ref().is_none_or(|wanted| wanted == id)
            && (self.job.is_none() || self.job == job)
    }
}

/// What is in `directory`; nothing when it is not there, as before the first job.
fn entries(directory: &Path) -> Result<impl Iterator<Item = fs::DirEntry> + use<>, StateError> {
    let found = match fs::read_dir(directory) {
        Ok(found) => Some(found),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed("read", directory)(error)),
    };
    Ok(found.into_iter().flatten().flatten())
}

/// A file that is worth a word; `None` for what a killed process left half-written.
fn file(entry: &fs::DirEntry) -> Option<(PathBuf, String)> {
    let name = entry.file_name().to_string_lossy().into_owned();
    (!is_unfinished(entry)).then(|| (entry.path(), name))
}

/// `tempfile`'s names, which become the real ones by a rename.
fn is_unfinished(entry: &fs::DirEntry) -> bool {
    entry.file_name().to_string_lossy().starts_with('.')
}

fn is_older(entry: &fs::DirEntry, since: Timestamp) -> bool {
    let written = entry.metadata().and_then(|metadata| metadata.modified()).ok();
    let written = written.and_then(|written| Timestamp::try_from(written).ok());
    written.is_some_and(|written| since.duration_since(written) > SLACK)
}

/// `<pipeline>-<attempt>.json`
fn record_name(name: &str) -> Option<(u64, AttemptId)> {
    let (pipeline, id) = name.strip_suffix(".json")?.split_once('-')?;
    Some((pipeline.parse().ok()?, AttemptId::parse(id).ok()?))
}

fn no_name() -> String {
    "its name is none that the driver gives".to_owned()
}

/// Reads a regular file of bounded size: a pipe or a device would keep the reader for ever.
fn read(path: &Path, buffer: &mut Vec<u8>) -> io::Result<()> {
    buffer.clear();
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    File::open(path)?.take(MAX_FILE + 1).read_to_end(buffer)?;
    if buffer.len() as u64 > MAX_FILE {
        return Err(io::Error::other("it is larger than any record"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "7-00000000000000aa";
    const TWO: &str = "8-00000000000000bb";

    /// File name, whether it lives, and the text or the complaint.
    fn seen(directory: &Path, wanted: &Wanted) -> Vec<(String, bool, String)> {
        let mut seen = Vec::new();
        visit(directory, wanted, &mut |one| {
            let name = one.path.file_name().unwrap().to_string_lossy().into_owned();
            let text = one.text.map(|text| String::from_utf8_lossy(text).into_owned());
            seen.push((name, one.living, text.unwrap_or_else(|why| format!("! {why}"))));
        })
        .unwrap();
        seen.sort();
        seen
    }

    #[test]
    fn what_is_wanted_is_told_by_names_and_everything_is_shown_once() {
        let state = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = state.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert_eq!(seen(state.path(), &Wanted::default()), []);
        put(&format!("records/0a/10-{ONE}.json"), "one");
        put(&format!("records/0b/267-{TWO}.json"), "two");
        // As after a kill between the record and the removal of the attempt.
        put(&format!("attempts/{ONE}.json"), "again");
        put("attempts/9-00000000000000cc.json", "lives");
        put("records/0a/.tmpXYZ", "half");
        let name =
            |living: bool, name: &str, text: &str| (name.to_owned(), living, text.to_owned());
        let one = name(false, &format!("10-{ONE}.json"), "one");
        let two = name(false, &format!("267-{TWO}.json"), "two");
        let lives = name(true, "9-00000000000000cc.json", "lives");
        for (wanted, expected) in [
            (Wanted::default(), vec![one.clone(), two.clone(), lives.clone()]),
            (Wanted { job: Some(7), ..Wanted::default() }, vec![one.clone()]),
            (Wanted { job: Some(9), ..Wanted::default() }, vec![lives.clone()]),
            (
                Wanted { attempt: AttemptId::parse(TWO).ok(), ..Wanted::default() },
                vec![two.clone()],
            ),
            // The pipeline of one that lives is in its file only, so whoever asks has to look.
            (
                Wanted { pipeline: Some(267), ..Wanted::default() },
                vec![two.clone(), lives.clone(), name(true, &format!("{ONE}.json"), "again")],
            ),
        ] {
            let mut expected = expected;
            expected.sort();
            assert_eq!(seen(state.path(), &wanted), expected, "{wanted:?}");
        }
    }

    #[test]
    fn what_is_no_record_is_told_and_not_read() {
        let state = tempfile::tempdir().unwrap();
        let records = state.path().join("records/0a");
        fs::create_dir_all(records.join(format!("10-{TWO}.json"))).unwrap();
        fs::write(records.join("notes.txt"), "mine").unwrap();
        fs::write(records.join("../README"), "mine").unwrap();
        let large = File::create(records.join(format!("10-{ONE}.json"))).unwrap();
        large.set_len(MAX_FILE + 1).unwrap();
        let complaints: Vec<String> =
            seen(state.path(), &Wanted::default()).into_iter().map(|(.., text)| text).collect();
        let no_name = "! its name is none that the driver gives";
        assert_eq!(
            complaints,
            ["! it is larger than any record", "! it is no regular file", no_name, no_name]
        );
    }

    #[test]
    fn files_from_before_are_not_opened() {
        let state = tempfile::tempdir().unwrap();
        let path = state.path().join("records/0a").join(format!("10-{ONE}.json"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "old").unwrap();
        let of = |since: &str| {
            seen(state.path(), &Wanted { since: Some(since.parse().unwrap()), ..Wanted::default() })
        };
        let file = File::options().write(true).open(&path).unwrap();
        let written = humantime::parse_rfc3339("2026-01-10T00:00:00Z").unwrap();
        file.set_modified(written).unwrap();
        assert_eq!(of("2026-01-10T12:00:00Z").len(), 1);
        assert_eq!(of("2026-01-12T00:00:00Z").len(), 0);
    }
}

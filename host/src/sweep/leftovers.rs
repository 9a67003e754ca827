//! Directories in which processes once waited for tasks together, and nobody will again.
//!
//! There is one for each set of session tags, so with `session_tags = ["job"]` one for each job. They are removed
//! here and not by the last who waits, since the next may just be coming.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Since somebody last asked there. No `prepare` comes back to a directory after so long.
const DESERTED: Duration = Duration::from_secs(3600);

/// Removes the deserted directories of the state directory `state`.
pub(super) fn remove(state: &Path) {
    for entry in fs::read_dir(state.join("watch")).into_iter().flatten().flatten() {
        remove_if_deserted(&entry.path(), SystemTime::now());
    }
}

fn remove_if_deserted(directory: &Path, now: SystemTime) {
    let path = directory.join("poller.lock");
    let Ok(lock) = File::open(&path) else { return };
    let modified = lock.metadata().and_then(|metadata| metadata.modified());
    let age = modified.ok().and_then(|at| now.duration_since(at).ok());
    let is_alone = fs::read_dir(directory).is_ok_and(|entries| entries.count() == 1);
    if age.is_some_and(|age| age >= DESERTED) && is_alone && lock.try_lock().is_ok() {
        let _ = fs::remove_file(path);
        // Fails when somebody has come; who makes a lock file of its own then.
        let _ = fs::remove_dir(directory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_directories_that_nobody_uses_are_removed() {
        let state = tempfile::tempdir().unwrap();
        let directory = |name: &str| {
            let directory = state.path().join(name);
            fs::create_dir(&directory).unwrap();
            let lock = File::create(directory.join("poller.lock")).unwrap();
            (directory, lock)
        };
        let (deserted, _) = directory("deserted");
        let (waited_in, _) = directory("waited-in");
        fs::create_dir(waited_in.join("7-0123456789abcdef-0-0")).unwrap();
        let (polled_in, lock) = directory("polled-in");
        lock.lock().unwrap();
        let later = SystemTime::now() + Duration::from_secs(3700);
        for each in [&deserted, &waited_in, &polled_in] {
            remove_if_deserted(each, SystemTime::now());
            assert!(each.exists(), "too young: {}", each.display());
            remove_if_deserted(each, later);
        }
        assert!(!deserted.exists());
        assert!(waited_in.join("poller.lock").exists() && polled_in.exists());
    }
}

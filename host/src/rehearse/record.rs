//! Where a job ran, from the records that the driver's `cleanup` leaves in its state directory.
//!
//! Read leniently: a record is for people, and a rehearsal that cannot read one still tells the rest.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::placement::size::Size;
use crate::placement::{Arch, Capacity};

/// Directories below `records` that are looked into.
const MAX_DEPTH: usize = 4;

/// The part of a record that a rehearsal shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedPlacement {
    /// A catalog name.
    pub cluster: String,
    /// A catalog name.
    pub task_definition: String,
    /// Of the task.
    pub arch: Arch,
    /// Of the task.
    pub capacity: Capacity,
    /// Of the task.
    pub size: Size,
    /// A catalog name; `None` is the task definition's role.
    #[serde(default)]
    pub role: Option<String>,
    /// The policy's.
    #[serde(default)]
    pub reason: String,
}

#[derive(Deserialize)]
struct Record {
    job: RecordedJob,
    placement: Option<RecordedPlacement>,
}

#[derive(Deserialize)]
struct RecordedJob {
    id: u64,
}

/// The placement of the job's newest record; `None` when there is none.
pub(super) fn placement_of(state_directory: &Path, job_id: u64) -> Option<RecordedPlacement> {
    let mut found = Vec::new();
    collect(&state_directory.join("records"), MAX_DEPTH, job_id, &mut found);
    found.sort_by_key(|(written, _)| *written);
    found.pop().map(|(_, placement)| placement)
}

fn collect(
    directory: &Path,
    depth: usize,
    job_id: u64,
    found: &mut Vec<(std::time::SystemTime, RecordedPlacement)>,
) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            if depth > 0 {
                collect(&path, depth - 1, job_id, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "json") {
            let record = std::fs::read(&path)
                .ok()
                .and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok())
                .filter(|record| record.job.id == job_id);
            if let Some(placement) = record.and_then(|record| record.placement) {
                let written = metadata.modified().unwrap_or(std::time::UNIX_EPOCH);
                found.push((written, placement));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_jobs_own_record_is_found() {
        let state = tempfile::tempdir().unwrap();
        let records = state.path().join("records/2026/11");
        std::fs::create_dir_all(&records).unwrap();
        let write = |name: &str, text: &str| std::fs::write(records.join(name), text).unwrap();
        write("broken.json", "{");
        write("other.json", r#"{"job":{"id":8},"placement":null}"#);
        write("undecided.json", r#"{"job":{"id":7},"placement":null,"outcome":"x"}"#);
        write(
            "a.json",
            r#"{"version":1,"job":{"id":7,"name":"j"},"outcome":"released","placement":{"cluster":"dev","task_definition":"node",
               "arch":"arm64","capacity":"spot","size":{"cpu_units":512,"memory_mib":1024},"role":null,"reason":"cheap","labels":{}}}"#,
        );
        let placement = placement_of(state.path(), 7).unwrap();
        assert_eq!(
            (placement.cluster.as_str(), placement.arch, placement.capacity),
            ("dev", Arch::Arm64, Capacity::Spot)
        );
        assert_eq!((placement.role, placement.reason.as_str()), (None, "cheap"));
        assert_eq!(placement_of(state.path(), 8), None);
        assert_eq!(placement_of(Path::new("/nowhere"), 7), None);
    }
}

//! What a script used: CPU time and peak memory.
//!
//! Where the agent is PID 1 the control group is the task's own, and tells what counts against the task's
//! limits: all processes together, files in memory included. Its peak cannot be reset, so it is the script's
//! when it grew while the script ran; otherwise the largest of the samples taken meanwhile is. Elsewhere
//! the group is shared with strangers, and the kernel's account of the script's main process and of all its
//! descendants that were waited for is used: the CPU time is their sum, the memory that of the largest.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often memory is looked at.
pub(crate) const SAMPLE: Duration = Duration::from_millis(500);

/// What a script used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Usage {
    /// User and system time.
    pub(crate) cpu: Duration,
    /// In bytes; `None` when nobody knows.
    pub(crate) peak_memory: Option<u64>,
}

/// The account of a control group between two moments.
pub(crate) struct Meter {
    group: Group,
    cpu: Option<Duration>,
    peak: Option<u64>,
    sampled: Option<u64>,
}

struct Group {
    root: PathBuf,
    version: Version,
}

#[derive(Clone, Copy)]
enum Version {
    One,
    Two,
}

impl Meter {
    /// Starts to measure, where there is a group of the task's own.
    pub(crate) fn start() -> Option<Self> {
        if rustix::process::getpid().is_init() {
            Self::of(Path::new("/sys/fs/cgroup"))
        } else {
            None
        }
    }

    fn of(root: &Path) -> Option<Self> {
        let version = if root.join("memory.current").exists() {
            Version::Two
        } else if root.join("memory/memory.usage_in_bytes").exists() {
            Version::One
        } else {
            return None;
        };
        let group = Group { root: root.to_owned(), version };
        let (cpu, peak) = (group.cpu(), group.peak());
        let sampled = group.memory();
        Some(Self { group, cpu, peak, sampled })
    }

    /// Looks at the memory now.
    pub(crate) fn sample(&mut self) {
        self.sampled = self.sampled.max(self.group.memory());
    }

    /// What was used since the start; what the group does not tell comes from `other`.
    pub(crate) fn finish(mut self, other: Usage) -> Usage {
        self.sample();
        let peak = self.group.peak().filter(|peak| Some(*peak) > self.peak);
        let cpu = match (self.group.cpu(), self.cpu) {
            (Some(now), Some(then)) => now.saturating_sub(then),
            _ => other.cpu,
        };
        Usage { cpu, peak_memory: peak.or(self.sampled).or(other.peak_memory) }
    }
}

impl Group {
    fn number(&self, file: &str) -> Option<u64> {
        fs::read_to_string(self.root.join(file)).ok()?.trim().parse().ok()
    }

    fn memory(&self) -> Option<u64> {
        self.number(match self.version {
            Version::Two => "memory.current",
            Version::One => "memory/memory.usage_in_bytes",
        })
    }

    /// Since Linux 5.19 in version 2.
    fn peak(&self) -> Option<u64> {
        self.number(match self.version {
            Version::Two => "memory.peak",
            Version::One => "memory/memory.max_usage_in_bytes",
        })
    }

    fn cpu(&self) -> Option<Duration> {
        match self.version {
            Version::One => self.number("cpuacct/cpuacct.usage").map(Duration::from_nanos),
            Version::Two => {
                let text = fs::read_to_string(self.root.join("cpu.stat")).ok()?;
                let line = text.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
                line.trim().parse().ok().map(Duration::from_micros)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_group_tells_cpu_time_and_a_peak_that_grew() {
        let root = group(&[
            ("memory.current", "1000\n"),
            ("memory.peak", "5000\n"),
            ("cpu.stat", "usage_usec 1500000\nuser_usec 1\n"),
        ]);
        let meter = Meter::of(root.path()).unwrap();
        fs::write(root.path().join("memory.peak"), "9000\n").unwrap();
        fs::write(root.path().join("cpu.stat"), "usage_usec 4000000\n").unwrap();
        let usage = meter.finish(Usage::default());
        assert_eq!(usage, Usage { cpu: Duration::from_millis(2500), peak_memory: Some(9000) });
    }

    #[test]
    fn samples_stand_in_for_a_peak_of_an_earlier_script() {
        let root = group(&[("memory.current", "1000\n"), ("memory.peak", "5000\n")]);
        let mut meter = Meter::of(root.path()).unwrap();
        fs::write(root.path().join("memory.current"), "3000\n").unwrap();
        meter.sample();
        fs::write(root.path().join("memory.current"), "1200\n").unwrap();
        let other = Usage { cpu: Duration::from_secs(3), peak_memory: Some(7) };
        assert_eq!(meter.finish(other), Usage { cpu: other.cpu, peak_memory: Some(3000) });
    }

    #[test]
    fn version_1_is_understood_and_none_is_no_error() {
        let root = group(&[
            ("memory/memory.usage_in_bytes", "10\n"),
            ("memory/memory.max_usage_in_bytes", "20\n"),
            ("cpuacct/cpuacct.usage", "1000000000\n"),
        ]);
        let meter = Meter::of(root.path()).unwrap();
        fs::write(root.path().join("memory/memory.max_usage_in_bytes"), "30\n").unwrap();
        fs::write(root.path().join("cpuacct/cpuacct.usage"), "3000000000\n").unwrap();
        let usage = meter.finish(Usage::default());
        assert_eq!(usage, Usage { cpu: Duration::from_secs(2), peak_memory: Some(30) });
        assert!(Meter::of(group(&[]).path()).is_none());
    }
}

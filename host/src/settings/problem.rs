//! One mistake of the settings file, and the error that carries all of them.

use std::fmt;
use std::path::PathBuf;

/// One mistake, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Line, counted from 1; 0 when the place is a missing table.
    pub line: usize,
    /// Dotted, such as `clusters.dev.region`.
    pub path: String,
    /// What is wrong and what was expected.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(formatter, "{}: {}", self.path, self.message),
            line => write!(formatter, "line {line}: {}: {}", self.path, self.message),
        }
    }
}

/// A settings file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// It could not be read.
    #[error("cannot read the settings file {}", .path.display())]
    Read {
        /// As given.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// A flag of the command line goes with the other format.
    #[error("`{flag}` goes with a configuration file of GitLab's Fargate driver, and {} is none", .path.display())]
    Flag {
        /// As given.
        path: PathBuf,
        /// The flag.
        flag: &'static str,
    },
    /// It has mistakes; never empty.
    #[error("{} has {} {}", .path.display(), .problems.len(), if .problems.len() == 1 { "mistake" } else { "mistakes" })]
    Mistakes {
        /// As given.
        path: PathBuf,
        /// In the file's order.
        problems: Vec<Problem>,
    },
}

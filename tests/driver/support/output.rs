//! What one call of a stage gave.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// Standard output, standard error and exit status of one call.
#[must_use = "assert on the output or at least on the exit code"]
pub(crate) struct StageOutput {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) status: ExitStatus,
}

impl StageOutput {
    pub(crate) fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub(crate) fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Asserts exit code 0.
    pub(crate) fn succeeds(self) -> Self {
        assert_eq!(self.status.code(), Some(0), "{self}");
        self
    }

    /// Asserts GitLab Runner's code of a build failure, which the tests set to 1 as the runner does.
    pub(crate) fn fails_the_build(self) -> Self {
        assert_eq!(self.status.code(), Some(1), "{self}");
        self
    }

    /// Asserts GitLab Runner's code of a system failure.
    pub(crate) fn fails_the_system(self) -> Self {
        assert_eq!(self.status.code(), Some(2), "{self}");
        self
    }

    /// Asserts that standard error has `text`.
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.stderr_text().contains(text), "`{text}` is missing in\n{self}");
        self
    }

    /// Asserts that standard error is empty.
    pub(crate) fn says_nothing(self) -> Self {
        assert!(self.stderr.is_empty(), "{self}");
        self
    }

    /// Asserts that neither stream has `text`.
    pub(crate) fn hides(self, text: &str) -> Self {
        assert!(!self.stderr_text().contains(text), "{self}");
        assert!(!self.stdout_text().contains(text), "{self}");
        self
    }
}

impl fmt::Display for StageOutput {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start =
            |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(4096)]).into_owned();
        writeln!(formatter, "--- stdout ({} bytes)\n{}", self.stdout.len(), start(&self.stdout))?;
        writeln!(formatter, "--- stderr ({} bytes)\n{}", self.stderr.len(), start(&self.stderr))?;
        write!(
            formatter,
            "--- exit code {:?}, signal {:?}",
            self.status.code(),
            self.status.signal()
        )
    }
}

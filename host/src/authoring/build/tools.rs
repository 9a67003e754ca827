//! Programs that a build calls, and tools from npm and PyPI: each is installed into a directory of the cache, by a
//! lock in here that has the digest of every package, dependencies of dependencies included.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Build;
use crate::authoring::{AuthoringError, digest, failed};

/// A tool that is installed when it is first needed.
pub(super) struct Tool {
    /// As its registry has it.
    pub(super) name: &'static str,
    /// Of the tool itself; the lock has those of all others.
    pub(super) version: &'static str,
    /// Files for the tool's directory: what to install, and the digests of it.
    pub(super) lock: &'static [(&'static str, &'static str)],
    /// Installs what the lock says into the directory that has it.
    pub(super) install: fn(&Path) -> Result<(), AuthoringError>,
}

impl Tool {
    /// By name, version and lock: another lock is another tool.
    fn directory_name(&self) -> String {
        let locks: String = self.lock.iter().map(|(_, text)| *text).collect();
        let short = &digest(locks.as_bytes())[..8];
        format!("{}-{}-{short}", self.name.trim_start_matches('@').replace('/', "-"), self.version)
    }

    /// Its directory, installed now if it was not. A new one counts only when it is complete.
    pub(super) fn installed(&self, build: &Build<'_>) -> Result<PathBuf, AuthoringError> {
        let cache = std::path::absolute(build.cache).map_err(failed("find", build.cache))?;
        let tools = cache.join("tools");
        let name = self.directory_name();
        let directory = tools.join(&name);
        let complete = directory.join(".complete");
        if complete.exists() {
            return Ok(directory);
        }
        fs::create_dir_all(&tools).map_err(failed("make", &tools))?;
        let lock = tools.join(format!("{name}.lock"));
        let lock = fs::File::create(&lock).map_err(failed("make", &lock))?;
        lock.lock().map_err(failed("lock", &tools))?;
        if complete.exists() {
            return Ok(directory);
        }
        (build.progress)(&format!(
            "installing {} {} in {}",
            self.name,
            self.version,
            directory.display()
        ));
        // What an earlier try left may be half of something.
        match fs::remove_dir_all(&directory) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("remove", &directory)(error)),
        }
        fs::create_dir_all(&directory).map_err(failed("make", &directory))?;
        for (name, text) in self.lock {
            let path = directory.join(name);
            fs::write(&path, text).map_err(failed("write", &path))?;
        }
        (self.install)(&directory)?;
        fs::write(&complete, "").map_err(failed("write", &complete))?;
        Ok(directory)
    }
}

pub(super) fn scratch() -> Result<tempfile::TempDir, AuthoringError> {
    tempfile::Builder::new()
        .prefix("pointsman-build")
        .tempdir()
        .map_err(failed("make", Path::new("a temporary directory")))
}

/// Runs `command`; what it says is told when it fails.
pub(super) fn run(command: &mut Command) -> Result<(), AuthoringError> {
    output(command).map(drop)
}

/// Runs `command` for its standard output.
pub(super) fn output(command: &mut Command) -> Result<String, AuthoringError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let ran = command.stdin(Stdio::null()).output().map_err(|error| AuthoringError::Program {
        program: format!("`{program}`"),
        reason: match error.kind() {
            std::io::ErrorKind::NotFound => "is not installed".to_owned(),
            _ => format!("cannot be started: {error}"),
        },
    })?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if ran.status.success() {
        return Ok(text(&ran.stdout));
    }
    let said = [text(&ran.stdout), text(&ran.stderr)].concat();
    Err(AuthoringError::Program {
        program: format!("`{program}`"),
        reason: format!("failed ({}):\n{}", ran.status, tail(&said)),
    })
}

/// Compilers say what matters at the end.
fn tail(text: &str) -> String {
    const LINES: usize = 40;
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failing_programs_are_told_with_what_they_said() {
        let error = output(Command::new("sh").args(["-c", "echo why >&2; exit 3"])).unwrap_err();
        assert_eq!(error.to_string(), "`sh` failed (exit status: 3):\nwhy");
        let error = output(&mut Command::new("/nowhere/tool")).unwrap_err();
        assert_eq!(error.to_string(), "`/nowhere/tool` is not installed");
    }
}

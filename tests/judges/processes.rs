//! The simulator and moto's server as children of a test, and the judges' programs.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A file in `tests/judges`.
pub(crate) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/judges").join(name)
}

/// The interpreter that has the judges.
pub(crate) fn python() -> Command {
    let mut command = judge("python");
    // Not whatever the user's environment adds to it.
    command.arg("-I");
    command
}

/// A judge that is a program of its own.
pub(crate) fn judge(name: &str) -> Command {
    let environment = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/judges");
    assert!(
        environment.join("complete").is_file(),
        "the judges are not installed in target/judges: run `scripts/judges`"
    );
    Command::new(environment.join("bin").join(name))
}

/// The simulator's program, beside the driver's.
pub(crate) fn simulator() -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_pointsman")).with_file_name("pointsman-simulator");
    assert!(
        program.is_file(),
        "`{}` is not there: run `cargo build -p pointsman-simulator`",
        program.display()
    );
    Command::new(program)
}

/// A child that says in one line of JSON that it is ready, and ends when its stdin is closed: also when this process
/// is killed.
pub(crate) struct Server {
    child: Child,
    /// The line.
    pub(crate) ready: Value,
}

impl Server {
    /// Starts it, and waits until it is ready.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "{command:?} ended before it was ready; its stderr is above");
        Self { child, ready: serde_json::from_str(&line).unwrap() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let patience = Instant::now() + Duration::from_secs(20);
        while Instant::now() < patience {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! The only place that prints.
//!
//! Write errors are ignored throughout: when GitLab Runner is gone the pipes are broken, and a driver that
//! is releasing a task must not stop for that (`println!` would panic).

mod outlet;

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::environment::{self, Process};

pub use outlet::Outlet;

/// Prints the JSON answer of `config`, the one thing that stage may have on stdout.
///
/// # Errors
///
/// Returns the error of writing: without its answer the stage has not succeeded.
pub fn config_reply(reply: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    let mut stdout = io::stdout().lock();
    stdout.write_all(&line)?;
    stdout.flush()
}

static COPIED: AtomicBool = AtomicBool::new(false);

/// Prints a line for whoever reads the job log, to stderr.
pub fn note(line: &str) {
    let line = printable(line);
    let _ = writeln!(io::stderr().lock(), "{line}");
    if notes_are_copied() {
        tracing::info!(target: "pointsman::job_log", "{line}");
    }
}

/// From here on, notes go to the log for operators as well. For a log that is a file: on stderr they are there.
pub fn copy_notes() {
    COPIED.store(true, Ordering::Relaxed);
}

/// Whether they do.
pub fn notes_are_copied() -> bool {
    COPIED.load(Ordering::Relaxed)
}

/// Prints what a command was asked for, to stdout.
pub fn result(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// Whether somebody looks at stdout who wants colours.
pub fn takes_colour() -> bool {
    io::stdout().is_terminal() && environment::wants_colour(&Process)
}

/// Where a rehearsal's job logs go while it runs: stdout, or stderr when stdout belongs to the report.
pub fn stream(stdout_is_taken: bool) -> Box<dyn Write + Send> {
    if stdout_is_taken { Box::new(io::stderr()) } else { Box::new(io::stdout()) }
}

/// A part of a job's log that GitLab shows collapsed, under its header and with how long it took. It is open until
/// this is dropped; GitLab Runner's own sections around it are no hindrance.
#[derive(Debug)]
#[must_use = "the section ends when this is dropped"]
pub struct Section {
    name: String,
}

impl Section {
    /// Opens a section with `header` as the line that is always shown. Its name is made of `kind` and `numbers`,
    /// which have to be others for each section of a job; never of text that comes from elsewhere.
    pub fn open(kind: &'static str, numbers: [usize; 2], header: &str) -> Self {
        let name = format!("pointsman_{kind}_{}_{}", numbers[0], numbers[1]);
        mark(&format!("section_start:{}:{name}[collapsed=true]", now()), &printable(header));
        Self { name }
    }
}

impl Drop for Section {
    fn drop(&mut self) {
        mark(&format!("section_end:{}:{}", now(), self.name), "");
    }
}

/// One write, so that nothing gets in between: GitLab knows a marker by the two characters behind it.
fn mark(marker: &str, text: &str) {
    let _ = io::stderr().lock().write_all(format!("{marker}\r\u{1b}[0K{text}\n").as_bytes());
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// `text` with control characters replaced, so that nobody's text can move the cursor, forge a line of ours
/// or start a GitLab log section.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|character| if character.is_control() { '\u{fffd}' } else { character })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_reach_the_log() {
        assert_eq!(printable("a\nb\u{1b}[31mc ü"), "a\u{fffd}b\u{fffd}[31mc ü");
    }
}

//! The only place that prints.
//!
//! Write errors are ignored throughout: when GitLab Runner is gone the pipes are broken, and a driver that
//! is releasing a task must not stop for that (`println!` would panic).

mod outlet;

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

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

/// Prints a line for whoever reads the job log, to stderr.
pub fn note(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", printable(line));
}

/// Prints what a command was asked for, to stdout.
pub fn result(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// Whether somebody looks at stdout, so that colours are welcome.
pub fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Where a rehearsal's job logs go while it runs: stdout, or stderr when stdout belongs to the report.
pub fn stream(stdout_is_taken: bool) -> Box<dyn Write + Send> {
    if stdout_is_taken { Box::new(io::stderr()) } else { Box::new(io::stdout()) }
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

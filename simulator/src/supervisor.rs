//! A container's walls: the process between the simulator and a container's first process.
//!
//! A real container dies whole. Here its processes may have called `setsid`, forked twice, cleared their environment
//! or lost their parent, so neither process groups nor marks in the environment find them all, and control groups
//! need rights that a test has not. Therefore each container has this supervisor, which is a *child subreaper*
//! (prctl(2)): whatever loses its parent becomes its child, so that its descendants are the whole container. When
//! the first process ends, or the simulator says so, or the simulator is gone, the supervisor kills all of them.
//!
//! The simulator speaks to it over stdin: the byte `T` sends SIGTERM to the first process's group, end of file means
//! kill. On stdout it reports, in one line of JSON, how the first process ended.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::diagnostics;

/// How a container's first process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// 128 and the signal's number for a process that a signal killed.
    pub(crate) exit_code: i32,
    /// How many other processes had to be killed then.
    pub(crate) left_over: u32,
}

/// Runs `command` until it, and all that it started, is gone. The body of the binary's hidden command `supervise`.
#[must_use]
pub fn supervise(command: Vec<OsString>) -> ExitCode {
    match run(command) {
        Ok(report) => {
            let line = serde_json::to_string(&report).unwrap_or_default();
            let _ = writeln!(io::stdout().lock(), "{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            diagnostics::report(&format!("cannot supervise: {error}"));
            ExitCode::FAILURE
        }
    }
}

enum Order {
    Terminate,
    Kill,
}

fn run(command: Vec<OsString>) -> io::Result<Report> {
    let mut words = command.into_iter();
    let program = words.next().ok_or(io::ErrorKind::InvalidInput)?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    runtime.block_on(async {
        // Before the child is there, so that no signal is missed.
        let mut children = signal(SignalKind::child())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let log = io::stderr().as_fd().try_clone_to_owned()?;
        let child = Command::new(&program)
            .args(words)
            .stdin(Stdio::null())
            .stdout(log)
            .process_group(0)
            .spawn()
            .map_err(|error| {
                io::Error::other(format!("cannot start {}: {error}", program.display()))
            })?;
        let first = Pid::from_child(&child);
        let mut orders = read_orders();
        let exit_code = loop {
            tokio::select! {
                _ = children.recv() => if let Some(code) = reap(first) { break code },
                order = orders.recv() => match order {
                    Some(Order::Terminate) => {
                        let _ = rustix::process::kill_process_group(first, Signal::TERM);
                    }
                    Some(Order::Kill) | None => break kill_first(first),
                },
                _ = terminate.recv() => break kill_first(first),
                _ = interrupt.recv() => break kill_first(first),
            }
        };
        Ok(Report { exit_code, left_over: kill_descendants() })
    })
}

/// Reads orders in a thread of its own, since a blocking read is the one way to read any stdin.
fn read_orders() -> mpsc::Receiver<Order> {
    let (sender, receiver) = mpsc::channel(4);
    std::thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        let mut byte = [0];
        while let Ok(1) = stdin.read(&mut byte) {
            if byte == *b"T" && sender.blocking_send(Order::Terminate).is_err() {
                return;
            }
        }
        let _ = sender.blocking_send(Order::Kill);
    });
    receiver
}

/// Waits for every child that has ended; the first process's exit code when it was among them.
fn reap(first: Pid) -> Option<i32> {
    let mut exit_code = None;
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if pid == first {
            exit_code = Some(code(status));
        }
    }
    exit_code
}

fn code(status: WaitStatus) -> i32 {
    status
        .exit_status()
        .or_else(|| status.terminating_signal().map(|signal| 128 + signal))
        .unwrap_or(255)
}

fn kill_first(first: Pid) -> i32 {
    let _ = rustix::process::kill_process(first, Signal::KILL);
    match rustix::process::waitpid(Some(first), WaitOptions::empty()) {
        Ok(Some((_, status))) => code(status),
        _ => 128 + Signal::KILL.as_raw(),
    }
}

/// Kills until there is nobody: a process can fork while the list is read, but its children are ours as well.
fn kill_descendants() -> u32 {
    let mut killed = BTreeSet::new();
    // A process in uninterruptible sleep must not keep the simulator for ever: 10 s.
    for _ in 0..5000 {
        // What has ended by itself was not left over.
        while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
        let descendants = descendants(rustix::process::getpid().as_raw_pid());
        if descendants.is_empty() {
            break;
        }
        for pid in descendants {
            if let Some(pid) = Pid::from_raw(pid) {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
            killed.insert(pid);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    killed.len() as u32
}

/// All processes below `ancestor`, by the parents that `/proc` names.
fn descendants(ancestor: i32) -> Vec<i32> {
    let mut parents = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        // A process can be gone by now.
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        if let Some(parent) = parent(&stat) {
            parents.push((pid, parent));
        }
    }
    let mut found = vec![ancestor];
    let mut looked_at = 0;
    while let Some(&of) = found.get(looked_at) {
        found.extend(parents.iter().filter(|(_, parent)| *parent == of).map(|(pid, _)| *pid));
        looked_at += 1;
    }
    found.split_off(1)
}

/// The parent in a line of `/proc/PID/stat`. The second field, the command, may hold anything, parentheses too.
fn parent(stat: &str) -> Option<i32> {
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::parent;

    #[test]
    fn parents_are_found_behind_any_command() {
        for (stat, expected) in [
            ("12 (sh) S 7 12 12 0", Some(7)),
            ("12 (a) S 1 (b)) R 9 12 12 0", Some(9)),
            ("12 (a b) Z 3 1", Some(3)),
            ("nonsense", None),
        ] {
            assert_eq!(parent(stat), expected, "{stat}");
        }
    }
}

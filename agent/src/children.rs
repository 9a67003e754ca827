//! The children of this process: started here, and reaped here, all of them.
//!
//! As PID 1 (or as "child subreaper" outside a container) the agent inherits every orphan of the
//! scripts and must wait for them, or they stay zombies. Waiting for "any child" would take away the
//! status that tokio's own `Child::wait` waits for; so tokio's is not used. One place waits for any
//! child whenever `SIGCHLD` comes, hands the status of a script to whoever waits for it, and drops the
//! others. The lock is held while a child starts, so a child cannot be reaped before it is known.

use std::collections::HashMap;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fs, io};

use rustix::process::Pid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::usage::Usage;

/// The scripts' main processes that run now.
#[derive(Default)]
pub(crate) struct Children {
    waiting: Mutex<HashMap<Pid, oneshot::Sender<Exited>>>,
}

/// A child that has ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exited {
    /// As `wait(2)` gives it.
    pub(crate) status: i32,
    /// Of the child, and of its descendants that were waited for.
    pub(crate) usage: Usage,
}

impl Children {
    /// Becomes the reaper of all orphans below this process, and reaps from now on.
    ///
    /// # Errors
    ///
    /// Fails when `SIGCHLD` cannot be received.
    pub(crate) fn adopt() -> io::Result<Arc<Self>> {
        // PID 1 is the reaper of its namespace anyway. Elsewhere a refusal only means that orphans go
        // to somebody else.
        let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
        let mut ended = signal(SignalKind::child())?;
        let children = Arc::new(Self::default());
        let reaper = Arc::clone(&children);
        tokio::spawn(async move {
            // Signals merge: one may stand for many children.
            while ended.recv().await.is_some() {
                reaper.reap();
            }
        });
        Ok(children)
    }

    /// Starts `command`; the receiver gets the status when the child has ended.
    ///
    /// # Errors
    ///
    /// Fails when the child cannot be started.
    pub(crate) fn start(
        &self,
        command: &mut Command,
    ) -> io::Result<(Child, Pid, oneshot::Receiver<Exited>)> {
        let mut waiting = self.lock();
        let child = command.spawn()?;
        let pid = i32::try_from(child.id())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or_else(|| io::Error::other("the child's process id is out of range"))?;
        let (sender, receiver) = oneshot::channel();
        waiting.insert(pid, sender);
        Ok((child, pid, receiver))
    }

    /// The main processes (and so the process groups) of the scripts that run now.
    pub(crate) fn groups(&self) -> Vec<Pid> {
        self.lock().keys().copied().collect()
    }

    fn reap(&self) {
        let mut waiting = self.lock();
        while let Some((pid, exited)) = next_exited() {
            if let Some(sender) = waiting.remove(&pid) {
                // Nobody listens any more: fine, it is reaped.
                let _ = sender.send(exited);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Pid, oneshot::Sender<Exited>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reaps one child, if one has ended.
#[expect(unsafe_code, reason = "no safe library gives the usage of one child: wait4(2)")]
fn next_exited() -> Option<(Pid, Exited)> {
    let mut status = 0;
    // SAFETY: `rusage` is numbers only, for which zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to living values of the types that wait4(2) writes.
    let pid = unsafe { libc::wait4(-1, &raw mut status, libc::WNOHANG, &raw mut usage) };
    // 0: none has ended. -1: there are none.
    let pid = Pid::from_raw(pid.max(0))?;
    let time = |time: libc::timeval| {
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let micros = u64::try_from(time.tv_usec).unwrap_or(0);
        Duration::from_secs(seconds) + Duration::from_micros(micros)
    };
    // Linux gives kibibytes (getrusage(2)).
    let peak_memory = u64::try_from(usage.ru_maxrss).ok().map(|kibibytes| kibibytes * 1024);
    let usage = Usage { cpu: time(usage.ru_utime) + time(usage.ru_stime), peak_memory };
    Some((pid, Exited { status, usage }))
}

/// The living direct children of this process, adopted orphans included.
pub(crate) fn living() -> Vec<Pid> {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let (state, parent) = state_and_parent(&stat)?;
            (parent == own && state != "Z" && state != "X").then(|| Pid::from_raw(pid)).flatten()
        })
        .collect()
}

/// From a line of `/proc/<pid>/stat`. The name in parentheses may hold anything, also parentheses.
fn state_and_parent(stat: &str) -> Option<(&str, i32)> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    Some((fields.next()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_process_cannot_confuse() {
        for (stat, expected) in [
            ("12 (sh) S 7 12 12 0", Some(("S", 7))),
            ("12 (a) b) Z 1) R 9 1", Some(("R", 9))),
            ("12 (sh", None),
            ("", None),
        ] {
            assert_eq!(state_and_parent(stat), expected, "{stat}");
        }
    }
}

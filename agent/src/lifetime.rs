//! From start to end: what ends the task, and how it is left.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{env, io};

use rustix::process::{DumpableBehavior, Signal};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::children::{self, Children};
use crate::connection::Shared;
use crate::log::log;
use crate::process::STOP_GRACE;
use crate::scripts::Scripts;
use crate::server;
use crate::settings::Settings;
use crate::spool::Limits;

/// Of a script's output, in bytes, before the disk is used.
const MEMORY: usize = 8 << 20;

/// Where a script's output may wait, best first. The working directory of an image is often `/`.
fn directories(temporary: Option<OsString>) -> Vec<PathBuf> {
    let mut directories: Vec<PathBuf> = temporary.into_iter().map(Into::into).collect();
    directories.extend([".", "/tmp", "/var/tmp"].map(PathBuf::from));
    directories
}

/// Counts the connections that are logged in.
#[derive(Clone)]
pub(crate) struct Visitors(watch::Sender<usize>);

/// One connection that is logged in; dropping it ends the visit.
pub(crate) struct Visit(watch::Sender<usize>);

impl Visitors {
    fn new() -> Self {
        Self(watch::Sender::new(0))
    }

    /// A connection has logged in.
    pub(crate) fn enter(&self) -> Visit {
        self.0.send_modify(|count| *count += 1);
        Visit(self.0.clone())
    }

    /// Resolves when there was no visit for `timeout`.
    async fn missed_for(&self, timeout: Duration) {
        let mut count = self.0.subscribe();
        loop {
            // The sender lives in `self`.
            let _ = count.wait_for(|count| *count == 0).await;
            tokio::select! {
                () = tokio::time::sleep(timeout) => return,
                _ = count.changed() => {}
            }
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}

/// Serves until the task shall end, and ends it.
///
/// # Errors
///
/// Fails when the agent cannot start.
pub(crate) async fn live(settings: Settings) -> io::Result<()> {
    // Keeps scripts of the same user from reading the host key out of this process's memory. Root can
    // do it all the same.
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let children = Children::adopt()?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let listen = settings.listen;
    let listener = TcpListener::bind(listen).await.map_err(|error| {
        io::Error::new(error.kind(), format!("cannot listen on {listen}: {error}"))
    })?;
    log!("started, version {}, listening on {}", env!("CARGO_PKG_VERSION"), listener.local_addr()?);

    let config = Arc::new(server::config(settings.host_key()));
    let visitors = Visitors::new();
    let limits = Limits {
        memory: MEMORY,
        disk: settings.spool,
        directories: directories(env::var_os("TMPDIR")),
    };
    let shared = Arc::new(Shared {
        client_key: settings.client_key,
        children: Arc::clone(&children),
        scripts: Scripts::new(Arc::clone(&children), limits),
        visitors: visitors.clone(),
    });
    tokio::select! {
        () = server::accept(listener, config, shared) => {}
        () = passed(settings.deadline) => log!("ending: the task's deadline has passed"),
        () = visitors.missed_for(settings.idle_timeout) => {
            log!("ending: no connection for {} s", settings.idle_timeout.as_secs());
        }
        _ = terminate.recv() => log!("ending: SIGTERM"),
        _ = interrupt.recv() => log!("ending: SIGINT"),
    }
    end(&children).await;
    log!("ended");
    Ok(())
}

/// Resolves when the wall clock has reached `deadline`. Looks again and again, because the clock may be
/// set while we sleep.
async fn passed(deadline: u64) {
    loop {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        match Duration::from_secs(deadline).checked_sub(now) {
            None | Some(Duration::ZERO) => return,
            Some(left) => tokio::time::sleep(left.min(Duration::from_secs(30))).await,
        }
    }
}

/// SIGTERM for the groups of all scripts and for all adopted orphans; SIGKILL for what is left after
/// the grace. In a container the end of PID 1 would kill them all; elsewhere nothing else would.
async fn end(children: &Children) {
    strike(children, Signal::TERM);
    let grace = Instant::now() + STOP_GRACE;
    let end = grace + Duration::from_secs(2);
    loop {
        let now = Instant::now();
        if children::living().is_empty() || now >= end {
            return;
        }
        if now >= grace {
            // Again each round: killing a parent makes its children ours.
            strike(children, Signal::KILL);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn strike(children: &Children, signal: Signal) {
    for group in children.groups() {
        let _ = rustix::process::kill_process_group(group, signal);
    }
    for child in children::living() {
        let _ = rustix::process::kill_process(child, signal);
    }
}

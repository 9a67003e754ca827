//! Scripts that outlive a connection: known by an id, started once, with a log that is kept until it is
//! acknowledged. Knows nothing of SSH.
//!
//! A script starts when the driver says so, which it does when it has heard that the id is known here and has sent
//! all of it. From its opening on the id is known as long as the agent lives, so opening it again attaches to it. One connection is attached at a time;
//! a newer one replaces it, and what the older one still says is not heard, for it may be the dying half of a
//! connection that the driver has long given up.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use rustix::fs::MemfdFlags;
use rustix::process::Signal;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use crate::children::Children;
use crate::log::log;
use crate::process::{Ending, Event, Process};
use crate::spool::{Limits, Spool};
use crate::usage::{self, Meter, Usage};
use crate::wire::{Id, Kind, Malformed, Open};

/// The longest script that is kept before it starts. It lies in memory: it is full of secrets.
pub(crate) const LONGEST_SCRIPT: u64 = 64 << 20;

/// A driver runs one at a time; others are the leftovers of drivers that were killed.
const MAX_SCRIPTS: usize = 8;

/// How many ids of scripts that are done are remembered, so that none starts again.
const MAX_REMEMBERED: usize = 16 << 10;

/// All scripts of this kind.
pub(crate) struct Scripts {
    children: Arc<Children>,
    limits: Limits,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    /// Oldest first.
    scripts: Vec<Arc<Script>>,
    done: VecDeque<Id>,
    /// For the log: names that are short, and no secret.
    opened: u64,
}

/// One script.
pub(crate) struct Script {
    id: Id,
    /// For the log.
    pub(crate) number: u64,
    spool: Spool,
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    /// Raised by each connection that attaches.
    attachment: u64,
    attached: Option<Line>,
    told_to_end: bool,
}

enum Phase {
    Arriving(Upload),
    Running(Process),
    Over,
}

struct Upload {
    command: Bytes,
    length: u64,
    have: u64,
    file: File,
}

/// A connection's means of ending itself.
pub(crate) type Line = Arc<TcpStream>;

/// What opening gives.
pub(crate) struct Opened {
    pub(crate) script: Arc<Script>,
    pub(crate) attachment: u64,
    /// The first frame of the answer.
    pub(crate) answer: Bytes,
}

impl Scripts {
    pub(crate) fn new(children: Arc<Children>, limits: Limits) -> Arc<Self> {
        Arc::new(Self { children, limits, table: Mutex::default() })
    }

    /// Attaches `line` to the script that `open` names, which begins to exist where that is allowed.
    ///
    /// # Errors
    ///
    /// Gives the answer that says why not.
    pub(crate) fn open(&self, open: &Open, line: &Line) -> Result<Opened, Bytes> {
        let refused = |reason: &str| Kind::Refused.frame(reason.as_bytes());
        let script = {
            let mut table = self.table();
            if table.done.contains(&open.id) {
                return Err(refused("the script is over and its output is no longer kept"));
            }
            let known = table.scripts.iter().find(|script| script.id == open.id).cloned();
            match known {
                Some(script) => script,
                None if !open.may_start => return Err(Kind::Unknown.frame(b"")),
                None if open.length > LONGEST_SCRIPT => {
                    return Err(refused("the script is too long"));
                }
                None => {
                    let file = room()
                        .map_err(|error| refused(&format!("no room for the script: {error}")))?;
                    if !table.make_place() {
                        return Err(refused("too many scripts run"));
                    }
                    table.opened += 1;
                    let script = Arc::new(Script {
                        id: open.id,
                        number: table.opened,
                        spool: Spool::new(self.limits.clone()),
                        state: Mutex::new(State {
                            phase: Phase::Arriving(Upload {
                                command: open.command.clone(),
                                length: open.length,
                                have: 0,
                                file,
                            }),
                            attachment: 0,
                            attached: None,
                            told_to_end: false,
                        }),
                    });
                    table.scripts.push(Arc::clone(&script));
                    script
                }
            }
        };
        if !script.spool.holds(open.offset) {
            return Err(refused("the output is not there from this offset on"));
        }
        let mut state = script.state();
        if let Some(older) = state.attached.replace(Arc::clone(line))
            && !Arc::ptr_eq(&older, line)
        {
            log!("script {}: another connection takes over", script.number);
            // It is most likely dead, and would hold one of the few places until that is noticed.
            let _ = older.shutdown(Shutdown::Both);
        }
        state.attachment += 1;
        let attachment = state.attachment;
        let answer = match &state.phase {
            Phase::Arriving(upload) => Kind::Have.frame(&upload.have.to_be_bytes()),
            Phase::Running(_) | Phase::Over => Kind::Log.frame(&open.offset.to_be_bytes()),
        };
        drop(state);
        Ok(Opened { script, attachment, answer })
    }

    /// Takes the next bytes of a script that is arriving.
    ///
    /// # Errors
    ///
    /// Fails when they are more than was announced.
    pub(crate) fn take(
        &self,
        script: &Arc<Script>,
        attachment: u64,
        data: &[u8],
    ) -> Result<(), Malformed> {
        let mut state = script.state();
        if state.attachment != attachment {
            return Ok(());
        }
        let Phase::Arriving(upload) = &mut state.phase else {
            return Err(Malformed("bytes of a script that is whole"));
        };
        if data.len() as u64 > upload.length - upload.have {
            return Err(Malformed("more of a script than was announced"));
        }
        if let Err(error) = upload.file.write_all(data) {
            self.fail(script, &mut state, &error);
            return Ok(());
        }
        upload.have += data.len() as u64;
        Ok(())
    }

    /// Starts a script that has arrived; one that has started is left alone.
    ///
    /// # Errors
    ///
    /// Fails when a part of it is missing.
    pub(crate) fn start(&self, script: &Arc<Script>, attachment: u64) -> Result<(), Malformed> {
        let mut state = script.state();
        match &state.phase {
            _ if state.attachment != attachment => {}
            Phase::Arriving(upload) if upload.have < upload.length => {
                return Err(Malformed("the word to start half of a script"));
            }
            Phase::Arriving(_) => self.start_now(script, &mut state),
            Phase::Running(_) | Phase::Over => {}
        }
        Ok(())
    }

    fn start_now(&self, script: &Arc<Script>, state: &mut State) {
        let Phase::Arriving(upload) = std::mem::replace(&mut state.phase, Phase::Over) else {
            return;
        };
        let Upload { command, mut file, .. } = upload;
        let started =
            file.rewind().and_then(|()| Process::start_with(&command, file, &self.children));
        match started {
            Ok((process, events)) => {
                log!("script {}: started", script.number);
                state.phase = Phase::Running(process);
                tokio::spawn(record(Arc::clone(script), events));
            }
            Err(error) => self.fail(script, state, &error),
        }
    }

    fn fail(&self, script: &Arc<Script>, state: &mut State, error: &io::Error) {
        log!("script {}: cannot be started: {error}", script.number);
        state.phase = Phase::Over;
        let (script, reason) = (Arc::clone(script), error.to_string());
        tokio::spawn(async move {
            script.spool.append(Kind::Failed.frame(reason.as_bytes())).await;
            script.spool.finish();
        });
    }

    /// The log before `offset` has arrived at the driver.
    pub(crate) fn acknowledge(&self, script: &Arc<Script>, attachment: u64, offset: u64) {
        if script.state().attachment != attachment || !script.spool.holds(offset) {
            return;
        }
        script.spool.release(offset);
        if script.spool.is_over_at(offset) {
            let mut table = self.table();
            table.scripts.retain(|other| other.id != script.id);
            table.remember(script.id);
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn remember(&mut self, id: Id) {
        if self.done.len() == MAX_REMEMBERED {
            self.done.pop_front();
        }
        self.done.push_back(id);
    }

    /// Makes place for one more; what nobody is attached to and nothing runs of goes first.
    fn make_place(&mut self) -> bool {
        if self.scripts.len() < MAX_SCRIPTS {
            return true;
        }
        let idle = |script: &Arc<Script>| {
            let state = script.state();
            state.attached.is_none() && !matches!(state.phase, Phase::Running(_))
        };
        let Some(index) = self.scripts.iter().position(idle) else { return false };
        let script = self.scripts.remove(index);
        log!("script {}: forgotten, nobody came for it", script.number);
        // One that has run does not run again, whoever asks for it.
        if matches!(script.state().phase, Phase::Over) {
            self.remember(script.id);
        }
        true
    }
}

impl Script {
    /// The log from `offset` on; see [`Spool::read`].
    pub(crate) async fn read(&self, offset: u64) -> Option<Bytes> {
        self.spool.read(offset).await
    }

    /// Sends a signal to the process group: SIGTERM once, however often a driver that lost its connection
    /// says so, because many programs take a second one as "now, without cleaning up".
    pub(crate) fn signal(&self, attachment: u64, signal: Signal) {
        let mut state = self.state();
        if state.attachment != attachment || (signal == Signal::TERM && state.told_to_end) {
            return;
        }
        if let Phase::Running(process) = &state.phase {
            log!("script {}: gets signal {}", self.number, signal.as_raw());
            process.signal(signal);
            state.told_to_end |= signal == Signal::TERM;
        }
    }

    /// The connection is gone; the script goes on.
    pub(crate) fn detach(&self, attachment: u64) {
        let mut state = self.state();
        if state.attachment == attachment {
            state.attached = None;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Memory for a script, as a file that a shell can read; on the disk only where the kernel gives no other.
fn room() -> io::Result<File> {
    Ok(File::from(rustix::fs::memfd_create("script", MemfdFlags::CLOEXEC)?))
}

/// Writes the log.
async fn record(script: Arc<Script>, mut events: mpsc::Receiver<Event>) {
    let began = Instant::now();
    let mut meter = Meter::start();
    let mut samples = tokio::time::interval(usage::SAMPLE);
    samples.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            _ = samples.tick(), if meter.is_some() => {
                if let Some(meter) = &mut meter {
                    meter.sample();
                }
                continue;
            }
        };
        match event {
            Some(Event::Stdout(piece)) => script.append(Kind::Stdout, piece).await,
            Some(Event::Stderr(piece)) => script.append(Kind::Stderr, piece).await,
            Some(Event::Ended(ending, usage)) => {
                let usage = meter.take().map_or(usage, |meter| meter.finish(usage));
                let payload = end(ending, began.elapsed().as_micros(), usage);
                script.state().phase = Phase::Over;
                script.spool.append(Kind::End.frame(&payload)).await;
                log!("script {}: ended", script.number);
            }
            None => break,
        }
    }
    script.spool.finish();
}

impl Script {
    async fn append(&self, kind: Kind, piece: BytesMut) {
        self.spool.append(kind.seal(piece)).await;
    }
}

/// Kind of ending, number, microseconds of wall time and of CPU time, bytes of memory.
fn end(ending: Ending, wall: u128, usage: Usage) -> Vec<u8> {
    let (kind, number) = match ending {
        Ending::Status(status) => (0, status),
        Ending::Signal { number } => (1, u32::try_from(number).unwrap_or(0)),
    };
    let micros = |micros: u128| u64::try_from(micros).unwrap_or(u64::MAX).to_be_bytes();
    let mut payload = vec![kind];
    payload.extend_from_slice(&number.to_be_bytes());
    payload.extend_from_slice(&micros(wall));
    payload.extend_from_slice(&micros(usage.cpu.as_micros()));
    payload.extend_from_slice(&usage.peak_memory.unwrap_or(u64::MAX).to_be_bytes());
    payload
}

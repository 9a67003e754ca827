//! Scripts that survive a lost connection, with the agent's help.
//!
//! The agent knows a script by an id and keeps its log: output and ending in one row of bytes. Whatever happens
//! to a connection, the next one asks for the log from the first byte that is missing here, so every byte arrives
//! once and in order. The script starts when the driver says so, and the driver says so only when the agent has
//! told that it knows the id; from then on an agent that does not know it is one that was started anew, and the
//! script is not given to it a second time.

use std::fs::File;
use std::future::Future;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use russh::ChannelMsg;
use russh::ChannelWriteHalf;
use russh::client::Msg;
use tokio::io::AsyncWrite;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use super::Target;
use super::error::{ConnectError, RunError};
use super::outflow::Outflow;
use super::session::{Exit, HAND_OVER, LAST_WAIT, Session, connect, signal_name};
use super::strike::Blow;
use super::wire::{self, Answer, Answers, End, Id, Record, Records};
use crate::settings::SshTimes;

/// The largest piece of a script in one frame: with its header, one packet.
const PIECE: usize = (32 << 10) - 8;

/// How much of the log is received before the agent is told to forget it.
const ACKNOWLEDGE_EVERY: u64 = 128 << 10;

const FIRST_GAP: Duration = Duration::from_millis(50);
const LONGEST_GAP: Duration = Duration::from_secs(5);

/// Between questions whether the task is still there; doubled each time, up to the longest.
const FIRST_LOOK: Duration = Duration::from_secs(1);
const LONGEST_LOOK: Duration = Duration::from_secs(15);

/// What happens to the connection while a script runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// It is gone; the script goes on without us.
    Lost,
    /// It is back after this long, and nothing is missing.
    Resumed {
        /// Since it was lost.
        after: Duration,
    },
}

/// What a script used, as the agent tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// From its start to its end.
    pub wall: Duration,
    /// User and system time.
    pub cpu: Duration,
    /// In bytes: of all its processes where the agent has a control group of its own, else of the largest.
    pub peak_memory: Option<u64>,
}

/// A script and the means of getting at it again.
pub(super) struct Work<'w> {
    pub(super) target: &'w Target,
    pub(super) times: &'w SshTimes,
    pub(super) command: &'w str,
    pub(super) script: &'w File,
    pub(super) length: u64,
}

/// What both directions of a connection, and one connection and the next, share.
struct Progress {
    id: Id,
    /// The log up to here has arrived.
    received: AtomicU64,
    /// The word to start was given.
    committed: AtomicBool,
    /// There is something to acknowledge.
    arrived: Notify,
}

/// Runs the script; the arguments are those of [`super::run_script`].
pub(super) async fn run(
    session: Session,
    work: Work<'_>,
    stdout: impl AsyncWrite + Unpin + Send,
    stderr: impl AsyncWrite + Unpin + Send,
    stop: impl Future<Output = ()>,
    on_link: impl FnMut(Link),
    still_there: impl AsyncFnMut() -> bool,
) -> Result<(Exit, Option<Usage>), RunError> {
    let grace = work.times.stop_grace;
    let outflow = Outflow::new(Arc::clone(session.gate()));
    let mut writing = pin!(outflow.write_to(stdout, stderr));
    let (order, ordered) = watch::channel(None);
    let mut stop = pin!(stop);
    let mut stopping = None;
    let mut patience = pin!(sleep(grace));
    let ended = {
        let mut conversing =
            pin!(converse(session, &work, &outflow, ordered, on_link, still_there));
        loop {
            tokio::select! {
                // Being stopped must not wait for a flood of output to end.
                biased;
                () = &mut stop, if stopping.is_none() => {
                    stopping = Some(Blow::Term);
                    outflow.become_lossy();
                    order.send_replace(Some(Blow::Term));
                    patience.as_mut().reset(Instant::now() + grace);
                }
                () = &mut patience, if stopping.is_some() => match stopping.replace(Blow::Kill) {
                    Some(Blow::Term) => {
                        order.send_replace(Some(Blow::Kill));
                        patience.as_mut().reset(Instant::now() + LAST_WAIT);
                    }
                    _ => break Ok((Exit::Stopped, None)),
                },
                () = &mut writing => {}
                ended = &mut conversing => break ended,
            }
        }
    };
    outflow.finish();
    if stopping.is_none() {
        tokio::select! {
            () = &mut writing => return ended,
            () = &mut stop => {}
        }
    }
    // The job log gets what it takes in a moment; nobody waits for more of a script that was stopped.
    let _ = timeout(HAND_OVER, writing).await;
    let usage = ended.ok().and_then(|(_, usage)| usage);
    Ok((Exit::Stopped, usage))
}

/// Since when there is no connection, and what was tried.
struct Outage {
    since: Instant,
    attempts: u32,
    next_look: Instant,
    look_gap: Duration,
}

/// One connection after the other, until the log has ended.
async fn converse(
    mut session: Session,
    work: &Work<'_>,
    outflow: &Outflow,
    ordered: watch::Receiver<Option<Blow>>,
    mut on_link: impl FnMut(Link),
    mut still_there: impl AsyncFnMut() -> bool,
) -> Result<(Exit, Option<Usage>), RunError> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|error| RunError::Script(io::Error::other(error)))?;
    let progress = Progress {
        id,
        received: AtomicU64::new(0),
        committed: AtomicBool::new(false),
        arrived: Notify::new(),
    };
    let mut records = Records::default();
    let mut is_first = true;
    let mut outage: Option<Outage> = None;
    loop {
        let on_answer = || {
            if let Some(outage) = outage.take() {
                on_link(Link::Resumed { after: outage.since.elapsed() });
            }
        };
        let attended = attend(
            &session,
            work,
            &progress,
            &mut records,
            outflow,
            ordered.clone(),
            is_first,
            on_answer,
        )
        .await;
        match attended {
            Ok(Some(end)) => {
                session.close().await;
                return Ok(outcome(&end));
            }
            Ok(None) => session.abandon(),
            Err(error) => {
                session.abandon();
                return Err(error);
            }
        }
        is_first = false;
        if outage.is_none() {
            on_link(Link::Lost);
        }
        let now = Instant::now();
        let outage = outage.get_or_insert(Outage {
            since: now,
            attempts: 0,
            next_look: now,
            look_gap: FIRST_LOOK,
        });
        session = reconnect(work, outage, &mut still_there).await?;
        outflow.follow(Arc::clone(session.gate()));
    }
}

async fn reconnect(
    work: &Work<'_>,
    outage: &mut Outage,
    still_there: &mut impl AsyncFnMut() -> bool,
) -> Result<Session, RunError> {
    let deadline = outage.since + work.times.resume_timeout;
    loop {
        if outage.attempts > 0 {
            let gap = gap(outage.attempts, rand::random_range(0.75..=1.25));
            sleep(gap.min(deadline.saturating_duration_since(Instant::now()))).await;
        }
        outage.attempts = outage.attempts.saturating_add(1);
        let left = deadline.saturating_duration_since(Instant::now());
        let short =
            SshTimes { connect_timeout: work.times.connect_timeout.min(left), ..*work.times };
        let last = match connect(work.target, &short).await {
            Ok(session) => return Ok(session),
            Err(last) => last,
        };
        tracing::debug!(error = %last, attempts = outage.attempts, "no connection yet");
        let waited = outage.since.elapsed();
        let is_hopeless = matches!(
            last,
            ConnectError::HostKeyChanged { .. } | ConnectError::HostKeyUnreadable { .. }
        );
        if is_hopeless || Instant::now() >= deadline {
            return Err(RunError::NotResumed { waited, last });
        }
        if Instant::now() >= outage.next_look {
            if !still_there().await {
                return Err(RunError::NotResumed { waited, last });
            }
            outage.next_look = Instant::now() + outage.look_gap;
            outage.look_gap = outage.look_gap.saturating_mul(2).min(LONGEST_LOOK);
        }
    }
}

/// The pause before the attempt after `attempts` others.
fn gap(attempts: u32, jitter: f64) -> Duration {
    let doubled = FIRST_GAP.saturating_mul(1 << attempts.saturating_sub(1).min(10));
    doubled.min(LONGEST_GAP).mul_f64(jitter)
}

fn outcome(end: &End) -> (Exit, Option<Usage>) {
    let exit = if end.by_signal {
        Exit::Signal(signal_name(end.number))
    } else {
        Exit::Status(end.number)
    };
    let usage = Usage {
        wall: Duration::from_micros(end.wall),
        cpu: Duration::from_micros(end.cpu),
        peak_memory: end.memory,
    };
    (exit, Some(usage))
}

/// One connection: `None` when it was lost.
#[expect(clippy::too_many_arguments, reason = "each is a part of one conversation's state")]
async fn attend(
    session: &Session,
    work: &Work<'_>,
    progress: &Progress,
    records: &mut Records,
    outflow: &Outflow,
    ordered: watch::Receiver<Option<Blow>>,
    is_first: bool,
    mut on_answer: impl FnMut(),
) -> Result<Option<End>, RunError> {
    let (mut incoming, outgoing) = match session.subsystem(wire::SUBSYSTEM).await {
        Ok(channel) => channel,
        Err(RunError::ConnectionLost) => return Ok(None),
        Err(error) => return Err(error),
    };
    let (have, known) = watch::channel(None);
    let mut answers = Some(Answers::default());
    let mut end = None;
    {
        let mut speaking = pin!(speak(&outgoing, work, progress, ordered, known, is_first));
        let mut lost = pin!(session.lost());
        while end.is_none() {
            let data = tokio::select! {
                // In this order: acknowledgements and signals must not wait for a flood of output to end, and
                // what was received before the connection was lost counts.
                biased;
                error = &mut speaking => return Err(RunError::Script(error)),
                message = incoming.wait() => match message {
                    Some(ChannelMsg::Data { data }) => data,
                    Some(ChannelMsg::Failure) => return Err(RunError::Refused),
                    Some(ChannelMsg::Close) | None => return Ok(None),
                    Some(_) => continue,
                },
                () = &mut lost => return Ok(None),
            };
            let log = match &mut answers {
                None => data,
                Some(reading) => {
                    let pushed = reading.push(&data).map_err(RunError::Protocol)?;
                    let Some((answer, rest)) = pushed else { continue };
                    match answer {
                        Answer::Have(n) if n <= work.length => {
                            have.send_replace(Some(n));
                        }
                        Answer::Have(_) | Answer::Unknown => return Err(RunError::Forgotten),
                        Answer::Log => {}
                        Answer::Refused(reason) => return Err(RunError::Agent(reason)),
                    }
                    on_answer();
                    answers = None;
                    rest
                }
            };
            progress.received.fetch_add(log.len() as u64, Ordering::Relaxed);
            let mut failed = None;
            records
                .push(log, |record| match record {
                    Record::Output(stream, data) => outflow.push(stream, data),
                    Record::End(found) => end = Some(found),
                    Record::Failed(reason) => failed = Some(reason),
                })
                .map_err(RunError::Protocol)?;
            if let Some(reason) = failed {
                return Err(RunError::Agent(reason));
            }
            progress.arrived.notify_one();
        }
    }
    // The agent may forget the script now; without this it does so when its task ends.
    let last = wire::acknowledge(progress.received.load(Ordering::Relaxed));
    let _ = timeout(HAND_OVER, outgoing.data_bytes(last)).await;
    Ok(end)
}

/// Says what there is to say. Ends only when the script cannot be read; that the connection is gone is told by
/// the other direction.
async fn speak(
    to: &ChannelWriteHalf<Msg>,
    work: &Work<'_>,
    progress: &Progress,
    mut ordered: watch::Receiver<Option<Blow>>,
    mut known: watch::Receiver<Option<u64>>,
    is_first: bool,
) -> io::Error {
    let mut acknowledged = progress.received.load(Ordering::Relaxed);
    let may_start = !progress.committed.load(Ordering::Relaxed);
    let opening = wire::open(&progress.id, may_start, acknowledged, work.length, work.command);
    send(to, opening).await;
    // A new script is sent without waiting for the agent to say that it has none of it.
    let mut position = is_first.then_some(0);
    let mut told = None;
    let mut started = false;
    let mut buffer = vec![0; PIECE.min(usize::try_from(work.length).unwrap_or(PIECE))];
    loop {
        let blow = *ordered.borrow_and_update();
        if blow != told {
            told = blow;
            match blow {
                Some(Blow::Term) => send(to, wire::signal(15)).await,
                Some(Blow::Kill) => send(to, wire::signal(9)).await,
                None => {}
            }
        }
        let received = progress.received.load(Ordering::Relaxed);
        if received - acknowledged >= ACKNOWLEDGE_EVERY {
            acknowledged = received;
            send(to, wire::acknowledge(received)).await;
        }
        let is_known = known.borrow_and_update().is_some();
        if !is_first && position.is_none() {
            position = *known.borrow();
        }
        match position {
            Some(at) if at < work.length => {
                let wanted = buffer.len().min(usize::try_from(work.length - at).unwrap_or(PIECE));
                // A local file: reading it does not wait for anybody.
                let piece = buffer.get_mut(..wanted).unwrap_or_default();
                if let Err(error) = work.script.read_exact_at(piece, at) {
                    return error;
                }
                send(to, wire::script(piece)).await;
                position = Some(at + wanted as u64);
                continue;
            }
            Some(_) if is_known && !started => {
                started = true;
                progress.committed.store(true, Ordering::Relaxed);
                send(to, wire::go()).await;
                continue;
            }
            _ => {}
        }
        tokio::select! {
            Ok(()) = ordered.changed() => {}
            Ok(()) = known.changed() => {}
            () = progress.arrived.notified() => {}
        }
    }
}

async fn send(to: &ChannelWriteHalf<Msg>, frame: bytes::Bytes) {
    if to.data_bytes(frame).await.is_err() {
        // Told by the other direction.
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_grow_from_50_ms_to_5_s() {
        for (attempts, jitter, expected) in
            [(1, 1.0, 50), (2, 1.0, 100), (7, 1.0, 3200), (8, 1.0, 5000), (u32::MAX, 1.25, 6250)]
        {
            assert_eq!(gap(attempts, jitter), Duration::from_millis(expected), "{attempts}");
        }
    }
}

//! One script as a process group: its input, its output, its end. Knows nothing of SSH.
//!
//! The output comes as [`Event`]s through a bounded queue: when nobody takes them, the pipes fill and
//! the script waits, and memory stays bounded. When the receiver is dropped, the output is read and
//! thrown away, so that a script that cleans up after SIGTERM is not killed by SIGPIPE.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::children::{Children, Exited};
use crate::usage::Usage;
use crate::wire::HEADER;

/// From SIGTERM to SIGKILL when nobody waits for the script any more.
pub(crate) const STOP_GRACE: Duration = Duration::from_secs(10);

/// How much input may wait for a script that does not read it.
const MAX_WAITING_INPUT: usize = 64 << 20;

/// The largest piece of output in one event: with [`HEADROOM`], one SSH packet of our driver's, and most of what
/// a pipe holds.
const PIECE: usize = (60 << 10) - HEADROOM;

/// What every piece of output keeps free in front: room for the header of a frame of our own protocol, which
/// thus needs no copy.
pub(crate) const HEADROOM: usize = HEADER;

/// Once the main process has ended, output is over when the pipes are closed or have been quiet this
/// long. OpenSSH waits for the pipes to close, and so for ever when a script leaves a daemon behind
/// that holds them; a CI job must not hang for that.
const QUIET: Duration = Duration::from_millis(500);

/// … and at the latest after this time, provided that more than a pipe can hold (64 KiB each) was read
/// since: what comes then is not the main process's.
const LINGER: Duration = Duration::from_secs(10);
const TWO_PIPES: usize = 128 << 10;

/// What a script does.
pub(crate) enum Event {
    /// Standard output, behind [`HEADROOM`].
    Stdout(BytesMut),
    /// Standard error, behind [`HEADROOM`].
    Stderr(BytesMut),
    /// The main process has ended; no event follows.
    Ended(Ending, Usage),
}

/// How a main process ended.
#[derive(Clone, Copy)]
pub(crate) enum Ending {
    /// With this status.
    Status(u32),
    /// By the signal of this number.
    Signal {
        /// As in `signal(7)`.
        number: i32,
    },
}

/// Too much input waits for the script.
pub(crate) struct InputOverflow;

/// A running script.
pub(crate) struct Process {
    group: Group,
    input: Option<mpsc::UnboundedSender<Bytes>>,
    waiting_input: Arc<AtomicUsize>,
}

/// The process group of a script.
#[derive(Clone)]
struct Group {
    id: Pid,
    /// Somebody has asked the group to end.
    asked_to_end: Arc<AtomicBool>,
    /// The script is over. What it left behind in the background stays, as with OpenSSH: a later script
    /// of the job may want it. Its number may belong to somebody else by now.
    over: Arc<AtomicBool>,
}

impl Process {
    /// Runs `/bin/sh -c <command>` as a process group of its own; its input comes by [`Self::feed`].
    ///
    /// # Errors
    ///
    /// Fails when the shell cannot be started.
    pub(crate) fn start(
        command: &[u8],
        children: &Children,
    ) -> io::Result<(Self, mpsc::Receiver<Event>)> {
        Self::start_on(command, Stdio::piped(), children)
    }

    /// The same with all of the input at hand.
    ///
    /// # Errors
    ///
    /// Fails when the shell cannot be started.
    pub(crate) fn start_with(
        command: &[u8],
        input: File,
        children: &Children,
    ) -> io::Result<(Self, mpsc::Receiver<Event>)> {
        Self::start_on(command, input.into(), children)
    }

    fn start_on(
        command: &[u8],
        stdin: Stdio,
        children: &Children,
    ) -> io::Result<(Self, mpsc::Receiver<Event>)> {
        let (mut child, id, ended) = children.start(
            Command::new("/bin/sh")
                .arg("-c")
                .arg(OsStr::from_bytes(command))
                .stdin(stdin)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .process_group(0),
        )?;
        let missing = || io::Error::other("a pipe of the child is missing");
        let stdout = ChildStdout::from_std(child.stdout.take().ok_or_else(missing)?)?;
        let stderr = ChildStderr::from_std(child.stderr.take().ok_or_else(missing)?)?;

        let (input, waiting) = mpsc::unbounded_channel();
        let waiting_input = Arc::new(AtomicUsize::new(0));
        if let Some(stdin) = child.stdin.take() {
            let stdin = ChildStdin::from_std(stdin)?;
            tokio::spawn(feed(stdin, waiting, Arc::clone(&waiting_input)));
        }
        let group = Group { id, asked_to_end: Arc::default(), over: Arc::default() };
        let (events, receiver) = mpsc::channel(4);
        tokio::spawn(watch(stdout, stderr, ended, events, group.clone()));
        Ok((Self { group, input: Some(input), waiting_input }, receiver))
    }

    /// Gives the script input. Never waits: see [`MAX_WAITING_INPUT`].
    ///
    /// # Errors
    ///
    /// Fails when the script lets too much input wait.
    pub(crate) fn feed(&self, data: Bytes) -> Result<(), InputOverflow> {
        let Some(input) = &self.input else { return Ok(()) };
        let before = self.waiting_input.fetch_add(data.len(), Ordering::Relaxed);
        if before.saturating_add(data.len()) > MAX_WAITING_INPUT {
            return Err(InputOverflow);
        }
        // A script that has closed its standard input does not want more: not an error.
        let _ = input.send(data);
        Ok(())
    }

    /// Closes the script's standard input behind what was given.
    pub(crate) fn end_input(&mut self) {
        self.input = None;
    }

    /// Sends a signal to the whole process group.
    pub(crate) fn signal(&self, signal: Signal) {
        self.group.signal(signal);
    }

    /// Ends the process group: SIGTERM now, SIGKILL after [`STOP_GRACE`].
    pub(crate) fn stop(self) {
        self.group.signal(Signal::TERM);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { self.group.kill_after(STOP_GRACE).await });
        }
    }
}

impl Group {
    fn signal(&self, signal: Signal) {
        if !self.over.load(Ordering::Relaxed) {
            if signal == Signal::TERM {
                self.asked_to_end.store(true, Ordering::Relaxed);
            }
            // An empty group is what a signal is for.
            let _ = rustix::process::kill_process_group(self.id, signal);
        }
    }

    /// Waits for the group to be empty; SIGKILL for what is left after `grace`.
    async fn kill_after(&self, grace: Duration) {
        let deadline = Instant::now() + grace;
        // The number of a group is not given to others while it has members; looking often keeps us
        // from killing a stranger.
        while !self.over.load(Ordering::Relaxed)
            && rustix::process::test_kill_process_group(self.id).is_ok()
        {
            if Instant::now() >= deadline {
                return self.signal(Signal::KILL);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn feed(
    mut stdin: ChildStdin,
    mut input: mpsc::UnboundedReceiver<Bytes>,
    waiting: Arc<AtomicUsize>,
) {
    let mut open = true;
    while let Some(data) = input.recv().await {
        // After a closed pipe go on counting down, so that the rest is thrown away, not kept.
        open = open && stdin.write_all(&data).await.is_ok();
        waiting.fetch_sub(data.len(), Ordering::Relaxed);
    }
}

/// Turns the pipes and the end of a script into events.
async fn watch(
    stdout: ChildStdout,
    stderr: ChildStderr,
    mut ended: oneshot::Receiver<Exited>,
    events: mpsc::Sender<Event>,
    group: Group,
) {
    let (mut stdout, mut stderr) = (Pipe::new(stdout), Pipe::new(stderr));
    let mut ending: Option<(Option<Exited>, Instant)> = None;
    let mut read_since = 0_usize;
    loop {
        if ending.is_some() && stdout.is_closed() && stderr.is_closed() {
            break;
        }
        let event = tokio::select! {
            piece = stdout.read(), if !stdout.is_closed() => piece.map(Event::Stdout),
            piece = stderr.read(), if !stderr.is_closed() => piece.map(Event::Stderr),
            exited = &mut ended, if ending.is_none() => {
                ending = Some((exited.ok(), Instant::now()));
                None
            }
            () = tokio::time::sleep(QUIET), if ending.is_some() => break,
        };
        if let Some(event) = event {
            if let (Some((_, since)), Event::Stdout(piece) | Event::Stderr(piece)) =
                (&ending, &event)
            {
                read_since = read_since.saturating_add(piece.len());
                if since.elapsed() > LINGER && read_since > TWO_PIPES {
                    break;
                }
            }
            let _ = events.send(event).await;
        }
    }
    if let Some((exited, _)) = ending {
        let usage = exited.map(|exited| exited.usage).unwrap_or_default();
        let _ = events.send(Event::Ended(Ending::from(exited), usage)).await;
    }
    if group.asked_to_end.load(Ordering::Relaxed) {
        // The main process obeyed; others of the group may not have.
        group.kill_after(STOP_GRACE).await;
    }
    group.over.store(true, Ordering::Relaxed);
}

/// The reading end of one of the script's pipes.
struct Pipe<R> {
    reader: Option<R>,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> Pipe<R> {
    fn new(reader: R) -> Self {
        Self { reader: Some(reader), buffer: BytesMut::new() }
    }

    fn is_closed(&self) -> bool {
        self.reader.is_none()
    }

    /// The next piece behind its [`HEADROOM`]; `None` once when the pipe is closed. Loses nothing when
    /// dropped half-way.
    async fn read(&mut self) -> Option<BytesMut> {
        if self.buffer.is_empty() {
            self.buffer.reserve(HEADROOM + PIECE);
            self.buffer.put_bytes(0, HEADROOM);
        }
        let reader = self.reader.as_mut()?;
        match (&mut *reader).take(PIECE as u64).read_buf(&mut self.buffer).await {
            Ok(n) if n > 0 => Some(self.buffer.split()),
            _ => {
                self.reader = None;
                None
            }
        }
    }
}

impl From<Option<Exited>> for Ending {
    fn from(exited: Option<Exited>) -> Self {
        match exited.map(|exited| exited.status) {
            Some(status) if libc::WIFSIGNALED(status) => {
                Self::Signal { number: libc::WTERMSIG(status) }
            }
            Some(status) if libc::WIFEXITED(status) => {
                Self::Status(u32::try_from(libc::WEXITSTATUS(status)).unwrap_or(255))
            }
            // What is neither cannot come from waiting without WUNTRACED; 255 is what OpenSSH tells when it
            // does not know.
            _ => Self::Status(255),
        }
    }
}

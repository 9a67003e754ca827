//! A gate in front of the socket: closed, the socket is not read, and everything else goes on.
//!
//! This is how output that nobody takes slows the server down without stopping our own side of the
//! connection. The gate also knows when something was read last and how the server greeted us, and can cut
//! the connection, for the library's task outlives the future that started it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// The longest first line that a server may send (RFC 4253, 4.2).
const LONGEST_GREETING: usize = 255;

/// The gate of one connection.
pub(super) struct Gate(Mutex<State>);

struct State {
    closed: bool,
    cut: bool,
    last_read: Instant,
    greeting: Vec<u8>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// A stream behind a gate.
pub(super) struct Gated<S> {
    stream: S,
    gate: Arc<Gate>,
}

impl Gate {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            closed: false,
            cut: false,
            last_read: Instant::now(),
            greeting: Vec::new(),
            reader: None,
            writer: None,
        })))
    }

    /// Puts `stream` behind this gate.
    pub(super) fn guard<S>(self: &Arc<Self>, stream: S) -> Gated<S> {
        Gated { stream, gate: Arc::clone(self) }
    }

    /// Stops reading. One packet may still come through.
    pub(super) fn close(&self) {
        self.state().closed = true;
    }

    /// Reads again. Time spent closed is no silence: see [`Gate::last_read`].
    pub(super) fn open(&self) {
        let mut state = self.state();
        if state.closed {
            state.closed = false;
            state.last_read = Instant::now();
            if let Some(reader) = state.reader.take() {
                reader.wake();
            }
        }
    }

    /// Makes every further read and write fail.
    pub(super) fn cut(&self) {
        let mut state = self.state();
        state.cut = true;
        for waker in [state.reader.take(), state.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// The first that was read, in clear text: the server's version, when there is one.
    pub(super) fn greeting(&self) -> Vec<u8> {
        self.state().greeting.clone()
    }

    /// When something was read last, or the gate was opened.
    pub(super) fn last_read(&self) -> Instant {
        self.state().last_read
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn check(&self) -> io::Result<()> {
        if self.cut { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }
}

fn remember(slot: &mut Option<Waker>, context: &Context<'_>) {
    if !slot.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
        *slot = Some(context.waker().clone());
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gated<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        {
            let mut state = this.gate.state();
            state.check()?;
            remember(&mut state.reader, context);
            if state.closed {
                return Poll::Pending;
            }
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        if read.is_ready() {
            let mut state = this.gate.state();
            state.last_read = Instant::now();
            let missing = LONGEST_GREETING.saturating_sub(state.greeting.len());
            let new = buffer.filled().iter().skip(before).take(missing);
            state.greeting.extend(new);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gated<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        {
            let mut state = this.gate.state();
            state.check()?;
            remember(&mut state.writer, context);
        }
        Pin::new(&mut this.stream).poll_write(context, data)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_closed_gate_holds_reading_back_and_nothing_else() {
        let (near, mut far) = tokio::io::duplex(64);
        let gate = Gate::new();
        let mut near = gate.guard(near);
        far.write_all(b"abc").await.unwrap();
        gate.close();
        let mut byte = [0; 1];
        assert!(
            tokio::time::timeout(Duration::from_millis(30), near.read(&mut byte)).await.is_err()
        );
        near.write_all(b"x").await.unwrap();
        assert_eq!(far.read_u8().await.unwrap(), b'x');

        let reading = tokio::spawn(async move {
            let mut rest = [0; 3];
            near.read_exact(&mut rest).await.map(|_| rest)
        });
        tokio::time::sleep(Duration::from_millis(30)).await;
        let opened = Instant::now();
        gate.open();
        assert!(gate.last_read() >= opened);
        assert_eq!(&reading.await.unwrap().unwrap(), b"abc");
        assert_eq!(gate.greeting(), b"abc");
    }

    #[tokio::test]
    async fn cutting_ends_what_waits() {
        let (near, _far) = tokio::io::duplex(64);
        let gate = Gate::new();
        let mut near = gate.guard(near);
        let reading = tokio::spawn(async move { near.read_u8().await });
        tokio::task::yield_now().await;
        gate.cut();
        assert_eq!(reading.await.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }
}

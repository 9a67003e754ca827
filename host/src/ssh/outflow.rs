//! Output on its way from the connection to the job log, in the order in which it came.
//!
//! It is bounded by the [`Gate`]: above [`HIGH`] bytes the socket is not read until [`LOW`] are left.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::Notify;

use super::gate::Gate;

const HIGH: usize = 1 << 20;
const LOW: usize = 256 << 10;

/// One of a script's two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The pieces that were received and are not written yet.
pub(super) struct Outflow {
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    gate: Arc<Gate>,
    pieces: VecDeque<(Stream, Bytes)>,
    /// Of `pieces`, and of the piece that is being written.
    bytes: usize,
    finished: bool,
    lossy: bool,
}

/// What there is to write.
enum Outlook {
    More,
    Wait,
    End,
}

impl Outflow {
    pub(super) fn new(gate: Arc<Gate>) -> Self {
        let state =
            State { gate, pieces: VecDeque::new(), bytes: 0, finished: false, lossy: false };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }

    /// From now on it is another connection that is slowed down.
    pub(super) fn follow(&self, gate: Arc<Gate>) {
        let mut state = self.state();
        if state.bytes > HIGH && !state.lossy {
            gate.close();
        }
        state.gate = gate;
    }

    /// Takes a piece that was received.
    pub(super) fn push(&self, stream: Stream, data: Bytes) {
        let mut state = self.state();
        if state.bytes > HIGH {
            if state.lossy {
                return;
            }
            state.gate.close();
        }
        state.bytes += data.len();
        state.pieces.push_back((stream, data));
        drop(state);
        self.changed.notify_one();
    }

    /// From now on, what there is no room for is thrown away: the script is being stopped, and the
    /// connection must get through whether or not the job log takes output.
    pub(super) fn become_lossy(&self) {
        let mut state = self.state();
        state.lossy = true;
        state.gate.open();
    }

    /// No piece will follow.
    pub(super) fn finish(&self) {
        self.state().finished = true;
        self.changed.notify_one();
    }

    /// Writes the pieces until there will be no more. The writers must pass on what they get without being
    /// flushed, so that whoever follows the job sees its output when the script pauses. A writer that fails gets
    /// nothing any more: a broken job log is no reason to fail a script.
    pub(super) async fn write_to(
        &self,
        stdout: impl AsyncWrite + Unpin + Send,
        stderr: impl AsyncWrite + Unpin + Send,
    ) {
        let (mut stdout, mut stderr) = (Sink::new(stdout, "stdout"), Sink::new(stderr, "stderr"));
        let mut last = Stream::Stdout;
        loop {
            let next = self.state().pieces.pop_front();
            if let Some((stream, data)) = next {
                // Both may be one job log: what came first shall be there first.
                match (last, stream) {
                    (Stream::Stdout, Stream::Stderr) => stdout.flush().await,
                    (Stream::Stderr, Stream::Stdout) => stderr.flush().await,
                    _ => {}
                }
                last = stream;
                match stream {
                    Stream::Stdout => stdout.write(&data).await,
                    Stream::Stderr => stderr.write(&data).await,
                }
                self.written(data.len());
                continue;
            }
            match self.outlook() {
                Outlook::More => {}
                Outlook::Wait => self.changed.notified().await,
                Outlook::End => break,
            }
        }
        stdout.flush().await;
        stderr.flush().await;
    }

    fn outlook(&self) -> Outlook {
        let state = self.state();
        match (state.pieces.is_empty(), state.finished) {
            (false, _) => Outlook::More,
            (true, false) => Outlook::Wait,
            (true, true) => Outlook::End,
        }
    }

    fn written(&self, n: usize) {
        let mut state = self.state();
        state.bytes -= n;
        if state.bytes <= LOW {
            state.gate.open();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Outflow {
    fn drop(&mut self) {
        self.state().gate.open();
    }
}

/// A writer, until it fails.
struct Sink<W> {
    writer: Option<W>,
    name: &'static str,
}

impl<W: AsyncWrite + Unpin> Sink<W> {
    fn new(writer: W, name: &'static str) -> Self {
        Self { writer: Some(writer), name }
    }

    async fn write(&mut self, data: &[u8]) {
        if let Some(writer) = &mut self.writer {
            let result = writer.write_all(data).await;
            self.settle(result);
        }
    }

    async fn flush(&mut self) {
        if let Some(writer) = &mut self.writer {
            let result = writer.flush().await;
            self.settle(result);
        }
    }

    fn settle(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            tracing::warn!(stream = self.name, %error, "the job log takes no more output");
            self.writer = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outflow() -> (Arc<Gate>, Outflow) {
        let gate = Gate::new();
        (Arc::clone(&gate), Outflow::new(gate))
    }

    #[tokio::test]
    async fn too_much_closes_the_gate_until_most_is_written() {
        let (gate, outflow) = outflow();
        let piece = Bytes::from(vec![b'x'; 300 << 10]);
        for _ in 0..4 {
            outflow.push(Stream::Stdout, piece.clone());
            assert!(!gate.is_closed());
        }
        outflow.push(Stream::Stderr, piece);
        assert!(gate.is_closed());
        outflow.finish();
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        outflow.write_to(&mut stdout, &mut stderr).await;
        assert_eq!((stdout.len(), stderr.len()), (1200 << 10, 300 << 10));
        assert!(!gate.is_closed());
    }

    #[test]
    fn a_lossy_outflow_stays_open_and_bounded() {
        let (gate, outflow) = outflow();
        let piece = Bytes::from(vec![b'x'; 300 << 10]);
        (0..5).for_each(|_| outflow.push(Stream::Stdout, piece.clone()));
        assert!(gate.is_closed());
        outflow.become_lossy();
        (0..5).for_each(|_| outflow.push(Stream::Stdout, piece.clone()));
        assert!(!gate.is_closed());
        assert_eq!(outflow.state().bytes, 1500 << 10);
    }

    #[tokio::test]
    async fn a_broken_writer_is_left_alone_and_the_other_is_not() {
        struct Broken;
        impl AsyncWrite for Broken {
            fn poll_write(
                self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
                _: &[u8],
            ) -> std::task::Poll<io::Result<usize>> {
                std::task::Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
            }
            fn poll_flush(
                self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<io::Result<()>> {
                std::task::Poll::Ready(Ok(()))
            }
            fn poll_shutdown(
                self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<io::Result<()>> {
                std::task::Poll::Ready(Ok(()))
            }
        }
        let (_, outflow) = outflow();
        outflow.push(Stream::Stdout, Bytes::from_static(b"lost"));
        outflow.push(Stream::Stderr, Bytes::from_static(b"kept"));
        outflow.finish();
        let mut stderr = Vec::new();
        outflow.write_to(Broken, &mut stderr).await;
        assert_eq!(stderr, b"kept");
    }
}

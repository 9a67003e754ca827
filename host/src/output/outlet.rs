//! A script's output, as it leaves the driver for GitLab Runner.
//!
//! A pipe that nobody reads makes its writer wait, and the connection must live on meanwhile; so a thread writes.
//! It takes all that has come in at once, which with much output means few switches between the two: with the
//! library's pool of threads they cost more than deciphering.

use std::fs::File;
use std::io::{self, Write as _};
use std::mem;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use rustix::event::{PollFd, PollFlags, poll};
use tokio::io::AsyncWrite;

/// Bytes that wait for the thread; it may be writing as many.
const ROOM: usize = 256 << 10;

/// A stream of this process, without a buffer that would wait for the end of a line.
///
/// What is written to it is on its way at once; flushing waits until the reader's pipe has it.
#[derive(Debug)]
pub struct Outlet {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    is_writing: bool,
    is_closed: bool,
    failed: Option<io::ErrorKind>,
    waker: Option<Waker>,
}

impl Outlet {
    /// Standard output.
    ///
    /// # Errors
    ///
    /// Fails when the stream is closed, or no thread can be had.
    pub fn stdout() -> io::Result<Self> {
        Self::of(&io::stdout())
    }

    /// Standard error.
    ///
    /// # Errors
    ///
    /// As [`Self::stdout`].
    pub fn stderr() -> io::Result<Self> {
        Self::of(&io::stderr())
    }

    fn of(stream: &impl AsFd) -> io::Result<Self> {
        let file = File::from(stream.as_fd().try_clone_to_owned()?);
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        // It only writes.
        let thread = std::thread::Builder::new().name("outlet".to_owned()).stack_size(64 << 10);
        thread.spawn(move || of_thread.write_all(file))?;
        Ok(Self { shared })
    }
}

impl Drop for Outlet {
    /// What was not flushed is still written, unless the process ends before.
    fn drop(&mut self) {
        self.shared.state().is_closed = true;
        self.shared.changed.notify_one();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread.
    fn write_all(&self, mut file: File) {
        let mut taken = Vec::new();
        loop {
            let mut state = self.state();
            while state.waiting.is_empty() {
                if state.is_closed {
                    return;
                }
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            mem::swap(&mut state.waiting, &mut taken);
            state.is_writing = true;
            let waker = state.waker.take();
            drop(state);
            waker.into_iter().for_each(Waker::wake);

            let written = write_all(&mut file, &taken);
            taken.clear();
            let mut state = self.state();
            state.is_writing = false;
            let is_broken = written.is_err();
            state.failed = written.err().map(|error| error.kind());
            let waker = state.waker.take();
            drop(state);
            waker.into_iter().for_each(Waker::wake);
            if is_broken {
                return;
            }
        }
    }
}

/// Also to a pipe that another of its holders has made non-blocking.
fn write_all(file: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                poll(&mut [PollFd::new(file, PollFlags::OUT)], None)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl AsyncWrite for Outlet {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.shared.state();
        if let Some(kind) = state.failed {
            return Poll::Ready(Err(kind.into()));
        }
        let room = ROOM.saturating_sub(state.waiting.len());
        if room == 0 {
            state.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        let (taken, _) = bytes.split_at(bytes.len().min(room));
        state.waiting.extend_from_slice(taken);
        let is_idle = !state.is_writing;
        drop(state);
        if is_idle {
            self.shared.changed.notify_one();
        }
        Poll::Ready(Ok(taken.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.shared.state();
        if let Some(kind) = state.failed {
            return Poll::Ready(Err(kind.into()));
        }
        if state.waiting.is_empty() && !state.is_writing {
            return Poll::Ready(Ok(()));
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(context)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::time::Duration;

    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn all_bytes_arrive_in_order_at_a_reader_that_is_slow_to_begin() {
        let (mut reader, writer) = io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        let mut outlet = Outlet::of(&writer).unwrap();
        drop(writer);
        let reading = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            let mut all = Vec::new();
            reader.read_to_end(&mut all).unwrap();
            all
        });
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n / 7) as u8).collect();
        for piece in bytes.chunks(70_001) {
            outlet.write_all(piece).await.unwrap();
        }
        outlet.flush().await.unwrap();
        drop(outlet);
        assert!(reading.join().unwrap() == bytes);
    }

    #[tokio::test]
    async fn what_nobody_reads_makes_the_writer_wait_in_bounded_room() {
        let (reader, writer) = io::pipe().unwrap();
        let mut outlet = Outlet::of(&writer).unwrap();
        let mut taken = 0;
        let piece = [b'x'; 10_000];
        while let Ok(n) =
            tokio::time::timeout(Duration::from_millis(100), outlet.write(&piece)).await
        {
            taken += n.unwrap();
        }
        assert!((ROOM..=3 * ROOM).contains(&taken), "{taken}");
        drop(reader);
    }

    #[tokio::test]
    async fn a_reader_that_is_gone_is_an_error() {
        let (reader, writer) = io::pipe().unwrap();
        let mut outlet = Outlet::of(&writer).unwrap();
        drop(reader);
        outlet.write_all(b"x").await.unwrap();
        let error = outlet.flush().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert!(outlet.write_all(b"x").await.is_err());
    }
}

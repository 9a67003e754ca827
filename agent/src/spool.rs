//! A script's log between the script and the driver: kept until the driver has it, in bounded room.
//!
//! The log is a row of bytes with an offset for each, so a driver that comes back says where to go on. It lies
//! in memory first. A driver that takes the log as it comes is waited for when the memory is full; when it
//! has taken nothing for a moment, the log goes to a file that works as a ring, is unlinked as soon as it is
//! made, and exists only when it is needed. Where no file can be made (a read-only root file system without
//! a writable `TMPDIR`), or the disk is full, memory is all there is. When there is no room at all, the script
//! waits.
//!
//! The file is written and read directly, not by other threads: it is the page cache most of the time, and a
//! disk that makes the agent wait makes the script wait as well, which is what shall happen.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::log::log;

/// Records below this size are put together.
const SMALL: usize = 16 << 10;

/// The size of the room in which small records are put together.
const ROOM: usize = 64 << 10;

/// What one piece costs beside its bytes.
const PER_PIECE: usize = 64;

/// The largest piece that is read back from the file: one SSH packet.
const READ: usize = 32 << 10;

/// How long a full memory waits for a driver that may be taking the log, before the disk is used. Waiting in
/// memory makes the script as slow as the connection, which costs less than a disk that writes all of it.
const PATIENCE: Duration = Duration::from_millis(100);

/// Where logs may lie, and how much of them.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Bytes in memory.
    pub(crate) memory: usize,
    /// Bytes in the file.
    pub(crate) disk: u64,
    /// Tried in this order.
    pub(crate) directories: Vec<PathBuf>,
}

/// One script's log.
pub(crate) struct Spool {
    state: Mutex<State>,
    readable: Notify,
    writable: Notify,
}

struct State {
    limits: Limits,
    /// Each with the offset of its first byte; without gaps.
    pieces: VecDeque<(u64, Piece)>,
    /// Small records, after `pieces`.
    tail: BytesMut,
    /// The offset behind the last byte.
    end: u64,
    in_memory: usize,
    ring: Ring,
    /// Nobody takes the log, so that memory is not waited for.
    is_spilling: bool,
    finished: bool,
}

enum Piece {
    Memory(Bytes),
    Disk { position: u64, length: u64 },
}

impl Piece {
    fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::Disk { length, .. } => *length,
        }
    }
}

impl Spool {
    pub(crate) fn new(limits: Limits) -> Self {
        let ring = Ring { capacity: limits.disk, ..Ring::default() };
        Self {
            state: Mutex::new(State {
                limits,
                pieces: VecDeque::new(),
                tail: BytesMut::new(),
                end: 0,
                in_memory: 0,
                ring,
                is_spilling: false,
                finished: false,
            }),
            readable: Notify::new(),
            writable: Notify::new(),
        }
    }

    /// Adds a record, when there is room.
    pub(crate) async fn append(&self, record: Bytes) {
        loop {
            let mut writable = pin!(self.writable.notified());
            // From here on a release counts, even one that comes before the first poll.
            writable.as_mut().enable();
            let is_spilling = {
                let mut state = self.state();
                if state.append(&record) {
                    break;
                }
                state.is_spilling
            };
            if is_spilling {
                writable.await;
            } else if timeout(PATIENCE, writable).await.is_err() {
                self.state().is_spilling = true;
            }
        }
        self.readable.notify_waiters();
    }

    /// No record will follow.
    pub(crate) fn finish(&self) {
        self.state().finished = true;
        self.readable.notify_waiters();
    }

    /// The bytes from `offset` on, as many as are at hand in one piece; waits for the first. `None` when
    /// there will be none.
    pub(crate) async fn read(&self, offset: u64) -> Option<Bytes> {
        loop {
            let readable = self.readable.notified();
            {
                let mut state = self.state();
                if let Some(bytes) = state.read(offset) {
                    return Some(bytes);
                }
                if state.finished || offset > state.end {
                    return None;
                }
            }
            readable.await;
        }
    }

    /// Forgets the bytes before `offset`.
    pub(crate) fn release(&self, offset: u64) {
        {
            let mut state = self.state();
            state.release(offset);
            state.is_spilling = false;
        }
        self.writable.notify_waiters();
    }

    /// Whether the log can be read from `offset` on.
    pub(crate) fn holds(&self, offset: u64) -> bool {
        let state = self.state();
        state.start() <= offset && offset <= state.end
    }

    /// Whether the log is complete, and all of it lies before `offset`.
    pub(crate) fn is_over_at(&self, offset: u64) -> bool {
        let state = self.state();
        state.finished && offset >= state.end
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn append(&mut self, record: &Bytes) -> bool {
        let fits =
            self.in_memory + self.tail.len() + record.len() + PER_PIECE <= self.limits.memory;
        if !fits {
            if !self.is_spilling {
                return false;
            }
            self.seal();
            return self.append_to_disk(record);
        }
        if record.len() < SMALL {
            if self.tail.capacity() - self.tail.len() < record.len() {
                self.seal();
                self.tail = BytesMut::with_capacity(ROOM);
            }
            self.tail.extend_from_slice(record);
            self.end += record.len() as u64;
        } else {
            self.seal();
            self.push(Piece::Memory(record.clone()));
            self.end += record.len() as u64;
        }
        true
    }

    fn append_to_disk(&mut self, record: &Bytes) -> bool {
        let Some(parts) = self.ring.write(record, &self.limits.directories) else { return false };
        for (position, length) in parts.into_iter().filter(|(_, length)| *length > 0) {
            match self.pieces.back_mut() {
                Some((_, Piece::Disk { position: first, length: so_far }))
                    if *first + *so_far == position
                        && self.ring.in_one(*first, *so_far + length) =>
                {
                    *so_far += length;
                }
                _ => self.pieces.push_back((self.end, Piece::Disk { position, length })),
            }
            self.end += length;
        }
        true
    }

    /// Moves the small records to the pieces.
    fn seal(&mut self) {
        if !self.tail.is_empty() {
            let bytes = self.tail.split().freeze();
            let start = self.end - bytes.len() as u64;
            self.in_memory += bytes.len() + PER_PIECE;
            self.pieces.push_back((start, Piece::Memory(bytes)));
        }
    }

    fn push(&mut self, piece: Piece) {
        if let Piece::Memory(bytes) = &piece {
            self.in_memory += bytes.len() + PER_PIECE;
        }
        self.pieces.push_back((self.end, piece));
    }

    fn start(&self) -> u64 {
        self.pieces.front().map_or(self.end - self.tail.len() as u64, |(start, _)| *start)
    }

    fn read(&mut self, offset: u64) -> Option<Bytes> {
        if offset >= self.end {
            return None;
        }
        if offset >= self.end - self.tail.len() as u64 {
            self.seal();
        }
        let index = self.pieces.partition_point(|(start, _)| *start <= offset).checked_sub(1)?;
        let (start, piece) = self.pieces.get(index)?;
        let skip = offset - start;
        match piece {
            Piece::Memory(bytes) => {
                let mut bytes = bytes.clone();
                bytes.advance(usize::try_from(skip).ok()?);
                Some(bytes)
            }
            Piece::Disk { position, length } => {
                let length = usize::try_from(length - skip).unwrap_or(READ).min(READ);
                self.ring.read(position + skip, length)
            }
        }
    }

    fn release(&mut self, offset: u64) {
        if offset >= self.end {
            self.seal();
        }
        while let Some((start, piece)) = self.pieces.front_mut() {
            let behind = *start + piece.len();
            if behind > offset {
                // A large piece on disk goes bit by bit.
                if let Piece::Disk { position, length } = piece
                    && offset > *start
                {
                    let gone = offset - *start;
                    *start = offset;
                    *position += gone;
                    *length -= gone;
                    self.ring.release(*position);
                }
                return;
            }
            match piece {
                Piece::Memory(bytes) => self.in_memory -= bytes.len() + PER_PIECE,
                Piece::Disk { position, length } => self.ring.release(*position + *length),
            }
            self.pieces.pop_front();
        }
    }
}

/// The file. Positions grow for ever; their place in the file is the remainder by the capacity.
#[derive(Default)]
struct Ring {
    file: Option<File>,
    capacity: u64,
    /// Between these two lies what is kept.
    tail: u64,
    head: u64,
    /// The disk took no more; tried again when the ring is empty.
    failed: bool,
}

impl Ring {
    /// Where `record` was written, in at most two parts; `None` when there is no room.
    fn write(&mut self, record: &[u8], directories: &[PathBuf]) -> Option<[(u64, u64); 2]> {
        let length = record.len() as u64;
        if self.failed || self.head - self.tail + length > self.capacity {
            return None;
        }
        if self.file.is_none() {
            match make(directories) {
                Ok(file) => self.file = Some(file),
                Err(error) => {
                    log!("no file for the output can be made, memory has to do: {error}");
                    self.capacity = 0;
                    return None;
                }
            }
        }
        let place = self.head % self.capacity;
        let first = length.min(self.capacity - place);
        let (start, rest) = record.split_at(usize::try_from(first).ok()?);
        let file = self.file.as_ref()?;
        let written = file.write_all_at(start, place).and_then(|()| file.write_all_at(rest, 0));
        if let Err(error) = written {
            log!("the disk takes no more output: {error}");
            self.failed = true;
            return None;
        }
        let parts = [(self.head, first), (self.head + first, length - first)];
        self.head += length;
        Some(parts)
    }

    fn read(&self, position: u64, length: usize) -> Option<Bytes> {
        let mut bytes = BytesMut::zeroed(length);
        match self.file.as_ref()?.read_exact_at(&mut bytes, position % self.capacity) {
            Ok(()) => Some(bytes.freeze()),
            Err(error) => {
                log!("cannot read the output back: {error}");
                None
            }
        }
    }

    /// Whether these bytes lie in one row in the file.
    fn in_one(&self, position: u64, length: u64) -> bool {
        self.capacity > 0 && position % self.capacity + length <= self.capacity
    }

    fn release(&mut self, position: u64) {
        self.tail = position;
        if self.tail == self.head {
            self.failed = false;
        }
    }
}

/// An empty file without a name, which goes with its descriptor.
fn make(directories: &[PathBuf]) -> io::Result<File> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for directory in directories {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = directory.join(format!(".pointsman-{}-{n}", std::process::id()));
        let made =
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
        match made.and_then(|file| std::fs::remove_file(&path).map(|()| file)) {
            Ok(file) => return Ok(file),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn spool(memory: usize, disk: u64, directories: &[PathBuf]) -> Spool {
        Spool::new(Limits { memory, disk, directories: directories.to_vec() })
    }

    async fn all(spool: &Spool, mut offset: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Some(piece) = spool.read(offset).await {
            offset += piece.len() as u64;
            bytes.extend_from_slice(&piece);
        }
        bytes
    }

    fn records(n: usize, size: impl Fn(usize) -> usize) -> Vec<Bytes> {
        (0..n).map(|i| (0..size(i)).map(|j| (i * 31 + j * 7) as u8).collect()).collect()
    }

    #[tokio::test]
    async fn what_goes_in_comes_out_from_every_offset() {
        let directory = tempfile::tempdir().unwrap();
        let spool = spool(100 << 10, 4 << 20, &[directory.path().into()]);
        let records = records(60, |i| if i % 3 == 0 { 20 << 10 } else { 1 + i * 13 });
        for record in &records {
            spool.append(record.clone()).await;
        }
        spool.finish();
        let expected = records.concat();
        for offset in [0, 1, 5, 70_000, 99_999, expected.len() - 1, expected.len()] {
            assert_eq!(all(&spool, offset as u64).await, expected[offset..], "{offset}");
        }
        assert!(
            std::fs::read_dir(directory.path()).unwrap().next().is_none(),
            "the file has a name"
        );
        spool.release(70_000);
        assert!(!spool.holds(0) && spool.holds(70_000) && !spool.holds(expected.len() as u64 + 1));
        assert_eq!(all(&spool, 70_000).await, expected[70_000..]);
        assert!(spool.is_over_at(expected.len() as u64) && !spool.is_over_at(70_000));
    }

    #[tokio::test]
    async fn a_full_spool_makes_the_writer_wait_and_goes_around_its_ring_many_times() {
        let directory = tempfile::tempdir().unwrap();
        // A capacity that no record size divides.
        let spool = Arc::new(spool(50_000, 100_003, &[directory.path().into()]));
        let records = records(3000, |i| 1 + (i * 7919) % 9000);
        let expected = records.concat();
        let writer = tokio::spawn({
            let spool = Arc::clone(&spool);
            async move {
                for record in records {
                    spool.append(record).await;
                    let state = spool.state();
                    let kept = state.end - state.start();
                    assert!(kept <= 50_000 + 100_003, "{kept}");
                }
                spool.finish();
            }
        });
        let mut found = Vec::new();
        let mut released = 0;
        while let Some(piece) = spool.read(found.len() as u64).await {
            found.extend_from_slice(&piece);
            if found.len() - released > 30_000 {
                released = found.len() - 10_000;
                spool.release(released as u64);
            }
            tokio::task::yield_now().await;
        }
        writer.await.unwrap();
        assert!(found == expected);
    }

    #[tokio::test]
    async fn without_a_disk_memory_is_all_there_is() {
        let spool = Arc::new(spool(10_000, 1 << 20, &["/proc/nowhere".into()]));
        let writer = tokio::spawn({
            let spool = Arc::clone(&spool);
            async move {
                for _ in 0..100 {
                    spool.append(Bytes::from_static(&[b'x'; 1000])).await;
                }
                spool.finish();
            }
        });
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        assert!(!writer.is_finished());
        assert!(spool.state().end <= 10_000);
        let mut offset = 0;
        while let Some(piece) = spool.read(offset).await {
            offset += piece.len() as u64;
            spool.release(offset);
        }
        assert_eq!(offset, 100_000);
    }

    #[tokio::test]
    async fn many_small_records_cost_little_memory() {
        let spool = spool(1 << 20, 0, &[]);
        let mut offset = 0;
        for _ in 0..20_000 {
            spool.append(Bytes::from_static(b"O\0\0\0\x01x")).await;
            // A reader that keeps up makes a piece of each.
            offset += spool.read(offset).await.unwrap().len() as u64;
            if offset.is_multiple_of(60_000) {
                spool.release(offset);
            }
        }
        assert!(spool.state().in_memory <= 1 << 20);
    }
}

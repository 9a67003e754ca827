//! A bad network: a TCP proxy on loopback that does to each connection what it is told.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;

/// Random numbers that a seed gives again: xorshift64*.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(crate) fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % below
    }
}

/// What happens to a connection once this many bytes have passed, in both directions together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fate {
    pub(crate) after: u64,
    pub(crate) end: End,
    /// Before each piece, in microseconds.
    pub(crate) delay: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Both sides are reset.
    Reset,
    /// Both sides are closed.
    Close,
    /// Nothing passes any more, and nobody is told.
    Stall,
    /// What the driver says does not arrive any more.
    Deaf,
}

pub(crate) const UNHARMED: Fate = Fate { after: u64::MAX, end: End::Close, delay: 0 };

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    target: SocketAddr,
    fates: Mutex<Box<dyn FnMut() -> Option<Fate> + Send>>,
    cuts: AtomicU64,
    /// New connections are reset, and old ones with the next piece.
    dead: AtomicBool,
}

struct Link {
    shared: Arc<Shared>,
    fate: Fate,
    passed: AtomicU64,
    ended: AtomicBool,
}

impl Proxy {
    /// Each connection gets the next of `fates`; `None` is a reset at once.
    pub(crate) fn to(
        target: SocketAddr,
        fates: impl FnMut() -> Option<Fate> + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            target,
            fates: Mutex::new(Box::new(fates)),
            cuts: AtomicU64::new(0),
            dead: AtomicBool::new(false),
        });
        let proxy = Self { address, shared: Arc::clone(&shared) };
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                accept(client, &shared);
            }
        });
        proxy
    }

    /// How many connections were ended.
    pub(crate) fn cuts(&self) -> u64 {
        self.shared.cuts.load(Ordering::SeqCst)
    }

    /// From now on there is no network, or there is one again.
    pub(crate) fn kill(&self, dead: bool) {
        self.shared.dead.store(dead, Ordering::SeqCst);
    }
}

fn reset(stream: &TcpStream) {
    let _ = set_socket_linger(stream, Some(Duration::ZERO));
}

fn accept(client: TcpStream, shared: &Arc<Shared>) {
    let fate = (shared.fates.lock().unwrap())();
    let (Some(fate), false) = (fate, shared.dead.load(Ordering::SeqCst)) else {
        shared.cuts.fetch_add(1, Ordering::SeqCst);
        reset(&client);
        return;
    };
    let Ok(server) = TcpStream::connect(shared.target) else { return };
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let link = Arc::new(Link {
        shared: Arc::clone(shared),
        fate,
        passed: AtomicU64::new(0),
        ended: AtomicBool::new(false),
    });
    for (from, to, is_up) in [(&client, &server, true), (&server, &client, false)] {
        let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        let link = Arc::clone(&link);
        thread::spawn(move || link.pass(from, to, is_up));
    }
}

impl Link {
    fn pass(&self, mut from: TcpStream, mut to: TcpStream, is_up: bool) {
        let mut buffer = vec![0; 16 << 10];
        let end = loop {
            let n = match from.read(&mut buffer) {
                Ok(n) if n > 0 => n as u64,
                _ => break None,
            };
            if self.fate.delay > 0 {
                thread::sleep(Duration::from_micros(self.fate.delay));
            }
            if self.shared.dead.load(Ordering::SeqCst) {
                break Some(End::Reset);
            }
            let before = self.passed.fetch_add(n, Ordering::SeqCst);
            let may = self.fate.after.saturating_sub(before).min(n);
            // The cut goes through a piece, not only between pieces.
            if to.write_all(&buffer[..may as usize]).is_err() {
                break None;
            }
            if may < n {
                break Some(self.fate.end);
            }
        };
        if end.is_some() && !self.ended.swap(true, Ordering::SeqCst) {
            self.shared.cuts.fetch_add(1, Ordering::SeqCst);
        }
        match end {
            Some(End::Reset) => {
                reset(&from);
                reset(&to);
            }
            Some(End::Stall) | Some(End::Deaf) if is_up => swallow(&mut from, &mut buffer),
            // The other direction goes on, or stalls with its next piece.
            Some(End::Deaf) => return self.go_on(from, to, buffer),
            // Until somebody gives up; nothing is read, so the sender's buffers fill.
            Some(End::Stall) => thread::sleep(Duration::from_secs(3)),
            Some(End::Close) | None => {}
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }

    fn go_on(&self, mut from: TcpStream, mut to: TcpStream, mut buffer: Vec<u8>) {
        while let Ok(n) = from.read(&mut buffer)
            && n > 0
            && to.write_all(&buffer[..n]).is_ok()
        {}
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}

/// Takes what comes, and tells nobody; ends when the sender gives up.
fn swallow(from: &mut TcpStream, buffer: &mut [u8]) {
    while let Ok(n) = from.read(buffer)
        && n > 0
    {}
}

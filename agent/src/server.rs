//! The listening socket: how many may come, how long they may take to log in, how SSH is spoken.

use std::borrow::Cow;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use russh::keys::PrivateKey;
use russh::server::{Config, run_stream};
use russh::{MethodKind, MethodSet, SshId};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::connection::{Connection, Shared};
use crate::log::log;

/// The driver opens one at a time, perhaps a second one while the first is dying.
const MAX_CONNECTIONS: usize = 16;

/// Connections a second, once [`BURST`] have come at a time: a driver that reconnects stays far below.
const RATE: f64 = 16.0;
const BURST: f64 = 64.0;

/// As OpenSSH's `LoginGraceTime`, but for machines.
const LOGIN_GRACE: Duration = Duration::from_secs(20);

/// How SSH is spoken.
pub(crate) fn config(host_key: PrivateKey) -> Config {
    Config {
        server_id: SshId::Standard(Cow::Borrowed(concat!(
            "SSH-2.0-pointsman-agent_",
            env!("CARGO_PKG_VERSION")
        ))),
        methods: MethodSet::from([MethodKind::PublicKey].as_slice()),
        // Slows down guessing; the first refusal is the client's question which methods there are.
        auth_rejection_time: Duration::from_secs(1),
        auth_rejection_time_initial: Some(Duration::ZERO),
        max_auth_attempts: 6,
        keys: vec![host_key],
        // russh does not read while it writes. A client that sends much while much is sent to it could
        // stop both for ever once the kernel's buffers are full in both directions; input that is in
        // flight must therefore fit into them.
        window_size: 64 << 10,
        maximum_packet_size: 32 << 10,
        // A script may be silent for hours.
        inactivity_timeout: None,
        keepalive_interval: Some(Duration::from_secs(30)),
        keepalive_max: 3,
        // Without it every round trip costs Nagle's 40 ms.
        nodelay: true,
        ..Config::default()
    }
}

/// Accepts connections for ever.
pub(crate) async fn accept(listener: TcpListener, config: Arc<Config>, shared: Arc<Shared>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut id = 0_u64;
    let mut rate = Rate::full(Instant::now());
    loop {
        let (socket, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // For example no free descriptor: it passes, or the deadline comes.
                log!("cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        if !rate.admits(Instant::now()) {
            // Once: whoever floods the agent shall not flood its log.
            if !std::mem::replace(&mut rate.told, true) {
                log!("refused {peer}: more than {RATE} connections a second");
            }
            continue;
        }
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            log!("refused {peer}: {MAX_CONNECTIONS} connections are open already");
            continue;
        };
        id += 1;
        let (config, shared) = (Arc::clone(&config), Arc::clone(&shared));
        tokio::spawn(async move {
            if let Err(error) = serve(socket, peer, id, config, shared).await {
                log!("connection {id}: ended from {peer}: {error}");
            }
            drop(place);
        });
    }
}

/// A token bucket.
struct Rate {
    tokens: f64,
    last: Instant,
    told: bool,
}

impl Rate {
    fn full(now: Instant) -> Self {
        Self { tokens: BURST, last: now, told: false }
    }

    fn admits(&mut self, now: Instant) -> bool {
        let passed = now.duration_since(self.last).as_secs_f64();
        self.last = now;
        self.tokens = (self.tokens + passed * RATE).min(BURST);
        let admits = self.tokens >= 1.0;
        if admits {
            self.tokens -= 1.0;
            self.told &= self.tokens < BURST / 2.0;
        }
        admits
    }
}

async fn serve(
    socket: TcpStream,
    peer: SocketAddr,
    id: u64,
    config: Arc<Config>,
    shared: Arc<Shared>,
) -> Result<(), russh::Error> {
    socket.set_nodelay(true)?;
    let (socket, lever) = with_lever(socket)?;
    let lever = Arc::new(lever);
    let authenticated = Arc::new(AtomicBool::new(false));
    let connection =
        Connection::new(shared, id, peer, Arc::clone(&authenticated), Arc::clone(&lever));
    let session = async { run_stream(config, socket, connection).await?.await };
    tokio::pin!(session);
    tokio::select! {
        ended = &mut session => return ended,
        () = tokio::time::sleep(LOGIN_GRACE) => {}
    }
    if !authenticated.load(Ordering::Relaxed) {
        log!("connection {id}: {peer} did not log in within {} s", LOGIN_GRACE.as_secs());
        lever.shutdown(Shutdown::Both)?;
    }
    session.await
}

/// A second handle on the socket, by which a session can be ended that runs in a task of russh's own.
fn with_lever(socket: TcpStream) -> io::Result<(TcpStream, std::net::TcpStream)> {
    let socket = socket.into_std()?;
    let lever = socket.try_clone()?;
    Ok((TcpStream::from_std(socket)?, lever))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_may_be_silent_for_hours() {
        let key = russh::keys::ssh_key::private::Ed25519Keypair::from_seed(&[1; 32]);
        let config = config(key.into());
        // russh's own default ends a session after ten minutes without a word.
        assert!(Config::default().inactivity_timeout.is_some());
        assert_eq!(config.inactivity_timeout, None);
        // A client that is gone is noticed all the same.
        assert_eq!(config.keepalive_interval, Some(Duration::from_secs(30)));
    }

    #[test]
    fn a_burst_is_admitted_and_then_a_steady_rate() {
        let start = Instant::now();
        let mut rate = Rate::full(start);
        assert_eq!((0..100).filter(|_| rate.admits(start)).count(), 64);
        let later = start + Duration::from_secs(1);
        assert_eq!((0..100).filter(|_| rate.admits(later)).count(), 16);
        let much_later = start + Duration::from_secs(3600);
        assert_eq!((0..100).filter(|_| rate.admits(much_later)).count(), 64);
    }
}

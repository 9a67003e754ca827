//! One connection, and the scripts that run over it.

use std::borrow::Cow;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::BytesMut;
use russh::client::{self, AuthResult, Handle, Msg};
use russh::keys::{HashAlg, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate};
use russh::{
    Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Disconnect, Preferred, Sig, cipher,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::error::{ConnectError, Phase, RunError};
use super::gate::Gate;
use super::outflow::{Outflow, Stream};
use super::strike::{self, Blow, Means};
use super::{HostKey, Target};
use crate::settings::SshTimes;

/// The extended data type of standard error (RFC 4254, 5.2).
const STDERR: u32 = 1;

/// The largest piece of a script in one packet.
const PIECE: usize = 32 << 10;

/// In the order of our liking. AES-256-GCM moves twice as much as ChaCha20-Poly1305 where the processor has
/// instructions for AES, as all that Fargate runs on do; ciphers without authentication of their own are left to
/// servers that have nothing else.
const CIPHERS: [cipher::Name; 5] = [
    cipher::AES_256_GCM,
    cipher::AES_128_GCM,
    cipher::CHACHA20_POLY1305,
    cipher::AES_256_CTR,
    cipher::AES_128_CTR,
];

/// The most that the library takes in one packet of output; fewer packets cost less.
const LARGEST_PACKET: u32 = 65_535;

/// What a request may take that has only to be handed to the connection.
pub(super) const HAND_OVER: Duration = Duration::from_secs(2);

/// From SIGKILL to giving up on hearing how the script ended.
pub(super) const LAST_WAIT: Duration = Duration::from_secs(5);

/// Once the script's status has come, its output is over when the server closes the channel or has been
/// silent for this long. OpenSSH keeps a channel open while any process holds the script's output, so a
/// daemon that a script leaves behind would hang the job until its timeout.
const LINGER: Duration = Duration::from_secs(5);

/// After this many keepalives in a row without any answer the connection counts as lost.
const MAX_UNANSWERED: u32 = 3;

/// How a script ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// With this status.
    Status(u32),
    /// By this signal, named as in RFC 4254: `KILL`, not `SIGKILL`.
    Signal(String),
    /// We stopped it.
    Stopped,
}

/// A connection that is logged in.
pub struct Session {
    handle: Handle<Peer>,
    gate: Arc<Gate>,
    host_key: String,
    keepalive: Duration,
    means: Means,
}

/// Logs in to `target`, within `times.connect_timeout`. The host key is checked before anything of ours
/// is sent.
///
/// # Errors
///
/// Fails as [`ConnectError`] tells.
pub async fn connect(target: &Target, times: &SshTimes) -> Result<Session, ConnectError> {
    let address = target.address;
    let after = times.connect_timeout;
    let deadline = Instant::now() + after;
    let late = |phase| move |_| ConnectError::TimedOut { address, phase, after };

    let expected =
        match &target.host_key {
            HostKey::FirstContact => None,
            HostKey::Known(line) => Some(PublicKey::from_openssh(line).map_err(|error| {
                ConnectError::HostKeyUnreadable { address, source: error.into() }
            })?),
        };
    let socket = timeout_at(deadline, TcpStream::connect(address))
        .await
        .map_err(late(Phase::Connecting))?
        .map_err(|source| socket_error(address, after, source))?;
    // Without it every round trip costs Nagle's 40 ms.
    socket.set_nodelay(true).map_err(|source| ConnectError::Socket { address, source })?;

    let config = Arc::new(config(expected.as_ref()));
    let seen = Arc::new(OnceLock::new());
    let peer = Peer { expected: expected.clone(), seen: Arc::clone(&seen) };
    let gate = Gate::new();
    let cut = CutOnDrop(Some(Arc::clone(&gate)));
    let mut handle = timeout_at(deadline, client::connect_stream(config, gate.guard(socket), peer))
        .await
        .map_err(late(Phase::Handshake))?
        .map_err(|error| match (error, seen.get(), &expected) {
            (russh::Error::UnknownKey, Some(found), Some(expected)) => {
                ConnectError::HostKeyChanged {
                    address,
                    expected: fingerprint(expected),
                    found: fingerprint(found),
                }
            }
            (error, ..) => ssh_error(address, Phase::Handshake, error),
        })?;

    let key = PrivateKeyWithHashAlg::new(Arc::new(target.client_key.private_key()), None);
    let verdict = timeout_at(deadline, handle.authenticate_publickey(&target.user, key))
        .await
        .map_err(late(Phase::Authentication))?
        .map_err(|error| ssh_error(address, Phase::Authentication, error))?;
    if let AuthResult::Failure { .. } = verdict {
        return Err(ConnectError::Authentication { address, user: target.user.clone() });
    }
    let host_key = seen
        .get()
        .ok_or(russh::Error::Kex)
        .and_then(|key| Ok(key.to_openssh()?))
        .map_err(|error| ssh_error(address, Phase::Handshake, error))?;
    cut.disarm();
    let means = Means::for_server(&gate.greeting());
    Ok(Session { handle, gate, host_key, keepalive: times.keepalive, means })
}

impl Session {
    /// The host key that answered: a line `ssh-ed25519 AAAA…`.
    pub fn host_key(&self) -> &str {
        &self.host_key
    }

    /// Runs `command` with `script` as its standard input, and passes its output on until it has ended.
    ///
    /// When `stop` resolves, the script's process group gets SIGTERM, after `grace` SIGKILL, and the
    /// answer is [`Exit::Stopped`]. While that goes on, output that `stdout` and `stderr` do not take is
    /// thrown away. A writer that fails is not written to any more; the script goes on.
    ///
    /// Dropping the future does not stop the script. Ending the session does with the agent; with OpenSSH
    /// it only closes the script's pipes.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be known how the script ended, or when it could not be sent.
    pub async fn run(
        &mut self,
        command: &str,
        script: impl AsyncRead + Unpin + Send,
        stdout: impl AsyncWrite + Unpin + Send,
        stderr: impl AsyncWrite + Unpin + Send,
        stop: impl Future<Output = ()>,
        grace: Duration,
    ) -> Result<Exit, RunError> {
        let (mut incoming, outgoing) = self.open(command).await?;
        let outflow = Outflow::new(Arc::clone(&self.gate));
        let mut writing = pin!(outflow.write_to(stdout, stderr));
        let mut feeding = pin!(feed(&outgoing, script));
        let (orders, ordered) = mpsc::unbounded_channel();
        let mut striking = pin!(strike::carry_out(ordered, self.means, &self.handle, &outgoing));
        let mut lost = pin!(self.lost());
        let mut stop = pin!(stop);

        let mut fed = false;
        let mut unreadable = None;
        let mut stopping = None;
        let mut exit = None;
        let mut quiet = pin!(sleep(LINGER));
        let mut patience = pin!(sleep(grace));
        let ended = loop {
            tokio::select! {
                // In this order: being stopped must not wait for a flood of output to end, and what was
                // received before the connection was lost belongs into the log.
                biased;
                () = &mut stop, if stopping.is_none() => {
                    stopping = Some(Blow::Term);
                    outflow.become_lossy();
                    // The receiver lives as long as this loop.
                    let _ = orders.send(Blow::Term);
                    patience.as_mut().reset(Instant::now() + grace);
                }
                () = &mut patience, if stopping.is_some() => match stopping.replace(Blow::Kill) {
                    Some(Blow::Term) => {
                        let _ = orders.send(Blow::Kill);
                        patience.as_mut().reset(Instant::now() + LAST_WAIT);
                    }
                    _ => break Ok(Exit::Stopped),
                },
                () = &mut striking, if stopping.is_some() => {}
                () = &mut writing => {}
                message = incoming.wait() => {
                    quiet.as_mut().reset(Instant::now() + LINGER);
                    match message {
                        Some(ChannelMsg::Data { data }) => outflow.push(Stream::Stdout, data),
                        Some(ChannelMsg::ExtendedData { data, ext: STDERR }) => outflow.push(Stream::Stderr, data),
                        Some(ChannelMsg::ExitStatus { exit_status }) => exit = Some(Exit::Status(exit_status)),
                        Some(ChannelMsg::ExitSignal { signal_name, .. }) => exit = Some(Exit::Signal(name(&signal_name))),
                        Some(ChannelMsg::Failure) => break Err(RunError::Refused),
                        Some(ChannelMsg::Close) | None => break exit.ok_or(RunError::ConnectionLost),
                        Some(_) => {}
                    }
                }
                result = &mut feeding, if !fed && stopping.is_none() => {
                    fed = true;
                    if let Err(error) = result {
                        // Half a script must not go on.
                        unreadable = Some(error);
                        stopping = Some(Blow::Term);
                        outflow.become_lossy();
                        let _ = orders.send(Blow::Term);
                        patience.as_mut().reset(Instant::now() + grace);
                    }
                }
                () = &mut quiet, if exit.is_some() => {
                    if self.gate.is_closed() {
                        quiet.as_mut().reset(Instant::now() + LINGER);
                    } else {
                        break exit.ok_or(RunError::ConnectionLost);
                    }
                }
                () = &mut lost => break Err(RunError::ConnectionLost),
            }
        };
        // Does nothing when the server has closed it already.
        let _ = timeout(HAND_OVER, outgoing.close()).await;

        outflow.finish();
        if stopping.is_none() {
            tokio::select! {
                () = &mut writing => return ended,
                () = &mut stop => {}
            }
        }
        // The job log gets what it takes in a moment; nobody waits for more of a script that was stopped.
        let _ = timeout(HAND_OVER, writing).await;
        match (unreadable, stopping) {
            (Some(error), _) => Err(RunError::Script(error)),
            (None, Some(_)) => Ok(Exit::Stopped),
            (None, None) => ended,
        }
    }

    /// Whether the server is the agent, whose scripts survive a lost connection.
    pub fn is_agent(&self) -> bool {
        self.means == Means::Request
    }

    pub(super) fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Ends the connection without a word: nobody would hear it.
    pub(super) fn abandon(self) {
        self.gate.cut();
    }

    /// Says goodbye.
    pub async fn close(self) {
        let goodbye = self.handle.disconnect(Disconnect::ByApplication, "done", "en");
        let _ = timeout(HAND_OVER, goodbye).await;
        // The connection's own task ends when it has sent what is queued.
        let _ = timeout(HAND_OVER, self.handle).await;
        self.gate.cut();
    }

    async fn open(
        &self,
        command: &str,
    ) -> Result<(ChannelReadHalf, ChannelWriteHalf<Msg>), RunError> {
        let channel = self.channel().await?;
        channel.exec(true, command).await.map_err(|_| RunError::ConnectionLost)?;
        Ok(channel.split())
    }

    /// A channel of the subsystem `name`; that it is refused is told by the channel.
    pub(super) async fn subsystem(
        &self,
        name: &str,
    ) -> Result<(ChannelReadHalf, ChannelWriteHalf<Msg>), RunError> {
        let channel = self.channel().await?;
        channel.request_subsystem(true, name).await.map_err(|_| RunError::ConnectionLost)?;
        Ok(channel.split())
    }

    async fn channel(&self) -> Result<Channel<Msg>, RunError> {
        let channel = tokio::select! {
            channel = self.handle.channel_open_session() => channel,
            () = self.lost() => return Err(RunError::ConnectionLost),
        };
        channel.map_err(|error| match error {
            russh::Error::ChannelOpenFailure(_) => RunError::Refused,
            _ => RunError::ConnectionLost,
        })
    }

    /// Sends a keepalive when the server is silent; resolves when it stays silent.
    ///
    /// While the gate is closed the server's answers wait in front of it, so they are not missed, but
    /// keepalives are sent all the same: for the server, which may look for signs of life of its own, and
    /// for what is between us and drops idle connections.
    pub(super) async fn lost(&self) {
        // Counted, not measured: after this process was stopped for a while, the server gets its chance.
        let mut unanswered = 0;
        let mut sent = Instant::now();
        loop {
            sleep(self.keepalive).await;
            let last_read = self.gate.last_read();
            if last_read > sent || self.gate.is_closed() {
                unanswered = 0;
            }
            if unanswered == MAX_UNANSWERED {
                return;
            }
            if last_read.elapsed() >= self.keepalive / 2 {
                unanswered += 1;
                sent = Instant::now();
                // A connection that has ended tells so by the channel.
                let _ = timeout(self.keepalive, self.handle.send_keepalive(true)).await;
            }
        }
    }
}

/// Sends the script, then end of file. That the connection is gone is not told here.
async fn feed(to: &ChannelWriteHalf<Msg>, mut script: impl AsyncRead + Unpin) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(PIECE);
        if (&mut script).take(PIECE as u64).read_buf(&mut buffer).await? == 0 {
            break;
        }
        if to.data_bytes(buffer.split().freeze()).await.is_err() {
            return Ok(());
        }
    }
    let _ = to.eof().await;
    Ok(())
}

fn name(signal: &Sig) -> String {
    match signal {
        Sig::Custom(name) => name.clone(),
        // The variants are called as in the RFC.
        known => format!("{known:?}"),
    }
}

/// The name of a signal's number on Linux, as RFC 4254 has it; other numbers as they are.
pub(super) fn signal_name(number: u32) -> String {
    let name = match number {
        1 => "HUP",
        2 => "INT",
        3 => "QUIT",
        4 => "ILL",
        5 => "TRAP",
        6 => "ABRT",
        7 => "BUS",
        8 => "FPE",
        9 => "KILL",
        10 => "USR1",
        11 => "SEGV",
        12 => "USR2",
        13 => "PIPE",
        14 => "ALRM",
        15 => "TERM",
        other => return other.to_string(),
    };
    name.to_owned()
}

fn config(expected: Option<&PublicKey>) -> client::Config {
    let mut preferred = Preferred { cipher: Cow::Borrowed(&CIPHERS), ..Preferred::default() };
    if let Some(expected) = expected {
        // A server with keys of several kinds shall show the one that we know.
        let first = expected.algorithm();
        let rest = preferred.key.iter().filter(|other| **other != first).cloned();
        preferred.key = Cow::Owned(std::iter::once(first.clone()).chain(rest).collect());
    }
    client::Config {
        preferred,
        maximum_packet_size: LARGEST_PACKET,
        nodelay: true,
        // Ours instead: see `Session::lost`.
        keepalive_interval: None,
        // A script may be silent for hours.
        inactivity_timeout: None,
        ..client::Config::default()
    }
}

fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

fn socket_error(address: SocketAddr, after: Duration, source: io::Error) -> ConnectError {
    match source.kind() {
        io::ErrorKind::ConnectionRefused => ConnectError::Refused { address },
        io::ErrorKind::TimedOut => {
            ConnectError::TimedOut { address, phase: Phase::Connecting, after }
        }
        io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NetworkDown => ConnectError::Unreachable { address, source },
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => {
            ConnectError::Closed { address, phase: Phase::Connecting }
        }
        _ => ConnectError::Socket { address, source },
    }
}

fn ssh_error(address: SocketAddr, phase: Phase, error: russh::Error) -> ConnectError {
    use russh::Error;
    match error {
        // The library tells the end of a connection in many ways, depending on who notices first.
        Error::Disconnect | Error::HUP | Error::SendError | Error::RecvError | Error::IO(_) => {
            ConnectError::Closed { address, phase }
        }
        error => ConnectError::Protocol { address, phase, source: error.into() },
    }
}

/// The client's side of the library's callbacks.
pub(super) struct Peer {
    expected: Option<PublicKey>,
    seen: Arc<OnceLock<PublicKey>>,
}

impl client::Handler for Peer {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        key: &PublicKeyOrCertificate,
    ) -> Result<bool, russh::Error> {
        // We ask for no certificates.
        let PublicKeyOrCertificate::PublicKey { key, .. } = key else { return Ok(false) };
        let seen = self.seen.get_or_init(|| key.clone());
        // At first contact any key will do, but keys are exchanged again within a long session.
        let expected = self.expected.as_ref().unwrap_or(seen);
        Ok(key.key_data() == expected.key_data())
    }
}

/// Ends a connection that did not become a session.
struct CutOnDrop(Option<Arc<Gate>>);

impl CutOnDrop {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for CutOnDrop {
    fn drop(&mut self) {
        if let Some(gate) = &self.0 {
            gate.cut();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_may_be_silent_for_hours() {
        let config = config(None);
        assert_eq!(config.inactivity_timeout, None);
        // It would end a session whose reader is slow: ours knows when it does not read.
        assert_eq!(config.keepalive_interval, None);
    }
}

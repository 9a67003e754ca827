//! One SSH connection: who may log in, and what may be asked. Scripts yes, everything else no.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Buf as _, Bytes, BytesMut};
use russh::keys::PublicKey;
use russh::server::{
    Auth, ChannelOpenHandle, Handle, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey,
};
use russh::{Channel, ChannelId, Error, Pty, Sig};
use rustix::process::Signal;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::children::Children;
use crate::lifetime::{Visit, Visitors};
use crate::log::log;
use crate::process::{Ending, Event, HEADROOM, InputOverflow, Process};
use crate::scripts::{Line, Opened, Script, Scripts};
use crate::wire::{Frame, Malformed, Parser, SUBSYSTEM};

/// The extended data type of standard error (RFC 4254, 5.2).
const STDERR: u32 = 1;

/// What all connections share.
pub(crate) struct Shared {
    /// The only key that may log in.
    pub(crate) client_key: PublicKey,
    /// Starts and reaps the scripts.
    pub(crate) children: Arc<Children>,
    /// The scripts that outlive a connection.
    pub(crate) scripts: Arc<Scripts>,
    /// Counts the connections that are logged in.
    pub(crate) visitors: Visitors,
}

/// The server's side of one connection. Dropping it stops the scripts that were started by a plain command;
/// those of our own subsystem go on.
pub(crate) struct Connection {
    shared: Arc<Shared>,
    id: u64,
    peer: SocketAddr,
    authenticated: Arc<AtomicBool>,
    visit: Option<Visit>,
    line: Line,
    scripts: HashMap<ChannelId, Process>,
    guests: HashMap<ChannelId, Guest>,
}

/// A channel of our own subsystem.
#[derive(Default)]
struct Guest {
    parser: Parser,
    attached: Option<Attached>,
}

/// … that has opened its script.
struct Attached {
    script: Arc<Script>,
    attachment: u64,
    forwarding: AbortHandle,
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.forwarding.abort();
        self.script.detach(self.attachment);
    }
}

impl Connection {
    /// `authenticated` is set once the peer has logged in; `line` ends the connection from outside.
    pub(crate) fn new(
        shared: Arc<Shared>,
        id: u64,
        peer: SocketAddr,
        authenticated: Arc<AtomicBool>,
        line: Line,
    ) -> Self {
        let (scripts, guests) = (HashMap::new(), HashMap::new());
        Self { shared, id, peer, authenticated, visit: None, line, scripts, guests }
    }

    /// Any name may log in: the agent runs as one user and cannot become another.
    fn verdict(&self, key: &PublicKey) -> Auth {
        if key.key_data() == self.shared.client_key.key_data() {
            Auth::Accept
        } else {
            Auth::reject()
        }
    }

    fn hear(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        session: &Session,
    ) -> Result<(), Malformed> {
        let Some(guest) = self.guests.get_mut(&channel) else { return Ok(()) };
        guest.parser.push(data);
        while let Some(frame) = guest.parser.next()? {
            match (frame, &guest.attached) {
                (Frame::Open(open), None) => {
                    let to = session.handle();
                    match self.shared.scripts.open(&open, &self.line) {
                        Ok(Opened { script, attachment, answer }) => {
                            log!(
                                "connection {}: script {} from byte {} of its output on",
                                self.id,
                                script.number,
                                open.offset
                            );
                            let log =
                                pass_on(answer, Arc::clone(&script), open.offset, to, channel);
                            let forwarding = tokio::spawn(log).abort_handle();
                            guest.attached = Some(Attached { script, attachment, forwarding });
                        }
                        Err(answer) => {
                            log!("connection {}: a script was refused", self.id);
                            tokio::spawn(async move {
                                let _ = to.data(channel, answer).await;
                                let _ = to.eof(channel).await;
                                let _ = to.close(channel).await;
                            });
                        }
                    }
                }
                (Frame::Open(_), Some(_)) => return Err(Malformed("a second opening frame")),
                (Frame::Script(data), Some(at)) => {
                    self.shared.scripts.take(&at.script, at.attachment, &data)?;
                }
                (Frame::Go, Some(at)) => {
                    self.shared.scripts.start(&at.script, at.attachment)?;
                }
                (Frame::Ack(offset), Some(at)) => {
                    self.shared.scripts.acknowledge(&at.script, at.attachment, offset);
                }
                (Frame::Signal(number), Some(at)) => {
                    let known = SIGNALS.iter().find(|(_, known)| known.as_raw() == number.into());
                    if let Some((_, signal)) = known {
                        at.script.signal(at.attachment, *signal);
                    }
                }
                // After an opening that was refused; the driver does not know that yet.
                (Frame::Script(_) | Frame::Go | Frame::Ack(_) | Frame::Signal(_), None) => {}
            }
        }
        Ok(())
    }

    fn refuse(&self, channel: ChannelId, what: &str, session: &mut Session) -> Result<(), Error> {
        log!("connection {}: refused {what}", self.id);
        session.channel_failure(channel)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.visit.is_some() {
            log!("connection {}: closed", self.id);
        }
        for (_, script) in self.scripts.drain() {
            script.stop();
        }
    }
}

impl Handler for Connection {
    type Error = Error;

    async fn auth_publickey_offered(
        &mut self,
        _user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Error> {
        Ok(self.verdict(offer.public_key))
    }

    async fn auth_publickey(
        &mut self,
        _user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Error> {
        let verdict = self.verdict(key.public_key);
        if verdict != Auth::Accept {
            log!("connection {}: refused a key from {}", self.id, self.peer);
        }
        Ok(verdict)
    }

    async fn auth_succeeded(&mut self, _session: &mut Session) -> Result<(), Error> {
        self.authenticated.store(true, Ordering::Relaxed);
        self.visit = Some(self.shared.visitors.enter());
        log!("connection {}: opened from {}", self.id, self.peer);
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        // Dropped at once: the input comes through `data`, and a channel that nobody reads would
        // block the whole connection.
        _channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Error> {
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), Error> {
        if self.scripts.contains_key(&channel) || self.guests.contains_key(&channel) {
            return self.refuse(channel, "a second command in one channel", session);
        }
        match Process::start(command, &self.shared.children) {
            Ok((script, events)) => {
                log!("connection {}: script {channel} started", self.id);
                session.channel_success(channel)?;
                self.scripts.insert(channel, script);
                tokio::spawn(forward(events, session.handle(), channel, self.id));
                Ok(())
            }
            Err(error) => {
                log!("connection {}: cannot start a script: {error}", self.id);
                session.channel_failure(channel)
            }
        }
    }

    async fn data(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), Error> {
        if let Err(Malformed(what)) = self.hear(channel, data, session) {
            log!("connection {}: refused {what}", self.id);
            self.guests.remove(&channel);
            return session.close(channel);
        }
        let Some(script) = self.scripts.get(&channel) else { return Ok(()) };
        if let Err(InputOverflow) = script.feed(Bytes::copy_from_slice(data)) {
            // russh opens the window again by itself, so a client cannot be told to wait; stopping is
            // better than an agent without memory, or one that no longer hears signals.
            log!("connection {}: script {channel} does not read its input: stopped", self.id);
            if let Some(script) = self.scripts.remove(&channel) {
                script.stop();
            }
            session.close(channel)?;
        }
        Ok(())
    }

    async fn channel_eof(
        &mut self,
        channel: ChannelId,
        _session: &mut Session,
    ) -> Result<(), Error> {
        if let Some(script) = self.scripts.get_mut(&channel) {
            script.end_input();
        }
        Ok(())
    }

    async fn channel_close(
        &mut self,
        channel: ChannelId,
        _session: &mut Session,
    ) -> Result<(), Error> {
        self.guests.remove(&channel);
        if let Some(script) = self.scripts.remove(&channel) {
            script.stop();
        }
        Ok(())
    }

    async fn signal(
        &mut self,
        channel: ChannelId,
        name: Sig,
        _session: &mut Session,
    ) -> Result<(), Error> {
        if let (Some(script), Some(signal)) = (self.scripts.get(&channel), number(&name)) {
            log!("connection {}: script {channel} gets SIG{name:?}", self.id);
            script.signal(signal);
        }
        Ok(())
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _term: &str,
        _columns: u32,
        _rows: u32,
        _width: u32,
        _height: u32,
        _modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Error> {
        self.refuse(channel, "a terminal", session)
    }

    async fn shell_request(
        &mut self,
        channel: ChannelId,
        session: &mut Session,
    ) -> Result<(), Error> {
        self.refuse(channel, "a login shell", session)
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Error> {
        let is_taken = self.scripts.contains_key(&channel) || self.guests.contains_key(&channel);
        if name != SUBSYSTEM || is_taken {
            return self.refuse(channel, "a subsystem", session);
        }
        self.guests.insert(channel, Guest::default());
        session.channel_success(channel)
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        _name: &str,
        _value: &str,
        session: &mut Session,
    ) -> Result<(), Error> {
        // Stock clients send LANG and LC_* unasked: not worth a line.
        session.channel_failure(channel)
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        _single: bool,
        _protocol: &str,
        _cookie: &str,
        _screen: u32,
        session: &mut Session,
    ) -> Result<(), Error> {
        self.refuse(channel, "X11 forwarding", session)
    }

    async fn window_change_request(
        &mut self,
        channel: ChannelId,
        _columns: u32,
        _rows: u32,
        _width: u32,
        _height: u32,
        session: &mut Session,
    ) -> Result<(), Error> {
        session.channel_failure(channel)
    }

    // Agent forwarding, port and socket forwarding in either direction, and channels of other types are
    // refused by the trait's own answers.
}

/// Sends the events of a script to the channel: all output, then the ending, then end of file.
///
/// `Handle` takes a message only while the peer's window has room, which is what keeps memory bounded.
async fn forward(
    mut events: mpsc::Receiver<Event>,
    to: Handle,
    channel: ChannelId,
    connection: u64,
) {
    while let Some(event) = events.recv().await {
        let sent = match event {
            Event::Stdout(piece) => to.data(channel, bare(piece)).await.is_ok(),
            Event::Stderr(piece) => to.extended_data(channel, STDERR, bare(piece)).await.is_ok(),
            Event::Ended(ending, _) => {
                tell(ending, &to, channel, connection).await;
                return;
            }
        };
        if !sent {
            return;
        }
    }
}

/// A piece without the room in front of it.
fn bare(mut piece: BytesMut) -> Bytes {
    piece.advance(HEADROOM);
    piece.freeze()
}

/// Sends `answer` and then the log of `script` from `offset` on. When all is said the driver closes.
async fn pass_on(
    answer: Bytes,
    script: Arc<Script>,
    mut offset: u64,
    to: Handle,
    channel: ChannelId,
) {
    let mut next = Some(answer);
    let mut is_log = false;
    while let Some(piece) = next {
        if is_log {
            offset += piece.len() as u64;
        }
        is_log = true;
        if to.data(channel, piece).await.is_err() {
            return;
        }
        next = script.read(offset).await;
    }
}

async fn tell(ending: Ending, to: &Handle, channel: ChannelId, connection: u64) {
    let told = match ending {
        Ending::Status(status) => {
            log!("connection {connection}: script {channel} ended with status {status}");
            to.exit_status_request(channel, status).await
        }
        Ending::Signal { number } => {
            log!("connection {connection}: script {channel} ended by signal {number}");
            to.exit_signal_request(channel, name(number), false, String::new(), String::new()).await
        }
    };
    // A failure means that the connection is gone; then there is nobody to tell.
    if told.is_ok() && to.eof(channel).await.is_ok() {
        let _ = to.close(channel).await;
    }
}

/// The names of RFC 4254, 6.10, and the other ones that somebody may want to send.
const SIGNALS: [(&str, Signal); 16] = [
    ("ABRT", Signal::ABORT),
    ("ALRM", Signal::ALARM),
    ("BUS", Signal::BUS),
    ("CONT", Signal::CONT),
    ("FPE", Signal::FPE),
    ("HUP", Signal::HUP),
    ("ILL", Signal::ILL),
    ("INT", Signal::INT),
    ("KILL", Signal::KILL),
    ("PIPE", Signal::PIPE),
    ("QUIT", Signal::QUIT),
    ("SEGV", Signal::SEGV),
    ("TERM", Signal::TERM),
    ("TRAP", Signal::TRAP),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
];

fn number(name: &Sig) -> Option<Signal> {
    let name = match name {
        Sig::Custom(name) => name.clone(),
        // The variants are called as in the RFC.
        known => format!("{known:?}"),
    };
    SIGNALS.iter().find(|(known, _)| *known == name).map(|(_, signal)| *signal)
}

fn name(number: i32) -> Sig {
    match SIGNALS.iter().find(|(_, signal)| signal.as_raw() == number) {
        Some((name, _)) => Sig::Custom((*name).to_owned()),
        // RFC 4254, 6.10: names of one's own have an at-sign.
        None => Sig::Custom(format!("{number}@pointsman-agent")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_of_signals_agree() {
        for (sig, expected) in [
            (Sig::TERM, Some(Signal::TERM)),
            (Sig::KILL, Some(Signal::KILL)),
            (Sig::Custom("USR2".into()), Some(Signal::USR2)),
            (Sig::Custom("NONE".into()), None),
        ] {
            assert_eq!(number(&sig), expected, "{sig:?}");
        }
        for (_, signal) in SIGNALS {
            assert_eq!(number(&name(signal.as_raw())), Some(signal));
        }
        assert!(matches!(name(64), Sig::Custom(name) if name == "64@pointsman-agent"));
    }
}

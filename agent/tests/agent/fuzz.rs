//! Sequences of requests and messages that no driver sends, from several connections at a time, against the real
//! agent: whatever comes, it lives, refuses what it does not do, starts no script twice and still serves the next.
//!
//! Bounded to some seconds. `POINTSMAN_TEST_SEED` repeats a run; a failing one shows its seed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use russh::client::{self, Handle, Msg};
use russh::keys::{PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use russh::{ChannelMsg, ChannelWriteHalf, Sig};
use tokio::time::timeout;

use crate::support::{Agent, client_key, eventually, lives};

/// The agent's own subsystem.
const SUBSYSTEM: &str = "pointsman-script-1";

/// More than the agent keeps.
const SCRIPTS: u64 = 12;

/// Numbers without a library: xorshift64*.
struct Dice(u64);

impl Dice {
    fn seeded(default: impl FnOnce() -> u64) -> Self {
        let seed = match std::env::var("POINTSMAN_TEST_SEED") {
            Ok(seed) => seed.parse().unwrap(),
            Err(_) => default(),
        };
        // Shown when the test fails.
        let _ = writeln!(std::io::stderr(), "POINTSMAN_TEST_SEED={seed}");
        Self(seed | 1)
    }

    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % below
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.roll(from.len() as u64) as usize]
    }

    fn bytes(&mut self, most: u64) -> Vec<u8> {
        let length = self.roll(most);
        (0..length).map(|_| self.roll(256) as u8).collect()
    }
}

fn clock() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64
}

struct Peer;

impl client::Handler for Peer {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(true)
    }
}

/// What a channel has heard.
#[derive(Default)]
struct Heard {
    data: Vec<u8>,
    is_over: bool,
    status: Option<u32>,
}

struct Channel {
    writer: ChannelWriteHalf<Msg>,
    heard: Arc<Mutex<Heard>>,
    /// Of our own subsystem.
    is_guest: bool,
}

struct Connection {
    handle: Handle<Peer>,
    channels: Vec<Channel>,
}

async fn log_in(agent: &Agent) -> Option<Connection> {
    let login = async {
        let config = Arc::new(client::Config { nodelay: true, ..client::Config::default() });
        let mut handle = client::connect(config, (agent.address(), 2222), Peer).await.ok()?;
        let key = PrivateKeyWithHashAlg::new(Arc::new(client_key()), None);
        let verdict = handle.authenticate_publickey("anybody", key).await.ok()?;
        verdict.success().then_some(handle)
    };
    let handle = timeout(Duration::from_secs(10), login).await.ok()??;
    Some(Connection { handle, channels: Vec::new() })
}

impl Connection {
    async fn open(&mut self) -> bool {
        let opening = self.handle.channel_open_session();
        let Ok(Ok(channel)) = timeout(Duration::from_secs(5), opening).await else { return false };
        let heard = Arc::new(Mutex::new(Heard::default()));
        let (mut reader, writer) = channel.split();
        let ear = Arc::clone(&heard);
        tokio::spawn(async move {
            while let Some(message) = reader.wait().await {
                let mut heard = ear.lock().unwrap();
                match message {
                    ChannelMsg::Data { data } => heard.data.extend_from_slice(&data),
                    ChannelMsg::ExitStatus { exit_status } => heard.status = Some(exit_status),
                    _ => {}
                }
            }
            ear.lock().unwrap().is_over = true;
        });
        self.channels.push(Channel { writer, heard, is_guest: false });
        true
    }
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![kind];
    frame.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

fn opening(id: u64, may_start: u8, offset: u64, length: u64, command: &str) -> Vec<u8> {
    let mut payload = vec![id as u8; 16];
    payload.push(may_start);
    payload.extend_from_slice(&offset.to_be_bytes());
    payload.extend_from_slice(&length.to_be_bytes());
    payload.extend_from_slice(command.as_bytes());
    frame(b'O', &payload)
}

/// Notes each of its starts with a process id of its own. Cut or doubled anywhere it does no harm.
fn script(id: u64) -> String {
    format!("echo {id} $$ >>\"$STARTS\"\nseq 1 {}\n", 50 + id * 400)
}

/// One of many things to say on a channel of the agent's subsystem.
fn utterance(dice: &mut Dice) -> Vec<u8> {
    let id = dice.roll(SCRIPTS);
    let text = script(id);
    let whole = text.len() as u64;
    match dice.roll(14) {
        // As a driver would, all at once: it knows that nothing has come before.
        0..=5 => {
            let mut said = opening(id, 1, 0, whole, "exec sh");
            said.extend(frame(b'S', text.as_bytes()));
            said.extend(frame(b'G', b""));
            said
        }
        6 => {
            let offset = dice.pick(&[0, 0, 1, 100, 5000, u64::MAX]);
            let length = dice.pick(&[whole, whole, 0, whole + 9, u64::MAX]);
            let command = dice.pick(&["exec sh", "exec sh", "exit 3", "kill -KILL $$", "(", "\0"]);
            opening(id, dice.pick(&[0, 1, 1, 1, 2]), offset, length, command)
        }
        7 => frame(b'S', &text.as_bytes()[..dice.roll(whole + 1) as usize]),
        8 => frame(b'G', b""),
        9 => frame(b'A', &dice.pick(&[0, 5, 300, 2000, u64::MAX]).to_be_bytes()),
        10 => frame(b'K', &[dice.pick(&[0, 9, 15, 15, 18, 19, 18, 64, 255])]),
        11 => {
            // A lie about the length, or a torn frame.
            let mut torn = opening(id, 1, 0, whole, "exec sh");
            match dice.roll(2) {
                0 => torn[1 + dice.roll(4) as usize] = dice.roll(256) as u8,
                _ => torn.truncate(dice.roll(torn.len() as u64) as usize),
            }
            torn
        }
        12 => frame(dice.pick(b"OSGAKZ\0\xff"), &dice.bytes(60)),
        _ => dice.bytes(200),
    }
}

/// Says or asks for something on one channel; whether it was refused is the agent's affair.
async fn disturb(channel: &mut Channel, dice: &mut Dice) {
    let writer = &channel.writer;
    let act = async {
        match dice.roll(24) {
            0 => {
                let command = dice.pick(&[
                    "cat",
                    "exit 4",
                    "sleep 0.2; echo late",
                    "(",
                    "yes | head -n 9999",
                    "",
                ]);
                let _ = writer.exec(dice.roll(2) == 0, command).await;
            }
            1 => {
                let _ = writer.request_pty(true, "vt100", 80, 24, 0, 0, &[]).await;
            }
            2 => {
                let _ = writer.request_shell(dice.roll(2) == 0).await;
            }
            3 => {
                let name = dice.pick(&["sftp", "", "pointsman-script-2", "netconf"]);
                let _ = writer.request_subsystem(true, name).await;
            }
            4 => {
                let _ = writer.set_env(true, "LD_PRELOAD", "/nowhere.so").await;
            }
            5 => {
                let _ = writer.request_x11(true, false, "MIT-MAGIC-COOKIE-1", "00", 0).await;
            }
            6 => {
                let _ = writer.agent_forward(true).await;
            }
            7 => {
                let _ = writer.window_change(1, u32::MAX, 0, 7).await;
            }
            8 => {
                let name = dice.pick(&["TERM", "KILL", "USR9", "", "TERM@x"]);
                let _ = writer.signal(Sig::Custom(name.to_owned())).await;
            }
            9 => {
                let _ = writer.eof().await;
            }
            10 => {
                let _ = writer.close().await;
            }
            11 => {
                let _ = writer.extended_data_bytes(1, dice.bytes(300)).await;
            }
            _ if channel.is_guest => {
                let _ = writer.data_bytes(utterance(dice)).await;
            }
            _ => {
                let _ = writer.data_bytes(dice.bytes(4000)).await;
            }
        }
    };
    let _ = timeout(Duration::from_secs(2), act).await;
}

/// What leads out of the task is refused on every connection that lives.
async fn reach_out(connection: &mut Connection, dice: &mut Dice) {
    let handle = &connection.handle;
    let act = async {
        match dice.roll(5) {
            0 => handle.channel_open_direct_tcpip("127.0.0.1", 2222, "127.0.0.1", 9).await.is_err(),
            1 => handle.channel_open_direct_streamlocal("/run/docker.sock").await.is_err(),
            2 => handle.tcpip_forward("127.0.0.1", 0).await.is_err(),
            3 => handle.streamlocal_forward("/tmp/never").await.is_err(),
            _ => handle.channel_open_x11("127.0.0.1", 9).await.is_err(),
        }
    };
    // Nobody answers any more when the agent has ended the connection.
    if let Ok(is_refused) = timeout(Duration::from_secs(2), act).await {
        assert!(is_refused, "something was let out");
    }
}

/// The process ids of each script's starts.
fn starts(agent: &Agent) -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string(agent.path("starts")).unwrap_or_default();
    let mut starts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in text.lines() {
        let (id, pid) = line.split_once(' ').unwrap_or_else(|| panic!("{line:?}"));
        starts.entry(id.to_owned()).or_default().insert(pid.to_owned());
    }
    starts
}

async fn sequence(agent: &Agent, dice: &mut Dice) {
    let mut connections: Vec<Connection> = Vec::new();
    let mut logins = 0;
    for _ in 0..100 {
        connections.retain(|connection| !connection.handle.is_closed());
        // More would meet the agent's own limits, which other tests are about.
        if connections.is_empty() || (connections.len() < 4 && logins < 30 && dice.roll(8) == 0) {
            logins += 1;
            connections.push(log_in(agent).await.unwrap());
        }
        let index = dice.roll(connections.len() as u64) as usize;
        let connection = &mut connections[index];
        match dice.roll(20) {
            0 => drop(connections.remove(index)),
            1 => reach_out(connection, dice).await,
            2..=6 if connection.channels.len() < 12 => {
                if connection.open().await && dice.roll(4) > 0 {
                    let channel = connection.channels.last_mut().unwrap();
                    let _ = channel.writer.request_subsystem(true, SUBSYSTEM).await;
                    channel.is_guest = true;
                }
            }
            _ => {
                let count = connection.channels.len() as u64;
                if count > 0 {
                    let channel = &mut connection.channels[dice.roll(count) as usize];
                    disturb(channel, dice).await;
                }
            }
        }
    }
    for channel in connections.iter().flat_map(|connection| &connection.channels) {
        let heard = channel.heard.lock().unwrap();
        if channel.is_guest && heard.status.is_none() && !heard.is_over && heard.data.len() >= 5 {
            assert!(
                b"HLUR".contains(&heard.data[0]),
                "an answer begins with {:?}",
                &heard.data[..5]
            );
        }
    }
}

/// The next driver is served as if nothing had been.
async fn is_served(agent: &Agent) {
    let mut connection = log_in(agent).await.unwrap();
    assert!(connection.open().await);
    connection.channels[0].writer.exec(true, "echo alive; exit 6").await.unwrap();
    let heard = Arc::clone(&connection.channels[0].heard);
    let waiting = async {
        while !heard.lock().unwrap().is_over {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(10), waiting).await.unwrap();
    let heard = heard.lock().unwrap();
    assert_eq!((heard.status, heard.data.as_slice()), (Some(6), &b"alive\n"[..]));
}

#[test]
fn no_sequence_of_requests_harms_the_agent_or_starts_a_script_twice() {
    let mut dice = Dice::seeded(clock);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut started = 0;
    for _ in 0..10 {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut agent = Agent::start_with(&[("STARTS", file.path().to_str().unwrap())]);
        runtime.block_on(async {
            sequence(&agent, &mut dice).await;
            is_served(&agent).await;
        });
        // Those that were started last may not have noted it yet, but they will not come to it any more.
        agent.signal("TERM");
        assert_eq!(agent.ended(), Some(0), "{}", agent.log());
        assert!(!agent.log().contains("panicked"), "{}", agent.log());
        fs::copy(file.path(), agent.path("starts")).unwrap();
        let starts = starts(&agent);
        for (id, pids) in &starts {
            assert_eq!(pids.len(), 1, "script {id} was started as {pids:?}\n{}", agent.log());
            assert!(pids.iter().all(|pid| !lives(pid)), "script {id} lives on");
        }
        started += starts.len();
    }
    let _ = writeln!(std::io::stderr(), "{started} scripts were started");
    assert!(started >= 10, "only {started} scripts were started: is this test worth its time?");
}

/// Opens script `id` on a connection of its own, as a driver that starts it; the first byte of the answer, when
/// the whole log has come, or what comes in its place.
async fn begin(agent: &Agent, id: u64) -> u8 {
    let mut connection = log_in(agent).await.unwrap();
    assert!(connection.open().await);
    let channel = &connection.channels[0];
    channel.writer.request_subsystem(true, SUBSYSTEM).await.unwrap();
    let text = script(id);
    let mut said = opening(id, 1, 0, text.len() as u64, "exec sh");
    said.extend(frame(b'S', text.as_bytes()));
    said.extend(frame(b'G', b""));
    channel.writer.data_bytes(said).await.unwrap();
    let heard = Arc::clone(&channel.heard);
    let answered = async {
        loop {
            {
                let heard = heard.lock().unwrap();
                let kinds = kinds(&heard.data);
                if kinds.last() == Some(&b'X') || heard.is_over {
                    return kinds[0];
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), answered).await.unwrap()
}

/// The kinds of the whole frames in `data`.
fn kinds(mut data: &[u8]) -> Vec<u8> {
    let mut kinds = Vec::new();
    while let Some((header, rest)) = data.split_at_checked(5) {
        let length = u32::from_be_bytes(header[1..].try_into().unwrap()) as usize;
        let Some(next) = rest.get(length..) else { break };
        kinds.push(header[0]);
        data = next;
    }
    kinds
}

#[test]
fn a_script_that_ran_and_was_forgotten_does_not_start_again() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let agent = Agent::start_with(&[("STARTS", file.path().to_str().unwrap())]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        // Nothing of their output is acknowledged, so they stay until there are too many.
        for id in 0..SCRIPTS {
            assert_eq!(begin(&agent, id).await, b'H', "script {id}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(agent.log().contains("script 1: forgotten"), "{}", agent.log());
        assert_eq!(begin(&agent, 0).await, b'R');
    });
    let text = fs::read_to_string(file.path()).unwrap();
    assert_eq!(text.lines().count() as u64, SCRIPTS, "{text}");
}

#[test]
fn what_is_no_ssh_at_all_does_no_harm() {
    let mut dice = Dice::seeded(clock);
    let agent = Agent::start();
    for round in 0..40 {
        let mut stream = TcpStream::connect((agent.address(), 2222)).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let mut noise = dice.bytes(3000);
        match round % 4 {
            // A greeting, and then anything.
            0 => noise.splice(..0, *b"SSH-2.0-noise\r\n").for_each(drop),
            // … that looks like a packet of this length.
            1 => {
                let length = dice.pick(&[0_u32, 1, 12, 35_000, 262_145, u32::MAX]);
                noise.splice(..0, length.to_be_bytes()).for_each(drop);
                noise.splice(..0, *b"SSH-2.0-noise\r\n").for_each(drop);
            }
            2 => noise.splice(..0, *b"GET / HTTP/1.1\r\n\r\n").for_each(drop),
            _ => {}
        }
        // The agent may have hung up before it has all.
        let _ = stream.write_all(&noise);
        let _ = stream.read(&mut [0; 256]);
    }
    eventually("the agent has places again", || agent.run("exit 0").status.success());
    assert!(!agent.log().contains("panicked"), "{}", agent.log());
}

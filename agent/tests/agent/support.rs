//! An agent on a loopback address of its own, and a stock `ssh` client for it.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use russh::keys::PrivateKey;
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::Ed25519Keypair;
use tempfile::TempDir;

const CLIENT_SEED: [u8; 32] = [3; 32];
const HOST_SEED: [u8; 32] = [5; 32];

/// A running agent; ended when dropped.
pub(crate) struct Agent {
    process: Child,
    directory: TempDir,
    address: String,
}

fn key(seed: &[u8; 32]) -> PrivateKey {
    PrivateKey::from(Ed25519Keypair::from_seed(seed))
}

/// The host key as the environment has it: what must not be found anywhere.
pub(crate) fn host_seed() -> String {
    STANDARD_NO_PAD.encode(HOST_SEED)
}

/// The one key that the agent lets in.
pub(crate) fn client_key() -> PrivateKey {
    key(&CLIENT_SEED)
}

pub(crate) fn client_line() -> String {
    key(&CLIENT_SEED).public_key().to_openssh().unwrap()
}

pub(crate) fn seconds_from_now(seconds: u64) -> String {
    (SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + seconds).to_string()
}

/// The binary with an empty environment.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman-agent"));
    command.env_clear();
    command
}

/// Polls `condition` for up to 15 s.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(15), "never happened: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

impl Agent {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts with further or other variables.
    pub(crate) fn start_with(variables: &[(&str, &str)]) -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(1);
        let [high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let address = format!("127.{}.{high}.{low}", 100 + std::process::id() % 100);
        let directory = tempfile::tempdir().unwrap();
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let process = command()
            .env("SSH_PUBLIC_KEY", client_line())
            .env("POINTSMAN_HOST_KEY", host_seed())
            .env("POINTSMAN_DEADLINE", seconds_from_now(600))
            .env("POINTSMAN_LISTEN", format!("{address}:2222"))
            .env("FROM_OUTSIDE", "seen")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let agent = Self { process, directory, address };
        agent.write_key("key", &key(&CLIENT_SEED));
        let known = format!(
            "[{}]:2222 {}\n",
            agent.address,
            key(&HOST_SEED).public_key().to_openssh().unwrap()
        );
        fs::write(agent.path("known_hosts"), known).unwrap();
        eventually("the agent listens", || {
            TcpStream::connect((agent.address.as_str(), 2222)).is_ok()
        });
        agent
    }

    fn write_key(&self, name: &str, key: &PrivateKey) {
        let text = key.to_openssh(LineEnding::LF).unwrap();
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.path(name))
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// What the agent has written to stderr.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }

    /// `ssh` with strict host key checking, ready for options and a command.
    pub(crate) fn ssh(&self, options: &[&str]) -> Command {
        let mut ssh = Command::new("/usr/bin/ssh");
        ssh.args(["-F", "/dev/null", "-p", "2222", "-l", "anybody"])
            .args(["-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"])
            .args(["-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=10"])
            .arg("-o")
            .arg(format!("UserKnownHostsFile={}", self.path("known_hosts").display()))
            .arg("-i")
            .arg(self.path("key"))
            .args(options)
            .arg(&self.address)
            .stdin(Stdio::null());
        ssh
    }

    /// As [`Agent::ssh`], with a key that the agent does not know.
    pub(crate) fn ssh_as_stranger(&self) -> Command {
        self.write_key("key", &key(&[9; 32]));
        self.ssh(&[])
    }

    /// Runs one command.
    pub(crate) fn run(&self, script: &str) -> Output {
        self.ssh(&[]).arg(script).output().unwrap()
    }

    /// Runs one command with input.
    pub(crate) fn run_with_input(&self, script: &str, input: Vec<u8>) -> Output {
        let mut child = self
            .ssh(&[])
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let writer = thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().unwrap();
        // A script that does not read its input closes the pipe: not our matter.
        let _ = writer.join().unwrap();
        output
    }

    /// Sends a signal to the agent.
    pub(crate) fn signal(&self, name: &str) {
        let status =
            Command::new("kill").args(["-s", name]).arg(self.pid().to_string()).status().unwrap();
        assert!(status.success());
    }

    /// Waits until the agent has ended by itself.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        let mut status = None;
        eventually("the agent ends", || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Politely first, so that it takes what its scripts left behind with it.
        let _ = Command::new("kill").arg(self.pid().to_string()).stderr(Stdio::null()).status();
        for _ in 0..100 {
            if !matches!(self.process.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Whether the process lives; a zombie does not.
pub(crate) fn lives(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{}/stat", pid.trim()))
        .is_ok_and(|stat| !stat.rsplit_once(')').unwrap().1.trim_start().starts_with('Z'))
}

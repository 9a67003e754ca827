//! Real SSH servers on loopback addresses of their own.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pointsman::settings::SshTimes;
use pointsman::ssh::{HostKey, KeyPair, Session, Target, connect_until_ready};
use russh::keys::ssh_key::LineEnding;
use russh::keys::{PrivateKey, ssh_key::private::Ed25519Keypair};
use tempfile::TempDir;

/// What the tests wait for at most; generous, because machines are busy.
pub(crate) const TIMES: SshTimes = SshTimes {
    ready_timeout: Duration::from_secs(20),
    connect_timeout: Duration::from_secs(10),
    keepalive: Duration::from_secs(15),
    resume_timeout: Duration::from_secs(20),
    stop_grace: Duration::from_secs(2),
};

#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Agent,
    OpenSsh,
}

/// An address that nothing listens on, with the keys that a server there will have.
pub(crate) struct Place {
    pub(crate) kind: Kind,
    pub(crate) address: SocketAddr,
    pub(crate) client_key: KeyPair,
    pub(crate) host_key: KeyPair,
    directory: TempDir,
}

/// A running server; killed when dropped.
pub(crate) struct Server {
    pub(crate) place: Place,
    process: Child,
}

impl Place {
    pub(crate) fn new(kind: Kind) -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(1);
        let [high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let network = 200 + std::process::id() % 50;
        Self {
            kind,
            address: format!("127.{network}.{high}.{low}:2222").parse().unwrap(),
            client_key: KeyPair::generate().unwrap(),
            host_key: KeyPair::generate().unwrap(),
            directory: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn target(&self) -> Target {
        Target {
            address: self.address,
            user: "root".into(),
            client_key: self.client_key.clone(),
            host_key: HostKey::Known(self.host_key.public_line()),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn start(self) -> Server {
        let command = self.command();
        self.start_as(command)
    }

    /// What starts the server.
    pub(crate) fn command(&self) -> Command {
        match self.kind {
            Kind::Agent => self.agent(),
            Kind::OpenSsh => self.sshd(),
        }
    }

    pub(crate) fn start_as(self, command: Command) -> Server {
        let process = self.spawn(command);
        Server { place: self, process }
    }

    fn spawn(&self, mut command: Command) -> Child {
        let log = fs::File::create(self.path("log")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
    }

    fn agent(&self) -> Command {
        // target/debug/deps/ssh-… -> target/debug/pointsman-agent
        let executable = std::env::current_exe().unwrap();
        let agent =
            executable.parent().and_then(|deps| deps.parent()).unwrap().join("pointsman-agent");
        assert!(
            agent.is_file(),
            "`{}` is missing: build it first with `cargo build -p pointsman-agent`",
            agent.display()
        );
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut command = Command::new(agent);
        command
            .env("SSH_PUBLIC_KEY", self.client_key.public_line())
            .env("POINTSMAN_HOST_KEY", self.host_key.seed_base64().reveal())
            .env("POINTSMAN_DEADLINE", (now + 600).to_string())
            .env("POINTSMAN_LISTEN", self.address.to_string());
        command
    }

    fn sshd(&self) -> Command {
        let _ = fs::DirBuilder::new().mode(0o755).create("/run/sshd");
        let seed = base64_seed(&self.host_key);
        let key =
            PrivateKey::from(Ed25519Keypair::from_seed(&seed)).to_openssh(LineEnding::LF).unwrap();
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.path("host_key"))
            .unwrap();
        file.write_all(key.as_bytes()).unwrap();
        fs::write(self.path("authorized_keys"), self.client_key.public_line() + "\n").unwrap();
        let config = format!(
            "ListenAddress {}\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin yes\nPasswordAuthentication no\nLogLevel VERBOSE\n",
            self.address,
            self.path("host_key").display(),
            self.path("authorized_keys").display(),
        );
        fs::write(self.path("config"), config).unwrap();
        let mut command = Command::new("/usr/sbin/sshd");
        command.args(["-D", "-e", "-f"]).arg(self.path("config"));
        command
    }
}

/// Says that a test cannot be made here, past the harness, which shows nothing of tests that pass.
pub(crate) fn skipped(test: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}

pub(crate) fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    id.stdout == b"0\n"
}

fn base64_seed(key: &KeyPair) -> [u8; 32] {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD_NO_PAD
        .decode(key.seed_base64().reveal())
        .unwrap()
        .try_into()
        .unwrap()
}

impl Server {
    pub(crate) fn start(kind: Kind) -> Self {
        Place::new(kind).start()
    }

    pub(crate) async fn session(&self) -> Session {
        connect_until_ready(&self.place.target(), &TIMES, |_| {}).await.unwrap()
    }

    pub(crate) fn restart(&mut self, command: Command) {
        self.process = self.place.spawn(command);
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            // Shown with the failing test.
            println!("{}", fs::read_to_string(self.place.path("log")).unwrap_or_default());
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Makes a module of tests for each server from functions `async fn name(kind: Kind)`.
macro_rules! on_both_servers {
    ($($name:ident),* $(,)?) => {
        mod agent {
            $(#[test] fn $name() { $crate::servers::block_on(super::$name($crate::servers::Kind::Agent)); })*
        }
        mod openssh {
            $(#[test] fn $name() { $crate::servers::block_on(super::$name($crate::servers::Kind::OpenSsh)); })*
        }
    };
}
pub(crate) use on_both_servers;

pub(crate) fn block_on(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(90), test).await.expect("the test hangs");
    });
}

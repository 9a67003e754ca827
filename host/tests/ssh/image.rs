//! The entry script of `examples/images/openssh`, and sshd's users and login shells.

use std::fs;
use std::future::pending;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use pointsman::ssh::{Exit, HostKey, KeyPair, Target, connect_until_ready};
use tempfile::TempDir;

use crate::servers::{Kind, Place, TIMES, block_on, skipped};

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn entrypoint() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/images/openssh/entrypoint")
}

/// Beside the build; whoever has the checkout below a directory that others can write to, such as `/tmp`, needs
/// sshd not to mind.
fn build_directory() -> TempDir {
    TempDir::with_prefix_in("image-", env!("CARGO_TARGET_TMPDIR")).unwrap()
}

async fn run(target: &Target, script: &str) -> (Exit, String) {
    let mut session = connect_until_ready(target, &TIMES, |_| {}).await.unwrap();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let exit = session
        .run("exec sh", script.as_bytes(), &mut stdout, &mut stderr, pending(), TIMES.stop_grace)
        .await;
    (exit.unwrap(), String::from_utf8(stdout).unwrap())
}

#[test]
fn the_entry_script_takes_the_injected_host_key_and_leaves_no_secret() {
    let directory = build_directory();
    let place = Place::new(Kind::OpenSsh);
    let mut command = Command::new("dash");
    command
        .arg(entrypoint())
        .env("HOME", directory.path())
        .env("SSHD_DIRECTORY", directory.path())
        .env("SSHD_LISTEN", place.address.ip().to_string())
        .env("SSHD_PORT", place.address.port().to_string())
        .env("SSHD_STRICT_MODES", "no")
        .env("SSH_PUBLIC_KEY", place.client_key.public_line())
        .env("POINTSMAN_HOST_KEY", place.host_key.seed_base64().reveal())
        .stdin(Stdio::null())
        .stderr(fs::File::create(directory.path().join("log")).unwrap());
    let server = Killed(command.spawn().unwrap());
    block_on(async {
        let target = Target { user: user(), ..place.target() };
        let (exit, stdout) = run(&target, "echo in; env; exit 3").await;
        assert_eq!(exit, Exit::Status(3));
        assert!(stdout.starts_with("in\n") && !stdout.contains("SSH_PUBLIC_KEY"), "{stdout}");
        let environment = fs::read(format!("/proc/{}/environ", server.0.id())).unwrap();
        let environment = String::from_utf8_lossy(&environment);
        for secret in
            ["SSH_PUBLIC_KEY", "POINTSMAN_HOST_KEY", place.host_key.seed_base64().reveal()]
        {
            assert!(!environment.contains(secret), "{environment}");
        }
    });
    let key = directory.path().join("ssh_host_ed25519_key");
    assert_eq!(fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn the_entry_script_makes_a_host_key_when_none_is_injected() {
    let directory = build_directory();
    let place = Place::new(Kind::OpenSsh);
    let mut command = Command::new("sh");
    command
        .arg(entrypoint())
        .env_remove("POINTSMAN_HOST_KEY")
        .env("HOME", directory.path())
        .env("SSHD_DIRECTORY", directory.path())
        .env("SSHD_LISTEN", place.address.ip().to_string())
        .env("SSHD_PORT", place.address.port().to_string())
        .env("SSHD_STRICT_MODES", "no")
        .env("SSH_PUBLIC_KEY", place.client_key.public_line())
        .stdin(Stdio::null())
        .stderr(fs::File::create(directory.path().join("log")).unwrap());
    let _server = Killed(command.spawn().unwrap());
    block_on(async {
        let target = Target { user: user(), host_key: HostKey::FirstContact, ..place.target() };
        assert_eq!(run(&target, "exit 0").await.0, Exit::Status(0));
    });
    let refused = Command::new("sh").arg(entrypoint()).env_clear().output().unwrap();
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("SSH_PUBLIC_KEY"));
}

fn user() -> String {
    let id = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(id.stdout).unwrap().trim().to_owned()
}

/// Root and an ordinary user, with each login shell. The users are in a `/etc/passwd` of the server's own mount
/// namespace, which takes root to make; for anybody else sshd has one user and one shell, which all the other
/// tests use.
#[test]
fn every_login_shell_serves_root_and_an_ordinary_user() {
    if user() != "root" {
        let name = "every_login_shell_serves_root_and_an_ordinary_user";
        return skipped(name, "only root can give sshd users of its own");
    }
    for shell in ["/bin/sh", "/bin/bash", "/bin/dash"] {
        let place = Place::new(Kind::OpenSsh);
        let home = place.path("home");
        fs::create_dir(&home).unwrap();
        let passwd = fs::read_to_string("/etc/passwd").unwrap();
        let others = passwd.lines().filter(|line| !line.starts_with("root:"));
        let mut users = format!(
            "root:x:0:0:root:/root:{shell}\nbuilder:x:54321:54321::{}:{shell}\n",
            home.display()
        );
        others.for_each(|line| users.extend([line, "\n"]));
        fs::write(place.path("passwd"), users).unwrap();
        // The ordinary user has to reach its home.
        fs::set_permissions(place.path("."), fs::Permissions::from_mode(0o755)).unwrap();
        let sshd = place.command();
        let mut inner = Command::new("unshare");
        inner
            .args(["-m", "sh", "-c"])
            .arg(r#"mount --bind "$0" /etc/passwd && exec "$@""#)
            .arg(place.path("passwd"))
            .arg(sshd.get_program())
            .args(sshd.get_args());
        let server = place.start_as(inner);
        block_on(async {
            for user in ["root", "builder"] {
                let target = Target { user: user.into(), ..server.place.target() };
                let script =
                    "id -un; echo \"$SHELL\"; printf 'a\\0b' | od -An -tx1; echo >&2 x; exit 9";
                let (exit, stdout) = run(&target, script).await;
                assert_eq!(exit, Exit::Status(9), "{shell} {user}");
                assert_eq!(stdout, format!("{user}\n{shell}\n 61 00 62\n"), "{shell} {user}");
                stopped(&target).await;
            }
        });
    }
}

/// An ordinary user's script is stopped as root's is.
async fn stopped(target: &Target) {
    let mut session = connect_until_ready(target, &TIMES, |_| {}).await.unwrap();
    let (stdout, stderr) = (tokio::io::sink(), tokio::io::sink());
    let stop = tokio::time::sleep(std::time::Duration::from_millis(400));
    let script = "sleep 47111 & sleep 47111; true".as_bytes();
    let exit = session.run("exec sh", script, stdout, stderr, stop, TIMES.stop_grace).await;
    assert_eq!(exit.unwrap(), Exit::Stopped);
    let sleeping = || {
        let found = Command::new("pgrep").args(["-f", "^sleep 47111"]).output().unwrap();
        !found.stdout.is_empty()
    };
    for _ in 0..200 {
        if !sleeping() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("a process of {} goes on", target.user);
}

/// A key that is no seed at all does not start a server with some other key.
#[test]
fn a_damaged_host_key_starts_no_server() {
    let directory = build_directory();
    let output = Command::new("dash")
        .arg(entrypoint())
        .env("HOME", directory.path())
        .env("SSHD_DIRECTORY", directory.path())
        .env("SSHD_LISTEN", "127.0.0.1")
        .env("SSHD_PORT", "1")
        .env("SSH_PUBLIC_KEY", KeyPair::generate().unwrap().public_line())
        .env("POINTSMAN_HOST_KEY", "AAAA")
        .output()
        .unwrap();
    assert!(!output.status.success());
}

//! The agent's scripts that outlive a connection, where the whole driver is not needed.

use std::fs::{self, File};
use std::future::pending;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use pointsman::ssh::{Exit, Link, RunError, Target, Usage, connect_until_ready, run_script};
use tokio::io::{AsyncReadExt as _, AsyncWrite};

use crate::servers::{Kind, Place, Server, TIMES, block_on, is_root};

async fn run(
    target: &Target,
    script: &File,
    stdout: impl AsyncWrite + Unpin + Send,
    on_link: impl FnMut(Link),
) -> Result<(Exit, Option<Usage>), RunError> {
    let session = connect_until_ready(target, &TIMES, |_| {}).await.unwrap();
    let stderr = tokio::io::sink();
    let (stop, there) = (pending(), async || true);
    run_script(session, target, &TIMES, "exec sh", script, stdout, stderr, stop, on_link, there)
        .await
}

fn script(place: &Place, text: &str) -> File {
    let path = place.path("script");
    fs::write(&path, text).unwrap();
    File::open(path).unwrap()
}

#[test]
fn an_agent_that_was_started_anew_does_not_get_the_script_again() {
    block_on(async {
        let mut server = Server::start(Kind::Agent);
        let mark = server.place.path("mark");
        let text = format!("echo once >>{0}; while sleep 0.1; do echo on; done\n", mark.display());
        let script = script(&server.place, &text);
        let target = server.place.target();
        let mut links = Vec::new();
        let running = run(&target, &script, tokio::io::sink(), |link| links.push(link));
        let restarting = async {
            while !mark.exists() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            server.kill();
            let command = server.place.command();
            server.restart(command);
        };
        let (ran, ()) = tokio::join!(running, restarting);
        assert!(matches!(ran, Err(RunError::Forgotten)), "{ran:?}");
        assert_eq!(links, [Link::Lost]);
        assert_eq!(fs::read_to_string(&mark).unwrap(), "once\n");
    });
}

#[test]
fn the_agent_tells_what_a_script_used() {
    block_on(async {
        let server = Server::start(Kind::Agent);
        let target = server.place.target();
        let large = "head -c 60000000 /dev/zero | tail -c 60000000 | wc -c\n";
        let small = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; sleep 0.3; exit 4\n";
        let large = run(&target, &script(&server.place, large), tokio::io::sink(), |_| {}).await;
        let (exit, usage) = large.unwrap();
        let usage = usage.unwrap();
        assert_eq!(exit, Exit::Status(0));
        let mebibytes = usage.peak_memory.unwrap() >> 20;
        assert!((55..120).contains(&mebibytes), "{usage:?}");
        // Its own, not that of the one before.
        let small = run(&target, &script(&server.place, small), tokio::io::sink(), |_| {}).await;
        let (exit, usage) = small.unwrap();
        let usage = usage.unwrap();
        assert_eq!(exit, Exit::Status(4));
        assert!(usage.peak_memory.unwrap() >> 20 < 30, "{usage:?}");
        assert!(usage.cpu > Duration::from_millis(20), "{usage:?}");
        assert!(usage.wall > usage.cpu && usage.wall > Duration::from_millis(300), "{usage:?}");
    });
}

/// Reads nothing for a while, then all; gives the number of bytes.
async fn late(mut from: tokio::io::DuplexStream, pause: Duration) -> usize {
    tokio::time::sleep(pause).await;
    let mut all = Vec::new();
    from.read_to_end(&mut all).await.unwrap();
    all.len()
}

#[test]
fn a_script_whose_output_finds_no_room_waits() {
    block_on(async {
        let place = Place::new(Kind::Agent);
        let mut command = place.command();
        command.env("POINTSMAN_SPOOL", "0");
        let server = place.start_as(command);
        let target = server.place.target();
        let done = server.place.path("done");
        let text = format!("head -c 40000000 /dev/zero\ntouch {}\n", done.display());
        let script = script(&server.place, &text);
        let (near, far) = tokio::io::duplex(64 << 10);
        let watching = async {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            done.exists()
        };
        let (ran, read, was_done) = tokio::join!(
            run(&target, &script, near, |_| {}),
            late(far, Duration::from_secs(2)),
            watching
        );
        assert_eq!(ran.unwrap().0, Exit::Status(0));
        assert_eq!(read, 40_000_000);
        assert!(!was_done, "the script did not wait");
    });
}

/// In an image that gives nothing: a read-only root file system, a user without a name, no capabilities.
#[test]
fn the_agent_works_as_any_user_on_a_read_only_root_file_system() {
    block_on(async {
        let place = Place::new(Kind::Agent);
        let plain = place.command();
        // The user has to reach it.
        fs::set_permissions(place.path("."), fs::Permissions::from_mode(0o755)).unwrap();
        let agent = place.path("agent");
        fs::copy(plain.get_program(), &agent).unwrap();
        let is_root = is_root();
        // Who is not root has a user namespace for it, where it can give up nothing more.
        let (options, user) = if is_root {
            ("-m", "setpriv --reuid 54321 --regid 54321 --clear-groups --bounding-set -all")
        } else {
            ("-rm", "env")
        };
        let mut command = Command::new("unshare");
        command
            .args([options, "sh", "-c"])
            .arg(format!("mount -o remount,bind,ro / && cd / && exec {user} \"$0\""))
            .arg(&agent);
        for (name, value) in plain.get_envs() {
            command.env(name, value.unwrap());
        }
        let server = place.start_as(command);
        let target = server.place.target();
        let text =
            "id -u; touch here 2>/dev/null && echo writable; head -c 20000000 /dev/zero; exit 5\n";
        let script = script(&server.place, text);
        let (near, far) = tokio::io::duplex(64 << 10);
        let (ran, read) = tokio::join!(
            run(&target, &script, near, |_| {}),
            late(far, Duration::from_millis(700))
        );
        assert_eq!(ran.unwrap().0, Exit::Status(5));
        let id = if is_root { "54321\n" } else { "0\n" };
        assert_eq!(read, 20_000_000 + id.len());
        let log = fs::read_to_string(server.place.path("log")).unwrap();
        assert!(log.contains("memory has to do"), "{log}");
    });
}

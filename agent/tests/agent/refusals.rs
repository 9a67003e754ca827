//! What the agent does not do, and says so at once.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Agent, eventually};

#[test]
fn a_strange_key_is_refused() {
    let agent = Agent::start();
    let output = agent.ssh_as_stranger().arg("true").output().unwrap();
    assert_eq!(output.status.code(), Some(255));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("Permission denied (publickey)"), "{told}");
}

#[test]
fn a_terminal_is_refused() {
    let agent = Agent::start();
    let output = agent.ssh(&["-tt"]).arg("true").output().unwrap();
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("PTY allocation request failed"),
        "{output:?}"
    );
    assert!(agent.log().contains("refused a terminal"), "{}", agent.log());
}

#[test]
fn a_shell_and_a_subsystem_are_refused() {
    let agent = Agent::start();
    let shell = agent.ssh(&["-T"]).output().unwrap();
    assert_ne!(shell.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&shell.stderr).contains("shell request failed"), "{shell:?}");
    let sftp = agent.ssh(&["-s"]).arg("sftp").output().unwrap();
    assert_ne!(sftp.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&sftp.stderr).contains("subsystem request failed"), "{sftp:?}");
    let log = agent.log();
    assert!(log.contains("refused a login shell") && log.contains("refused a subsystem"), "{log}");
}

#[test]
fn forwarding_is_refused_in_both_directions() {
    let agent = Agent::start();
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let target_port = target.local_addr().unwrap().port();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let local_port = free.local_addr().unwrap().port();
    drop(free);

    let forward = format!("127.0.0.1:{local_port}:127.0.0.1:{target_port}");
    let mut ssh =
        agent.ssh(&["-L", &forward]).arg("sleep 60").stderr(Stdio::piped()).spawn().unwrap();
    let mut stream = None;
    eventually("ssh listens", || {
        stream = TcpStream::connect(("127.0.0.1", local_port)).ok();
        stream.is_some()
    });
    let mut stream = stream.unwrap();
    let _ = stream.write_all(b"hello");
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    // Closed without an answer: either way there is nothing.
    assert!(matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_)));
    target.set_nonblocking(true).unwrap();
    assert!(target.accept().is_err(), "the agent connected to the target");
    ssh.kill().unwrap();
    ssh.wait().unwrap();

    let backward = format!("127.0.0.1:0:127.0.0.1:{target_port}");
    let output = agent
        .ssh(&["-R", &backward, "-o", "ExitOnForwardFailure=yes"])
        .arg("true")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(255), "{output:?}");
}

#[test]
fn the_seventeenth_connection_is_closed_at_once() {
    let agent = Agent::start();
    // The probe of `start` may still be counted.
    thread::sleep(Duration::from_millis(200));
    let address = agent.ssh(&[]).get_args().last().unwrap().to_owned().into_string().unwrap();
    let connect = || {
        let mut stream = TcpStream::connect((address.as_str(), 2222)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut greeting = [0; 4];
        (stream.read_exact(&mut greeting).is_ok() && &greeting == b"SSH-").then_some(stream)
    };
    let open: Vec<_> = (0..16).map(|_| connect().expect("a free place")).collect();
    assert!(connect().is_none());
    drop(open);
    eventually("the places are free again", || connect().is_some());
}

#[test]
fn who_does_not_log_in_is_sent_away_after_20_seconds() {
    let agent = Agent::start();
    let address = agent.ssh(&[]).get_args().last().unwrap().to_owned().into_string().unwrap();
    let mut stream = TcpStream::connect((address.as_str(), 2222)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
    let start = Instant::now();
    let mut greeting = Vec::new();
    // Ends with the connection, not by the timeout, which would be an error.
    stream.read_to_end(&mut greeting).unwrap();
    assert!(greeting.starts_with(b"SSH-2.0-pointsman-agent_"));
    assert!((18..30).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    assert!(agent.log().contains("did not log in within 20 s"), "{}", agent.log());
}

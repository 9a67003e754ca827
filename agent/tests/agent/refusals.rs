//! What the agent does not do, and says so at once.

use std::fs;
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

#[test]
fn a_tunnel_without_a_script_is_refused_as_well() {
    let agent = Agent::start();
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = target.local_addr().unwrap().port();
    let backward = format!("127.0.0.1:0:127.0.0.1:{port}");
    let output =
        agent.ssh(&["-N", "-R", &backward, "-o", "ExitOnForwardFailure=yes"]).output().unwrap();
    assert_eq!(output.status.code(), Some(255), "{output:?}");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("remote port forwarding failed"), "{told}");

    let to = format!("127.0.0.1:{port}");
    let output = agent.ssh(&["-W", &to]).output().unwrap();
    assert_eq!(output.status.code(), Some(255), "{output:?}");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("open failed"), "{told}");

    let socket = agent.path("socket");
    let streamlocal = format!("{}:{}", agent.path("remote").display(), socket.display());
    let output =
        agent.ssh(&["-N", "-R", &streamlocal, "-o", "ExitOnForwardFailure=yes"]).output().unwrap();
    assert_eq!(output.status.code(), Some(255), "{output:?}");
    assert!(!agent.path("remote").exists());

    target.set_nonblocking(true).unwrap();
    assert!(target.accept().is_err(), "the agent connected to the target");
    assert!(agent.run("true").status.success());
}

#[test]
fn a_local_tunnel_without_a_script_leads_nowhere() {
    let agent = Agent::start();
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    for forward in [
        "-L".to_owned()
            + &format!("127.0.0.1:{port}:127.0.0.1:{}", target.local_addr().unwrap().port()),
        format!("-D127.0.0.1:{port}"),
    ] {
        let mut ssh = agent.ssh(&["-N", &forward]).stderr(Stdio::null()).spawn().unwrap();
        let mut stream = None;
        eventually("ssh listens", || {
            stream = TcpStream::connect(("127.0.0.1", port)).ok();
            stream.is_some()
        });
        let mut stream = stream.unwrap();
        // SOCKS5 to the agent itself; to `-L` they are bytes like any others.
        let _ = stream.write_all(b"\x05\x01\x00\x05\x01\x00\x01\x7f\0\0\x01\x08\xae");
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        // At most what ssh itself says: SOCKS' greeting, and no "succeeded" behind it.
        assert!(!answer.windows(4).any(|four| four == b"SSH-"), "{answer:?}");
        ssh.kill().unwrap();
        ssh.wait().unwrap();
    }
    target.set_nonblocking(true).unwrap();
    assert!(target.accept().is_err(), "the agent connected to the target");
}

#[test]
fn key_agents_and_displays_are_not_forwarded_and_scripts_run_all_the_same() {
    let agent = Agent::start();
    let keys = agent.path("keys");
    let mut key_agent = std::process::Command::new("ssh-agent")
        .args(["-D", "-a"])
        .arg(&keys)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    eventually("ssh-agent listens", || keys.exists());
    let output = agent
        .ssh(&["-A", "-Y", "-o", "SendEnv=LC_POINTSMAN"])
        .env("SSH_AUTH_SOCK", &keys)
        .env("DISPLAY", "127.0.0.1:77")
        .env("LC_POINTSMAN", "sent")
        .arg("echo \"${SSH_AUTH_SOCK-none} ${DISPLAY-none} ${LC_POINTSMAN-none}\"; exit 8")
        .output()
        .unwrap();
    key_agent.kill().unwrap();
    key_agent.wait().unwrap();
    assert_eq!(output.status.code(), Some(8), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "none none none\n");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("X11 forwarding request failed"), "{told}");
    assert!(agent.log().contains("refused X11 forwarding"), "{}", agent.log());
}

#[test]
fn sftp_and_scp_are_refused_in_words() {
    let agent = Agent::start();
    fs::write(agent.path("file"), "content").unwrap();
    let ssh = agent.ssh(&[]);
    let mut options: Vec<_> = ssh.get_args().map(ToOwned::to_owned).collect();
    let host = options.pop().unwrap().into_string().unwrap();
    // The two programs spell the port in their own way, and the user only before the host.
    let port = options.iter().position(|option| option == "-p").unwrap();
    options[port] = "-P".into();
    let user = options.iter().position(|option| option == "-l").unwrap();
    options.drain(user..user + 2);
    let batch = agent.path("batch");
    fs::write(
        &batch,
        format!("get {} {}\n", agent.path("file").display(), agent.path("copy").display()),
    )
    .unwrap();
    let sftp = std::process::Command::new("sftp")
        .arg("-b")
        .arg(&batch)
        .args(&options)
        .arg(format!("anybody@{host}"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(sftp.status.code(), Some(255), "{sftp:?}");
    let told = String::from_utf8_lossy(&sftp.stderr);
    assert!(told.contains("subsystem request failed"), "{told}");
    let scp = std::process::Command::new("scp")
        .args(&options)
        .arg(format!("anybody@{host}:{}", agent.path("file").display()))
        .arg(agent.path("copy"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_ne!(scp.status.code(), Some(0), "{scp:?}");
    assert!(!agent.path("copy").exists());
    let refusals = agent.log().matches("refused a subsystem").count();
    assert_eq!(refusals, 2, "{}", agent.log());
    assert!(agent.run("true").status.success());
}

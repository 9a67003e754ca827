//! Running scripts on both servers.

use std::fs;
use std::future::pending;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use pointsman::settings::SshTimes;
use pointsman::ssh::{Exit, RunError, Session, connect};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};

use crate::servers::{Kind, Server, TIMES, block_on, on_both_servers};

on_both_servers!(
    statuses_are_passed_on,
    death_by_a_signal_is_told_as_such,
    a_script_of_three_mebibytes_runs,
    large_output_of_arbitrary_bytes_arrives_whole_and_apart,
    input_and_output_can_be_large_at_the_same_time,
    output_without_a_final_newline_arrives,
    stopping_ends_the_whole_process_group,
    stopping_ends_what_ignores_sigterm,
    a_slow_reader_holds_the_script_back_and_loses_nothing,
    stopping_works_although_nobody_reads,
    a_broken_job_log_does_not_fail_the_script,
    a_daemon_left_behind_does_not_hang_the_job,
    a_killed_server_is_a_lost_connection,
    a_script_that_cannot_be_read_is_an_error,
    a_session_runs_several_scripts,
);

struct Ran {
    exit: Result<Exit, RunError>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

async fn run(session: &mut Session, command: &str, script: &[u8]) -> Ran {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let exit =
        session.run(command, script, &mut stdout, &mut stderr, pending(), TIMES.stop_grace).await;
    Ran { exit, stdout, stderr }
}

async fn statuses_are_passed_on(kind: Kind) {
    let server = Server::start(kind);
    let mut session = server.session().await;
    for status in [0, 1, 42, 255] {
        let ran = run(&mut session, "bash", format!("exit {status}\n").as_bytes()).await;
        assert_eq!(ran.exit.unwrap(), Exit::Status(status));
    }
}

async fn death_by_a_signal_is_told_as_such(kind: Kind) {
    let server = Server::start(kind);
    let mut session = server.session().await;
    let ran = run(&mut session, "exec bash", b"kill -KILL $$\n").await;
    assert_eq!(ran.exit.unwrap(), Exit::Signal("KILL".into()));
}

async fn a_script_of_three_mebibytes_runs(kind: Kind) {
    let server = Server::start(kind);
    let mut session = server.session().await;
    let script = format!("echo first\n# {}\necho last\nexit 3\n", "x".repeat(3 << 20));
    let ran = run(&mut session, "bash", script.as_bytes()).await;
    assert_eq!(ran.exit.unwrap(), Exit::Status(3));
    assert_eq!(ran.stdout, b"first\nlast\n");
}

async fn large_output_of_arbitrary_bytes_arrives_whole_and_apart(kind: Kind) {
    let server = Server::start(kind);
    let bytes: Vec<u8> =
        (0..1_u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 23) as u8).collect();
    let file = server.place.path("bytes");
    fs::write(&file, &bytes).unwrap();
    let script = format!("for i in $(seq 64); do cat {}; echo line $i >&2; done", file.display());

    let mut expected = Sha256::new();
    (0..64).for_each(|_| expected.update(&bytes));
    let mut session = server.session().await;
    let ran = run(&mut session, "bash", script.as_bytes()).await;
    assert_eq!(ran.exit.unwrap(), Exit::Status(0));
    assert_eq!(ran.stdout.len(), 64 << 20);
    assert_eq!(Sha256::digest(&ran.stdout), expected.finalize());
    let lines: String = (1..=64).map(|i| format!("line {i}\n")).collect();
    assert_eq!(String::from_utf8(ran.stderr).unwrap(), lines);
}

async fn input_and_output_can_be_large_at_the_same_time(kind: Kind) {
    let server = Server::start(kind);
    let mut session = server.session().await;
    let input: Vec<u8> =
        (0..40_u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let ran = run(&mut session, "cat", &input).await;
    assert_eq!(ran.exit.unwrap(), Exit::Status(0));
    assert!(ran.stdout == input);
}

async fn output_without_a_final_newline_arrives(kind: Kind) {
    let server = Server::start(kind);
    let mut session = server.session().await;
    let ran = run(&mut session, "sh", b"printf out; printf err >&2").await;
    assert_eq!((ran.stdout.as_slice(), ran.stderr.as_slice()), (&b"out"[..], &b"err"[..]));
}

fn lives(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').unwrap().1.trim_start().starts_with('Z'))
}

/// The pids that a script has written to `file`, one a line, once there are `n`.
async fn pids(file: &Path, n: usize) -> Vec<String> {
    loop {
        let text = fs::read_to_string(file).unwrap_or_default();
        if text.ends_with('\n') && text.lines().count() == n {
            return text.lines().map(str::to_owned).collect();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn eventually_dead(pids: &[String]) {
    let start = Instant::now();
    while pids.iter().any(|pid| lives(pid)) {
        assert!(start.elapsed() < Duration::from_secs(15), "{pids:?} live on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn stopping_ends_the_whole_process_group(kind: Kind) {
    let server = Server::start(kind);
    let mut session = server.session().await;
    let file = server.place.path("pids");
    let script = format!(
        "echo $$ >> {0}\nsleep 300 & echo $! >> {0}\nbash -c 'echo $$ >> {0}; sleep 301; true'\n",
        file.display()
    );
    let mut found = Vec::new();
    let stop = async { found = pids(&file, 3).await };
    let start = Instant::now();
    let (stdout, stderr) = (tokio::io::sink(), tokio::io::sink());
    let exit =
        session.run("bash", script.as_bytes(), stdout, stderr, stop, Duration::from_secs(10)).await;
    assert_eq!(exit.unwrap(), Exit::Stopped);
    assert!(start.elapsed() < Duration::from_secs(9), "SIGTERM was enough");
    eventually_dead(&found).await;
}

async fn stopping_ends_what_ignores_sigterm(kind: Kind) {
    let server = Server::start(kind);
    let mut session = server.session().await;
    let file = server.place.path("pids");
    let script = format!(
        "trap '' TERM\necho $$ >> {0}\nsleep 300 & echo $! >> {0}\nwait\nsleep 301\n",
        file.display()
    );
    let mut found = Vec::new();
    let stop = async { found = pids(&file, 2).await };
    let (stdout, stderr) = (tokio::io::sink(), tokio::io::sink());
    let exit = session
        .run("bash", script.as_bytes(), stdout, stderr, stop, Duration::from_millis(500))
        .await;
    assert_eq!(exit.unwrap(), Exit::Stopped);
    eventually_dead(&found).await;
}

/// Takes nothing until it is time.
struct Blocked<W> {
    until: Pin<Box<tokio::time::Sleep>>,
    then: W,
}

fn blocked<W>(time: Duration, then: W) -> Blocked<W> {
    Blocked { until: Box::pin(tokio::time::sleep(time)), then }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Blocked<W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !self.until.is_elapsed() && self.until.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        Pin::new(&mut self.then).poll_write(context, data)
    }
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.then).poll_flush(context)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.then).poll_shutdown(context)
    }
}

async fn a_slow_reader_holds_the_script_back_and_loses_nothing(kind: Kind) {
    let server = Server::start(kind);
    drop(server.session().await);
    // The reader sleeps for far longer than a connection may be silent.
    let times = SshTimes { keepalive: Duration::from_millis(200), ..TIMES };
    let mut session = connect(&server.place.target(), &times).await.unwrap();
    let file = server.place.path("done");
    let script = format!("head -c 30000000 /dev/zero\ntouch {}\n", file.display());
    let mut stdout = Vec::new();
    let reader = blocked(Duration::from_secs(3), &mut stdout);
    let watch = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        file.exists()
    };
    let running = session.run(
        "bash",
        script.as_bytes(),
        reader,
        tokio::io::sink(),
        pending(),
        TIMES.stop_grace,
    );
    let (exit, done_early) = tokio::join!(running, watch);
    assert!(!done_early, "30 MB were taken although nobody reads them");
    assert_eq!(exit.unwrap(), Exit::Status(0));
    assert_eq!(stdout.len(), 30_000_000);
}

async fn stopping_works_although_nobody_reads(kind: Kind) {
    let server = Server::start(kind);
    let mut session = server.session().await;
    let file = server.place.path("pids");
    let script = format!("echo $$ >> {}\nexec cat /dev/zero\n", file.display());
    let reader = blocked(Duration::from_secs(600), tokio::io::sink());
    let mut found = Vec::new();
    let stop = async {
        found = pids(&file, 1).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    let start = Instant::now();
    let exit = session
        .run("bash", script.as_bytes(), reader, tokio::io::sink(), stop, Duration::from_secs(20))
        .await;
    assert_eq!(exit.unwrap(), Exit::Stopped);
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    eventually_dead(&found).await;
}

async fn a_broken_job_log_does_not_fail_the_script(kind: Kind) {
    let server = Server::start(kind);
    let mut session = server.session().await;
    let (near, far) = tokio::io::duplex(64);
    drop(far);
    let mut stderr = Vec::new();
    let script: &[u8] = b"head -c 5000000 /dev/zero; echo here >&2; exit 9\n";
    let exit = session.run("bash", script, near, &mut stderr, pending(), TIMES.stop_grace).await;
    assert_eq!(exit.unwrap(), Exit::Status(9));
    assert_eq!(stderr, b"here\n");
}

async fn a_daemon_left_behind_does_not_hang_the_job(kind: Kind) {
    let server = Server::start(kind);
    let mut session = server.session().await;
    let ran = run(&mut session, "bash", b"sleep 60 & echo started; exit 4\n").await;
    assert_eq!(ran.exit.unwrap(), Exit::Status(4));
    assert_eq!(ran.stdout, b"started\n");
}

async fn a_killed_server_is_a_lost_connection(kind: Kind) {
    let mut server = Server::start(kind);
    let mut session = server.session().await;
    let file = server.place.path("pids");
    // OpenSSH serves each connection in a process of its own, the parent of the script.
    let script = format!("echo before; echo $PPID >> {0}; sleep 60", file.display());
    let mut stdout = Vec::new();
    let running = session.run(
        "exec bash",
        script.as_bytes(),
        &mut stdout,
        tokio::io::sink(),
        pending(),
        TIMES.stop_grace,
    );
    let killing = async {
        let found = pids(&file, 1).await;
        server.kill();
        let _ = std::process::Command::new("kill").arg("-KILL").args(&found).output();
    };
    let (exit, ()) = tokio::join!(running, killing);
    assert!(matches!(exit, Err(RunError::ConnectionLost)), "{exit:?}");
    assert_eq!(stdout, b"before\n");
}

struct Unreadable;

impl AsyncRead for Unreadable {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::Error::other("no disk")))
    }
}

async fn a_script_that_cannot_be_read_is_an_error(kind: Kind) {
    let server = Server::start(kind);
    let mut session = server.session().await;
    let (stdout, stderr) = (tokio::io::sink(), tokio::io::sink());
    let exit = session.run("cat", Unreadable, stdout, stderr, pending(), TIMES.stop_grace).await;
    assert!(matches!(exit, Err(RunError::Script(_))), "{exit:?}");
}

async fn a_session_runs_several_scripts(kind: Kind) {
    let server = Server::start(kind);
    let mut session = server.session().await;
    for i in 0..20 {
        let ran = run(&mut session, "bash", format!("echo {i}\n").as_bytes()).await;
        assert_eq!(ran.stdout, format!("{i}\n").into_bytes());
    }
    session.close().await;
}

#[test]
fn a_server_that_falls_silent_is_lost() {
    block_on(async {
        let server = Server::start(Kind::Agent);
        drop(server.session().await);
        // A wire that can be held: what falls silent is the network, not a process.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut target = server.place.target();
        let behind = std::mem::replace(&mut target.address, listener.local_addr().unwrap());
        let (hold, held) = tokio::sync::oneshot::channel::<()>();
        tokio::spawn(async move {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut far = tokio::net::TcpStream::connect(behind).await.unwrap();
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                _ = held => pending::<()>().await,
            }
            near.shutdown().await.unwrap();
        });
        let times = SshTimes { keepalive: Duration::from_millis(200), ..TIMES };
        let mut session = connect(&target, &times).await.unwrap();
        // Silent for ten keepalives, all answered.
        let ran = run(&mut session, "sleep 2", b"").await;
        assert_eq!(ran.exit.unwrap(), Exit::Status(0));
        hold.send(()).unwrap();
        let start = Instant::now();
        let ran = run(&mut session, "sleep 60", b"").await;
        assert!(matches!(ran.exit, Err(RunError::ConnectionLost)), "{:?}", ran.exit);
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    });
}

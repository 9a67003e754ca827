//! `make bench`: whole processes of the driver, measured beside what they are compared to in the same run.
//!
//! Prints a table for people, and at the end one tab-separated line a number for programs:
//! `bench`, name, measured, bound, `ok` or `short`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a measurement that cannot go on shall panic"
)]
#![expect(clippy::print_stdout, reason = "this is its output")]

#[path = "../tests/driver/support/mod.rs"]
#[expect(dead_code, reason = "the tests use all of it")]
mod support;

mod measure;

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use measure::{Row, peak_memory, print, sample};
use russh::keys::PrivateKey;
use russh::keys::ssh_key::{LineEnding, private::Ed25519Keypair};
use support::attempt::Attempt;
use support::house::DRIVER;
use support::{House, Job};

const ROUNDS: usize = 40;

fn main() {
    // `peak_memory` starts this executable again.
    if measure::is_measuring() {
        return measure::measure();
    }
    let mut rows = Vec::new();
    config(&mut rows);
    run(&mut rows);
    prepare(&mut rows);
    memory(&mut rows);
    print(&rows);
}

/// The decision of a job, process start to exit, beside a process of ours that does nothing.
fn config(rows: &mut Vec<Row>) {
    let house = House::new();
    let mut nothing = Command::new(DRIVER);
    nothing.arg("--version").stdout(Stdio::null());
    let mut attempts: Vec<Attempt<'_>> =
        (0..=ROUNDS).map(|_| house.attempt("agent", &Job::default())).collect();
    let mut attempts = attempts.iter_mut();
    let mut decide = || {
        let began = Instant::now();
        let output = attempts.next().unwrap().config().succeeds();
        assert!(!output.stdout.is_empty());
        began.elapsed()
    };
    decide();
    let mut nothings = Vec::new();
    let mut decisions = Vec::new();
    for _ in 0..ROUNDS {
        nothings.push(sample(&mut nothing));
        decisions.push(decide());
    }
    let (nothing, decision) = (measure::median(&mut nothings), measure::median(&mut decisions));
    rows.push(Row::milliseconds("config process with one policy", decision, Some(10.0)));
    rows.push(Row::milliseconds("  process of ours that does nothing", nothing, None));
}

/// An empty script beside `ssh host true`, to the same servers with the same keys.
fn run(rows: &mut Vec<Row>) {
    let house = House::new();
    for (profile, bound) in [("agent", Some(25.0)), ("openssh", None)] {
        let mut attempt = house.prepared(profile);
        let mut ssh = openssh_client(&house, &attempt);
        let script = house.path().join("empty");
        fs::write(&script, "").unwrap();
        let mut driver = attempt.command(&["run", script.to_str().unwrap(), "build_script"]);
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(sample(&mut driver));
            theirs.push(sample(&mut ssh));
        }
        let (ours, theirs) = (measure::median(&mut ours), measure::median(&mut theirs));
        rows.push(Row::milliseconds(&format!("run of an empty script, {profile}"), ours, bound));
        rows.push(Row::milliseconds(&format!("  ssh {profile} true"), theirs, None));
        rows.push(Row::ratio(&format!("  run / ssh, {profile}"), ours, theirs, Some(1.5)));
        let _ = attempt.run(b"true").succeeds();
        let _ = attempt.cleanup().succeeds();
    }
}

/// OpenSSH's client with the attempt's key.
fn openssh_client(house: &House, attempt: &Attempt<'_>) -> Command {
    let id = &attempt.job_env["POINTSMAN_ATTEMPT"];
    let saved = fs::read(house.state().join("attempts").join(format!("{id}.json"))).unwrap();
    let saved: serde_json::Value = serde_json::from_slice(&saved).unwrap();
    let seed = saved["keys"]["client"].as_str().unwrap();
    let seed = base64::Engine::decode(&base64::engine::general_purpose::STANDARD_NO_PAD, seed);
    let key = PrivateKey::from(Ed25519Keypair::from_seed(&seed.unwrap().try_into().unwrap()));
    let path = house.path().join(format!("key-{id}"));
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).unwrap();
    let text = key.to_openssh(LineEnding::LF).unwrap();
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    let address = saved["launch"]["address"].as_str().unwrap();
    let (host, port) = address.rsplit_once(':').unwrap();
    let user = support::house::user();
    let mut ssh = Command::new("ssh");
    ssh.args(["-F", "none", "-T", "-i"])
        .arg(path)
        .args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"])
        .args(["-o", "IdentitiesOnly=yes", "-o", "LogLevel=ERROR", "-p", port])
        .arg(format!("{user}@{host}"))
        .arg("true")
        .stdin(Stdio::null());
    ssh
}

/// From the moment the task's server answers to the end of `prepare`.
fn prepare(rows: &mut Vec<Row>) {
    let mut after = Vec::new();
    let house = House::new();
    for _ in 0..ROUNDS / 4 {
        let mut attempt = house.attempt("agent", &Job::default());
        let _ = attempt.config().succeeds();
        let known = addresses(&house.ledger_file()).len();
        let child = attempt.command(&["prepare"]).spawn().unwrap();
        let answered = first_answer(&house.ledger_file(), known);
        let _ = support::attempt::collect(child).succeeds();
        after.push(answered.elapsed());
        let _ = attempt.cleanup().succeeds();
    }
    let median = measure::median(&mut after);
    rows.push(Row::milliseconds("prepare, from \"sshd answers\" to done", median, Some(150.0)));
}

/// The addresses of the processes that were started, in the ledger's order.
fn addresses(ledger: &Path) -> Vec<String> {
    let ledger = support::ledger::Ledger::read(ledger);
    let started = ledger.events("process-started");
    started.map(|event| event["address"].as_str().unwrap().to_owned()).collect()
}

/// Waits for the ledger's next process to accept a connection.
fn first_answer(ledger: &Path, known: usize) -> Instant {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(address) = addresses(ledger).get(known)
            && std::net::TcpStream::connect(address).is_ok()
        {
            return Instant::now();
        }
        assert!(Instant::now() < deadline, "no server answers");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The peak of each stage's process.
fn memory(rows: &mut Vec<Row>) {
    let house = House::new();
    let mut attempt = house.attempt("agent", &Job::default());
    let mut row = |stage: &str, command: Command| {
        let mebibytes = peak_memory(command);
        rows.push(Row::mebibytes(&format!("peak memory of {stage}"), mebibytes, Some(25.0)));
    };
    row("config", attempt.command(&["config"]));
    let _ = attempt.config().succeeds();
    row("prepare", attempt.command(&["prepare"]));
    let script: PathBuf = house.path().join("output");
    fs::write(&script, "head -c 16777216 /dev/zero").unwrap();
    row("run with 16 MiB of output", attempt.command(&["run", script.to_str().unwrap(), "x"]));
    row("cleanup", attempt.command(&["cleanup"]));
}

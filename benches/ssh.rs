//! The link to a task, beside OpenSSH's client against Debian's `sshd`, in the same run and with the same cipher.
//!
//! Prints what `stages` prints: a table, and a tab-separated line a number.

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
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use measure::{Row, median, peak_memory, print, sample};
use russh::keys::PrivateKey;
use russh::keys::ssh_key::{LineEnding, private::Ed25519Keypair};
use support::attempt::Attempt;
use support::{House, Job};

const ROUNDS: usize = 40;

/// For what takes a second and more.
const FEW_ROUNDS: usize = 5;

/// GitLab Runner calls `run` so often for a job with sources, cache and artifacts.
const STAGES: u32 = 10;

/// Our client's first choice; OpenSSH is told to take the same.
const CIPHER: &str = "aes256-gcm@openssh.com";

fn main() {
    // `peak_memory` starts this executable again.
    if measure::is_measuring() {
        return measure::measure();
    }
    let house = House::new();
    let mut agent = prepared(&house, "agent");
    let mut openssh = prepared(&house, "openssh");
    let mut rows = Vec::new();
    empty_scripts(&house, &agent, &openssh, &mut rows);
    throughput(&house, &agent, &openssh, &mut rows);
    for attempt in [&mut agent, &mut openssh] {
        let _ = attempt.run(b"true").succeeds();
        let _ = attempt.cleanup().succeeds();
    }
    print(&rows);
}

/// An attempt whose task is ready.
fn prepared<'h>(house: &'h House, profile: &str) -> Attempt<'h> {
    let mut attempt = house.attempt(profile, &Job::default());
    let _ = attempt.config().succeeds();
    let _ = attempt.prepare().succeeds();
    attempt
}

/// `run` of `text`, ready to start.
fn run(house: &House, attempt: &Attempt<'_>, name: &str, text: &str) -> Command {
    let script: PathBuf = house.path().join(name);
    fs::write(&script, text).unwrap();
    attempt.command(&["run", script.to_str().unwrap(), "build_script"])
}

fn empty_scripts(house: &House, agent: &Attempt<'_>, openssh: &Attempt<'_>, rows: &mut Vec<Row>) {
    let mut on_agent = run(house, agent, "empty", "");
    let mut on_openssh = run(house, openssh, "empty", "");
    let mut ssh = client(house, openssh, "true");
    let (mut a, mut b, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        a.push(sample(&mut on_agent));
        b.push(sample(&mut on_openssh));
        theirs.push(sample(&mut ssh));
    }
    let (a, b, theirs) = (median(&mut a), median(&mut b), median(&mut theirs));
    rows.push(Row::milliseconds("run of an empty script on the agent", a, Some(25.0)));
    rows.push(Row::milliseconds("  ssh sshd true", theirs, None));
    rows.push(Row::ratio("run on the agent / ssh sshd true", a, theirs, Some(0.1)));
    rows.push(Row::milliseconds("  run of an empty script on sshd", b, None));
    rows.push(Row::ratio("run on sshd / ssh sshd true", b, theirs, Some(1.0)));
    let all: Duration = (0..STAGES).map(|_| sample(&mut on_agent)).sum();
    rows.push(Row::milliseconds(
        "SSH overhead of a job of 10 stages on the agent",
        all,
        Some(300.0),
    ));
}

/// 1 GiB of output, from start to exit.
fn throughput(house: &House, agent: &Attempt<'_>, openssh: &Attempt<'_>, rows: &mut Vec<Row>) {
    const SCRIPT: &str = "head -c 1073741824 /dev/zero";
    let mut on_agent = run(house, agent, "output", SCRIPT);
    let mut on_openssh = run(house, openssh, "output", SCRIPT);
    let mut ssh = client(house, openssh, SCRIPT);
    let (mut a, mut b, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..FEW_ROUNDS {
        a.push(sample(&mut on_agent));
        b.push(sample(&mut on_openssh));
        theirs.push(sample(&mut ssh));
    }
    let (a, b, theirs) = (median(&mut a), median(&mut b), median(&mut theirs));
    rows.push(Row::milliseconds("  1 GiB of output from the agent", a, None));
    rows.push(Row::milliseconds("  1 GiB of output from sshd", b, None));
    rows.push(Row::milliseconds("  the same by ssh from sshd", theirs, None));
    rows.push(Row::ratio("time for 1 GiB: run on the agent / ssh", a, theirs, Some(1.0)));
    rows.push(Row::ratio("time for 1 GiB: run on sshd / ssh", b, theirs, Some(1.0)));

    // Through a pipe, as to GitLab Runner, and not through this process, which would keep it all.
    let mut piped = Command::new("sh");
    piped.args(["-c", r#""$0" "$@" | cat >/dev/null"#]).arg(on_agent.get_program());
    piped.args(on_agent.get_args()).current_dir(on_agent.get_current_dir().unwrap());
    for (key, value) in on_agent.get_envs() {
        if let Some(value) = value {
            piped.env(key, value);
        }
    }
    let peak = peak_memory(piped);
    rows.push(Row::mebibytes("peak memory of run with 1 GiB of output", peak, Some(25.0)));
}

/// OpenSSH's client with the attempt's key, ready to run `command`.
fn client(house: &House, attempt: &Attempt<'_>, command: &str) -> Command {
    let id = &attempt.job_env["POINTSMAN_ATTEMPT"];
    let saved = fs::read(house.state().join("attempts").join(format!("{id}.json"))).unwrap();
    let saved: serde_json::Value = serde_json::from_slice(&saved).unwrap();
    let seed = saved["keys"]["client"].as_str().unwrap();
    let seed = base64::Engine::decode(&base64::engine::general_purpose::STANDARD_NO_PAD, seed);
    let key = PrivateKey::from(Ed25519Keypair::from_seed(&seed.unwrap().try_into().unwrap()));
    let path = house.path().join(format!("key-{id}"));
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .unwrap();
    let text = key.to_openssh(LineEnding::LF).unwrap();
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    let address = saved["launch"]["address"].as_str().unwrap();
    let (host, port) = address.rsplit_once(':').unwrap();
    let mut ssh = Command::new("ssh");
    ssh.args(["-F", "none", "-T", "-c", CIPHER, "-i"])
        .arg(path)
        .args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"])
        .args(["-o", "IdentitiesOnly=yes", "-o", "LogLevel=ERROR", "-p", port])
        .arg(format!("{}@{host}", support::house::user()))
        .arg(command)
        .stdin(Stdio::null());
    ssh
}

//! `make bench`: `prepare` once the task's server answers, and the memory of each stage's process.
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

#[expect(dead_code, reason = "the other benchmarks use all of it")]
mod measure;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use measure::{Row, peak_memory, print};
use support::{House, Job};

const ROUNDS: usize = 10;

fn main() {
    // `peak_memory` starts this executable again.
    if measure::is_measuring() {
        return measure::measure();
    }
    let mut rows = Vec::new();
    prepare(&mut rows);
    memory(&mut rows);
    print(&rows);
}

/// From the moment the task's server answers to the end of `prepare`.
fn prepare(rows: &mut Vec<Row>) {
    let mut after = Vec::new();
    let house = House::new();
    for _ in 0..ROUNDS {
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

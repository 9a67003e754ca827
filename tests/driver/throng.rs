//! Many jobs at once: one process asks for all, another takes over when it is killed, and refusals pass.

use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::support::attempt::{Attempt, collect, signal};
use crate::support::{House, Job};

const JOBS: usize = 24;

/// How often `operation` reached the simulator.
fn calls(house: &House, operation: &str) -> usize {
    let text = std::fs::read_to_string(house.path().join("simulator/requests.jsonl")).unwrap();
    let start = format!("{{\"operation\":\"{operation}\"");
    text.lines().filter(|line| line.starts_with(&start)).count()
}

fn decided(house: &House) -> Vec<Attempt<'_>> {
    let mut attempts: Vec<Attempt<'_>> =
        (0..JOBS).map(|_| house.attempt("ranked", &Job::default())).collect();
    for attempt in &mut attempts {
        let _ = attempt.config().succeeds();
    }
    attempts
}

#[test]
fn looks_are_shared_and_survive_the_one_who_looks() {
    let house =
        House::altered(&json!({ "delays_ms": { "provisioning": 6000 } }), |settings| settings);
    let attempts = decided(&house);
    let mut children: Vec<Child> =
        attempts.iter().map(|attempt| attempt.command(&["prepare"]).spawn().unwrap()).collect();
    let deadline = Instant::now() + Duration::from_secs(30);
    while house.ledger().started().len() < JOBS {
        assert!(Instant::now() < deadline, "{} tasks", house.ledger().started().len());
        std::thread::sleep(Duration::from_millis(20));
    }
    // Whoever has asked most lately is killed: the holder of the lock.
    let poller = holder(&house).expect("somebody polls");
    let index = children.iter().position(|child| child.id() == poller).unwrap();
    signal(&children[index], Signal::KILL);
    let mut killed = children.remove(index);
    let _ = killed.wait();
    for child in children {
        let _ = collect(child).succeeds();
    }
    // One job alone has some twenty looks in this time.
    let looks = calls(&house, "DescribeTasks");
    assert!(looks <= 90, "{looks} looks for {JOBS} jobs");
    assert_eq!(calls(&house, "RunTask"), JOBS);
    for attempt in &attempts {
        let _ = attempt.cleanup().succeeds();
    }
    house.settled(JOBS).assert_nothing_twice();
    let watch = house.state().join("watch");
    for cluster in std::fs::read_dir(watch).unwrap().flatten() {
        let left: Vec<_> = std::fs::read_dir(cluster.path())
            .unwrap()
            .flatten()
            .filter(|entry| entry.file_name() != "poller.lock")
            .collect();
        assert!(left.len() <= 1, "what only a later poller removes: {left:?}");
    }
}

/// The process that holds the poller's lock, as the kernel tells it.
fn holder(house: &House) -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    let cluster = std::fs::read_dir(house.state().join("watch")).unwrap().flatten().next()?;
    let inode = std::fs::metadata(cluster.path().join("poller.lock")).ok()?.ino();
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let is_it = fields.get(1) == Some(&"FLOCK")
            && fields.get(5)?.rsplit(':').next()?.parse() == Ok(inode);
        is_it.then(|| fields.get(4)?.parse().ok()).flatten()
    })
}

#[test]
fn refusals_slow_all_down_and_nobody_fails() {
    let refusal = |operation: &str, times: u32| {
        json!({ "match": {}, "times": times, "fault": { "kind": "api-error", "operation": operation,
            "status": 400, "code": "ThrottlingException", "message": "Rate exceeded" } })
    };
    let house = House::with_faults(&json!([
        refusal("RunTask", 12),
        refusal("DescribeTasks", 3),
        refusal("StopTask", 6)
    ]));
    let attempts = decided(&house);
    let children: Vec<Child> =
        attempts.iter().map(|attempt| attempt.command(&["prepare"]).spawn().unwrap()).collect();
    for child in children {
        let _ = collect(child).succeeds();
    }
    let children: Vec<Child> =
        attempts.iter().map(|attempt| attempt.command(&["cleanup"]).spawn().unwrap()).collect();
    for child in children {
        let _ = collect(child).succeeds();
    }
    house.settled(JOBS).assert_nothing_twice();
    assert_eq!(std::fs::read_dir(house.state().join("budget")).unwrap().count(), 1);
}

#[test]
fn a_poller_that_stands_still_is_passed_over() {
    let delays = json!({ "delays_ms": { "provisioning": 4000 } });
    let house = House::altered(&delays, |settings| settings);
    let mut attempts: Vec<Attempt<'_>> =
        (0..3).map(|_| house.attempt("ranked", &Job::default())).collect();
    for attempt in &mut attempts {
        let _ = attempt.config().succeeds();
    }
    let mut children: Vec<Child> =
        attempts.iter().map(|attempt| attempt.command(&["prepare"]).spawn().unwrap()).collect();
    let deadline = Instant::now() + Duration::from_secs(30);
    while house.ledger().started().len() < attempts.len() || holder(&house).is_none() {
        assert!(Instant::now() < deadline, "{} tasks", house.ledger().started().len());
        std::thread::sleep(Duration::from_millis(20));
    }
    let poller = holder(&house).unwrap();
    let index = children.iter().position(|child| child.id() == poller).unwrap();
    let stopped = children.remove(index);
    signal(&stopped, Signal::STOP);
    // It holds the lock, and says nothing: after 30 s the others ask for themselves.
    for child in children {
        let _ = collect(child).succeeds();
    }
    signal(&stopped, Signal::CONT);
    let _ = collect(stopped).succeeds();
    for attempt in &attempts {
        let _ = attempt.cleanup().succeeds();
    }
    house.settled(attempts.len()).assert_nothing_twice();
}

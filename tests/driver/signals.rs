//! SIGTERM in every stage: the remote work is stopped, and the exit code is never 0.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::support::attempt::{collect, signal};
use crate::support::{House, Job};

#[test]
fn in_config_it_is_a_system_failure() {
    let house = House::new();
    let attempt = house.attempt("agent", &Job::default());
    // A fifo instead of the response file keeps the stage waiting for a writer.
    std::fs::remove_file(attempt.response_file()).unwrap();
    let made = std::process::Command::new("mkfifo").arg(attempt.response_file()).status().unwrap();
    assert!(made.success());
    let child = attempt.command(&["config"]).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    signal(&child, Signal::TERM);
    let output = collect(child).fails_the_system();
    assert!(output.stdout.is_empty());
    house.settled(0);
}

#[test]
fn in_prepare_the_task_is_stopped() {
    let house =
        House::with_faults(&json!([{ "match": {}, "fault": { "kind": "agent-does-not-start" } }]));
    let mut attempt = house.attempt("agent", &Job::default());
    let _ = attempt.config().succeeds();
    let child = attempt.command(&["prepare"]).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    signal(&child, Signal::TERM);
    let _ = collect(child).fails_the_system().says("stopped by SIGTERM").says("was told to stop");
    // Before `cleanup`: the runner may never call it.
    let ledger = crate::support::ledger::settle(&house.ledger_file());
    assert_eq!(ledger.started().len(), 1);
    let _ = attempt.cleanup().succeeds();
    house.settled(1);
}

#[test]
fn in_run_the_whole_remote_group_is_stopped() {
    for profile in ["agent", "openssh"] {
        let house = House::new();
        let mut attempt = house.prepared(profile);
        let mark = house.path().join("alive");
        // As GitLab's scripts: the shell's own trap waits for the command in the foreground.
        let script = format!(
            "trap 'exit 1' TERM\n(while :; do date +%s%N >{0}; sleep 0.05; done) &\nsleep 600\n",
            mark.display()
        );
        let child = attempt.start_run("build_script", script.as_bytes());
        let deadline = Instant::now() + Duration::from_secs(10);
        while !mark.exists() {
            assert!(Instant::now() < deadline, "{profile}: the script does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        let began = Instant::now();
        signal(&child, Signal::TERM);
        let _ = collect(child).fails_the_system().says("build_script was stopped by SIGTERM");
        assert!(began.elapsed() < Duration::from_secs(8), "{profile}");
        let last = std::fs::read(&mark).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(std::fs::read(&mark).unwrap(), last, "{profile}: a child goes on");
        // The job goes on to after_script on the same task.
        let _ = attempt.run_as("after_script", b"echo after").succeeds();
        let _ = attempt.cleanup().succeeds();
        house.settled(1);
    }
}

#[test]
fn a_script_that_ignores_it_is_killed_after_the_grace() {
    for profile in ["agent", "openssh"] {
        let house = House::new();
        let mut attempt = house.prepared(profile);
        let child = attempt
            .start_run("build_script", b"trap '' TERM\necho up\nwhile :; do sleep 1; done\n");
        std::thread::sleep(Duration::from_secs(1));
        let began = Instant::now();
        signal(&child, Signal::TERM);
        let _ = collect(child).fails_the_system();
        assert!(began.elapsed() >= Duration::from_secs(2), "{profile}: `stop_grace` is 2 s");
        assert!(began.elapsed() < Duration::from_secs(12), "{profile}");
        let _ = attempt.cleanup().succeeds();
        house.settled(1);
    }
}

#[test]
fn in_cleanup_it_is_a_system_failure_and_the_next_one_succeeds() {
    let house = House::new();
    let attempt = house.prepared("agent");
    let child = attempt.command(&["cleanup"]).spawn().unwrap();
    // At whatever moment it arrives, either the stage had ended or it reports a system failure.
    signal(&child, Signal::TERM);
    let output = collect(child);
    let code = output.status.code();
    assert!(code == Some(2) || code == Some(0) || code.is_none(), "{output}");
    let _ = attempt.cleanup().succeeds();
    house.settled(1);
}

//! `kill -9` at every step of `prepare` and `cleanup`, one after the other: nothing leaks and nothing is
//! started twice. The steps are the checkpoints of debug builds (`environment::checkpoint`), and the walk ends
//! at the first number that the stage does not reach.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::support::attempt::{Attempt, collect};
use crate::support::output::StageOutput;
use crate::support::{House, Job};

/// Far beyond what a stage has.
const MOST_STEPS: u32 = 80;

fn killed_at(attempt: &Attempt<'_>, stage: &str, step: u32) -> StageOutput {
    let mut command = attempt.command(&[stage]);
    command.env("POINTSMAN_ABORT_AT", step.to_string());
    collect(command.spawn().unwrap())
}

fn is_killed(output: &StageOutput) -> bool {
    output.status.signal() == Some(9)
}

/// Failures on the way to the third placement, so that the walk passes all that `prepare` can do.
fn obstacles() -> Value {
    let slow = "Timeout waiting for network interface provisioning to complete.";
    json!([
        { "match": { "capacity_provider": "FARGATE_SPOT" }, "fault": { "kind": "no-capacity" } },
        { "match": { "family": "agent-task-arm64" }, "times": 1,
          "fault": { "kind": "stop", "code": "TaskFailedToStart", "phase": "PENDING", "reason": slow } },
        { "match": { "family": "agent-task-arm64" },
          "fault": { "kind": "stop", "code": "SpotInterruption", "phase": "PENDING",
            "reason": "Your Spot Task was interrupted." } },
    ])
}

#[test]
fn prepare_killed_at_every_step_leaves_nothing_after_cleanup() {
    let mut steps = 0;
    for step in 1..MOST_STEPS {
        let house = House::with_faults(&obstacles());
        let mut attempt = house.attempt("ranked", &Job::default());
        let _ = attempt.config().succeeds();
        let output = killed_at(&attempt, "prepare", step);
        let was_killed = is_killed(&output);
        if !was_killed {
            let _ = output.succeeds();
        }
        let _ = attempt.cleanup().succeeds();
        let ledger = crate::support::ledger::settle(&house.ledger_file());
        ledger.assert_nothing_twice();
        assert!(ledger.started().len() <= 3, "step {step}: {:?}", ledger.started());
        if !was_killed {
            break;
        }
        steps = step;
    }
    assert!((20..MOST_STEPS - 1).contains(&steps), "{steps} steps");
}

/// As if the runner's machine had lost its disk: nobody knows of the attempt any more.
fn forget(house: &House, attempt: &Attempt<'_>) {
    let id = &attempt.job_env["POINTSMAN_ATTEMPT"];
    std::fs::remove_file(house.state().join("attempts").join(format!("{id}.json"))).unwrap();
}

#[test]
fn prepare_killed_at_every_step_leaves_nothing_after_a_sweep_either() {
    for step in 1..MOST_STEPS {
        let house = House::with_faults(&obstacles());
        let mut attempt = house.attempt("ranked", &Job::default());
        let _ = attempt.config().succeeds();
        let was_killed = is_killed(&killed_at(&attempt, "prepare", step));
        forget(&house, &attempt);
        // Killed itself, before and after it stops something.
        for sweep_step in 1..4 {
            let mut command = house.operation(&["sweep", "--grace", "0s"]);
            let _ = command.env("POINTSMAN_ABORT_AT", sweep_step.to_string()).output().unwrap();
        }
        let _ = house.operator(&["sweep", "--grace", "0s"]).succeeds();
        let ledger = crate::support::ledger::settle(&house.ledger_file());
        ledger.assert_nothing_twice();
        if !was_killed {
            return;
        }
    }
    panic!("no end of steps");
}

#[test]
fn prepare_killed_at_every_step_and_called_again_goes_on_where_it_was() {
    for step in 1..MOST_STEPS {
        let house = House::with_faults(&obstacles());
        let mut attempt = house.attempt("ranked", &Job::default());
        let _ = attempt.config().succeeds();
        let was_killed = is_killed(&killed_at(&attempt, "prepare", step));
        let _ = attempt.prepare().succeeds();
        let _ = attempt.run(b"true\n").succeeds();
        let _ = attempt.cleanup().succeeds();
        let ledger = crate::support::ledger::settle(&house.ledger_file());
        ledger.assert_nothing_twice();
        assert_eq!(ledger.started().len(), 3, "step {step}: {:?}", ledger.started());
        if !was_killed {
            return;
        }
    }
    panic!("no end of steps");
}

#[test]
fn cleanup_killed_at_every_step_leaves_nothing_after_another_or_a_sweep() {
    for after in ["cleanup", "sweep"] {
        let mut steps = 0;
        for step in 1..MOST_STEPS {
            let house = House::new();
            let attempt = house.prepared("agent");
            let was_killed = is_killed(&killed_at(&attempt, "cleanup", step));
            if after == "cleanup" {
                let _ = attempt.cleanup().succeeds();
                house.settled(1);
            } else if step > 1 {
                let _ = house.operator(&["sweep", "--grace", "0s"]).succeeds();
                let _ = crate::support::ledger::settle(&house.ledger_file());
            } else {
                // Before its first step a cleanup is none: the attempt lives on, until its deadline.
                let _ = house.operator(&["sweep", "--grace", "0s"]).succeeds().says_nothing();
                let _ = attempt.cleanup().succeeds();
            }
            if !was_killed {
                break;
            }
            steps = step;
        }
        assert!((5..MOST_STEPS - 1).contains(&steps), "{steps} steps");
    }
}

#[test]
fn a_killed_prepare_without_any_cleanup_is_swept_at_its_deadline() {
    let house = House::new();
    let mut attempt = house.attempt("agent", &Job::default());
    let _ = attempt.config().succeeds();
    let mut command = attempt.command(&["prepare"]);
    command.env("POINTSMAN_ABORT_AT", "after-run-task");
    assert!(is_killed(&collect(command.spawn().unwrap())));
    forget(&house, &attempt);
    let _ = house.operator(&["sweep"]).succeeds();
    assert_eq!(house.ledger().running().len(), 1, "it is younger than a minute");
    let _ = house.operator(&["sweep", "--grace", "0s"]).succeeds();
    house.settled(1);
}

#[test]
fn a_repeated_token_with_another_request_adopts_the_task() {
    let house = House::new();
    let mut attempt = house.attempt("agent", &Job::default());
    let _ = attempt.config().succeeds();
    let mut command = attempt.command(&["prepare"]);
    command.env("POINTSMAN_ABORT_AT", "after-run-task");
    assert!(is_killed(&collect(command.spawn().unwrap())));
    // As after an update of the settings: the second request is not the first one's double.
    let settings = std::fs::read_to_string(house.settings_file()).unwrap();
    std::fs::write(
        house.settings_file(),
        settings.replacen("[\"subnet-12345\"]", "[\"subnet-67890\"]", 1),
    )
    .unwrap();
    let _ = attempt.prepare().succeeds();
    let _ = attempt.cleanup().succeeds();
    let ledger = house.settled(1);
    let refused = ledger.events("refused").any(|event| event["code"] == "ConflictException");
    assert!(refused, "the simulator saw a conflict");
}

#[test]
fn a_lost_answer_finds_the_same_task() {
    let house = House::new();
    let proxy = forgetful_proxy(house.endpoint());
    let mut attempt = house.attempt("agent", &Job::default());
    let _ = attempt.config().succeeds();
    let mut command = attempt.command(&["prepare"]);
    command.env("AWS_ENDPOINT_URL_ECS", &proxy);
    let _ = collect(command.spawn().unwrap()).succeeds().says("AWS did not answer");
    let _ = attempt.cleanup().succeeds();
    let ledger = house.settled(1);
    assert_eq!(ledger.events("run-task").count(), 2, "the second time it was repeated");
}

/// Forwards to `endpoint`, and keeps the first answer to RunTask for itself.
fn forgetful_proxy(endpoint: &str) -> String {
    let upstream = endpoint.strip_prefix("http://").unwrap().to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let has_forgotten = Arc::new(AtomicBool::new(false));
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let (upstream, has_forgotten) = (upstream.clone(), Arc::clone(&has_forgotten));
            std::thread::spawn(move || pass_on(client, &upstream, &has_forgotten));
        }
    });
    address
}

fn pass_on(mut client: TcpStream, upstream: &str, has_forgotten: &AtomicBool) {
    let Ok(mut server) = TcpStream::connect(upstream) else { return };
    let (mut from_client, mut to_server) =
        (client.try_clone().unwrap(), server.try_clone().unwrap());
    let is_launch = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&is_launch);
    std::thread::spawn(move || {
        let mut buffer = [0; 65_536];
        while let Ok(length @ 1..) = from_client.read(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if text.contains("AmazonEC2ContainerServiceV20141113.RunTask") {
                seen.store(true, Ordering::SeqCst);
            }
            if to_server.write_all(&buffer[..length]).is_err() {
                return;
            }
        }
    });
    let mut buffer = [0; 65_536];
    while let Ok(length @ 1..) = server.read(&mut buffer) {
        if is_launch.load(Ordering::SeqCst) && !has_forgotten.swap(true, Ordering::SeqCst) {
            let _ = client.shutdown(std::net::Shutdown::Both);
            return;
        }
        if client.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

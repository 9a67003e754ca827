//! The local backend: the agent as a child process on this machine.

use std::time::{Duration, Instant};

use crate::support::{House, Job};

#[test]
fn a_job_runs_in_a_directory_of_its_own_and_nothing_stays() {
    let house = House::new();
    let mut attempt = house.attempt("local", &Job::default());
    let output = attempt.config().succeeds();
    let reply: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let builds = reply["builds_dir"].as_str().unwrap().to_owned();
    let id = attempt.job_env["POINTSMAN_ATTEMPT"].clone();
    assert!(builds.ends_with(&format!("local/{id}/builds")), "{builds}");
    // `collect` waits for the end of both pipes: the agent must hold neither.
    let _ = attempt.prepare().succeeds().says("is ready at 127.");
    let script = format!("cd '{builds}' && echo made >here && cat here && exit 3\n");
    let output = attempt.run(script.as_bytes()).fails_the_build();
    assert_eq!(output.stdout_text(), "made\n");
    assert_eq!(attempt.exit_code(), Some(3));
    // A child in a session of its own dies with the task.
    let mark = house.path().join("alive");
    let script = format!(
        "setsid sh -c 'while :; do date +%s%N >{}; sleep 0.05; done' >/dev/null 2>&1 </dev/null &\n",
        mark.display()
    );
    let _ = attempt.run(script.as_bytes()).succeeds();
    let deadline = Instant::now() + Duration::from_secs(5);
    while !mark.exists() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = attempt.cleanup().succeeds();
    let last = std::fs::read(&mark).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(std::fs::read(&mark).unwrap(), last, "a child goes on");
    assert!(!std::path::Path::new(&builds).exists());
    house.settled(0);
}

#[test]
fn preparing_again_finds_the_first_task() {
    let house = House::new();
    let mut attempt = house.attempt("local", &Job::default());
    let _ = attempt.config().succeeds();
    let _ = attempt.prepare().succeeds();
    let first = attempt.run(b"echo $PPID\n").succeeds().stdout_text();
    let _ = attempt.prepare().succeeds();
    assert_eq!(attempt.run(b"echo $PPID\n").succeeds().stdout_text(), first);
    let _ = attempt.cleanup().succeeds();
    house.settled(0);
}

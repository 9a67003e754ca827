//! The local backend: the agent as a child process on this machine.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use crate::support::attempt::{Attempt, collect};
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

/// What the driver noted of the task.
fn task_file(house: &House, id: &str) -> Option<serde_json::Value> {
    let path = house.state().join("local").join(id).join("task.json");
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// Whether an agent listens at the task's address.
fn answers(task: &serde_json::Value) -> bool {
    let address: std::net::IpAddr = task["address"].as_str().unwrap().parse().unwrap();
    std::net::TcpStream::connect((address, 2222)).is_ok()
}

/// `prepare`, killed at its `step`-th step; whether it got there.
fn killed_at(attempt: &Attempt<'_>, step: u32) -> bool {
    let mut command = attempt.command(&["prepare"]);
    command.env("POINTSMAN_ABORT_AT", step.to_string());
    collect(command.spawn().unwrap()).status.signal() == Some(9)
}

#[test]
fn a_driver_killed_at_every_step_leaks_no_agent() {
    let mut alive = 0;
    for step in 1..80 {
        let house = House::new();
        let mut attempt = house.attempt("local", &Job::default());
        let _ = attempt.config().succeeds();
        let id = attempt.job_env["POINTSMAN_ATTEMPT"].clone();
        let was_killed = killed_at(&attempt, step);
        let task = task_file(&house, &id);
        alive += usize::from(task.as_ref().is_some_and(answers));
        let _ = attempt.cleanup().succeeds();
        assert!(!task.as_ref().is_some_and(answers), "killed at step {step}");
        assert!(!house.state().join("local").join(&id).exists(), "killed at step {step}");
        house.settled(0);
        if !was_killed {
            assert!(alive >= 2, "the walk has passed living agents: {alive}");
            assert!(step >= 10, "{step} steps");
            return;
        }
    }
    panic!("no end of steps");
}

#[test]
fn a_driver_killed_at_every_step_starts_no_second_agent() {
    for step in 1..80 {
        let house = House::new();
        let mut attempt = house.attempt("local", &Job::default());
        let _ = attempt.config().succeeds();
        let id = attempt.job_env["POINTSMAN_ATTEMPT"].clone();
        let was_killed = killed_at(&attempt, step);
        let before = task_file(&house, &id).filter(answers);
        let _ = attempt.prepare().succeeds();
        let task = task_file(&house, &id).unwrap();
        assert!(before.is_none_or(|before| before["process"] == task["process"]), "step {step}");
        let parent = attempt.run(b"echo $PPID\n").succeeds().stdout_text();
        assert_eq!(parent.trim(), task["process"]["pid"].to_string(), "step {step}");
        let _ = attempt.cleanup().succeeds();
        assert!(!answers(&task), "step {step}");
        house.settled(0);
        if !was_killed {
            return;
        }
    }
    panic!("no end of steps");
}

#[test]
fn an_agent_that_does_not_end_by_itself_is_killed_with_all_below_it() {
    let house = House::new();
    let mut attempt = house.prepared("local");
    let mark = house.path().join("alive");
    let script = format!(
        "setsid env -i /bin/sh -c 'trap \"\" TERM; while :; do echo beat >>{}; sleep 0.05; done' >/dev/null 2>&1 </dev/null &\nkill -STOP $PPID\n",
        mark.display()
    );
    // The connection stands still with the agent, and this stage is ended by hand.
    let stuck = attempt.start_run("build_script", script.as_bytes());
    let deadline = Instant::now() + Duration::from_secs(20);
    while !mark.exists() {
        assert!(Instant::now() < deadline, "the script has not started");
        std::thread::sleep(Duration::from_millis(20));
    }
    crate::support::attempt::signal(&stuck, rustix::process::Signal::KILL);
    let _ = collect(stuck);
    let _ = attempt.cleanup().succeeds();
    let last = std::fs::metadata(&mark).unwrap().len();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(std::fs::metadata(&mark).unwrap().len(), last, "a child goes on");
    house.settled(0);
}

#[test]
fn an_agent_that_is_not_there_is_named() {
    let house = House::with(
        |settings| {
            let agent = settings.lines().find(|line| line.starts_with("agent = ")).unwrap();
            *settings = settings.replace(agent, "agent = \"/nowhere/pointsman-agent\"");
        },
        |_| (),
    );
    let mut attempt = house.attempt("local", &Job::default());
    let _ = attempt.config().succeeds();
    let _ = attempt
        .prepare()
        .fails_the_system()
        .says("/nowhere/pointsman-agent: ")
        .says("hint: set `agent` of the local cluster to the path of pointsman-agent");
    let _ = attempt.cleanup().succeeds();
    house.settled(0);
}

#[test]
fn a_sweep_takes_away_what_a_dead_agent_left() {
    let house = House::new();
    let mut attempt = house.prepared("local");
    let id = attempt.job_env["POINTSMAN_ATTEMPT"].clone();
    // The machine went down and came up again, and GitLab Runner has forgotten the job.
    let _ = attempt.run(b"kill -KILL $PPID\n").fails_the_system();
    let directory = house.state().join("local").join(&id);
    let _ = house.operator(&["sweep", "--grace", "0s"]).succeeds();
    assert!(directory.exists(), "the attempt lives");
    std::fs::remove_file(house.state().join("attempts").join(format!("{id}.json"))).unwrap();
    let output = house.operator(&["sweep", "--grace", "0s"]).succeeds();
    assert!(output.stdout_text().contains("1 tasks found, 1 leaked."), "{output}");
    assert!(!directory.exists());
    house.settled(0);
}

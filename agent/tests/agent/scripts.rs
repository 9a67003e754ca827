//! Running scripts: status, input, output, signals, environment.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Agent, eventually, host_seed, lives};

#[test]
fn exit_status_is_passed_on() {
    let agent = Agent::start();
    for status in [0, 1, 42, 255] {
        let output = agent.run(&format!("exit {status}"));
        assert_eq!(output.status.code(), Some(status), "{output:?}");
    }
}

#[test]
fn stdout_and_stderr_are_kept_apart_and_arbitrary_bytes_pass() {
    let agent = Agent::start();
    let output = agent.run(r"printf '\000\377\n\r no newline'; printf 'err\200' >&2");
    assert_eq!(output.stdout, b"\0\xff\n\r no newline");
    assert_eq!(output.stderr, b"err\x80");
    assert!(output.status.success());
}

#[test]
fn three_mebibytes_of_input_arrive_whole() {
    let agent = Agent::start();
    let input: Vec<u8> =
        (0..3_u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let output = agent.run_with_input("cat", input.clone());
    assert!(output.status.success(), "{output:?}");
    assert!(output.stdout == input);
}

#[test]
fn a_script_larger_than_an_argument_may_be_runs_from_stdin() {
    let agent = Agent::start();
    let script = format!("# {}\necho done; exit 7\n", "x".repeat(3 << 20));
    let output = agent.run_with_input("sh", script.into_bytes());
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(output.stdout, b"done\n");
}

#[test]
fn input_and_output_can_be_large_at_the_same_time() {
    let agent = Agent::start();
    let input = vec![b'x'; 40 << 20];
    let output = agent.run_with_input("cat", input.clone());
    assert!(output.status.success(), "{output:?}");
    assert!(output.stdout == input);
}

#[test]
fn input_that_the_script_does_not_read_hinders_nothing() {
    let agent = Agent::start();
    let output = agent.run_with_input("echo first; exec sleep 0.3", vec![b'x'; 8 << 20]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, b"first\n");
}

#[test]
fn death_by_a_signal_is_told_as_such() {
    let agent = Agent::start();
    let output = agent.ssh(&["-v"]).arg("kill -KILL $$").output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("rtype exit-signal"), "{told}");
    assert_eq!(output.status.code(), Some(255));
}

#[test]
fn a_slow_client_makes_the_script_wait_and_not_the_agent_grow() {
    let agent = Agent::start();
    let mut ssh =
        agent.ssh(&[]).arg("head -c 400000000 /dev/zero").stdout(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(2));
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    let kibibytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kibibytes < 64 << 10, "{line}");
    ssh.kill().unwrap();
    ssh.wait().unwrap();
}

#[test]
fn a_daemon_that_keeps_the_output_open_does_not_hold_the_script() {
    let agent = Agent::start();
    let start = Instant::now();
    let output = agent.run("sleep 300 & echo $!; exit 3");
    assert_eq!(output.status.code(), Some(3));
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    let daemon = String::from_utf8(output.stdout).unwrap();
    assert!(lives(&daemon), "a background process outlives its script");
}

#[test]
fn killing_the_client_stops_the_whole_process_group() {
    let agent = Agent::start();
    let file = agent.path("pids");
    let script = format!(
        "sleep 300 & echo $! > {0}; sh -c 'trap \"\" TERM; echo $$ >> {0}; sleep 301'; true",
        file.display()
    );
    let mut ssh = agent.ssh(&[]).arg(script).spawn().unwrap();
    let mut pids = Vec::new();
    eventually("the script runs", || {
        let text = fs::read_to_string(&file).unwrap_or_default();
        pids = text.lines().map(str::to_owned).collect();
        pids.len() == 2 && text.ends_with('\n')
    });
    assert!(pids.iter().all(|pid| lives(pid)));
    ssh.kill().unwrap();
    ssh.wait().unwrap();
    eventually("everything is dead", || !pids.iter().any(|pid| lives(pid)));
}

#[test]
fn the_environment_is_handed_on_without_the_agents_own_values() {
    let agent =
        Agent::start_with(&[("POINTSMAN_TASK_ROOT", "/somewhere"), ("POINTSMAN_OTHER", "x")]);
    let output = agent.run("env");
    let environment = String::from_utf8(output.stdout).unwrap();
    let has = |line: &str| environment.lines().any(|found| found.starts_with(line));
    for present in
        ["FROM_OUTSIDE=seen", "POINTSMAN_TASK_ROOT=/somewhere", "PATH=/", "HOME=/", "USER="]
    {
        assert!(has(present), "{present} is missing in {environment}");
    }
    for absent in ["SSH_PUBLIC_KEY", "POINTSMAN_HOST_KEY", "POINTSMAN_DEADLINE", "POINTSMAN_OTHER"]
    {
        assert!(!has(absent), "{absent} is in {environment}");
    }
}

#[test]
fn the_host_key_is_neither_in_proc_nor_in_a_descriptor_of_a_script() {
    let agent = Agent::start();
    for file in ["environ", "cmdline"] {
        let text = fs::read(format!("/proc/{}/{file}", agent.pid())).unwrap();
        let text = String::from_utf8_lossy(&text);
        assert!(
            !text.contains(&host_seed()) && !text.contains("POINTSMAN_HOST_KEY"),
            "{file}: {text}"
        );
    }
    // No more descriptors than a shell has that did not come from the agent.
    let expected =
        Command::new("sh").args(["-c", "ls /proc/self/fd"]).stdin(Stdio::null()).output().unwrap();
    let found = agent.run("ls /proc/self/fd");
    assert_eq!(String::from_utf8_lossy(&found.stdout), String::from_utf8_lossy(&expected.stdout));
    let output = agent.run("cat /proc/$PPID/fd/0 | wc -c");
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), "0");
}

#[test]
fn orphans_are_reaped() {
    let agent = Agent::start();
    assert!(agent.run("(setsid sh -c 'sleep 0.1' &) ; exit 0").status.success());
    eventually("no zombie is left", || {
        let output =
            Command::new("ps").args(["-o", "stat=", "--ppid", &agent.pid().to_string()]).output();
        String::from_utf8(output.unwrap().stdout).unwrap().trim().is_empty()
    });
}

#[test]
fn input_that_is_never_read_is_bounded() {
    let agent = Agent::start();
    let start = Instant::now();
    let output = agent.run_with_input("exec sleep 60", vec![b'x'; 80 << 20]);
    assert_eq!(output.status.code(), Some(255), "{output:?}");
    assert!(start.elapsed() < Duration::from_secs(40), "{:?}", start.elapsed());
    assert!(agent.log().contains("does not read its input: stopped"), "{}", agent.log());
    assert!(agent.run("true").status.success());
}

//! Secrets stay where they belong.

use std::io::Read;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::attempt::{collect, signal};
use crate::support::{House, Job};

#[test]
fn while_policies_run_the_process_holds_no_cloud_credential() {
    let house = House::new();
    let attempt = house.attempt("agent", &Job::default());
    // A fifo holds the stage at reading its job: after the credentials are dropped, before policies run.
    std::fs::remove_file(attempt.response_file()).unwrap();
    let made = std::process::Command::new("mkfifo").arg(attempt.response_file()).status().unwrap();
    assert!(made.success());
    let child = attempt.command(&["config"]).spawn().unwrap();
    // Opening for writing without waiting succeeds as soon as the stage reads.
    let deadline = Instant::now() + Duration::from_secs(10);
    let writer = loop {
        let opened = std::fs::OpenOptions::new()
            .write(true)
            .custom_flags(i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap())
            .open(attempt.response_file());
        match opened {
            Ok(writer) => break writer,
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
            Err(error) => panic!("config does not read its job: {error}"),
        }
    };
    let mut environ = Vec::new();
    std::fs::File::open(format!("/proc/{}/environ", child.id()))
        .unwrap()
        .read_to_end(&mut environ)
        .unwrap();
    let environ = String::from_utf8_lossy(&environ);
    assert!(environ.contains("JOB_RESPONSE_FILE="), "{environ}");
    assert!(!environ.contains("AWS_"), "{environ}");
    assert!(!environ.contains("secret-of-the-runner-manager"), "{environ}");
    // Of the whole process, not only of what it calls its environment.
    assert!(holds(child.id(), b"JOB_RESPONSE_FILE="), "this test does not see the process");
    assert!(!holds(child.id(), b"secret-of-the-runner-manager"));
    signal(&child, Signal::TERM);
    let _ = collect(child).fails_the_system();
    drop(writer);
}

/// Whether `bytes` are anywhere in the writable memory of the process.
fn holds(process: u32, bytes: &[u8]) -> bool {
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let memory = std::fs::File::open(format!("/proc/{process}/mem")).unwrap();
    maps.lines().any(|line| {
        let mut parts = line.split_whitespace();
        let (range, access) = (parts.next().unwrap(), parts.next().unwrap());
        let (from, to) = range.split_once('-').unwrap();
        let [from, to] = [from, to].map(|text| u64::from_str_radix(text, 16).unwrap());
        let mut region = vec![0; usize::try_from(to - from).unwrap()];
        access.starts_with("rw")
            && memory.read_exact_at(&mut region, from).is_ok()
            && region.windows(bytes.len()).any(|window| window == bytes)
    })
}

#[test]
fn no_secret_reaches_a_command_line_a_log_or_a_tag() {
    let house = House::new();
    let mut attempt = house.attempt("agent", &Job::default());
    let secrets = |house: &House| {
        let directory = house.state().join("attempts");
        let entry = std::fs::read_dir(directory).unwrap().next().unwrap().unwrap();
        let saved: serde_json::Value =
            serde_json::from_slice(&std::fs::read(entry.path()).unwrap()).unwrap();
        vec![
            saved["keys"]["client"].as_str().unwrap().to_owned(),
            saved["keys"]["host"].as_str().unwrap().to_owned(),
            "glcbt-64_job-token".to_owned(),
            "secret-of-the-runner-manager".to_owned(),
            "secret-in-the-script".to_owned(),
        ]
    };
    let config = attempt.config().succeeds();
    let secrets = secrets(&house);
    let prepare = attempt.prepare().succeeds();
    let child = attempt.start_run("build_script", b"TOKEN=secret-in-the-script\nps -eww -o args\n");
    let run = collect(child).succeeds();
    let cleanup = attempt.cleanup().succeeds();
    let ledger = std::fs::read_to_string(house.ledger_file()).unwrap();
    assert!(run.stdout_text().contains("pointsman"), "{run}");
    for secret in &secrets {
        for output in [&config, &prepare, &run, &cleanup] {
            assert!(!output.stdout_text().contains(secret), "{secret}\n{output}");
            assert!(!output.stderr_text().contains(secret), "{secret}\n{output}");
        }
        assert!(!ledger.contains(secret), "{secret} is in the ledger");
    }
    house.settled(1);
}

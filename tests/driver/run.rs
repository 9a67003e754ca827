//! `run`: scripts of any size and output, with their exit status, on both kinds of server.

use std::fmt::Write as _;

use serde_json::json;

use crate::support::House;

/// The profiles whose tasks run stock sshd, one with a pinned and one with an injected host key, and the agent.
const SERVERS: [&str; 3] = ["agent", "openssh", "openssh-injected"];

#[test]
fn a_script_fails_with_its_own_status() {
    for profile in SERVERS {
        let house = House::new();
        let mut attempt = house.prepared(profile);
        for status in [1, 2, 42, 137, 255] {
            let script = format!("echo before\nexit {status}\n");
            let output = attempt.run(script.as_bytes()).fails_the_build();
            assert_eq!(output.stdout_text(), "before\n", "{profile}");
            assert_eq!(output.stderr_text(), "", "{profile}");
            assert_eq!(attempt.exit_code(), Some(status), "{profile}");
        }
        let _ = attempt.run(b"exit 0\n").succeeds();
        let _ = attempt.cleanup().succeeds();
        house.settled(1);
    }
}

#[test]
fn a_script_that_a_signal_ends_fails_as_a_shell_words_it() {
    let house = House::new();
    let mut attempt = house.prepared("agent");
    let _ = attempt.run(b"kill -KILL $$\n").fails_the_build();
    assert_eq!(attempt.exit_code(), Some(137));
    let _ = attempt.cleanup().succeeds();
    house.settled(1);
}

#[test]
fn a_script_of_three_mebibytes_arrives_whole() {
    for profile in SERVERS {
        let house = House::new();
        let mut attempt = house.prepared(profile);
        let mut script = String::from("sum=0\n");
        let mut lines = 0_u64;
        while script.len() < 3 << 20 {
            lines += 1;
            writeln!(
                script,
                "sum=$((sum + {lines})) # a line to make the script as long as some are"
            )
            .unwrap();
        }
        script.push_str("echo $sum\n");
        let output = attempt.run(script.as_bytes()).succeeds();
        assert_eq!(output.stdout_text(), format!("{}\n", lines * (lines + 1) / 2), "{profile}");
        let _ = attempt.cleanup().succeeds();
        house.settled(1);
    }
}

#[test]
fn sixty_four_mebibytes_of_any_bytes_come_back() {
    for profile in ["agent", "openssh"] {
        let house = House::new();
        let mut attempt = house.prepared(profile);
        // Every byte value, with a period that is no power of two.
        let mut block: Vec<u8> = (0..=255).collect();
        block.extend_from_slice(b"\0\n\r\n\xff\xfe");
        let path = house.path().join("block");
        std::fs::write(&path, &block).unwrap();
        let times = (64 << 20) / block.len() + 1;
        let script = format!(
            "echo to the other stream >&2\nfor i in $(seq 64); do cat {0}; done >{0}.64\nfull=$(({times} / 64)); for i in $(seq $full); do cat {0}.64; done\nfor i in $(seq $(({times} - full * 64))); do cat {0}; done\n",
            path.display()
        );
        let output = attempt.run(script.as_bytes()).succeeds();
        assert_eq!(output.stderr_text(), "to the other stream\n", "{profile}");
        assert_eq!(output.stdout.len(), block.len() * times, "{profile}");
        assert!(output.stdout.chunks(block.len()).all(|chunk| chunk == block), "{profile}");
        let _ = attempt.cleanup().succeeds();
        house.settled(1);
    }
}

#[test]
fn output_is_passed_on_as_it_is() {
    for profile in SERVERS {
        let house = House::new();
        let mut attempt = house.prepared(profile);
        let output = attempt.run(b"printf 'no final newline'").succeeds();
        assert_eq!(output.stdout_text(), "no final newline", "{profile}");
        let output = attempt.run("printf 'Grüße, 世界 🚆\\n'; printf '\\r\\033[0m' >&2".as_bytes());
        assert_eq!(output.stdout_text(), "Grüße, 世界 🚆\n", "{profile}");
        assert_eq!(output.stderr, b"\r\x1b[0m", "{profile}");
        let output = attempt.run(b"").succeeds();
        assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{profile}");
        let _ = attempt.cleanup().succeeds();
        house.settled(1);
    }
}

#[test]
fn every_sub_stage_is_run_alike() {
    let house = House::new();
    let mut attempt = house.prepared("agent");
    for sub_stage in [
        "prepare_script",
        "get_sources",
        "clear_worktree",
        "restore_cache",
        "download_artifacts",
        "build_script",
        "step_script",
        "step_release",
        "after_script",
        "archive_cache_on_failure",
        "upload_artifacts_on_success",
        "cleanup_file_variables",
        "a_stage_of_next_year",
    ] {
        let output = attempt.run_as(sub_stage, b"echo ran").succeeds();
        assert_eq!(output.stdout_text(), "ran\n");
    }
    let _ = attempt.cleanup().succeeds();
    house.settled(1);
}

#[test]
fn the_scripts_environment_has_none_of_the_injected_secrets() {
    for profile in SERVERS {
        let house = House::new();
        let mut attempt = house.prepared(profile);
        let output = attempt.run(b"env; tr '\\0' '\\n' </proc/$PPID/environ\n");
        for secret in ["SSH_PUBLIC_KEY", "POINTSMAN_HOST_KEY", "secret-of-the-runner-manager"] {
            assert!(!output.stdout_text().contains(secret), "{profile}\n{output}");
        }
        let _ = attempt.cleanup().succeeds();
        house.settled(1);
    }
}

#[test]
fn a_lost_task_is_a_system_failure_that_says_why_and_fast_afterwards() {
    let house = House::with_faults(&json!([{
        "match": {}, "fault": { "kind": "spot-interruption", "after_ms": 1500, "notice_ms": 200 },
    }]));
    let mut attempt = house.prepared("agent");
    let _ = attempt
        .run(b"echo working; sleep 60\n")
        .fails_the_system()
        .says("SpotInterruption: Your Spot Task was interrupted.");
    let _ = attempt.run_as("after_script", b"true").fails_the_system().says("the task is lost");
    let _ = attempt.cleanup().succeeds();
    house.settled(1);
}

#[test]
fn without_prepare_there_is_nothing_to_run_on() {
    let house = House::new();
    let mut attempt = house.attempt("agent", &crate::support::Job::default());
    let _ = attempt.config().succeeds();
    let _ = attempt.run(b"true").fails_the_system().says("`prepare` did not finish");
    let _ = attempt.cleanup().succeeds();
    house.settled(0);
}

//! Jobs are hostile: whatever an author writes into variables, names and scripts decides nothing and breaks
//! nothing.

use crate::support::{House, Job};

fn hostile_values() -> Vec<(&'static str, String)> {
    vec![
        ("CI_RUNNER_TAGS", "[\"openssh\", \"production\"]".to_owned()),
        ("CI_PROJECT_ID", "1".to_owned()),
        ("CI_PROJECT_PATH", "../../etc".to_owned()),
        ("CI_JOB_ID", "../../../tmp/x".to_owned()),
        ("CI_JOB_IMAGE", "alpine$(touch /tmp/pointsman-was-here)".to_owned()),
        ("CI_COMMIT_REF_PROTECTED", "true".to_owned()),
        ("POINTSMAN_ATTEMPT", "1-0123456789abcdef".to_owned()),
        ("SYSTEM_FAILURE_EXIT_CODE", "0".to_owned()),
        ("BUILD_EXIT_CODE_FILE", "/etc/passwd".to_owned()),
        ("FARGATE_TASK_DEFINITION", "openssh-task".to_owned()),
        ("FARGATE_PLATFORM_VERSION", "1.3.0".to_owned()),
        ("AWS_ACCESS_KEY_ID", "AKIAAUTHOR".to_owned()),
        ("QUOTES", "' \" ` \\ $(id) ${HOME} $$".to_owned()),
        ("NEWLINES", "a\nb\r\nc\u{1b}[2J\u{7}".to_owned()),
        ("UNICODE", "\u{202e}evil\u{2066}🚂".to_owned()),
        ("LARGE", "x".repeat(100 * 1024)),
    ]
}

#[test]
fn variables_decide_nothing() {
    let house = House::new();
    let plain = house.prepared("agent");
    let mut job = Job::default();
    for (key, value) in hostile_values() {
        job = job.variable(key, &value);
    }
    job.image = Some("alpine:3\nPlaced on cluster production".to_owned());
    let mut attempt = house.attempt("agent", &job);
    let _ = attempt.config().succeeds().says(
        "Placed on cluster test, task definition agent, arm64, spot, 0.5 vCPU / 1 GiB, role deploy",
    );
    let _ = attempt.prepare().succeeds().hides("AKIAAUTHOR");
    let output = attempt.run(b"echo fine\n").succeeds();
    assert_eq!(output.stdout_text(), "fine\n");
    let _ = attempt.cleanup().succeeds();
    let _ = plain.cleanup().succeeds();
    let ledger = house.settled(2);
    let same = |key: &str| {
        let values: Vec<_> = ledger.started().iter().map(|task| task[key].clone()).collect();
        assert_eq!(values[0], values[1], "{key}");
    };
    for key in ["cluster", "task_definition", "capacity_provider", "cpu", "memory", "task_role"] {
        same(key);
    }
    assert!(!std::path::Path::new("/tmp/pointsman-was-here").exists());
}

#[test]
fn a_jobs_name_cannot_forge_a_line_of_ours() {
    let house = House::new();
    let name = "build\nError: forged\u{1b}[31m".to_owned();
    let job = Job { name, ..Job::default() };
    let mut attempt = house.attempt("agent", &job);
    let output = attempt.config().succeeds();
    assert!(!output.stderr_text().contains("\nError: forged"), "{output}");
    assert!(!output.stderr_text().contains('\u{1b}'), "{output}");
    let _ = attempt.prepare().succeeds();
    let _ = attempt.cleanup().succeeds();
    house.settled(1);
}

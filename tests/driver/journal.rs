//! The log for operators: whose each line is, and how stages ended.

use crate::support::{House, Job};

#[test]
fn without_a_file_the_job_log_says_nothing_twice() {
    let mut house = House::new();
    house.environment.push(("POINTSMAN_LOG", "info".to_owned()));
    let mut attempt = house.attempt("agent", &Job::default());
    let _ = attempt.config().succeeds();
    let output = attempt.prepare().succeeds();
    let text = output.stderr_text();
    assert_eq!(text.matches(" is ready at ").count(), 1, "{output}");
    let id = &attempt.job_env["POINTSMAN_ATTEMPT"];
    let ended = text.lines().find(|line| line.contains("the stage has succeeded")).unwrap();
    assert!(
        ended.contains("stage=\"prepare\"") && ended.contains(&format!("attempt={id}")),
        "{ended}"
    );
    let _ = attempt.cleanup().succeeds();
    house.settled(1);
}

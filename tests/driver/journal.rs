//! The log for operators: whose each line is, how stages ended, and what job logs said; as JSON for programs.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::support::{House, Job};

/// A house whose stages log into `operators.log`, as JSON.
fn house(faults: &Value) -> House {
    House::altered(&json!({ "faults": faults }), |settings| {
        format!("{settings}\n[log]\nformat = \"json\"\nfile = \"operators.log\"\n")
    })
}

fn lines(house: &House) -> Vec<Value> {
    let text = fs::read_to_string(house.path().join("operators.log")).unwrap();
    let line = |line: &str| -> Value {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
    };
    text.lines().map(line).collect()
}

#[test]
fn each_stage_tells_how_it_ended_and_what_the_job_log_said() {
    let house = house(&json!([]));
    let mut attempt = house.attempt("agent", &Job::default().variable("SECRET", "s3cr3t-value"));
    let _ = attempt.config().succeeds();
    let _ = attempt.prepare().succeeds();
    let output = attempt.run(b"echo from the script; exit 3\n").fails_the_build();
    assert_eq!(output.stderr_text(), "", "nothing of it is in the job log");
    let _ = attempt.cleanup().succeeds();
    house.settled(1);

    let lines = lines(&house);
    let id = &attempt.job_env["POINTSMAN_ATTEMPT"];
    let ended: Vec<_> = lines
        .iter()
        .filter(|line| line["seconds"].is_number())
        .map(|line| {
            assert_eq!(line["span"]["attempt"], **id, "{line}");
            assert!(line["span"]["pid"].is_number() && line["timestamp"].is_string(), "{line}");
            let stage = line["span"]["stage"].as_str().unwrap();
            (stage, line["level"].as_str().unwrap(), line["message"].as_str().unwrap())
        })
        .collect();
    let succeeded = "the stage has succeeded";
    let expected = [
        ("config", "INFO", succeeded),
        ("prepare", "INFO", succeeded),
        ("run", "INFO", "the job's script has failed"),
        ("cleanup", "INFO", succeeded),
    ];
    assert_eq!(ended, expected, "{lines:#?}");
    let script = lines.iter().find(|line| line["status"] == 3).unwrap();
    assert_eq!(script["span"]["script"], "build_script");
    let said = |text: &str| {
        let of = |line: &&Value| line["target"] == "pointsman::job_log";
        lines.iter().filter(of).any(|line| line["message"].as_str().unwrap().contains(text))
    };
    assert!(said("Placed on cluster test") && said(" is ready at "), "{lines:#?}");

    let text = fs::read_to_string(house.path().join("operators.log")).unwrap();
    for absent in ["from the script", "s3cr3t-value", "section_", "glcbt-64"] {
        assert!(!text.contains(absent), "{absent} is in {text}");
    }
    let mode = fs::metadata(house.path().join("operators.log")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_failed_stage_is_an_error_with_its_causes() {
    let denied = json!({ "kind": "api-error", "operation": "RunTask", "status": 400,
        "code": "AccessDeniedException", "message": "not authorized" });
    let house = house(&json!([{ "match": {}, "fault": denied }]));
    let mut attempt = house.attempt("agent", &Job::default());
    let _ = attempt.config().succeeds();
    let output = attempt.prepare().fails_the_system().says("Error: ").says("  hint: ");
    assert_eq!(output.stderr_text().matches("Error: ").count(), 1, "{output}");
    let _ = attempt.cleanup().succeeds();
    house.settled(0);
    let lines = lines(&house);
    let errors: Vec<_> = lines.iter().filter(|line| line["level"] == "ERROR").collect();
    assert_eq!(errors.len(), 1, "{lines:#?}");
    assert_eq!(errors[0]["message"], "the stage has failed");
    assert!(errors[0].to_string().contains("AccessDenied"), "{}", errors[0]);
    assert!(errors[0]["hints"].as_str().unwrap().contains("ecs:RunTask"), "{}", errors[0]);
}

#[test]
fn operators_commands_write_json_to_stderr_when_asked() {
    let mut house = House::new();
    house.environment.push(("POINTSMAN_LOG", "debug".to_owned()));
    let output = house.operator(&["--log-format", "json", "tasks"]).succeeds();
    assert!(output.stdout_text().contains("No task"), "{output}");
    let text = output.stderr_text();
    assert!(!text.is_empty());
    for line in text.lines() {
        let line: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(line["level"].is_string() && line["target"].is_string(), "{line}");
    }
}

#[test]
fn a_log_that_cannot_be_written_stops_no_job() {
    let house = House::altered(&json!({}), |settings| {
        format!("{settings}\n[log]\nfile = \"/nonexistent/operators.log\"\n")
    });
    let mut attempt = house.attempt("agent", &Job::default());
    let _ =
        attempt.config().succeeds().says("log file /nonexistent/operators.log cannot be written");
    let _ = attempt.prepare().succeeds();
    let _ = attempt.cleanup().succeeds();
    house.settled(1);
}

#[test]
fn without_a_file_the_job_log_says_nothing_twice() {
    let mut house = House::new();
    house.environment.push(("POINTSMAN_LOG", "info".to_owned()));
    let mut attempt = house.attempt("agent", &Job::default());
    let _ = attempt.config().succeeds();
    let output = attempt.prepare().succeeds();
    let text = output.stderr_text();
    assert_eq!(text.matches(" is ready at ").count(), 1, "{output}");
    assert!(!text.contains("the stage has succeeded") && !text.contains("stage="), "{output}");
    let _ = attempt.cleanup().succeeds();
    house.settled(1);
}

//! Sections of job logs: waiting is folded with its duration, whatever ends it, and nothing else is.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::json;

use crate::rehearsal::{pinned, rehearse};
use crate::support::attempt::signal;
use crate::support::{House, Job};

const BEHIND: &str = "\r\u{1b}[0K";

/// The sections of a job log as (name, lines inside, the header first); the lines outside beside them. By GitLab's
/// rules: a marker is known by what stands behind it, and sections end in the order in which they began.
fn read(log: &str) -> (Vec<(String, Vec<String>)>, Vec<String>) {
    let (mut sections, mut outside) = (Vec::<(String, Vec<String>)>::new(), Vec::new());
    let mut is_open = false;
    for line in log.lines() {
        let Some((marker, text)) = line.split_once(BEHIND) else {
            assert!(!line.contains("section_"), "no marker for GitLab: {line:?}");
            if is_open { &mut sections.last_mut().unwrap().1 } else { &mut outside }
                .push(line.to_owned());
            continue;
        };
        if let Some(start) = marker.strip_prefix("section_start:") {
            assert!(!is_open, "a section in a section\n{log}");
            let (time, name) = start.split_once(':').unwrap();
            assert!(time.parse::<u64>().unwrap() > 1_700_000_000, "{time}");
            let name = name.strip_suffix("[collapsed=true]").unwrap();
            sections.push((name.to_owned(), vec![text.to_owned()]));
            is_open = true;
        } else {
            let end = marker.strip_prefix("section_end:").unwrap();
            assert_eq!(end.split_once(':').unwrap().1, sections.last().unwrap().0, "{log}");
            assert_eq!(text, "");
            is_open = false;
        }
    }
    assert!(!is_open, "a section is not closed\n{log}");
    (sections, outside)
}

#[test]
fn each_wait_is_a_section_of_its_own() {
    let spot = json!({ "kind": "stop", "code": "SpotInterruption", "phase": "PENDING",
        "reason": "Your Spot Task was interrupted." });
    let house = House::with_faults(&json!([{ "match": {}, "times": 1, "fault": spot }]));
    let mut attempt = house.attempt("ranked", &Job::default());
    let _ = attempt.config().succeeds();
    let output = attempt.prepare().succeeds();
    assert_eq!(output.stdout_text(), "");
    let (sections, outside) = read(&output.stderr_text());
    let names: Vec<&str> = sections.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["pointsman_wait_1_1", "pointsman_wait_1_2"], "{output}");
    for (_, lines) in &sections {
        assert!(lines[0].starts_with("Waiting for task "), "{output}");
    }
    let waited = &sections[1].1;
    assert!(waited.iter().any(|line| line.starts_with("The task is ")), "{output}");
    let ready = outside.last().unwrap();
    assert!(ready.contains(" is ready at ") && ready.ends_with(" s."), "{output}");
    let failed = |line: &&String| line.contains("Spot Task was interrupted");
    assert_eq!(outside.iter().filter(failed).count(), 1, "what went wrong is not hidden: {output}");

    // No other stage waits, and what a script prints is its own.
    let output = attempt.run(b"echo done\n").succeeds();
    assert_eq!((output.stdout_text().as_str(), output.stderr_text().as_str()), ("done\n", ""));
    let _ = attempt.cleanup().succeeds().hides("section_");
    let _ = house.settled(2);
}

#[test]
fn a_cancelled_wait_closes_its_section() {
    let house =
        House::with_faults(&json!([{ "match": {}, "fault": { "kind": "agent-does-not-start" } }]));
    let mut attempt = house.attempt("agent", &Job::default());
    let _ = attempt.config().succeeds();
    let mut child = attempt.command(&["prepare"]).stdout(Stdio::null()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut log = String::new();
    while !log.contains("Waiting for task ") {
        assert_ne!(stderr.read_line(&mut log).unwrap(), 0, "{log}");
    }
    signal(&child, Signal::TERM);
    stderr.read_to_string(&mut log).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(2), "{log}");
    let (sections, outside) = read(&log);
    assert_eq!(sections.len(), 1, "{log}");
    assert!(outside.iter().any(|line| line.contains("stopped by SIGTERM")), "{log}");
    let _ = attempt.cleanup().succeeds();
    house.settled(1);
}

#[test]
fn operators_see_no_markers() {
    let house = House::new();
    let attempt = house.prepared("agent");
    for command in ["tasks", "sweep"] {
        let _ = house.operator(&[command]).succeeds().hides("section_");
    }
    let _ = attempt.cleanup().succeeds();
    house.settled(1);
}

#[test]
fn a_rehearsal_shows_what_is_in_sections_and_no_marker() {
    let directory = pinned("three-environments");
    let pipeline = directory.path().join(".gitlab-ci.yml");
    let script = r#"printf "\033[0Ksection_start:$(date +%s):own\r\033[0KOwn header\n""#;
    std::fs::write(&pipeline, format!("build:\n  tags: [dev]\n  script:\n    - '{script}'\n"))
        .unwrap();
    let output = rehearse(directory.path(), &pipeline, &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.contains("build | Waiting for task "), "{text}");
    assert!(text.contains("build | The task is "), "{text}");
    assert!(text.contains("build | Own header\n"), "{text}");
    // The script's own line is echoed by the runner, as it is written.
    let marked: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("section_") && !line.contains("$ printf"))
        .collect();
    assert_eq!(marked, Vec::<&str>::new(), "{text}");
    assert!(!text.contains("build | \n"), "a marker leaves no empty line\n{text}");
}

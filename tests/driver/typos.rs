//! Typing errors: whoever makes one is told what there is.

use std::fs;
use std::process::Command;

use crate::support::House;
use crate::support::house::DRIVER;
use crate::support::output::StageOutput;

fn pointsman(arguments: &[&str]) -> StageOutput {
    let output = Command::new(DRIVER).args(arguments).env_clear().output().unwrap();
    StageOutput { stdout: output.stdout, stderr: output.stderr, status: output.status }
}

#[test]
fn commands_and_options() {
    for (arguments, said) in [
        (&["chek"][..], "'check'"),
        (&["rehears"], "'rehearse'"),
        (&["prepair"], "a similar subcommand exists: 'prepare'"),
        (&["custom", "prepair"], "'prepare'"),
        (&["policy", "snyc"], "'sync'"),
        (&["iam-polcy"], "'iam-policy'"),
        (&["--confg", "x", "check"], "'--config'"),
        (&["check", "--runner-confg", "x"], "'--runner-config'"),
        (&["sweep", "--dry-rum"], "'--dry-run'"),
        (&["tasks", "--format", "jsn"], "'json'"),
    ] {
        let output = pointsman(arguments);
        assert!(!output.status.success(), "{arguments:?}: {output}");
        // One is similar, or several are.
        let _ = output.says("tip: ").says("similar ").says(said);
    }
}

#[test]
fn names() {
    let house = House::new();
    let pipeline = house.path().join("pipeline.yml");
    fs::write(&pipeline, "compile:\n  tags: [agent]\n  script: [make]\n").unwrap();
    let pipeline = pipeline.to_str().unwrap();
    let component = crate::support::house::built("policies/by-tag.wasm");
    let cache = house.path().join("cache");
    for (arguments, said) in [
        (
            &["--profile", "agnet", "explain", pipeline][..],
            "there is no profile `agnet`: did you mean `agent`?",
        ),
        (
            &["explain", pipeline, "--job", "compiel"],
            "`compiel` is no job of the pipeline: did you mean `compile`?",
        ),
        (
            &["rehearse", pipeline, "--job", "compiel"],
            "`compiel` is no job of the pipeline: did you mean `compile`?",
        ),
        (
            &["iam-policy", "--profile", "agnet"],
            "the settings file has no profile `agnet`: did you mean `agent`?",
        ),
        (
            &[
                "policy",
                "replay",
                "--with",
                component.to_str().unwrap(),
                "--policy",
                "bytag",
                "--cache",
                cache.to_str().unwrap(),
            ],
            "the settings have no policy `bytag`: did you mean `by-tag`?",
        ),
    ] {
        let output = house.operator(arguments);
        assert!(!output.status.success(), "{arguments:?}: {output}");
        let all = output.stdout_text() + &output.stderr_text();
        assert!(all.contains(said), "`{said}` is missing in\n{all}");
    }
    // A stage, whose words go to a job log.
    let output = house.attempt("agnet", &crate::support::Job::default()).config();
    let _ = output
        .fails_the_system()
        .says("the settings file has no profile `agnet`")
        .says("did you mean `agent`?");
}

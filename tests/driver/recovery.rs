//! The hook after a lost attempt, in a component of the SDK's: what Spot took is tried again on demand.

use serde_json::json;

use crate::authoring::{pointsman, scratch, succeeds, text};
use crate::guests::{Guest, WITH_HOOK};
use crate::support::house::built;
use crate::support::{House, Job};

const RECOVERS: &str = "policies/examples/after-spot.wasm";

/// A house whose profile `agent` has the hook before `by-tag`, whose rule says Spot.
fn house(fault: &serde_json::Value) -> House {
    let house = House::with_faults(&json!([{ "match": {}, "times": 1, "fault": fault }]));
    house.add_policy("after-spot", &std::fs::read(built(RECOVERS)).unwrap(), "");
    house.set_chain("agent", "policies = [\"after-spot\", \"by-tag\"]");
    house
}

#[test]
fn an_attempt_that_spot_took_is_followed_by_one_on_demand() {
    let house = house(&json!({ "kind": "spot-interruption", "after_ms": 2000, "notice_ms": 200 }));
    let mut attempt = house.attempt("agent", &Job::default());
    let _ = attempt
        .config()
        .succeeds()
        .says("Placed on cluster test, task definition agent, arm64, spot");
    let _ = attempt.prepare().succeeds();
    let _ = attempt.run(b"sleep 60\n").fails_the_system().says("Spot took the task back");
    let _ = attempt.cleanup().succeeds();

    let mut again = attempt.again();
    let _ = again
        .config()
        .succeeds()
        .says("after-spot: on demand this time, since Spot was lost")
        .says("Placed on cluster test, task definition agent, arm64, on-demand, 0.5 vCPU / 1 GiB, role deploy")
        .says("on demand, since attempt 1 was lost on Spot");
    let _ = again.prepare().succeeds();
    assert_eq!(again.run(b"echo done\n").succeeds().stdout_text(), "done\n");
    let _ = again.cleanup().succeeds();

    let ledger = house.settled(2);
    let providers: Vec<_> =
        ledger.started().iter().map(|task| task["capacity_provider"].clone()).collect();
    // On demand is asked for by launch type, without a provider.
    assert_eq!(providers, [json!("FARGATE_SPOT"), json!(null)]);
    let records = house.records();
    let second = records.iter().find(|record| record["number"] == 2).unwrap();
    let steps = second["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 1, "the placers are not asked: {steps:?}");
    assert_eq!(steps[0]["policy"], "after-spot");
    let outcome = steps[0]["outcome"].as_str().unwrap();
    assert!(outcome.starts_with("after the lost attempt: placement: "), "{outcome}");
}

#[test]
fn no_capacity_counts_as_well_and_other_losses_do_not() {
    for (fault, capacity) in [
        (json!({ "kind": "no-capacity" }), "on-demand"),
        (
            json!({ "kind": "stop", "code": "TaskFailedToStart", "phase": "PENDING",
                "reason": "ResourceInitializationError: failed to initialize logging driver" }),
            "spot",
        ),
    ] {
        let house = house(&fault);
        let mut attempt = house.attempt("agent", &Job::default());
        let _ = attempt.config().succeeds();
        let _ = attempt.prepare().fails_the_system();
        let _ = attempt.cleanup().succeeds();
        let mut again = attempt.again();
        let _ = again
            .config()
            .succeeds()
            .says(&format!("Placed on cluster test, task definition agent, arm64, {capacity}, "));
        let _ = again.cleanup().succeeds();
    }
}

#[test]
fn a_fixture_can_tell_where_the_lost_attempt_ran() {
    let directory = scratch();
    let component = built(RECOVERS);
    let fixture = |name: &str, kind: &str, decision: &str, first: &str| {
        let path = directory.path().join(name);
        let text = format!(
            "[[facts.earlier_failures]]\nkind = \"{kind}\"\n\
             placement = {{ cluster = \"ci\", task_definition = \"node\", capacity = \"spot\" }}\n\
             [catalog.clusters.ci]\n[catalog.task_definitions.node]\n\
             [expect]\ndecision = \"{decision}\"\n{first}\n\
             unchanged_under = [\"forged-claims\", \"missing-protected\", \"renamed-project\"]\n"
        );
        std::fs::write(path, text).unwrap();
    };
    fixture(
        "taken.toml",
        "spot-interruption",
        "place",
        "first = { cluster = \"ci\", capacity = \"on-demand\" }",
    );
    fixture("too-small.toml", "out-of-memory", "abstain", "");
    let arguments = ["policy", "test", text(directory.path()), "--policy", text(&component)];
    let told = succeeds(pointsman(&arguments));
    assert!(told.contains("2 passed, 0 failed"), "{told}");
    let told = succeeds(pointsman(&["policy", "inspect", text(&component)]));
    assert!(told.contains("placement-policy") && told.contains("recovery"), "{told}");
}

#[test]
fn a_hook_that_breaks_is_found_when_it_is_installed() {
    let house = House::new();
    let breaks = Guest {
        wit: WITH_HOOK,
        functions: r#"(func (export "pointsman:policy/recovery@0.1.0#recover") (param i32) (result i32) unreachable)"#,
        ..Guest::default()
    };
    house.add_policy("hook", &breaks.placer(), "");
    house.set_chain("agent", "policies = [\"hook\", \"by-tag\"]");
    let synced = house.operator(&["policy", "sync"]);
    assert_eq!(synced.status.code(), Some(1), "{synced}");
    let told = [synced.stdout_text(), synced.stderr_text()].concat();
    assert!(told.contains("hook: not ready"), "{synced}");
    assert!(told.contains("policy `hook` crashed: it panicked"), "{synced}");
}

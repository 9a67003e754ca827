//! Sessions with tags that are allowed their own tasks only: jobs of several profiles wait for tasks of one
//! cluster, end and are swept, and nobody is refused because of somebody else's task.

use serde_json::{Value, json};

use crate::support::attempt::{Attempt, collect};
use crate::support::{House, Job};

const ROLE: &str = "arn:aws:iam::123456789012:role/ci";
const CLUSTER: &str = "cluster = \"test-cluster\"\n";

/// A house whose clusters are entered by a role that compares a task's tag of `fact` with its session's.
fn bound_by(fact: &str, change_world: impl FnOnce(&mut Value)) -> House {
    let role = format!("assume_role = {{ arn = \"{ROLE}\", session_tags = [\"{fact}\"] }}\n");
    House::with(
        |settings| *settings = settings.replace(CLUSTER, &format!("{CLUSTER}{role}")),
        |world| {
            let tag = format!("pointsman:{fact}");
            world["assumable_roles"] = json!([{ "arn": ROLE, "own_tasks_by": [tag] }]);
            change_world(world);
        },
    )
}

fn configured<'h>(house: &'h House, profile: &str) -> Attempt<'h> {
    let mut attempt = house.attempt(profile, &Job::default());
    let _ = attempt.config().succeeds();
    attempt
}

fn refused(house: &House) -> Vec<Value> {
    house.ledger().events("refused").cloned().collect()
}

#[test]
fn jobs_of_two_profiles_wait_side_by_side() {
    for fact in ["profile", "job"] {
        let house = bound_by(fact, |world| {
            world["delays_ms"] = json!({ "provisioning": 1500, "pending": 500 });
        });
        let attempts: Vec<_> =
            ["agent", "openssh", "agent"].map(|profile| configured(&house, profile)).into();
        let waiting: Vec<_> =
            attempts.iter().map(|attempt| attempt.command(&["prepare"]).spawn().unwrap()).collect();
        for child in waiting {
            let _ = collect(child).succeeds();
        }
        for mut attempt in attempts {
            assert_eq!(attempt.run(b"echo here\n").succeeds().stdout_text(), "here\n");
            let _ = attempt.cleanup().succeeds();
        }
        house.settled(3);
        assert_eq!(refused(&house), Vec::<Value>::new(), "by {fact}");
        // Who sees the same tasks asks together.
        let watched = std::fs::read_dir(house.state().join("watch")).unwrap().count();
        assert_eq!(watched, if fact == "profile" { 2 } else { 3 });
    }
}

#[test]
fn a_killed_prepare_s_task_is_found_among_tasks_that_it_may_not_see() {
    let house = bound_by("profile", |_| ());
    let mut others: Vec<_> = (0..3).map(|_| house.prepared("openssh")).collect();
    let killed = configured(&house, "agent");
    let mut command = killed.command(&["prepare"]);
    command.env("POINTSMAN_ABORT_AT", "after-run-task");
    assert!(!collect(command.spawn().unwrap()).status.success());
    let _ = killed.cleanup().succeeds();
    for other in &mut others {
        let _ = other.run(b"true\n").succeeds();
        let _ = other.cleanup().succeeds();
    }
    house.settled(4);
}

#[test]
fn a_sweep_stops_with_the_jobs_session_what_its_own_may_not_see() {
    let house = bound_by("project", |_| ());
    let mut living = house.prepared("agent");
    let over = house.prepared("openssh");
    let mut command = over.command(&["cleanup"]);
    command.env("POINTSMAN_ABORT_AT", "before-stop-task");
    assert!(!collect(command.spawn().unwrap()).status.success());
    let unknown = house.prepared("agent");
    let id = &unknown.job_env["POINTSMAN_ATTEMPT"];
    let file = house.state().join("attempts").join(format!("{id}.json"));
    let text = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();

    let output = house.operator(&["sweep", "--grace", "0s"]).succeeds();
    assert!(output.stdout_text().contains("was told to stop: its job has ended."), "{output}");
    assert!(output.stdout_text().contains("3 tasks found, 1 leaked."), "{output}");
    let hint = "1 of them may not be looked at by this manager's own session";
    assert!(output.stdout_text().contains(hint), "{output}");
    let table = house.operator(&["tasks", "--format", "json"]).succeeds();
    let table: Value = serde_json::from_slice(&table.stdout).unwrap();
    let mut findings: Vec<&str> = table["tasks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["finding"].as_str().unwrap())
        .collect();
    findings.sort_unstable();
    assert_eq!(findings, ["hidden", "lives"]);

    std::fs::write(&file, text).unwrap();
    let _ = living.run(b"true\n").succeeds();
    for attempt in [&living, &over, &unknown] {
        let _ = attempt.cleanup().succeeds();
    }
    house.settled(3);
}

#[test]
fn a_sweep_says_which_manager_it_acts_for() {
    let house = bound_by("manager", |_| ());
    let leaked = house.prepared("agent");
    let id = &leaked.job_env["POINTSMAN_ATTEMPT"];
    std::fs::remove_file(house.state().join("attempts").join(format!("{id}.json"))).unwrap();
    let output = house.operator(&["sweep", "--grace", "0s"]).succeeds();
    assert!(output.stdout_text().contains("1 tasks found, 1 leaked."), "{output}");
    house.settled(1);
    assert_eq!(refused(&house), Vec::<Value>::new());
}

#[test]
fn a_cluster_that_cannot_be_listed_keeps_no_other_from_being_swept() {
    let more = "\n[clusters.a-broken-one]\nbackend = \"ecs\"\nregion = \"eu-west-1\"\ncluster = \"nowhere\"\nsubnets = [\"subnet-12345\"]\n";
    let house = House::with(|settings| settings.push_str(more), |_| ());
    let leaked = house.prepared("agent");
    let id = &leaked.job_env["POINTSMAN_ATTEMPT"];
    std::fs::remove_file(house.state().join("attempts").join(format!("{id}.json"))).unwrap();
    let output = house.operator(&["sweep", "--grace", "0s"]);
    assert!(!output.status.success(), "{output}");
    let output = output.says("cluster a-broken-one: ListTasks: ClusterNotFoundException");
    assert!(output.stdout_text().contains("1 tasks found, 1 leaked."), "{output}");
    house.settled(1);
}

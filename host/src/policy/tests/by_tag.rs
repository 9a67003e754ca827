//! The real `by-tag`: what it places, refuses and says.

use super::*;

#[test]
fn by_tag_places_a_job() {
    let house = House::shared();
    let policy = by_tag(rules());
    let decision = Asked::with_tags(&["dev", "arm64", "cheap"])
        .decide(&house, &[("by-tag", &policy)])
        .unwrap();
    let shown: Vec<String> = decision.placements.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "cluster dev, task definition node, arm64, spot, 0.5 vCPU / 2 GiB, the task definition's role",
            "cluster dev, task definition node, arm64, on-demand, 0.5 vCPU / 2 GiB, the task definition's role",
        ]
    );
    assert_eq!(decision.placements[0].reason, "rules [dev], [arm64], [cheap], alternative 1 of 2");
    let [step] = &decision.steps[..] else { panic!("one step") };
    assert_eq!((step.policy.as_str(), step.kind), ("by-tag", Kind::Placer));
    assert_eq!(step.facts_read, BTreeSet::from(["job-tags".to_owned()]));
    assert_eq!(step.claims_read, BTreeSet::new());
    assert!(step.fuel > 0 && step.fuel < 1_000_000, "{}", step.fuel);
}

#[test]
fn fuel_is_the_same_each_time() {
    let house = House::shared();
    let policy = by_tag(rules());
    let asked = Asked::with_tags(&["dev"]);
    let fuel = || asked.decide(&house, &[("by-tag", &policy)]).unwrap().steps[0].fuel;
    assert_eq!(fuel(), fuel());
}

#[test]
fn by_tag_rejects_and_says_why() {
    let house = House::shared();
    let policy = by_tag(rules());
    let [refusal] =
        &rejected(Asked::with_tags(&["gpu"]).decide(&house, &[("by-tag", &policy)]))[..]
    else {
        panic!("one reason")
    };
    assert_eq!(refusal.code, "unknown-tag");
    assert_eq!(
        refusal.to_string(),
        "policy `by-tag`: no rule knows the tag [gpu] of this job's tags [gpu] (unknown-tag); rules know the \
         tags [arm64, cheap, deploy, dev, prod]; an operator can add a rule, or set `unknown_tags = \"ignore\"`"
    );
}

#[test]
fn bounds_bind_policies() {
    let house = House::shared();
    let policy = by_tag(rules());
    let [refusal] =
        &rejected(Asked::with_tags(&["prod"]).decide(&house, &[("by-tag", &policy)]))[..]
    else {
        panic!("one reason")
    };
    assert_eq!(refusal.code, "out-of-bounds");
    assert_eq!(refusal.message, "cluster `prod` is not allowed: the profile allows `dev`");

    // What is left of the candidates is used.
    let mut asked = Asked::with_tags(&["dev", "cheap"]);
    asked.bounds.capacities = [Capacity::OnDemand].into();
    let decision = asked.decide(&house, &[("by-tag", &policy)]).unwrap();
    assert_eq!(decision.placements.len(), 1);
    assert_eq!(decision.placements[0].capacity, Capacity::OnDemand);
    assert!(
        decision.steps[0]
            .outcome
            .ends_with("; refused: capacity `spot` is not allowed: the profile allows `on-demand`"),
        "{}",
        decision.steps[0].outcome
    );
}

#[test]
fn wrong_settings_are_all_told() {
    let house = House::shared();
    let policy = by_tag(json!({"rules": [{"tags": [], "arch": "x86"}], "more": 1}));
    let Err(PolicyError::Settings { policy, problems }) = house.store.ensure("by-tag", &policy)
    else {
        panic!("wrong settings")
    };
    assert_eq!(policy, "by-tag");
    assert_eq!(
        problems,
        [
            "more: is unknown, expected one of rules, unknown_tags",
            "rules[0].tags: is an empty list, expected at least one tag such as [\"dev\"]",
            "rules[0].arch: is `x86`, expected `x86_64` or `arm64`",
        ]
    );
}

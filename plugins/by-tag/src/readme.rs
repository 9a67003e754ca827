//! The README's example does what the README says.

use crate::ByTag;
use pointsman_policy_sdk::fixture::Fixture;
use pointsman_policy_sdk::{Arch, Capacity, Decision, Placer, Policy, Value};

const README: &str = include_str!("../README.md");

fn blocks(language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    README.split(fence.as_str()).skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

fn decide(tags: &[&str]) -> Decision {
    let file: Value = toml::from_str(blocks("toml")[0]).unwrap();
    let settings = ByTag::settings(&file["policies"]["by-tag"]["settings"]).unwrap();
    ByTag::place(&Fixture::with_tags(tags.iter().copied()), &settings)
}

#[test]
fn allowed() {
    let Decision::Place(candidates) = decide(&["dev", "arm64", "cheap"]) else { panic!("placed") };
    let reasons: Vec<&str> = candidates.iter().map(|candidate| candidate.reason.as_str()).collect();
    assert_eq!(reasons, blocks("text")[0].lines().collect::<Vec<_>>());
    assert!(candidates.iter().all(|candidate| {
        (candidate.cluster.as_str(), candidate.arch) == ("dev", Arch::Arm64)
            && (candidate.cpu_units, candidate.memory_mib) == (Some(1024), Some(2048))
    }));
    assert_eq!(candidates[0].capacity, Capacity::Spot);
}

#[test]
fn denied() {
    let Decision::Reject(rejection) = decide(&["dev", "gpu"]) else { panic!("rejected") };
    let told = format!("{}\n{}\n", rejection.message, rejection.hint.unwrap());
    assert_eq!(told, blocks("text")[1]);
    let Decision::Reject(rejection) = decide(&["arm64"]) else { panic!("rejected") };
    assert!(README.replace('\n', " ").contains(&rejection.message), "{}", rejection.message);
}

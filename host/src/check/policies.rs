//! Each policy, as a job would meet it, and each profile's chain of them.
//!
//! The store of compiled policies is looked at and left as it is: what is not compiled there is compiled in a
//! directory of the check's own, which goes away with it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{Findings, Kind, by_tag};
use crate::job::Job;
use crate::policy::store::Description;
use crate::policy::{
    self, Assurance, BrokenKind, DecidedBy, Kind as PolicyKind, PolicyError, Question, Store,
    StoreError,
};
use crate::settings::{ClaimsTaint, Component, JobTags, Mode, OnError, Policy, Profile, Settings};

pub(super) fn look(settings: &Settings, settings_file: &Path, findings: &mut Findings<'_>) {
    let own = own_store(settings, findings);
    let is_complete =
        |own: &&Store| settings.policies.values().all(|policy| own.is_compiled(policy));
    if let Some(own) = own.as_ref().filter(is_complete) {
        look_with(settings, settings_file, Some(own), own, findings);
        return;
    }
    let scratch = tempfile::tempdir().map_err(|error| error.to_string()).and_then(|directory| {
        let store = Store::open(&directory.path().join("policies"));
        store.map(|store| (store, directory)).map_err(|error| error.to_string())
    });
    match scratch {
        Ok((scratch, _directory)) => {
            look_with(settings, settings_file, own.as_ref(), &scratch, findings);
        }
        Err(error) => {
            let what = format!("no policy can be compiled to look at it: {error}");
            findings.run(Kind::StoreUnsafe, "a temporary directory", what, "df -h; df -i");
        }
    }
}

/// The store that jobs use, where there is one.
fn own_store(settings: &Settings, findings: &mut Findings<'_>) -> Option<Store> {
    let directory = settings.state_directory.join("policies");
    if !directory.exists() {
        return None;
    }
    match Store::open(&directory) {
        Ok(store) => Some(store),
        Err(error @ StoreError::Unsafe { .. }) => {
            if let Some(owner) = other_owner(&directory) {
                findings.run(
                    Kind::OtherUser,
                    "state.directory",
                    format!(
                        "{} belongs to user {owner}, and this check is run by user {}",
                        directory.display(),
                        rustix::process::geteuid().as_raw()
                    ),
                    format!("sudo --user='#{owner}' pointsman check"),
                );
                return None;
            }
            let directory = directory.display();
            findings.run(
                Kind::StoreUnsafe,
                "state.directory",
                error.to_string(),
                format!("chown USER {directory} && chmod 700 {directory}, with USER as gitlab-runner runs"),
            );
            None
        }
        Err(error) => {
            let command = format!("ls -ld {}", directory.display());
            findings.run(Kind::StoreUnsafe, "state.directory", error.to_string(), command);
            None
        }
    }
}

/// Whose `directory` is, when it is somebody else's and safe for that one.
fn other_owner(directory: &Path) -> Option<u32> {
    let found = std::fs::symlink_metadata(directory).ok()?;
    let is_safe = found.is_dir() && found.mode() & 0o022 == 0;
    (is_safe && found.uid() != rustix::process::geteuid().as_raw()).then(|| found.uid())
}

fn look_with(
    settings: &Settings,
    settings_file: &Path,
    own: Option<&Store>,
    store: &Store,
    findings: &mut Findings<'_>,
) {
    let mut descriptions = BTreeMap::new();
    for (name, policy) in &settings.policies {
        let compiled = own.is_some_and(|own| own.is_compiled(policy));
        let described = one(name, policy, own, store, findings);
        // Of one that cannot be compiled there is nothing more to say.
        if described.is_some() && !compiled {
            findings.run(
                Kind::PolicyNotCompiled,
                format!("policies.{name}"),
                "is not compiled yet",
                format!("pointsman --config {} policy sync", settings_file.display()),
            );
        }
        descriptions.extend(described.map(|description| (name.as_str(), description)));
    }
    for (name, profile) in &settings.profiles {
        chain(settings, name, profile, &descriptions, store, findings);
    }
    for (name, policy) in &settings.policies {
        if descriptions.get(name.as_str()).is_some_and(|description| description.name == "by-tag") {
            by_tag::look(settings, name, policy, findings);
        }
    }
}

/// The policy by itself; `None` when it cannot be run at all.
fn one(
    name: &str,
    policy: &Policy,
    own: Option<&Store>,
    store: &Store,
    findings: &mut Findings<'_>,
) -> Option<Description> {
    let place = format!("policies.{name}");
    if let (Component::Oci(_), Some(own)) = (&policy.component, own)
        && !store.is_compiled(policy)
    {
        // What is not kept is reported by the look at it below.
        let _ = store.keep_from(own, name, policy);
    }
    let mut report = |error: &PolicyError| match error {
        PolicyError::Store { source, .. } => unready(&place, policy, source, findings),
        PolicyError::Broken { what, .. } => broken(&place, what, findings),
        PolicyError::Settings { problems, .. } => {
            for problem in problems {
                let (key, message) = problem.split_once(": ").unwrap_or(("", problem.as_str()));
                let dot = if key.is_empty() { "" } else { "." };
                findings.change(
                    Kind::PolicySettings,
                    format!("{place}.settings{dot}{key}"),
                    message,
                    format!(
                        "correct it; `pointsman policy inspect --schema {}` prints what the policy takes",
                        policy.component
                    ),
                );
            }
        }
        PolicyError::Rejected { .. } | PolicyError::NobodyAnswered { .. } => {}
    };
    // The digest is compared each time: a job would not meet a component that was replaced after it was compiled,
    // but the next compilation would.
    if let Err(error) = store.verify(name, policy) {
        report(&error);
        return None;
    }
    let description = match store.inspect(name, policy) {
        Ok(description) => description,
        Err(error) => {
            report(&error);
            return None;
        }
    };
    if let Err(error) = store.validate_settings(name, policy) {
        report(&error);
    }
    let uses_wasi = description.imports.iter().any(|import| import.starts_with("wasi:"));
    if policy.wasi && !uses_wasi {
        findings.change(
            Kind::WasiUnneeded,
            format!("{place}.wasi"),
            "is granted",
            format!("remove `wasi = true` from [{place}]"),
        );
    }
    if description.kind == PolicyKind::Guard && policy.on_error == OnError::Abstain {
        findings.change(
            Kind::GuardOnError,
            format!("{place}.on_error"),
            "is `abstain`, and the policy is a guard",
            format!("remove `on_error` from [{place}]"),
        );
    }
    Some(description)
}

fn unready(place: &str, policy: &Policy, error: &StoreError, findings: &mut Findings<'_>) {
    match error {
        StoreError::Digest { actual, .. } => findings.change(
            Kind::PolicyDigest,
            format!("{place}.sha256"),
            format!("is {}, but {} has the digest {actual}", policy.sha256, policy.component),
            format!("bring the pinned component back, or set `sha256 = \"{actual}\"` when this one is meant and tested"),
        ),
        StoreError::NotInstalled { component } => findings.run(
            Kind::PolicyNotInstalled,
            place,
            format!("{component} is not installed on this machine"),
            "pointsman policy sync",
        ),
        StoreError::Component { source, .. } => findings.change(
            Kind::PolicyUnreadable,
            format!("{place}.component"),
            format!("{} cannot be read: {source}", policy.component),
            format!("put the component there, or correct `component` of [{place}]"),
        ),
        StoreError::Unsafe { .. } | StoreError::Io { .. } | StoreError::Runtime(_) => {
            findings.run(Kind::PolicyUnreadable, place, error.to_string(), "df -h; df -i");
        }
    }
}

fn broken(place: &str, what: &BrokenKind, findings: &mut Findings<'_>) {
    let text = what.to_string();
    let change = if text.contains("`wasi = true`") {
        format!("set `wasi = true` in [{place}], or use a component without WASI")
    } else {
        format!(
            "set `component` and `sha256` of [{place}] to a component that `pointsman policy inspect` accepts"
        )
    };
    findings.change(Kind::PolicyBroken, place, text, change);
}

/// The chain of a profile as a whole.
fn chain(
    settings: &Settings,
    name: &str,
    profile: &Profile,
    descriptions: &BTreeMap<&str, Description>,
    store: &Store,
    findings: &mut Findings<'_>,
) {
    let chain = settings.chain(profile);
    let described = |policy: &str| descriptions.get(policy);
    // A chain with a policy that cannot be run has been reported.
    if chain.iter().any(|(policy, _)| described(policy).is_none()) {
        return;
    }
    let placers = chain.iter().filter(|(policy, own)| {
        own.mode == Mode::Enforce
            && described(policy).is_some_and(|found| found.kind == PolicyKind::Placer)
    });
    if placers.count() == 0 {
        findings.change(
            Kind::ChainWithoutPlacer,
            format!("profiles.{name}.policies"),
            format!("has no placer that is enforced: {}", kinds(&chain, descriptions)),
            "add a placer, such as `by-tag`, as the first policy",
        );
        return;
    }
    claims(settings, name, profile, &chain, descriptions, findings);
    try_out(settings, name, profile, &chain, descriptions, store, findings);
}

fn kinds(chain: &[(&str, Policy)], descriptions: &BTreeMap<&str, Description>) -> String {
    let word = |(name, policy): &(&str, Policy)| {
        let kind = descriptions.get(name).map_or("unknown", |found| match found.kind {
            PolicyKind::Placer => "a placer",
            PolicyKind::Mutator => "a mutator",
            PolicyKind::Guard => "a guard",
        });
        let monitored = if policy.mode == Mode::Monitor { ", monitored" } else { "" };
        format!("`{name}` is {kind}{monitored}")
    };
    chain.iter().map(word).collect::<Vec<_>>().join(", ")
}

fn claims(
    settings: &Settings,
    name: &str,
    profile: &Profile,
    chain: &[(&str, Policy)],
    descriptions: &BTreeMap<&str, Description>,
    findings: &mut Findings<'_>,
) {
    if profile.claims_taint == ClaimsTaint::DenyPrivilegedRoles {
        return;
    }
    let is_privileged =
        |role: &&String| settings.roles.get(*role).is_some_and(|role| role.privileged);
    let reads = |(policy, own): &&(&str, Policy)| {
        own.mode == Mode::Enforce
            && match &own.component {
                Component::BuiltIn(default) => {
                    default.task_definitions.is_open || default.platform_versions.is_open
                }
                Component::File(_) | Component::Oci(_) => {
                    descriptions.get(policy).is_some_and(Description::reads_claims)
                }
            }
    };
    if let (Some(role), Some((policy, _))) =
        (profile.bounds.roles.iter().find(is_privileged), chain.iter().find(reads))
    {
        findings.change(
            Kind::RoleByClaim,
            format!("profiles.{name}.claims_taint"),
            format!(
                "is `allow`, the role `{role}` is privileged, and policy `{policy}` can read claims"
            ),
            format!("set `claims_taint = \"deny-privileged-roles\"` in [profiles.{name}]"),
        );
    }
}

/// Asks the chain about a job that there is none of, with the profile's tags: this is what the policies see of every
/// job whose own tags are not known.
///
/// What a guard refuses or a policy of somebody else's hangs on facts that only a real job has; what is left is told.
fn try_out(
    settings: &Settings,
    name: &str,
    profile: &Profile,
    chain: &[(&str, Policy)],
    descriptions: &BTreeMap<&str, Description>,
    store: &Store,
    findings: &mut Findings<'_>,
) {
    let catalog = settings.catalog(&profile.bounds);
    let question = Question {
        job: &Job::made_up("check", true),
        profile: name,
        tags: &profile.tags,
        tags_assurance: Assurance::Runner,
        attempt: 1,
        earlier_failures: &[],
        facts: &BTreeMap::new(),
        catalog: &catalog,
        bounds: &profile.bounds,
        claims_taint: profile.claims_taint,
    };
    let chain: Vec<(&str, &Policy)> = chain.iter().map(|(name, policy)| (*name, policy)).collect();
    let place = format!("profiles.{name}");
    // With these, no job is ever decided by its profile's tags.
    let asks_gitlab =
        settings.gitlab.as_ref().is_some_and(|gitlab| gitlab.job_tags == JobTags::Required);
    let tags: Vec<&String> = profile.tags.iter().collect();
    match policy::decide(&question, &chain, store) {
        Ok(_) => {}
        Err(PolicyError::Rejected { reasons }) if !asks_gitlab => {
            let by_tag =
                |policy: &str| descriptions.get(policy).is_some_and(|found| found.name == "by-tag");
            let told = reasons.iter().find(|reason| match reason.decided_by {
                DecidedBy::Bounds => true,
                DecidedBy::Policy => by_tag(&reason.policy),
                DecidedBy::ClaimsTaint => false,
            });
            if let Some(reason) = told {
                let change = reason.hint.clone().unwrap_or_else(|| {
                    format!(
                        "change what policy `{}` chooses, or the bounds of [{place}]",
                        reason.policy
                    )
                });
                findings.change(
                    Kind::PlacesNothing,
                    place,
                    format!(
                        "with the tags {tags:?}, policy `{}`: {}",
                        reason.policy, reason.message
                    ),
                    change,
                );
            }
        }
        Err(PolicyError::NobodyAnswered { asked, .. }) => findings.change(
            Kind::PlacesNothing,
            place.clone(),
            format!("with the tags {tags:?}, none of the placers {} answers", asked.join(", ")),
            format!("end `policies` of [{place}] with a placer that always answers"),
        ),
        Err(PolicyError::Broken { policy, what }) => {
            broken(&format!("policies.{policy}"), &what, findings);
        }
        // Reported with the policy.
        Err(
            PolicyError::Rejected { .. } | PolicyError::Settings { .. } | PolicyError::Store { .. },
        ) => {}
    }
}

/// The tags that a job can bring which a chain with `policy` decides about: those of the profiles.
pub(super) fn asked_with<'s>(
    settings: &'s Settings,
    policy: &str,
) -> Vec<(&'s String, &'s Profile, &'s BTreeSet<String>)> {
    let asks = |profile: &&Profile| profile.policies.iter().any(|listed| listed == policy);
    settings
        .profiles
        .iter()
        .filter(|(_, profile)| asks(profile))
        .map(|(name, profile)| (name, profile, &profile.tags))
        .collect()
}

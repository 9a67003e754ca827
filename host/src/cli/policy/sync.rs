//! `pointsman policy sync`: does everything slow of every policy that the settings file names, so that jobs only
//! load.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Instant;

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::cli::{Global, load};
use crate::failure::{Failure, Report};
use crate::job::Job;
use crate::output;
use crate::placement::{Candidate, Capacity, Placement};
use crate::policy::{Assurance, Kind, PolicyError, Question, Store, try_out};
use crate::registry::{self, Credentials};
use crate::settings::{Component, Policy, Profile, Settings};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// User and password for registries, in the format of Docker's config.json
    #[arg(long, value_name = "FILE")]
    auth_file: Option<PathBuf>,
    /// Keeps compiled policies that the settings file does not name any more
    #[arg(long)]
    no_prune: bool,
    /// How the result is written
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A line for each policy
    Text,
    /// One JSON object
    Json,
}

/// What became of all policies.
#[derive(Debug, Serialize)]
struct Synced {
    policies: Vec<Installed>,
    removed: Vec<String>,
}

/// What became of one policy.
#[derive(Debug, Serialize)]
struct Installed {
    policy: String,
    component: String,
    sha256: String,
    #[serde(flatten)]
    result: Outcome,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case", tag = "result")]
enum Outcome {
    Ready(Ready),
    Failed { error: String, causes: Vec<String>, hints: Vec<String> },
}

#[derive(Debug, Serialize)]
struct Ready {
    kind: Kind,
    name: String,
    version: String,
    description: String,
    fetched: bool,
    /// Milliseconds, where the component was not compiled before.
    compiled_ms: Option<u128>,
    bytes: u64,
    /// The fuel of a trial call, by profile.
    trials: BTreeMap<String, u64>,
}

/// Answers whether every policy is ready.
pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<bool, Failure> {
    let settings = load(global)?;
    let store = Store::open(&settings.state_directory.join("policies"))?;
    let credentials = match &arguments.auth_file {
        Some(path) => {
            Credentials::read(path).map_err(|error| Failure::System(Report::of(&error)))?
        }
        None => Credentials::default(),
    };
    let mut synced = Synced { policies: Vec::new(), removed: Vec::new() };
    let mut all_ready = true;
    // One bad policy does not hide the others.
    for (name, policy) in &settings.policies {
        let result = match install(&settings, &store, &credentials, name, policy) {
            Ok(ready) => Outcome::Ready(ready),
            Err(failure) => {
                all_ready = false;
                let (Failure::System(report) | Failure::Build(report)) = failure else { continue };
                if arguments.format == Format::Text {
                    report.print();
                }
                Outcome::Failed { error: report.error, causes: report.causes, hints: report.hints }
            }
        };
        let installed = Installed {
            policy: name.clone(),
            component: policy.component.to_string(),
            sha256: policy.sha256.clone(),
            result,
        };
        if arguments.format == Format::Text {
            output::result(&line(&installed));
        }
        synced.policies.push(installed);
    }
    // After a failure the settings file may be the mistake: nothing goes that a job may still need.
    if all_ready && !arguments.no_prune {
        let kept = settings.policies.values().map(|policy| policy.sha256.clone()).collect();
        synced.removed = store.prune(&kept)?;
        if arguments.format == Format::Text && !synced.removed.is_empty() {
            let files = synced.removed.len();
            output::result(&format!("removed {files} files that no policy of the file needs\n"));
        }
    }
    if arguments.format == Format::Json {
        let text = serde_json::to_string_pretty(&synced)
            .map_err(|error| Failure::System(Report::of(&error)))?;
        output::result(&format!("{text}\n"));
    }
    Ok(all_ready)
}

fn install(
    settings: &Settings,
    store: &Store,
    credentials: &Credentials,
    name: &str,
    policy: &Policy,
) -> Result<Ready, Failure> {
    let fetched = store.needs_fetching(policy);
    if let (true, Component::Oci(reference)) = (fetched, &policy.component) {
        let bytes = registry::pull(reference, credentials)
            .map_err(|error| Failure::System(Report::of(&error)))?;
        store.keep(name, policy, &bytes)?;
    }
    let bytes = store.verify(name, policy)?;
    let was_compiled = store.is_compiled(policy);
    let started = Instant::now();
    let description = store.describe(name, policy)?;
    let compiled_ms = (!was_compiled).then(|| started.elapsed().as_millis());
    let mut trials = BTreeMap::new();
    for (profile_name, profile) in &settings.profiles {
        if profile.policies.iter().any(|listed| listed == name) {
            let fuel = trial(settings, store, name, policy, profile_name, profile)?;
            trials.extend(fuel.map(|fuel| (profile_name.clone(), fuel)));
        }
    }
    Ok(Ready {
        kind: description.kind,
        name: description.name,
        version: description.version,
        description: description.description,
        fetched,
        compiled_ms,
        bytes,
        trials,
    })
}

/// Asks the policy about a job that there is none of, and answers the fuel; whatever a policy may answer is fine.
fn trial(
    settings: &Settings,
    store: &Store,
    name: &str,
    policy: &Policy,
    profile_name: &str,
    profile: &Profile,
) -> Result<Option<u64>, PolicyError> {
    let job = Job::made_up("policy sync", false);
    let catalog = settings.catalog(&profile.bounds);
    let question = Question {
        job: &job,
        profile: profile_name,
        tags: &profile.tags,
        tags_assurance: Assurance::Runner,
        attempt: 1,
        earlier_failures: &[],
        facts: &BTreeMap::new(),
        catalog: &catalog,
        bounds: &profile.bounds,
        claims_taint: profile.claims_taint,
    };
    // A profile that allows nothing has no candidate to ask about either.
    let Some(candidate) = trial_placement(&question) else { return Ok(None) };
    try_out(&question, name, policy, &candidate, store).map(|step| Some(step.fuel))
}

fn trial_placement(question: &Question<'_>) -> Option<Placement> {
    let Question { catalog, bounds, .. } = *question;
    let capacity = if bounds.capacities.contains(&Capacity::OnDemand) {
        Capacity::OnDemand
    } else {
        Capacity::Spot
    };
    let cluster = catalog.clusters.keys().next()?;
    catalog.task_definitions.iter().find_map(|(name, definition)| {
        let candidate = Candidate {
            cluster: cluster.clone(),
            task_definition: name.clone(),
            arch: *definition.archs.first()?,
            capacity,
            cpu_units: None,
            memory_mib: None,
            ephemeral_storage_gib: None,
            role: None,
            labels: BTreeMap::new(),
            reason: "a trial".to_owned(),
        };
        bounds.check(&candidate, catalog).ok()
    })
}

fn line(installed: &Installed) -> String {
    let name = &installed.policy;
    let ready = match &installed.result {
        Outcome::Ready(ready) => ready,
        Outcome::Failed { .. } => return format!("{name}: not ready\n"),
    };
    let mut line = format!(
        "{name}: ready, {} {} {}",
        ready.kind,
        output::printable(&ready.name),
        output::printable(&ready.version)
    );
    if ready.fetched {
        line.push_str(", fetched");
    }
    match ready.compiled_ms {
        Some(milliseconds) => line.push_str(&format!(", compiled in {milliseconds} ms")),
        None => line.push_str(", was compiled"),
    }
    let fuels: BTreeSet<u64> = ready.trials.values().copied().collect();
    if let Some(most) = fuels.last() {
        let profiles: Vec<&str> = ready.trials.keys().map(String::as_str).collect();
        line.push_str(&format!(", tried for {} ({most} fuel)", profiles.join(", ")));
    }
    line.push('\n');
    line
}

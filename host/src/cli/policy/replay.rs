//! `pointsman policy replay` on the command line.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::inspect::{Format, pretty};
use super::{Cache, table};
use crate::authoring::replay::{Offer, Replay, Replayed, replay};
use crate::authoring::{name_of, policy_of};
use crate::cli::{Global, load};
use crate::failure::Failure;
use crate::output;
use crate::placement::Placement;
use crate::rehearse::COST_BASIS;
use crate::settings::Settings;
use crate::spelling;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Records, or directories of them [default: those of the state directory]
    records: Option<PathBuf>,
    /// Decides with this component in the place of a policy of the settings file
    #[arg(long, value_name = "FILE")]
    with: Option<PathBuf>,
    /// The policy that it takes the place of [default: the one that has the file's name]
    #[arg(long, value_name = "NAME", requires = "with")]
    policy: Option<String>,
    /// Decides with the policies and profiles of this settings file
    #[arg(long, value_name = "FILE", required_unless_present = "with")]
    settings: Option<PathBuf>,
    /// What there is to choose from [default: as recorded; with --settings, as that file has it]
    #[arg(long, value_enum)]
    offer: Option<Offered>,
    /// How it is written
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    #[command(flatten)]
    cache: Cache,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Offered {
    /// The catalog and the bounds of each record: what moves is the policies' doing
    Recorded,
    /// Those of the settings file
    Settings,
}

/// Answers whether every recorded job would be placed.
pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<bool, Failure> {
    let own = load(global)?;
    let other = arguments.settings.as_deref().map(Settings::load).transpose()?;
    let settings = other.as_ref().unwrap_or(&own);
    let mut replaced = None;
    if let Some(component) = &arguments.with {
        let name = arguments.policy.clone().unwrap_or_else(|| name_of(component));
        let Some(policy) = settings.policies.get(&name) else {
            let names: Vec<&str> = settings.policies.keys().map(String::as_str).collect();
            let instead = spelling::instead(&name, names);
            return Err(Failure::system(format!(
                "the settings have no policy `{name}`: {instead}"
            ))
            .hint("name the one that it takes the place of with --policy NAME"));
        };
        let pinned = policy_of(component, policy.settings.clone())?;
        let policy = crate::settings::Policy {
            component: pinned.component,
            sha256: pinned.sha256,
            ..policy.clone()
        };
        replaced = Some((name, policy));
    }
    let records = arguments.records.clone().unwrap_or_else(|| own.state_directory.join("records"));
    let replaced = replaced.as_ref().map(|(name, policy)| (name.as_str(), policy));
    let offer = match (arguments.offer, &arguments.settings) {
        (Some(Offered::Recorded), _) | (None, None) => Offer::Recorded,
        (Some(Offered::Settings), _) | (None, Some(_)) => Offer::Settings,
    };
    let replayed = replay(&records, settings, replaced, offer, &arguments.cache.store()?)?;
    if arguments.format == Format::Json {
        output::result(&format!("{}\n", pretty(&replayed)?));
    } else {
        output::result(&text(&replayed));
    }
    Ok(replayed.jobs.iter().all(|job| job.error.is_none()))
}

/// Without labels and reason.
fn place(placement: &Placement) -> String {
    let role = placement.role.as_deref().unwrap_or("own role");
    format!(
        "{} {} {} {} {} {role}",
        placement.cluster,
        placement.task_definition,
        placement.arch,
        placement.capacity,
        placement.size
    )
}

#[derive(Default)]
struct Move {
    jobs: usize,
    cost: Option<f64>,
}

fn text(replay: &Replay) -> String {
    let mut moves: BTreeMap<(String, String), Move> = BTreeMap::new();
    for job in replay.jobs.iter().filter(|job| job.moves) {
        let after = match (&job.after, &job.error) {
            (Some(after), _) => place(after),
            (None, Some(error)) => format!("nowhere: {error}"),
            (None, None) => "nowhere".to_owned(),
        };
        let entry = moves.entry((place(&job.before), after)).or_default();
        entry.jobs += 1;
        if let Some(difference) = difference(job) {
            entry.cost = Some(entry.cost.unwrap_or(0.0) + difference);
        }
    }
    let mut rows = vec![vec!["jobs".to_owned(), "cost".to_owned(), "from → to".to_owned()]];
    for ((before, after), moved) in &moves {
        rows.push(vec![
            moved.jobs.to_string(),
            moved.cost.map_or_else(|| "–".to_owned(), |cost| format!("{cost:+.4}")),
            format!("{} → {}", output::printable(before), output::printable(after)),
        ]);
    }
    let moved: usize = moves.values().map(|moved| moved.jobs).sum();
    let total: f64 = replay.jobs.iter().filter_map(difference).sum();
    let mut text = if moves.is_empty() { String::new() } else { table(&rows) };
    text.push_str(&format!(
        "{} jobs decided again: {moved} would move, {} stay; {total:+.4} USD together\n",
        replay.jobs.len(),
        replay.jobs.len() - moved
    ));
    if replay.with_recorded_offer > 0 {
        text.push_str(&format!(
            "{} of them with the catalog and the bounds of their record; `--offer settings` takes the settings file's\n",
            replay.with_recorded_offer
        ));
    }
    if replay.without_question > 0 {
        text.push_str(&format!(
            "{} records of an older driver keep no question and were left out\n",
            replay.without_question
        ));
    }
    if replay.unreadable > 0 {
        text.push_str(&format!("{} files are no records\n", replay.unreadable));
    }
    text.push_str(&format!("{COST_BASIS} Jobs are assumed to take as long as they did.\n"));
    text
}

fn difference(job: &Replayed) -> Option<f64> {
    Some(job.cost_after? - job.cost_before?)
}

//! `pointsman history`: what was decided, and what came of it.

use std::time::SystemTime;

use clap::{ArgAction, Args, ValueEnum};
use jiff::Timestamp;
use jiff::civil::Date;
use serde_json::{Value, json};

use super::policy::table;
use super::sweep::Format;
use super::{Global, load};
use crate::authoring::provenance;
use crate::failure::{Failure, Report};
use crate::history::{self, Ended, Ending, Entry, Filter, Newest, Unreadable};
use crate::output;
use crate::placement::bounds::Bounds;
use crate::placement::catalog::Catalog;
use crate::placement::text::one_line;
use crate::policy::{RecordedQuestion, Step};
use crate::settings::{ClaimsTaint, Settings};
use crate::state::{AttemptId, Launch, Wanted};

/// Characters of a job's name, a project's path and a reason in a table.
const MAX_NAME: usize = 32;
const MAX_REASON: usize = 48;
/// A missing value.
const NONE: &str = "–";

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A job's or an attempt's id: everything that is known of it
    #[arg(value_name = "ID", conflicts_with_all = ["since", "project", "pipeline", "job", "outcome", "limit"])]
    id: Option<String>,
    /// Decided since then: a duration such as 7d, a date or a timestamp
    #[arg(long, value_name = "WHEN", value_parser = since, default_value = "7d")]
    since: Timestamp,
    /// Of this project, by id or path, or below this group
    #[arg(long, value_name = "ID|PATH")]
    project: Option<String>,
    /// Of this pipeline
    #[arg(long, value_name = "ID")]
    pipeline: Option<u64>,
    /// Of jobs of this name
    #[arg(long, value_name = "NAME")]
    job: Option<String>,
    /// That ended so
    #[arg(long, value_name = "KIND", value_enum)]
    outcome: Option<Kind>,
    /// So many at most, the newest
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// With reasons and scripts
    #[arg(long, action = ArgAction::SetTrue)]
    verbose: bool,
    #[arg(long, value_enum, default_value = "text", help = "How the answer is written")]
    format: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    /// Has not ended
    Living,
    /// The task served to the end, whatever the scripts came to
    Released,
    /// The task served, and no script failed
    Done,
    /// The task served, and the job failed by its script
    ScriptFailed,
    /// Lost, or never had a task: the four kinds below
    Failed,
    /// Spot took the task back
    SpotInterruption,
    /// No placement had capacity
    Capacity,
    /// A container was killed for its memory use
    OutOfMemory,
    /// Lost for another reason
    Other,
    /// Cancelled while it waited for a task
    Cancelled,
    /// No policy or no bounds allowed it
    Rejected,
}

impl From<Kind> for Ended {
    fn from(kind: Kind) -> Self {
        Self::As(match kind {
            Kind::Released => return Self::Released,
            Kind::Failed => return Self::Failed,
            Kind::Living => Ending::Living,
            Kind::Done => Ending::Done,
            Kind::ScriptFailed => Ending::ScriptFailed,
            Kind::SpotInterruption => Ending::SpotInterruption,
            Kind::Capacity => Ending::Capacity,
            Kind::OutOfMemory => Ending::OutOfMemory,
            Kind::Other => Ending::Other,
            Kind::Cancelled => Ending::Cancelled,
            Kind::Rejected => Ending::Rejected,
        })
    }
}

/// A duration before now, a date (UTC), or a timestamp.
pub(super) fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(duration) = humantime::parse_duration(text) {
        let then = SystemTime::now().checked_sub(duration);
        let then = then.and_then(|then| Timestamp::try_from(then).ok());
        return Ok(then.unwrap_or(Timestamp::MIN));
    }
    let date = || format!("{}T00:00:00Z", text.parse::<Date>().ok()?).parse().ok();
    text.parse().ok().or_else(date).ok_or_else(|| {
        "expected a duration such as 7d, a date such as 2026-11-01, or a timestamp such as 2026-11-01T12:00:00Z"
            .to_owned()
    })
}

/// The settings, where their state directory is there: a wrong one would read as an empty history.
pub(super) fn settings_with_state(global: &Global) -> Result<Settings, Failure> {
    let settings = load(global)?;
    let directory = &settings.state_directory;
    if !directory.is_dir() {
        let error = format!("there is no state directory `{}`", directory.display());
        return Err(Failure::system(error).hint(
            "the first job makes it; --state-directory names another, such as a rehearsal's",
        ));
    }
    Ok(settings)
}

/// Lists attempts, or tells everything of some.
pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<(), Failure> {
    let settings = settings_with_state(global)?;
    match &arguments.id {
        Some(id) => whole(&settings, id, arguments.format),
        None => list(&settings, global, arguments),
    }
}

fn list(settings: &Settings, global: &Global, arguments: &Arguments) -> Result<(), Failure> {
    let filter = Filter {
        since: Some(arguments.since),
        project: arguments.project.clone(),
        pipeline: arguments.pipeline,
        job: arguments.job.clone(),
        profile: global.profile.clone(),
        outcome: arguments.outcome.map(Ended::from),
    };
    let wanted = Wanted { pipeline: filter.pipeline, since: filter.since, ..Wanted::default() };
    let mut newest = Newest::new(usize::try_from(arguments.limit).unwrap_or(usize::MAX));
    let unreadable = history::attempts(&settings.state_directory, &wanted, &mut |entry, _| {
        if filter.takes(&entry) {
            newest.add(entry);
        }
    })?;
    let now = Timestamp::now();
    let found = newest.count;
    let entries = newest.into_entries();
    if arguments.format == Format::Json {
        let attempts: Vec<_> = entries.iter().map(|entry| entry.known(now)).collect();
        print(&json!({ "attempts": attempts, "found": found, "unreadable": unreadable }));
        return Ok(());
    }
    let mut text = rows(&entries, now, arguments.verbose);
    match found {
        0 => text.push_str(&format!("No attempt since {:.0} is as asked for.\n", arguments.since)),
        found if found > entries.len() => text.push_str(&format!(
            "The newest {} of {found} attempts; --limit shows more.\n",
            entries.len()
        )),
        _ => {}
    }
    text.push_str(&complaint(&unreadable));
    output::result(&text);
    Ok(())
}

/// A line for what could not be read, and one for each file that is named.
pub(super) fn complaint(unreadable: &Unreadable) -> String {
    if unreadable.count == 0 {
        return String::new();
    }
    let noun = if unreadable.count == 1 { "file is" } else { "files are" };
    let mut text =
        format!("{} {noun} no attempt of this version and left out:\n", unreadable.count);
    for (path, why) in &unreadable.files {
        let line = format!("  {}: {why}", path.display());
        text.push_str(&output::printable(&line));
        text.push('\n');
    }
    if unreadable.count > unreadable.files.len() {
        text.push_str(&format!("  and {} more\n", unreadable.count - unreadable.files.len()));
    }
    text
}

fn print(value: &Value) {
    output::result(&format!("{value:#}\n"));
}

const HEAD: [&str; 15] = [
    "decided",
    "job id",
    "try",
    "job",
    "project",
    "profile",
    "cluster",
    "definition",
    "arch",
    "capacity",
    "size",
    "role",
    "ended",
    "waited",
    "ran",
];

fn rows(entries: &[Entry], now: Timestamp, is_verbose: bool) -> String {
    if entries.is_empty() {
        return String::new();
    }
    let mut rows = vec![HEAD.map(str::to_owned).to_vec()];
    rows[0].push("decided by".to_owned());
    rows.extend(entries.iter().map(|entry| row(entry, now)));
    let text = table(&rows);
    if !is_verbose {
        return text;
    }
    let mut lines = text.lines();
    let mut verbose = format!("{}\n", lines.next().unwrap_or_default());
    for (line, entry) in lines.zip(entries) {
        verbose.push_str(&format!("{line}\n"));
        for more in more(entry) {
            verbose.push_str(&format!("    {}\n", output::printable(&more)));
        }
    }
    verbose
}

fn row(entry: &Entry, now: Timestamp) -> Vec<String> {
    let name = |text: &str| one_line(text, MAX_NAME);
    let place = entry.place();
    let of = |text: &dyn Fn(&crate::placement::Placement) -> String| {
        place.map_or_else(|| NONE.to_owned(), text)
    };
    let ended = match entry.stage() {
        Some(stage) => format!("lives: {}", stage.words()),
        None => entry.ending().words().to_owned(),
    };
    let seconds = |seconds: Option<f64>| seconds.map_or_else(|| NONE.to_owned(), duration);
    let reason = place.map(|place| one_line(&place.reason, MAX_REASON)).unwrap_or_default();
    let decided_by = match (entry.decided_by(), reason.as_str()) {
        (None, _) => NONE.to_owned(),
        (Some(policy), "") => policy.to_owned(),
        (Some(policy), reason) => format!("{policy}: {reason}"),
    };
    let cells = vec![
        format!("{:.0}", entry.decided_at),
        if entry.is_doctor() { NONE.to_owned() } else { entry.job.id.to_string() },
        entry.number.to_string(),
        if entry.is_doctor() { "(doctor --launch)".to_owned() } else { name(&entry.job.name) },
        if entry.is_doctor() { NONE.to_owned() } else { name(&entry.job.project) },
        name(&entry.profile),
        of(&|place| place.cluster.clone()),
        of(&|place| place.task_definition.clone()),
        of(&|place| place.arch.to_string()),
        of(&|place| place.capacity.to_string()),
        of(&|place| place.size.to_string()),
        of(&|place| place.role.clone().unwrap_or_else(|| "the definition's".to_owned())),
        ended,
        seconds(entry.waited()),
        seconds(entry.ran(now)),
        decided_by,
    ];
    cells.iter().map(|cell| output::printable(cell)).collect()
}

/// What a row has no room for.
fn more(entry: &Entry) -> Vec<String> {
    let mut lines = vec![format!("attempt {}, pipeline {}", entry.id, entry.job.pipeline_id)];
    let reason = entry.place().map(|place| place.reason.as_str()).unwrap_or_default();
    if !reason.is_empty() {
        lines.push(format!("since: {reason}"));
    }
    lines.extend(entry.detail());
    lines.extend(scripts(entry));
    lines
}

fn scripts(entry: &Entry) -> impl Iterator<Item = String> {
    entry.scripts.iter().map(|script| {
        let exit =
            script.exit.map_or_else(|| "no exit status".to_owned(), |exit| format!("exit {exit}"));
        let cpu = script.cpu_seconds.map(|cpu| format!(", {cpu:.2} s of CPU")).unwrap_or_default();
        let peak = script.peak_memory_mib.map(|mib| format!(", at most {mib} MiB"));
        let peak = peak.unwrap_or_default();
        format!("{}: {exit}, {}{cpu}{peak}", script.sub_stage, duration(script.seconds))
    })
}

/// `4.2 s`, `3 min 20 s`, `2 h 5 min`
pub(super) fn duration(seconds: f64) -> String {
    if seconds < 60.0 {
        return format!("{seconds:.1} s");
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is at least 60, and a cast of what is too large gives the largest"
    )]
    let whole = seconds.round() as u64;
    match (whole / 3600, whole % 3600 / 60, whole % 60) {
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

/// Everything of one attempt, or of all attempts of one job.
fn whole(settings: &Settings, id: &str, format: Format) -> Result<(), Failure> {
    let wanted = match (id.parse::<u64>(), AttemptId::parse(id)) {
        (Ok(job), _) => Wanted { job: Some(job), ..Wanted::default() },
        (Err(_), Ok(attempt)) => Wanted { attempt: Some(attempt), ..Wanted::default() },
        (Err(_), Err(_)) => {
            return Err(Failure::system(format!(
                "`{}` is neither a job's id nor an attempt's",
                one_line(id, MAX_NAME)
            ))
            .hint("a job's id is a number, an attempt's that number, `-` and 16 hex digits"));
        }
    };
    let mut found: Vec<(Entry, Value)> = Vec::new();
    let unreadable = history::attempts(&settings.state_directory, &wanted, &mut |entry, text| {
        if let Ok(mut value) = serde_json::from_slice::<Value>(text) {
            if let Some(fields) = value.as_object_mut() {
                // Those of one that lives.
                fields.remove("keys");
            }
            found.push((entry, value));
        }
    })?;
    found.sort_by_key(|(entry, _)| entry.decided_at);
    if found.is_empty() {
        let mut report = Report::new(format!("there is no attempt of `{id}`"));
        report.causes = complaint(&unreadable).lines().map(str::to_owned).collect();
        return Err(Failure::System(report.hint("`pointsman history` lists the newest ones")));
    }
    let now = Timestamp::now();
    if format == Format::Json {
        let attempts: Vec<Value> = found
            .iter()
            .map(|(entry, value)| json!({ "summary": entry.known(now), "record": value }))
            .collect();
        print(&json!({ "attempts": attempts, "unreadable": unreadable }));
        return Ok(());
    }
    let mut text = String::new();
    for (index, (entry, value)) in found.iter().enumerate() {
        if index > 0 {
            text.push('\n');
        }
        for line in told(entry, value, now) {
            text.push_str(output::printable(&line).trim_end());
            text.push('\n');
        }
    }
    text.push_str(&complaint(&unreadable));
    output::result(&text);
    Ok(())
}

fn told(entry: &Entry, value: &Value, now: Timestamp) -> Vec<String> {
    let job = &entry.job;
    let whose = if entry.is_doctor() {
        "of `pointsman doctor --launch`".to_owned()
    } else {
        format!("number {} at the job `{}` (id {})", entry.number, job.name, job.id)
    };
    let mut lines = vec![format!("Attempt {}, {whose}", entry.id)];
    let mut say = |what: &str, text: String| lines.push(format!("  {what:<10}  {text}"));
    if !entry.is_doctor() {
        say(
            "project",
            format!("{} ({}), pipeline {}", job.project_id, job.project, job.pipeline_id),
        );
    }
    say("profile", entry.profile.clone());
    let by = entry.decided_by().map(|policy| format!(" by {policy}")).unwrap_or_default();
    say("decided", format!("{:.0}{by}", entry.decided_at));
    match (entry.stage(), entry.detail()) {
        (Some(stage), _) => say("lives", stage.words().to_owned()),
        (None, Some(detail)) => say("ended", format!("{}: {detail}", entry.ending().words())),
        (None, None) => say("ended", entry.ending().words().to_owned()),
    }
    if let (Some(waited), Some(ran)) = (entry.waited(), entry.ran(now)) {
        say("times", format!("waited {}, ran {}", duration(waited), duration(ran)));
    }
    let mut part = |head: &str, more: Vec<String>| {
        if !more.is_empty() {
            lines.push(format!("  {head}"));
            lines.extend(more.into_iter().map(|line| format!("    {line}")));
        }
    };
    let mut placements = Vec::new();
    for (index, placement) in entry.placements.iter().enumerate() {
        placements.push(format!("{}. {placement}", index + 1));
        if !placement.reason.is_empty() {
            placements.push(format!("   since: {}", placement.reason));
        }
        placements.extend(
            placement.labels.iter().map(|(key, value)| format!("   label {key} = {value}")),
        );
    }
    part("placements", placements);
    part("policies", steps(value));
    let mut launches = Vec::new();
    for (index, (launch, _)) in entry.launches().enumerate() {
        launches.extend(launched(index + 1, launch));
    }
    part("tasks", launches);
    part("scripts", scripts(entry).collect());
    lines
}

/// What each policy read and answered; the values only where the record has what was asked.
fn steps(value: &Value) -> Vec<String> {
    let field = |name: &str| value.get(name).cloned().unwrap_or_default();
    let steps: Vec<Step> = serde_json::from_value(field("steps")).unwrap_or_default();
    let recorded: Option<RecordedQuestion> = serde_json::from_value(field("question")).ok();
    let job = recorded.as_ref().map(RecordedQuestion::job);
    let (catalog, bounds) = (Catalog::default(), Bounds::default());
    let question = recorded
        .as_ref()
        .zip(job.as_ref())
        .map(|(recorded, job)| recorded.question(job, &catalog, &bounds, ClaimsTaint::Allow));
    let mut lines = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        let monitored = if step.monitored { ", only monitored" } else { "" };
        lines.push(format!(
            "{}. {} ({}{monitored}): {} fuel, {} µs",
            index + 1,
            step.policy,
            step.kind,
            step.fuel,
            step.elapsed_us
        ));
        for (what, names) in [("fact", &step.facts_read), ("claim", &step.claims_read)] {
            for name in names {
                lines.push(match &question {
                    None => format!("   {what} {name}"),
                    Some(question) => {
                        let reading = match what {
                            "fact" => provenance::fact(question, name),
                            _ => provenance::claim(question, name),
                        };
                        format!(
                            "   {what} {} = {} ({})",
                            reading.name, reading.value, reading.source
                        )
                    }
                });
            }
        }
        if step.claims_read.is_empty() {
            lines.push("   no claim was read".to_owned());
        }
        lines.push(format!("   {}", step.outcome));
    }
    lines
}

fn launched(number: usize, launch: &Launch) -> Vec<String> {
    let task =
        launch.task.as_ref().map_or_else(|| "no task".to_owned(), |task| format!("task {task}"));
    let mut lines = vec![format!("{number}. placement {}: {task}", launch.placement + 1)];
    let mut say = |text: String| lines.push(format!("   {text}"));
    say(format!("asked for at {:.0}", launch.asked_at));
    if let Some(seen) = &launch.last_seen {
        let times = &seen.times;
        for (what, at) in [
            ("image pull began", times.pull_started_at),
            ("image pull ended", times.pull_stopped_at),
            ("running", times.started_at),
        ] {
            if let Some(at) = at {
                say(format!("{what} at {at:.0}"));
            }
        }
    }
    if let Some(at) = launch.ready_at {
        let address = launch.address.map(|address| format!(" at {address}")).unwrap_or_default();
        say(format!("reached{address} at {at:.0}"));
    }
    if let Some(failed) = &launch.failed {
        say(format!("came to nothing: {} ({})", failed.cause.words(), failed.detail));
    }
    if let Some(at) = launch.told_to_stop_at {
        say(format!("told to stop at {at:.0}"));
    }
    let Some(seen) = &launch.last_seen else { return lines };
    if let Some(stopped) = &seen.stopped {
        let code = if stopped.code.is_empty() { "no code" } else { &stopped.code };
        say(format!("stopped: {code}: {}", stopped.reason));
        for container in &stopped.containers {
            let exit = container.exit_code;
            let exit =
                exit.map_or_else(|| "no exit code".to_owned(), |code| format!("exit code {code}"));
            let reason = match container.reason.as_str() {
                "" => String::new(),
                reason => format!(": {reason}"),
            };
            say(format!("container {}: {exit}{reason}", container.name));
        }
    }
    if let Some(at) = seen.times.stopped_at {
        say(format!("stopped at {at:.0}"));
    } else {
        say(format!("last seen {}", seen.phase));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_duration_a_date_or_a_timestamp() {
        let week = since("7d").unwrap();
        let days = Timestamp::now().duration_since(week).as_hours();
        assert!((167..=168).contains(&days), "{days}");
        let expected: Timestamp = "2026-11-01T00:00:00Z".parse().unwrap();
        for text in ["2026-11-01", "2026-11-01T00:00:00Z", "2026-11-01T02:00:00+02:00"] {
            assert_eq!(since(text).unwrap(), expected, "{text}");
        }
        assert!(since("yesterday").unwrap_err().starts_with("expected a duration"));
        assert_eq!(since("100000y").unwrap(), Timestamp::MIN);
    }

    #[test]
    fn durations_are_short() {
        for (seconds, expected) in [
            (0.0, "0.0 s"),
            (4.25, "4.2 s"),
            (59.94, "59.9 s"),
            (60.0, "1 min 0 s"),
            (200.4, "3 min 20 s"),
            (7500.0, "2 h 5 min"),
        ] {
            assert_eq!(duration(seconds), expected);
        }
    }
}

//! `pointsman report`: what jobs cost, how long they took, and what went wrong, by group.

use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::Global;
use super::history::{complaint, duration, settings_with_state, since};
use super::policy::table;
use super::sweep::Format;
use crate::failure::{Failure, Report as FailureReport};
use crate::history::{
    self, By, Comparison, Difference, Filter, Group, Oversized, Report, Spread, Summary,
    Unreadable, Verdict,
};
use crate::output;
use crate::placement::Placement;
use crate::placement::text::one_line;
use crate::state::Wanted;

/// Of oversized jobs in the text; the JSON has all.
const MAX_OVERSIZED: usize = 10;
const MAX_NAME: usize = 48;
const TEXT_WIDTH: usize = 110;
const NONE: &str = "–";

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Decided since then: a duration such as 30d, a date or a timestamp
    #[arg(long, value_name = "WHEN", value_parser = since, default_value = "30d")]
    since: Timestamp,
    /// placement, architecture, capacity, profile, project, or policy-label=NAME, which compares the sides of an experiment
    #[arg(long, value_name = "WHAT", default_value = "placement")]
    by: By,
    /// Of this project, by id or path, or below this group
    #[arg(long, value_name = "ID|PATH")]
    project: Option<String>,
    /// Of jobs of this name
    #[arg(long, value_name = "NAME")]
    job: Option<String>,
    #[arg(long, value_enum, default_value = "text", help = "How the answer is written")]
    format: Format,
}

/// Reads, sums and prints.
pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<(), Failure> {
    let settings = settings_with_state(global)?;
    let price = |placement: &Placement, time| history::price(&settings, placement, time);
    let has_memory = |placement: &Placement| history::has_memory(&settings, placement);
    let filter = Filter {
        since: Some(arguments.since),
        project: arguments.project.clone(),
        job: arguments.job.clone(),
        profile: global.profile.clone(),
        ..Filter::default()
    };
    let wanted = Wanted { since: filter.since, ..Wanted::default() };
    let mut report = Report::new(arguments.by.clone(), &price, &has_memory);
    let unreadable = history::attempts(&settings.state_directory, &wanted, &mut |entry, _| {
        if filter.takes(&entry) {
            report.add(&entry);
        }
    })?;
    let summary = report.finish();
    match arguments.format {
        Format::Json => {
            let mut value = serde_json::to_value(&summary)
                .map_err(|error| Failure::System(FailureReport::of(&error)))?;
            value["since"] = json!(arguments.since);
            value["unreadable"] = json!(unreadable);
            output::result(&format!("{value:#}\n"));
        }
        Format::Text => output::result(&text(&summary, &unreadable, arguments.since)),
    }
    Ok(())
}

fn text(summary: &Summary, unreadable: &Unreadable, since: Timestamp) -> String {
    let total = &summary.total;
    let mut text = format!(
        "Since {since:.0}: {} of {}, by {}.\n\n",
        counted(total.attempts, "attempt", "attempts"),
        counted(u64::try_from(total.jobs).unwrap_or(u64::MAX), "job", "jobs"),
        output::printable(&summary.by.to_string()),
    );
    if total.attempts > 0 {
        text.push_str(&groups(summary));
    }
    let mut say = |line: String| {
        for line in wrapped(&output::printable(&line)) {
            text.push_str(&line);
            text.push('\n');
        }
    };
    for (count, what) in [
        (total.rejected, "rejected: no policy or no bounds allowed them, and nothing was started."),
        (total.cancelled, "cancelled while they waited for a task."),
        (summary.living, "living, and in no sum."),
        (summary.without_label, "without this label, and in the total only."),
        (summary.doctor, "of `doctor --launch`, and in no sum."),
    ] {
        if count > 0 {
            say(format!("{count} {what}"));
        }
    }
    for unpriced in &summary.unknown_prices {
        say(format!("{} of the tasks have no price: {}.", unpriced.tasks, unpriced.why));
    }
    for comparison in &summary.comparisons {
        text.push_str(&compared(comparison));
    }
    text.push_str(&oversized(&summary.oversized));
    text.push('\n');
    for line in wrapped(summary.cost_basis) {
        text.push_str(&format!("{line}\n"));
    }
    text.push_str(&complaint(unreadable));
    text
}

fn counted(count: u64, one: &str, more: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { more })
}

const HEAD: [&str; 17] = [
    "", "jobs", "attempts", "in vain", "spot", "capacity", "memory", "other", "script", "waited",
    "95 %", "ran", "95 %", "vCPU h", "GiB h", "cost", "a job",
];

fn groups(summary: &Summary) -> String {
    let mut rows = vec![HEAD.map(str::to_owned).to_vec()];
    let all = summary.groups.iter().chain([&summary.total]);
    rows.extend(all.map(row));
    let mut text = table(&rows);
    text.push_str(
        "in vain: tasks that were asked for and came to nothing. spot, capacity, memory, other: lost attempts by cause.\n\
         script: attempts whose own script failed. waited, ran: median.\n",
    );
    if summary.total.tasks_without_price > 0 {
        text.push_str("*: not all tasks have a price.\n");
    }
    text
}

fn row(group: &Group) -> Vec<String> {
    let failures = &group.failures;
    let spread = |spread: Option<Spread>| match spread {
        Some(Spread { median, p95 }) => [duration(median), duration(p95)],
        None => [NONE, NONE].map(str::to_owned),
    };
    let [waited, waited_95] = spread(group.waiting_seconds);
    let [ran, ran_95] = spread(group.running_seconds);
    let mark = if group.tasks_without_price > 0 { "*" } else { "" };
    let dollars = |value: Option<f64>| match value {
        Some(value) => format!("{}{mark}", dollars(value)),
        None => NONE.to_owned(),
    };
    vec![
        output::printable(&one_line(&group.group, 80)),
        group.jobs.to_string(),
        group.attempts.to_string(),
        group.failed_launches.to_string(),
        failures.spot_interruption.to_string(),
        failures.capacity.to_string(),
        failures.out_of_memory.to_string(),
        failures.other.to_string(),
        group.script_failures.to_string(),
        waited,
        waited_95,
        ran,
        ran_95,
        format!("{:.2}", group.vcpu_hours),
        format!("{:.2}", group.gib_hours),
        dollars(group.cost_usd),
        dollars(group.cost_per_job_usd),
    ]
}

/// Small sums keep digits that mean something.
fn dollars(value: f64) -> String {
    let sign = if value < 0.0 { "-" } else { "" };
    match value.abs() {
        value if value >= 100.0 => format!("{sign}${value:.0}"),
        value if value >= 1.0 => format!("{sign}${value:.2}"),
        value => format!("{sign}${value:.4}"),
    }
}

fn compared(comparison: &Comparison) -> String {
    let mut text = format!(
        "\nExperiment {}: {} on the control side ({} different), {} on the variant side ({} different).\n",
        output::printable(&comparison.experiment),
        comparison.control_jobs,
        comparison.control_different,
        comparison.variant_jobs,
        comparison.variant_different,
    );
    let mut rows =
        vec![["", "control", "variant", "change", "between", ""].map(str::to_owned).to_vec()];
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    rows.push(compared_row("cost a job", &comparison.cost_usd, dollars));
    rows.push(compared_row("time a job", &comparison.seconds, signed_duration));
    rows.push(compared_row("jobs that lost an attempt", &comparison.lost, percent));
    text.push_str(&table(&rows));
    text.push_str("between: where variant minus control lies, 19 times out of 20.\n");
    for warning in &comparison.warnings {
        for line in wrapped(&format!("Warning: {warning}")) {
            text.push_str(&format!("{line}\n"));
        }
    }
    text
}

fn compared_row(what: &str, difference: &Difference, shown: fn(f64) -> String) -> Vec<String> {
    let cell = |value: Option<f64>| value.map_or_else(|| NONE.to_owned(), shown);
    let change = difference
        .change_percent
        .map_or_else(|| NONE.to_owned(), |percent| format!("{percent:+.1} %"));
    let between = difference
        .interval
        .map_or_else(|| NONE.to_owned(), |(from, to)| format!("{} and {}", shown(from), shown(to)));
    let verdict = match difference.verdict {
        Verdict::Less => "less",
        Verdict::More => "more",
        Verdict::MayBeChance => "may be chance",
        Verdict::TooFew => "too few to tell",
    };
    vec![
        what.to_owned(),
        cell(difference.control),
        cell(difference.variant),
        change,
        between,
        verdict.to_owned(),
    ]
}

fn signed_duration(seconds: f64) -> String {
    let sign = if seconds < 0.0 { "-" } else { "" };
    format!("{sign}{}", duration(seconds.abs()))
}

fn oversized(found: &[Oversized]) -> String {
    if found.is_empty() {
        return String::new();
    }
    let mut text = format!(
        "\nOversized: {} less than half of the memory that their tasks have, as far as the agent told.\n",
        match found.len() {
            1 => "1 job uses".to_owned(),
            more => format!("{more} jobs use"),
        }
    );
    let head = ["project", "job", "attempts", "peak", "has", "unused GiB h", ""];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for job in found.iter().take(MAX_OVERSIZED) {
        let vcpu = f64::from(job.cpu_units) / 1024.0;
        rows.push(vec![
            output::printable(&one_line(&job.project, MAX_NAME)),
            output::printable(&one_line(&job.job, MAX_NAME)),
            job.attempts.to_string(),
            format!("{} MiB", job.peak_memory_mib),
            format!("{} MiB", job.memory_mib),
            format!("{:.2}", job.unused_gib_hours),
            match job.enough_mib {
                Some(enough) => format!("{enough} MiB would do"),
                None => format!("Fargate has no less with {vcpu} vCPU"),
            },
        ]);
    }
    text.push_str(&table(&rows));
    if found.len() > MAX_OVERSIZED {
        text.push_str(&format!("and {} more\n", found.len() - MAX_OVERSIZED));
    }
    text.push_str(
        "Where the agent is not its container's first process, the peak is that of the largest process alone.\n",
    );
    text
}

/// At most [`TEXT_WIDTH`] columns a line.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.len() + 1 + word.len() <= TEXT_WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_keeps_digits_that_mean_something() {
        for (value, expected) in [
            (0.0, "$0.0000"),
            (0.00576, "$0.0058"),
            (1.005, "$1.00"),
            (99.5, "$99.50"),
            (1234.5, "$1234"),
        ] {
            assert_eq!(dollars(value), expected);
        }
        assert_eq!(dollars(-0.5), "-$0.5000");
        assert_eq!(signed_duration(-61.0), "-1 min 1 s");
    }
}

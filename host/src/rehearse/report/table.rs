//! The table at the end of a rehearsal, about 140 columns wide; reasons stand on lines of their own.

use std::fmt;

use super::{JobReport, Outcome, Report, Try};
use crate::placement::size::Size;

const HEAD: [&str; 11] = [
    "job",
    "result",
    "cluster",
    "definition",
    "arch",
    "capacity",
    "vCPU / GiB",
    "role",
    "waited",
    "ran",
    "cost",
];
/// Numbers stand at the right edge of their columns.
const FIRST_NUMBER: usize = 8;
/// Of sentences.
const TEXT_WIDTH: usize = 110;
/// A missing value.
const NONE: &str = "–";

enum Line {
    Row(Vec<String>),
    Note(String),
}

pub(super) fn write(report: &Report, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut lines = vec![Line::Row(HEAD.map(str::to_owned).to_vec())];
    for job in &report.jobs {
        if job.outcome == Outcome::LeftOut {
            continue;
        }
        if job.tries.is_empty() {
            let mut row = vec![String::new(); HEAD.len()];
            row[0].clone_from(&job.name);
            row[1] = job.outcome.to_string();
            lines.push(Line::Row(row));
            lines.extend(job.why.iter().map(|why| Line::Note(why.clone())));
        }
        for (index, one) in job.tries.iter().enumerate() {
            lines.push(Line::Row(row(job, index, one)));
            if let Some(placement) = &one.placement
                && !placement.reason.is_empty()
            {
                lines.push(Line::Note(placement.reason.clone()));
            }
            lines.extend(one.message.iter().map(|message| Line::Note(message.clone())));
        }
    }
    let total = &report.total;
    let mut sum = vec![String::new(); HEAD.len()];
    "total".clone_into(&mut sum[0]);
    sum[8] = seconds(total.waiting_seconds);
    sum[9] = seconds(total.running_seconds);
    sum[10] = dollars(total.cost_usd);
    lines.push(Line::Row(sum));

    let mut widths = [0; HEAD.len()];
    for line in &lines {
        if let Line::Row(cells) = line {
            for (width, cell) in widths.iter_mut().zip(cells) {
                *width = (*width).max(cell.chars().count());
            }
        }
    }
    for line in &lines {
        match line {
            Line::Row(cells) => {
                let padded: Vec<_> = cells
                    .iter()
                    .zip(widths)
                    .enumerate()
                    .map(|(index, (cell, width))| match index < FIRST_NUMBER {
                        true => format!("{cell:<width$}"),
                        false => format!("{cell:>width$}"),
                    })
                    .collect();
                writeln!(out, "{}", padded.join("  ").trim_end())?;
            }
            Line::Note(text) => writeln!(out, "    {}", one_line(text))?,
        }
    }
    writeln!(out)?;
    writeln!(out, "{} in {}.", verdict(report), seconds(total.elapsed_seconds))?;
    if let Some(tasks) = &report.tasks {
        match tasks.running.as_slice() {
            [] => writeln!(out, "{} started, none left running.", count(tasks.started))?,
            left => {
                writeln!(
                    out,
                    "{} started, LEFT RUNNING: {}",
                    count(tasks.started),
                    left.join(", ")
                )?;
            }
        }
    }
    for line in wrapped(report.cost_basis) {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// Without the units, which stand in the head.
fn size(size: Size) -> String {
    if size.is_own() {
        return "its own".to_owned();
    }
    let shown = |parts: u32| f64::from(parts) / 1024.0;
    format!("{} / {}", shown(size.cpu_units), shown(size.memory_mib))
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

fn row(job: &JobReport, index: usize, one: &Try) -> Vec<String> {
    let last = index + 1 == job.tries.len();
    let result = match last {
        false => "failed, retried".to_owned(),
        true => job.outcome.to_string(),
    };
    let placement = one.placement.as_ref();
    let cell = |text: Option<String>| text.unwrap_or_else(|| NONE.to_owned());
    vec![
        job.name.clone(),
        result,
        cell(placement.map(|placement| placement.cluster.clone())),
        cell(placement.map(|placement| placement.task_definition.clone())),
        cell(placement.map(|placement| placement.arch.to_string())),
        cell(placement.map(|placement| placement.capacity.to_string())),
        cell(placement.map(|placement| size(placement.size))),
        cell(placement.and_then(|placement| placement.role.clone())),
        seconds(one.waiting_seconds),
        seconds(one.running_seconds),
        dollars(one.cost_usd),
    ]
}

fn verdict(report: &Report) -> &'static str {
    match (report.interrupted, report.success) {
        (true, _) => "The rehearsal was interrupted",
        (false, true) => "The pipeline passed",
        (false, false) => "The pipeline failed",
    }
}

fn count(tasks: usize) -> String {
    match tasks {
        1 => "1 task".to_owned(),
        more => format!("{more} tasks"),
    }
}

/// `0.4 s`, `12 s`, `3 min 20 s`.
fn seconds(seconds: f64) -> String {
    if seconds < 10.0 {
        return format!("{seconds:.1} s");
    }
    let minutes = (seconds / 60.0).floor();
    match minutes {
        0.0 => format!("{seconds:.0} s"),
        minutes => format!("{minutes:.0} min {:.0} s", (seconds - minutes * 60.0).floor()),
    }
}

fn dollars(cost: Option<f64>) -> String {
    cost.map_or_else(|| NONE.to_owned(), |cost| format!("${cost:.4}"))
}

/// A message must not draw lines of its own into the table.
fn one_line(text: &str) -> String {
    text.chars().map(|one| if one.is_control() { ' ' } else { one }).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::placement::{Arch, Capacity};
    use crate::rehearse::record::RecordedPlacement;
    use crate::rehearse::runner::{JobFailure, Reason};
    use crate::rehearse::simulator::Tasks;

    #[test]
    fn the_table() {
        let job = |name: &str, outcome| JobReport {
            name: name.into(),
            stage: "test".into(),
            tags: Vec::new(),
            image: None,
            services: Vec::new(),
            outcome,
            why: None,
            tries: Vec::new(),
        };
        let placement = RecordedPlacement {
            cluster: "production".into(),
            task_definition: "node".into(),
            arch: Arch::Arm64,
            capacity: Capacity::OnDemand,
            size: Size { cpu_units: 512, memory_mib: 2048 },
            role: Some("production-deploy".into()),
            reason: "the tag production".into(),
        };
        let failure = JobFailure {
            reason: Reason::ScriptFailure,
            exit_code: Some(42),
            message: "exit status 42".into(),
        };
        let ran = |failure, running| {
            let mut one = Try::new(
                1,
                "p",
                failure,
                Duration::from_millis(1500),
                Some(Duration::from_secs(running)),
            );
            one.placement = Some(placement.clone());
            one.cost_usd = Some(0.00123);
            one
        };
        let mut deploy = job("deploy-production", Outcome::AllowedFailure);
        deploy.tries = vec![ran(Some(&failure), 70), ran(Some(&failure), 12)];
        let mut stuck = job("stuck", Outcome::Stuck);
        stuck.why = Some("no profile has all\nof its tags".into());
        let mut unplaced = job("unplaced", Outcome::Success);
        unplaced.tries = vec![Try::new(2, "p", None, Duration::ZERO, Some(Duration::from_secs(3)))];
        let tasks = Tasks { started: 3, running: vec!["task/1".into()] };
        let report = Report::new(
            vec![deploy, stuck, unplaced, job("other", Outcome::LeftOut)],
            Duration::from_secs(95),
            false,
            Some(tasks),
        );
        let text = report.to_string();
        assert!(text.lines().all(|line| line.chars().count() <= 140), "{text}");
        let (table, basis) = text.split_once("Costs are").unwrap();
        assert_eq!(basis.lines().count(), 3, "{basis}");
        insta::assert_snapshot!(table, @r"
        job                result           cluster     definition  arch   capacity   vCPU / GiB  role               waited         ran     cost
        deploy-production  failed, retried  production  node        arm64  on-demand  0.5 / 2     production-deploy   1.5 s  1 min 10 s  $0.0012
            the tag production
            exit status 42
        deploy-production  failed, allowed  production  node        arm64  on-demand  0.5 / 2     production-deploy   1.5 s        12 s  $0.0012
            the tag production
            exit status 42
        stuck              stuck
            no profile has all of its tags
        unplaced           success          –           –           –      –          –           –                   0.0 s       3.0 s        –
        total                                                                                                         3.0 s  1 min 25 s  $0.0025

        The pipeline failed in 1 min 35 s.
        3 tasks started, LEFT RUNNING: task/1
        ");
    }
}

//! `pointsman doctor`: what is wrong with the cloud, and what to do.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::{Global, load};
use crate::doctor::finding::Finding;
use crate::doctor::{self, Diagnosis, News, Options, Remedy, Row, Severity, Wish};
use crate::environment::RunnerEnvironment;
use crate::failure::{Failure, Report};
use crate::output;
use crate::placement::{Arch, Capacity};
use crate::stages::Context;

/// How the findings are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people, as they are found
    Text,
    /// One JSON object
    Json,
}

/// As the settings file spells them.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum ArchName {
    #[value(name = "x86_64")]
    X86_64,
    Arm64,
}

/// As the settings file spells them.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum CapacityName {
    OnDemand,
    Spot,
}

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Looks at this cluster of the settings file only
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// Starts a real task, runs a script in it, stops it, and tells how long each phase took
    #[arg(long)]
    launch: bool,
    /// With --launch: a name of [task_definitions.*]
    #[arg(long, value_name = "NAME", requires = "launch")]
    task_definition: Option<String>,
    /// With --launch: the task's architecture
    #[arg(long, value_enum, requires = "launch")]
    arch: Option<ArchName>,
    /// With --launch: how its capacity is bought
    #[arg(long, value_enum, requires = "launch")]
    capacity: Option<CapacityName>,
    /// With --launch: its role, a name of [roles.*]; without, the ECS task definition's
    #[arg(long, value_name = "NAME", requires = "launch")]
    role: Option<String>,
    #[arg(long, value_enum, default_value = "text", help = "How the findings are written")]
    format: Format,
}

/// Examines, and answers 0 when jobs run, 1 when they do not.
pub(super) fn run(
    global: &Global,
    arguments: &Arguments,
    environment: &RunnerEnvironment,
) -> Result<ExitCode, Failure> {
    let context = Context {
        settings: load(global)?,
        profile: global.profile.clone(),
        rehearsed_tags: None,
        environment: environment.clone(),
    };
    let options = Options {
        cluster: arguments.cluster.clone(),
        launch: arguments.launch,
        wish: Wish {
            task_definition: arguments.task_definition.clone(),
            arch: arguments.arch.map(|arch| match arch {
                ArchName::X86_64 => Arch::X86_64,
                ArchName::Arm64 => Arch::Arm64,
            }),
            capacity: arguments.capacity.map(|capacity| match capacity {
                CapacityName::OnDemand => Capacity::OnDemand,
                CapacityName::Spot => Capacity::Spot,
            }),
            role: arguments.role.clone(),
        },
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::System(Report::of(&error)))?;
    let is_text = arguments.format == Format::Text;
    let mut tell = |news: News<'_>| match news {
        News::Step(text) => output::note(text),
        News::Found(finding) if is_text => output::result(&text_of(finding)),
        News::Found(_) => {}
    };
    let diagnosis = runtime.block_on(doctor::examine(&context, &options, &mut tell))?;
    let result = if is_text { ending(&diagnosis) } else { json_of(&diagnosis) };
    output::result(&result);
    Ok(if diagnosis.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Ok => "ok",
        Severity::Note => "note",
        Severity::Warning => "warning",
        Severity::Failure => "FAILURE",
    }
}

fn text_of(finding: &Finding) -> String {
    let line =
        |label: &str, text: &str| format!("          {label}: {}\n", output::printable(text));
    let name = match finding.severity {
        Severity::Ok => String::new(),
        _ => format!(" [{}]", finding.name),
    };
    let what = output::printable(&finding.what);
    let mut text = format!(
        "{:8}  {}: {what}{name}\n",
        word(finding.severity),
        output::printable(&finding.about)
    );
    if !finding.why.is_empty() {
        text.push_str(&line("why", &finding.why));
    }
    for remedy in &finding.remedy {
        text.push_str(&match remedy {
            Remedy::Do(change) => line("do", change),
            Remedy::Run(command) => line("run", command),
        });
    }
    text
}

fn count(diagnosis: &Diagnosis, severity: Severity) -> usize {
    diagnosis.findings.iter().filter(|finding| finding.severity == severity).count()
}

fn ending(diagnosis: &Diagnosis) -> String {
    let mut text = String::new();
    for Row { words, seconds, .. } in &diagnosis.phases {
        let _ = writeln!(text, "{seconds:8.1} s  {words}");
    }
    let plural = |count: usize, what: &str| match count {
        1 => format!("1 {what}"),
        many => format!("{many} {what}s"),
    };
    let _ = writeln!(
        text,
        "{}, {}, {}; {} in order. docs/troubleshooting.md explains each by its name.",
        plural(count(diagnosis, Severity::Failure), "failure"),
        plural(count(diagnosis, Severity::Warning), "warning"),
        plural(count(diagnosis, Severity::Note), "note"),
        count(diagnosis, Severity::Ok),
    );
    text
}

fn json_of(diagnosis: &Diagnosis) -> String {
    let value = json!({
        "ok": diagnosis.is_well(),
        "failures": count(diagnosis, Severity::Failure),
        "warnings": count(diagnosis, Severity::Warning),
        "findings": diagnosis.findings,
        "phases": diagnosis.phases,
    });
    format!("{value:#}\n")
}

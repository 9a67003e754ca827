//! `pointsman policy bench` on the command line.

use std::path::PathBuf;

use clap::Args;

use super::inspect::{Format, pretty};
use super::{Cache, table};
use crate::authoring::bench::{Measured, Once, Spread, measure, once};
use crate::authoring::fixture::Fixture;
use crate::authoring::{AuthoringError, policy_of};
use crate::failure::{Failure, Report};
use crate::output;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The component
    file: PathBuf,
    /// What it is asked
    #[arg(long, value_name = "FILE")]
    fixture: PathBuf,
    /// How many processes are started
    #[arg(long, value_name = "N", default_value_t = 20)]
    runs: usize,
    /// Fails when half of the processes take longer
    #[arg(long, value_name = "MILLISECONDS")]
    max_process_ms: Option<u64>,
    /// Fails when a decision uses more
    #[arg(long, value_name = "FUEL")]
    max_fuel: Option<u64>,
    /// Fails when a process needs more memory
    #[arg(long, value_name = "MIB")]
    max_memory_mib: Option<u64>,
    /// How it is written
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Only asks the component of this digest once, and writes what that took: what each process does
    #[arg(long, hide = true, value_name = "SHA256")]
    once: Option<String>,
    #[command(flatten)]
    cache: Cache,
}

/// Answers whether the budgets are kept.
pub(super) fn run(arguments: &Arguments) -> Result<bool, Failure> {
    let fixture = Fixture::read(&arguments.fixture)?;
    let store_at = arguments.cache.store_at()?;
    if let Some(sha256) = &arguments.once {
        let measured = once(&arguments.file, sha256, &fixture, &store_at)?;
        output::result(&format!("{}\n", pretty(&measured)?));
        return Ok(true);
    }
    let driver = std::env::current_exe().map_err(|error| Failure::System(Report::of(&error)))?;
    let cache = arguments.cache.directory()?;
    let policy = policy_of(&arguments.file, fixture.settings.clone())?;
    let child = || {
        let ran = std::process::Command::new(&driver)
            .args(["policy", "bench", "--once", &policy.sha256, "--fixture"])
            .arg(&arguments.fixture)
            .arg("--cache")
            .arg(&cache)
            .arg(&arguments.file)
            .output();
        let ran = ran.map_err(|source| AuthoringError::Io {
            action: "start",
            path: driver.clone(),
            source,
        })?;
        serde_json::from_slice::<Once>(&ran.stdout).map_err(|_| {
            AuthoringError::Unusable(String::from_utf8_lossy(&ran.stderr).trim().to_owned())
        })
    };
    let measured = measure(arguments.runs, &policy, child)?;
    let over = over(arguments, &measured);
    if arguments.format == Format::Json {
        output::result(&format!("{}\n", pretty(&measured)?));
    } else {
        output::result(&text(&measured));
    }
    for line in &over {
        output::note(line);
    }
    Ok(over.is_empty())
}

fn over(arguments: &Arguments, measured: &Measured) -> Vec<String> {
    let checks = [
        (
            "a process takes",
            "µs",
            measured.process.p50_us,
            arguments.max_process_ms.map(|ms| ms * 1000),
        ),
        ("a decision uses", "fuel", measured.fuel, arguments.max_fuel),
        (
            "a process needs",
            "KiB",
            measured.peak_kib,
            arguments.max_memory_mib.map(|mib| mib * 1024),
        ),
    ];
    checks
        .into_iter()
        .filter_map(|(what, unit, got, most)| {
            let most = most.filter(|&most| got > most)?;
            Some(format!("Over budget: {what} {got} {unit}, at most {most} are allowed"))
        })
        .collect()
}

fn text(measured: &Measured) -> String {
    let ms = |us: u64| format!("{}.{:03} ms", us / 1000, us % 1000);
    let row = |name: &str, spread: Spread, budget: String| {
        vec![name.to_owned(), ms(spread.p50_us), ms(spread.p95_us), budget]
    };
    let share = |got: u64, budget: u64| {
        format!("{:.2} % of {budget}", 100.0 * got as f64 / budget.max(1) as f64)
    };
    let mut text = table(&[
        vec![format!("{} processes", measured.runs), "p50".into(), "p95".into(), "budget".into()],
        row("process, start to exit", measured.process, String::new()),
        row("  load the component", measured.load, String::new()),
        row("  call", measured.call, format!("{} deadline", ms(measured.call_budget_us))),
    ]);
    text.push_str(&format!(
        "fuel of a decision   {} ({})\npeak memory          {:.1} MiB, the driver included\n",
        measured.fuel,
        share(measured.fuel, measured.fuel_budget),
        measured.peak_kib as f64 / 1024.0
    ));
    text
}

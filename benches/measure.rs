//! Samples of whole processes, and how numbers are printed.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};

/// One number, beside what it must not exceed.
pub(crate) struct Row {
    name: String,
    measured: f64,
    unit: &'static str,
    bound: Option<f64>,
}

impl Row {
    pub(crate) fn milliseconds(name: &str, measured: Duration, bound: Option<f64>) -> Self {
        Self::new(name, measured.as_secs_f64() * 1000.0, "ms", bound)
    }

    pub(crate) fn ratio(name: &str, ours: Duration, theirs: Duration, bound: Option<f64>) -> Self {
        Self::new(name, ours.as_secs_f64() / theirs.as_secs_f64(), "x", bound)
    }

    pub(crate) fn mebibytes(name: &str, measured: f64, bound: Option<f64>) -> Self {
        Self::new(name, measured, "MiB", bound)
    }

    fn new(name: &str, measured: f64, unit: &'static str, bound: Option<f64>) -> Self {
        Self { name: name.to_owned(), measured, unit, bound }
    }

    fn verdict(&self) -> &'static str {
        match self.bound {
            Some(bound) if self.measured > bound => "short",
            _ => "ok",
        }
    }
}

/// Prints `rows` for people, then for programs.
pub(crate) fn print(rows: &[Row]) {
    let bound =
        |row: &Row| row.bound.map_or("-".to_owned(), |bound| format!("{bound} {}", row.unit));
    println!("\n{:<48} {:>12}  {:>10}", "", "measured", "at most");
    for row in rows {
        let measured = format!("{:.2} {}", row.measured, row.unit);
        println!("{:<48} {measured:>12}  {:>10}  {}", row.name, bound(row), row.verdict());
    }
    println!();
    for row in rows.iter().filter(|row| row.bound.is_some()) {
        let name = row.name.trim();
        println!(
            "bench\t{name}\t{:.2} {}\t{}\t{}",
            row.measured,
            row.unit,
            bound(row),
            row.verdict()
        );
    }
}

/// One run of `command`, from start to exit; it must succeed.
pub(crate) fn sample(command: &mut Command) -> Duration {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let began = Instant::now();
    let status = command.status().expect("the command starts");
    let elapsed = began.elapsed();
    assert!(status.success(), "{command:?} ended with {status}");
    elapsed
}

pub(crate) fn median(samples: &mut [Duration]) -> Duration {
    samples.sort_unstable();
    samples[samples.len() / 2]
}

const MEASURING: &str = "POINTSMAN_BENCH_MEASURE";

/// The peak resident memory of `command`, in MiB.
///
/// The kernel tells the largest of all children that were waited for, so a process of its own waits for
/// this one alone.
pub(crate) fn peak_memory(command: Command) -> f64 {
    let mut measuring = Command::new(std::env::current_exe().unwrap());
    measuring.arg("--").arg(command.get_program()).args(command.get_args()).env_clear();
    for (key, value) in command.get_envs() {
        if let Some(value) = value {
            measuring.env(key, value);
        }
    }
    if let Some(directory) = command.get_current_dir() {
        measuring.current_dir(directory);
    }
    let output = measuring.env(MEASURING, "1").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let kibibytes: f64 = text.trim().parse().unwrap_or_else(|_| {
        panic!("no measurement: {text}\n{}", String::from_utf8_lossy(&output.stderr))
    });
    kibibytes / 1024.0
}

/// Whether this process was started to measure another.
pub(crate) fn is_measuring() -> bool {
    std::env::var_os(MEASURING).is_some()
}

/// Runs the command line's command and prints its peak memory in KiB.
pub(crate) fn measure() {
    let mut arguments = std::env::args_os().skip_while(|argument| argument != "--").skip(1);
    let output = Command::new(arguments.next().unwrap())
        .args(arguments)
        .env_remove(MEASURING)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    println!("{}", getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss());
}

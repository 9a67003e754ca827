//! `make bench`: a thousand jobs prepared at once by one manager, on a simulated ECS with AWS's limits, ten times
//! faster than time.
//!
//! Everything is real but AWS: a driver process for each job, and an agent in each task. `--jobs N`, or
//! `POINTSMAN_BENCH_JOBS`, changes how many; each takes about 20 MiB of memory while it waits.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a measurement that cannot go on shall panic"
)]
#![expect(clippy::print_stdout, reason = "this is its output")]

#[path = "../tests/driver/support/mod.rs"]
#[expect(dead_code, reason = "the tests use all of it")]
mod support;

#[expect(dead_code, reason = "the other benchmark uses all of it")]
mod measure;

use std::collections::BTreeMap;
use std::fs;
use std::panic::AssertUnwindSafe;
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use measure::{Row, peak_memory, print};
use serde_json::{Value, json};
use support::attempt::Attempt;
use support::ledger::Ledger;
use support::{House, Job};

/// How many jobs are prepared at once.
const JOBS: usize = 1000;
/// How many of them wait in the measurement of how fast `prepare` is done.
const WAITING: usize = 100;
/// How often a second passes in one.
const SPEED: usize = 10;
/// How many quiet jobs are measured until RunTask.
const QUIET: usize = 12;
/// Stages other than the measured one run so many at a time.
const HANDS: usize = 4;
/// Asked at most so often in a simulated second, for each hundred tasks.
const POLLS_A_SECOND: f64 = 1.0;

fn main() {
    // `peak_memory` starts this executable again.
    if measure::is_measuring() {
        return measure::measure();
    }
    // `cargo test --benches` starts it too.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let jobs = jobs();
    let mut rows = vec![until_run_task()];
    let waiting = storm(jobs.min(WAITING));
    waiting.rows(&mut rows);
    waiting.readiness(&mut rows);
    if jobs > WAITING {
        storm(jobs).rows(&mut rows);
    }
    print(&rows);
}

fn jobs() -> usize {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--jobs").skip(1);
    let given = arguments.next().or_else(|| std::env::var("POINTSMAN_BENCH_JOBS").ok());
    given.map_or(JOBS, |text| text.parse().expect("--jobs takes a number"))
}

/// `prepare`'s own time until the request is there, on a quiet machine.
fn until_run_task() -> Row {
    let house = House::new();
    let mut times = Vec::new();
    for _ in 0..QUIET {
        let mut attempt = house.attempt("agent", &Job::default());
        let _ = attempt.config().succeeds();
        let began = SystemTime::now();
        let _ = attempt.prepare().succeeds();
        let ledger = house.ledger();
        let asked = time(ledger.started().last().unwrap());
        times.push(asked.duration_since(began).unwrap_or_default());
        let _ = attempt.cleanup().succeeds();
    }
    Row::milliseconds("prepare until RunTask is sent", measure::median(&mut times), Some(50.0))
}

/// What came of a number of jobs prepared at once.
struct Storm {
    jobs: usize,
    /// Of `prepare`.
    failed: usize,
    elapsed: Duration,
    throttled: usize,
    throttled_later: usize,
    /// By operation.
    calls: Value,
    /// From "the server answers" to the end of `prepare`.
    readiness: Vec<Duration>,
    started: usize,
    left_running: usize,
    /// Of some `prepare`s in the midst of all, in MiB.
    memory: f64,
}

/// Prepares `jobs` jobs at once, and cleans them up.
fn storm(jobs: usize) -> Storm {
    let house = House::altered(
        &json!({
            "time_scale": SPEED, "latencies": "fargate", "seed": 1, "throttling": true,
            "probe_servers": true,
        }),
        // The driver's own budget is for AWS's quotas, which the scaled simulator has ten times.
        |settings| {
            let groups = "security_groups = [\"sg-12345\"]";
            settings
                .replacen(groups, &format!("{groups}\nrequest_quota = 10"), 1)
                // All tasks are processes of one machine, which is behind for longer than a task of AWS's would be.
                .replacen("ready_timeout = \"20s\"", "ready_timeout = \"300s\"", 1)
        },
    );
    println!("{jobs} jobs: config");
    let mut attempts: Vec<Attempt<'_>> =
        (0..jobs).map(|_| house.attempt("agent", &Job::default())).collect();
    std::thread::scope(|scope| {
        for share in attempts.chunks_mut(jobs.div_ceil(HANDS)) {
            scope.spawn(move || share.iter_mut().for_each(|one| drop(one.config().succeeds())));
        }
    });

    println!("{jobs} jobs: prepare");
    let start = Barrier::new(jobs);
    let began = Instant::now();
    let prepared: Vec<Prepared> = std::thread::scope(|scope| {
        let threads: Vec<_> = attempts
            .iter()
            .enumerate()
            .map(|(index, attempt)| {
                let start = &start;
                // A thread that only waits needs little, and a thousand usual stacks are a lot of addresses.
                let thread = std::thread::Builder::new().stack_size(256 * 1024);
                let work = move || {
                    start.wait();
                    prepare(attempt, index)
                };
                thread.spawn_scoped(scope, work).expect("a thread for each job")
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let elapsed = began.elapsed();
    let calls = house.calls();
    let ledger = house.ledger();

    println!("{jobs} jobs: cleanup");
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..HANDS {
            scope.spawn(|| {
                while let Some(one) = attempts.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // A failure shows as a task that is left.
                    let _ = one.cleanup();
                }
            });
        }
    });
    let left_running = settle(&house);

    let failed: Vec<&Prepared> = prepared.iter().filter(|one| !one.succeeded).collect();
    if let Some(first) = failed.first() {
        println!("one of {} that failed says:\n{}", failed.len(), first.said);
    }
    let refused: Vec<SystemTime> = ledger
        .events("refused")
        .filter(|event| event["code"] == "ThrottlingException")
        .map(time)
        .collect();
    let first = ledger.started().first().map_or_else(SystemTime::now, |event| time(event));
    let later = refused.iter().filter(|at| **at > first + Duration::from_secs(1)).count();
    Storm {
        jobs,
        failed: failed.len(),
        elapsed,
        throttled: refused.len(),
        throttled_later: later,
        calls,
        readiness: readiness(&ledger, &attempts, &prepared),
        started: house.ledger().started().len(),
        left_running,
        memory: prepared.iter().filter_map(|one| one.memory).fold(0.0, f64::max),
    }
}

/// What came of one `prepare`.
struct Prepared {
    succeeded: bool,
    ended: SystemTime,
    said: String,
    /// Of every fiftieth, in MiB. It is started by one process more, so its times do not count.
    memory: Option<f64>,
}

fn prepare(attempt: &Attempt<'_>, index: usize) -> Prepared {
    let mut command = attempt.command(&["prepare"]);
    if index % 50 == 25 {
        let measured = AssertUnwindSafe(|| peak_memory(command));
        let memory = std::panic::catch_unwind(measured).ok();
        let said = "see above".to_owned();
        return Prepared { succeeded: memory.is_some(), ended: SystemTime::now(), said, memory };
    }
    let log = attempt.directory.path().join("prepare.log");
    command.stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap());
    let succeeded = wait(&mut command);
    let ended = SystemTime::now();
    let said = fs::read_to_string(log).unwrap();
    Prepared { succeeded, ended, said, memory: None }
}

fn wait(command: &mut Command) -> bool {
    command.status().expect("the driver starts").success()
}

/// For each job whose task's server answered, how long `prepare` went on after that.
fn readiness(ledger: &Ledger, attempts: &[Attempt<'_>], prepared: &[Prepared]) -> Vec<Duration> {
    let answered: BTreeMap<&str, SystemTime> = ledger
        .events("server-answers")
        .map(|event| (event["task"].as_str().unwrap(), time(event)))
        .collect();
    let started = ledger.started();
    let tasks: BTreeMap<&str, &str> = started
        .iter()
        .map(|event| {
            let attempt = event["tags"]["pointsman:attempt"].as_str().unwrap();
            (attempt, event["task"].as_str().unwrap())
        })
        .collect();
    attempts
        .iter()
        .zip(prepared)
        .filter(|(_, prepared)| prepared.succeeded && prepared.memory.is_none())
        .filter_map(|(attempt, prepared)| {
            let task = tasks.get(attempt.job_env["POINTSMAN_ATTEMPT"].as_str())?;
            Some(prepared.ended.duration_since(*answered.get(task)?).unwrap_or_default())
        })
        .collect()
}

/// Waits for all tasks to stop; how many did not.
fn settle(house: &House) -> usize {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let running = house.ledger().running().len();
        if running == 0 || Instant::now() > deadline {
            return running;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn time(event: &Value) -> SystemTime {
    let at: jiff::Timestamp = event["at"].as_str().unwrap().parse().unwrap();
    SystemTime::UNIX_EPOCH + Duration::from_nanos(u64::try_from(at.as_nanosecond()).unwrap())
}

impl Storm {
    fn rows(&self, rows: &mut Vec<Row>) {
        let jobs = self.jobs;
        let mut count = |name: &str, measured: usize, bound: Option<f64>| {
            rows.push(Row::new(&format!("{jobs} jobs: {name}"), measured as f64, "", bound));
        };
        count("prepares that failed", self.failed, Some(0.0));
        count("calls refused as throttled", self.throttled, None);
        count("  after the first second", self.throttled_later, Some(0.0));
        let described = self.calls["DescribeTasks"]["calls"].as_u64().unwrap_or(0);
        let seconds = self.elapsed.as_secs_f64() * SPEED as f64;
        let bound = (jobs.div_ceil(100) as f64 * seconds * POLLS_A_SECOND).ceil();
        count("DescribeTasks calls", usize::try_from(described).unwrap(), Some(bound));
        count("tasks started twice", self.started.saturating_sub(jobs), Some(0.0));
        count("tasks left running", self.left_running, Some(0.0));
        let name = format!("{jobs} jobs: all prepared after");
        rows.push(Row::new(&name, self.elapsed.as_secs_f64(), "s", None));
        let name = format!("{jobs} jobs: peak memory of prepare");
        rows.push(Row::mebibytes(&name, self.memory, Some(25.0)));
    }

    fn readiness(&self, rows: &mut Vec<Row>) {
        let mut times = self.readiness.clone();
        times.sort_unstable();
        let at = |part: usize| times.get(times.len() * part / 100).copied();
        for (name, part, bound) in [("median", 50, 150.0), ("95th percentile", 95, 500.0)] {
            let name = format!("{} jobs: \"sshd answers\" to prepared, {name}", self.jobs);
            // Without any measurement the number does not hold.
            let measured = at(part).unwrap_or(Duration::MAX);
            rows.push(Row::milliseconds(&name, measured, Some(bound)));
        }
    }
}

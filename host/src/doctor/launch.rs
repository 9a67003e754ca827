//! `doctor --launch`: one real task, started as a job's would be, measured, and stopped whatever happens.
//!
//! It is an attempt like any other: saved before anything is asked for, tagged, with a deadline, and released by
//! `cleanup`'s own code, so that what this process leaves when it is killed is found by a sweep.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::phases::{Ended, Launched, read_said, script};
use super::scope::Scope;
use crate::backend::{self, Cause, Phase, TaskBackend, TaskId, TaskStatus};
use crate::environment::checkpoint;
use crate::failure::{Failure, Report};
use crate::placement::bounds::Bounds;
use crate::placement::{Arch, Candidate, Capacity, Placement};
use crate::settings::{ClusterBackend, Settings, SshTimes, TaskDefinition};
use crate::ssh::{self, Exit, KeyPair, Session};
use crate::stages::{Context, cleanup, launch};
use crate::state::{
    Attempt, AttemptId, JobIdentity, Keys, Launch, LaunchFailure, Outcome, OutcomeKind, State,
};

/// Of a task on this machine.
const LOCAL_START_TIMEOUT: Duration = Duration::from_secs(10);

/// Between two looks at the task, from the first on.
const GAPS: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(700),
];
const GAP: Duration = Duration::from_secs(1);

/// Looks without a task at first: DescribeTasks may not know a new one yet.
const MISSING: Duration = Duration::from_secs(60);

/// Of the script: `curl` in it waits for 10 s.
const SCRIPT_LIMIT: Duration = Duration::from_secs(60);

/// Of stopping the task, with repetitions.
const RELEASE_LIMIT: Duration = Duration::from_secs(90);

/// ECS kills containers after at most two minutes (`stopTimeout`).
const STOPPED_LIMIT: Duration = Duration::from_secs(180);

/// What is started.
#[derive(Debug, Clone)]
pub(super) struct Choice {
    /// The profile in whose bounds it is.
    pub profile: String,
    /// The one placement.
    pub placement: Placement,
}

/// What the placement shall be; anything where nothing is said.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// The catalog's name of the task definition.
    pub task_definition: Option<String>,
    /// One that it offers.
    pub arch: Option<Arch>,
    /// One that the profile allows.
    pub capacity: Option<Capacity>,
    /// The catalog's name of the role.
    pub role: Option<String>,
}

/// The first placement that the scopes' profiles allow: on demand before Spot, x86 before ARM.
///
/// # Errors
///
/// Fails with words when none is allowed.
pub(super) fn choose(
    settings: &Settings,
    scopes: &[Scope],
    profile: Option<&str>,
    wish: &Wish,
) -> Result<Choice, String> {
    let mut reasons = Vec::new();
    for scope in scopes {
        let named =
            scope.profiles.iter().filter(|name| profile.is_none_or(|wanted| wanted == *name));
        for name in named {
            let Some(own) = settings.profiles.get(name) else { continue };
            for candidate in candidates(scope, &own.bounds, wish) {
                match own.bounds.check(&candidate, &settings.catalog(&own.bounds)) {
                    Ok(placement) => return Ok(Choice { profile: name.clone(), placement }),
                    Err(violations) => reasons.extend(violations.iter().map(ToString::to_string)),
                }
            }
        }
    }
    let nobody = || "no profile may place jobs on these clusters".to_owned();
    Err(reasons.into_iter().next().unwrap_or_else(nobody))
}

/// All that `wish` leaves open.
fn candidates(scope: &Scope, bounds: &Bounds, wish: &Wish) -> Vec<Candidate> {
    let names: Vec<&String> = match &wish.task_definition {
        Some(name) => vec![name],
        None => bounds.task_definitions.iter().collect(),
    };
    let kinds = [
        (Arch::X86_64, Capacity::OnDemand),
        (Arch::Arm64, Capacity::OnDemand),
        (Arch::X86_64, Capacity::Spot),
        (Arch::Arm64, Capacity::Spot),
    ];
    let wanted = |(arch, capacity): &(Arch, Capacity)| {
        wish.arch.is_none_or(|wanted| wanted == *arch)
            && wish.capacity.is_none_or(|wanted| wanted == *capacity)
    };
    let of = |name: &String| {
        let (cluster, role) = (&scope.cluster, wish.role.as_deref());
        kinds
            .into_iter()
            .filter(wanted)
            .map(|(arch, capacity)| candidate(cluster, name, arch, capacity, role))
            .collect::<Vec<_>>()
    };
    names.into_iter().flat_map(of).collect()
}

/// What a policy would answer that leaves everything open but this.
pub(super) fn candidate(
    cluster: &str,
    task_definition: &str,
    arch: Arch,
    capacity: Capacity,
    role: Option<&str>,
) -> Candidate {
    Candidate {
        cluster: cluster.to_owned(),
        task_definition: task_definition.to_owned(),
        arch,
        capacity,
        cpu_units: None,
        memory_mib: None,
        ephemeral_storage_gib: None,
        role: role.map(str::to_owned),
        labels: BTreeMap::new(),
        reason: "pointsman doctor --launch".to_owned(),
    }
}

/// The attempt that a launch is; its task has to be gone after `lifetime`.
///
/// # Errors
///
/// Fails when the system gives no randomness.
pub(super) fn attempt(choice: &Choice, lifetime: SignedDuration) -> Result<Attempt, Failure> {
    let random = |error: &dyn std::error::Error| Failure::System(Report::of(error));
    let key = || KeyPair::generate().map_err(|error| random(&error));
    let job = JobIdentity {
        id: 0,
        name: "doctor".to_owned(),
        project_id: 0,
        project: "pointsman/doctor".to_owned(),
        pipeline_id: 0,
    };
    Ok(Attempt::new(
        AttemptId::new(0).map_err(|error| random(&error))?,
        1,
        choice.profile.clone(),
        job,
        Timestamp::now() + lifetime,
        vec![choice.placement.clone()],
        serde_json::json!([]),
        Keys { client: key()?.seed_base64(), host: key()?.seed_base64() },
    ))
}

/// Starts the task of `choice`, runs a script in it, stops it, and answers what was seen. `tell` hears of every step.
///
/// # Errors
///
/// Fails before anything was started; afterwards everything is in the answer.
pub(super) async fn launch(
    context: &Context,
    state: &State,
    choice: &Choice,
    tell: &mut (dyn FnMut(&str) + Send),
) -> Result<Launched, Failure> {
    let settings = &context.settings;
    let placement = &choice.placement;
    let unknown = |what: &str| Failure::system(format!("the settings have no {what} of this name"));
    let cluster = settings.clusters.get(&placement.cluster).ok_or_else(|| unknown("cluster"))?;
    let definition = settings
        .task_definitions
        .get(&placement.task_definition)
        .ok_or_else(|| unknown("task definition"))?;
    let start_timeout = match &cluster.backend {
        ClusterBackend::Ecs(ecs) => ecs.start_timeout,
        ClusterBackend::Local(_) => LOCAL_START_TIMEOUT,
    };
    let slack = SCRIPT_LIMIT + settings.ssh.ready_timeout + RELEASE_LIMIT;
    let lifetime = SignedDuration::try_from(start_timeout + slack)
        .map_err(|error| Failure::System(Report::of(&error)))?;
    let mut attempt = attempt(choice, lifetime)?;
    let facts = launch::session_facts(context, &attempt);
    let backend = backend::open_for(cluster, state.directory(), &facts).await;

    let signals = |error: std::io::Error| Failure::System(Report::of(&error));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(signals)?;

    tokio::select! {
        () = sleep(backend.launch_turn()) => {}
        _ = interrupt.recv() => return Ok(nothing_started()),
        _ = terminate.recv() => return Ok(nothing_started()),
    }
    let first = Launch::new(0, 0, Vec::new());
    let request =
        launch::request(context, &attempt, &first, placement, definition, &state.identity()?)?;
    attempt.launch = Some(first);
    // Before anything is asked for: from here on `cleanup` and sweeps know that there may be a task.
    state.save(&attempt)?;
    let mut launched = Launched::default();
    tell(&format!("Starting a task: {placement}..."));
    checkpoint("before-run-task");
    let began = Instant::now();
    // Not raced against signals: giving the call up would leave open whether there is a task.
    let asked = backend.launch(&request).await;
    checkpoint("after-run-task");
    launched.run_task = Some(began.elapsed());
    match asked {
        Ok(task) => {
            if let Some(launch) = &mut attempt.launch {
                launch.task = Some(task.clone());
            }
            // What is not noted is found by its tags.
            if let Err(error) = state.note(&attempt) {
                tell(&format!("The task's name cannot be saved: {error}"));
            }
            tell(&format!("Task {} is starting.", launch::short(&task)));
            launched.task = Some(task.clone());
            let mut work = Work {
                settings,
                attempt: &attempt,
                definition,
                backend: backend.as_ref(),
                task: &task,
                start_timeout,
                asked: Instant::now(),
                launched: &mut launched,
                tell: &mut *tell,
            };
            let ended = tokio::select! {
                ended = work.until_scripted() => ended,
                _ = interrupt.recv() => Ended::Interrupted,
                _ = terminate.recv() => Ended::Interrupted,
            };
            launched.ended = ended;
        }
        Err(error) => {
            if let Some(launch) = &mut attempt.launch {
                let detail = format!("{}: {}", error.code, error.message);
                launch.failed = Some(LaunchFailure { cause: error.cause, detail });
            }
            launched.ended = Ended::Refused(error);
        }
    }

    note_end(&mut attempt, &launched);
    tell("Stopping the task; this goes on whatever is pressed...");
    let told = Instant::now();
    let task = launched.task.clone();
    launched.left = release(context, state, attempt, tell).await.err();
    if let (Some(task), None, false) =
        (&task, &launched.left, matches!(launched.ended, Ended::Interrupted))
    {
        // It is told to stop: whoever does not want to wait may leave.
        tokio::select! {
            stopped = until_stopped(backend.as_ref(), task) => {
                launched.stop = stopped.map(|()| told.elapsed());
            }
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
    Ok(launched)
}

fn nothing_started() -> Launched {
    Launched { ended: Ended::Interrupted, ..Launched::default() }
}

/// What the attempt's record shall say.
fn note_end(attempt: &mut Attempt, launched: &Launched) {
    let outcome = |kind, detail: &str| Some(Outcome { kind, detail: detail.to_owned() });
    if let Some(launch) = &mut attempt.launch {
        launch.address = launched.address.map(|(address, _)| address);
        launch.ready_at = launched.ssh.map(|_| Timestamp::now());
    }
    attempt.outcome = match &launched.ended {
        Ended::Done => outcome(OutcomeKind::Released, ""),
        Ended::Interrupted => outcome(OutcomeKind::Cancelled, "the doctor was interrupted"),
        Ended::Refused(error) | Ended::NotSeen(error) => {
            let kind = match error.cause {
                Cause::NoCapacity => OutcomeKind::Capacity,
                _ => OutcomeKind::Other,
            };
            outcome(kind, &error.to_string())
        }
        Ended::Stopped(stopped) => outcome(OutcomeKind::Other, &stopped.reason),
        Ended::TooSlow(_) => outcome(OutcomeKind::Capacity, "the task did not run in time"),
        Ended::NotReachable { error, .. } | Ended::Script(error) => {
            outcome(OutcomeKind::Other, error)
        }
    };
}

/// Stops what there is, again and again for a while; signals do not end this.
async fn release(
    context: &Context,
    state: &State,
    attempt: Attempt,
    tell: &mut (dyn FnMut(&str) + Send),
) -> Result<(), String> {
    let until = Instant::now() + RELEASE_LIMIT;
    loop {
        let releasing = cleanup::release(context, state, attempt.clone());
        let error = match timeout(RELEASE_LIMIT, releasing).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(Failure::System(report) | Failure::Build(report))) => report.error,
            Ok(Err(Failure::Script(_))) => "an unheard-of failure".to_owned(),
            Err(_) => "it takes too long".to_owned(),
        };
        if Instant::now() + GAP >= until || is_final(&error) {
            return Err(error);
        }
        tell(&format!("The task could not be stopped yet: {error}"));
        sleep(GAP).await;
    }
}

/// Whether stopping again would meet the same answer.
fn is_final(error: &str) -> bool {
    error.contains("AccessDenied")
}

async fn until_stopped(backend: &dyn TaskBackend, task: &TaskId) -> Option<()> {
    let until = Instant::now() + STOPPED_LIMIT;
    let mut gaps = GAPS.into_iter();
    while Instant::now() < until {
        match backend.describe(task).await {
            Ok(Some(status)) if status.phase < Phase::Stopped => {}
            Ok(_) => return Some(()),
            Err(error) if error.cause == Cause::Denied => return None,
            Err(_) => {}
        }
        sleep(gaps.next().unwrap_or(GAP)).await;
    }
    None
}

/// One launch, from RunTask's answer to the end of the script.
struct Work<'w> {
    settings: &'w Settings,
    attempt: &'w Attempt,
    definition: &'w TaskDefinition,
    backend: &'w dyn TaskBackend,
    task: &'w TaskId,
    start_timeout: Duration,
    asked: Instant,
    launched: &'w mut Launched,
    tell: &'w mut (dyn FnMut(&str) + Send),
}

impl Work<'_> {
    async fn until_scripted(&mut self) -> Ended {
        let mut session = match self.until_reached().await {
            Ok(session) => session,
            Err(ended) => return ended,
        };
        self.launched.ssh = Some(self.asked.elapsed());
        (self.tell)(&format!(
            "It can be reached over SSH ({:.1} s).",
            self.asked.elapsed().as_secs_f64()
        ));
        let gitlab = self.settings.gitlab.as_ref().map(|gitlab| gitlab.url.as_str());
        let text = script(self.definition, gitlab);
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        let began = Instant::now();
        let ran = session
            .run(
                "exec sh",
                text.as_bytes(),
                &mut output,
                &mut errors,
                sleep(SCRIPT_LIMIT),
                self.settings.ssh.stop_grace,
            )
            .await;
        self.launched.script = Some(began.elapsed());
        session.close().await;
        self.launched.said = read_said(&String::from_utf8_lossy(&output));
        let errors = String::from_utf8_lossy(&errors);
        match ran {
            Ok(Exit::Status(0)) => Ended::Done,
            Ok(Exit::Status(status)) => {
                Ended::Script(format!("it ended with status {status}: {}", errors.trim()))
            }
            Ok(Exit::Signal(name)) => Ended::Script(format!("it was ended by SIG{name}")),
            Ok(Exit::Stopped) => {
                Ended::Script(format!("it took more than {} s", SCRIPT_LIMIT.as_secs()))
            }
            Err(error) => Ended::Script(error.to_string()),
        }
    }

    /// Looks at the task until it has an address, connects from then on, and goes on looking: a task that has
    /// stopped will not answer any more.
    async fn until_reached(&mut self) -> Result<Session, Ended> {
        let times = self.settings.ssh;
        // An image may take longer to pull than a server that runs may take to answer.
        let patient = SshTimes { ready_timeout: self.start_timeout + times.ready_timeout, ..times };
        let last = std::sync::Mutex::new(None);
        let last = &last;
        let connect = |target: ssh::Target| async move {
            ssh::connect_until_ready(&target, &patient, |error| {
                if let Ok(mut last) = last.lock() {
                    *last = Some((error.to_string(), error.hint()));
                }
            })
            .await
        };
        let mut connecting = std::pin::pin!(None);
        let mut gaps = GAPS.into_iter();
        let mut look = Instant::now();
        let mut running = None;
        let mut failed_looks = 0;
        loop {
            let deadline = match running {
                Some(since) => since + times.ready_timeout,
                None => self.asked + self.start_timeout,
            };
            tokio::select! {
                session = async {
                    match connecting.as_mut().as_pin_mut() {
                        Some(connecting) => connecting.await,
                        None => std::future::pending::<Result<Session, ssh::NotReady>>().await,
                    }
                } => {
                    return session.map_err(|error| Ended::NotReachable {
                        error: error.last.to_string(),
                        hint: error.last.hint(),
                    });
                }
                () = sleep_until(deadline) => {
                    let said = last.lock().ok().and_then(|mut last| last.take());
                    return Err(match (running, said) {
                        (Some(_), Some((error, hint))) => Ended::NotReachable { error, hint },
                        (Some(_), None) => Ended::NotReachable {
                            error: "it has no address".to_owned(),
                            hint: "look at the task in the ECS console".to_owned(),
                        },
                        (None, _) => Ended::TooSlow(self.start_timeout),
                    });
                }
                () = sleep_until(look) => {
                    let seen = self.backend.describe(self.task).await;
                    look = Instant::now() + gaps.next().unwrap_or(GAP);
                    let status = match seen {
                        Ok(Some(status)) => status,
                        Ok(None) if self.asked.elapsed() < MISSING => continue,
                        Ok(None) => return Err(Ended::NotSeen(backend::BackendError {
                            cause: Cause::Missing,
                            ..backend::BackendError::new("DescribeTasks", "MISSING", "the task is not known")
                        })),
                        Err(error) => {
                            failed_looks += 1;
                            if error.cause == Cause::Denied || failed_looks >= 8 {
                                return Err(Ended::NotSeen(error));
                            }
                            continue;
                        }
                    };
                    if let Some(target) = self.look_at(&status)? {
                        connecting.set(Some(connect(target)));
                    }
                    if status.phase >= Phase::Running {
                        running.get_or_insert_with(Instant::now);
                    }
                }
            }
        }
    }

    /// Notes what is new; answers where to connect to when that is.
    fn look_at(&mut self, status: &TaskStatus) -> Result<Option<ssh::Target>, Ended> {
        let after = self.asked.elapsed();
        self.launched.times = status.times;
        if self.launched.phases.last().map(|(phase, _)| *phase) != Some(status.phase) {
            self.launched.phases.push((status.phase, after));
            (self.tell)(&format!("It is {} ({:.1} s).", status.phase, after.as_secs_f64()));
        }
        if let Some(stopped) = &status.stopped {
            return Err(Ended::Stopped(stopped.clone()));
        }
        let (None, Some(ip)) = (self.launched.address, status.address) else { return Ok(None) };
        let target =
            launch::target(self.attempt, self.definition, ip, status).map_err(|failure| {
                let (Failure::System(report) | Failure::Build(report)) = failure else {
                    return Ended::Script("an unheard-of failure".to_owned());
                };
                Ended::NotReachable { error: report.error, hint: report.hints.join("; ") }
            })?;
        self.launched.address = Some((target.address, after));
        (self.tell)(&format!("Its address is {} ({:.1} s).", target.address, after.as_secs_f64()));
        Ok(Some(target))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::doctor::scope::scopes;

    fn settings() -> Settings {
        let file = format!(
            "[state]\ndirectory = \"/s\"\n\
             [clusters.a]\nbackend = \"local\"\n[clusters.b]\nbackend = \"local\"\n\
             [task_definitions.arm]\narm64 = \"t\"\nssh = {{ server = \"agent\" }}\n\
             [task_definitions.both]\nx86_64 = \"t\"\narm64 = \"u\"\nssh = {{ server = \"agent\" }}\n\
             [roles.r]\narn = \"arn:aws:iam::123456789012:role/r\"\n\
             [policies.p]\ncomponent = \"p.wasm\"\nsha256 = \"{}\"\n\
             [profiles.one]\npolicies = [\"p\"]\nbounds = {{ clusters = [\"a\"], task_definitions = [\"arm\"], capacities = [\"spot\"], max_cpu = \"2\", max_memory = \"8GiB\" }}\n\
             [profiles.two]\npolicies = [\"p\"]\nbounds = {{ clusters = [\"a\", \"b\"], task_definitions = [\"both\"], roles = [\"r\"], max_cpu = \"0.25\", max_memory = \"512MiB\" }}\n\
             [profiles.three]\npolicies = [\"p\"]\nbounds = {{ clusters = [\"b\"], task_definitions = [\"both\"], max_cpu = \"2\", max_memory = \"8GiB\" }}\n",
            "0".repeat(64)
        );
        crate::settings::read(&file, Path::new("/")).unwrap()
    }

    fn chosen(profile: Option<&str>, cluster: Option<&str>, role: Option<&str>) -> String {
        let wish = Wish { role: role.map(str::to_owned), ..Wish::default() };
        chosen_by(profile, cluster, &wish)
    }

    fn chosen_by(profile: Option<&str>, cluster: Option<&str>, wish: &Wish) -> String {
        let settings = settings();
        let scopes = scopes(&settings, profile, cluster).unwrap();
        match choose(&settings, &scopes, profile, wish) {
            Ok(choice) => format!("{}: {}", choice.profile, choice.placement),
            Err(error) => error,
        }
    }

    #[test]
    fn the_first_placement_that_is_allowed_is_chosen() {
        let one = "one: cluster a, task definition arm, arm64, spot, 1 vCPU / 2 GiB, the task definition's role";
        assert_eq!(chosen(None, None, None), one);
        assert_eq!(chosen(Some("one"), Some("a"), None), one);
        let three = chosen(None, Some("b"), None);
        assert!(
            three.starts_with("three: cluster b, task definition both, x86_64, on-demand"),
            "{three}"
        );
    }

    #[test]
    fn why_none_is_allowed_is_said() {
        assert!(chosen(Some("two"), None, None).contains("the profile allows at most"));
        assert!(chosen(Some("one"), Some("b"), None).contains("no profile may place jobs"));
        assert!(chosen(None, Some("a"), Some("x")).contains("role `x` is not allowed"));
        let arm = Wish { arch: Some(Arch::Arm64), ..Wish::default() };
        assert!(chosen_by(Some("three"), None, &arm).contains("task definition both, arm64"));
        let spot = Wish { capacity: Some(Capacity::Spot), ..Wish::default() };
        assert!(chosen_by(Some("three"), None, &spot).contains("capacity `spot` is not allowed"));
        let other = Wish { task_definition: Some("arm".into()), ..Wish::default() };
        assert!(chosen_by(Some("three"), None, &other).contains("task definition `arm` is not"));
    }
}

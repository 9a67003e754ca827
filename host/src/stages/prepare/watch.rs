//! Looking at tasks together: of all processes that wait for tasks of one cluster, one asks for all.
//!
//! DescribeTasks may be called 20 times a second by a whole account, and takes 100 tasks a call. So the
//! processes elect a poller by a lock, and the others are told what it learns:
//!
//! ```text
//! <state>/watch/<cluster>/poller.lock       held by the poller; the system frees it with the process
//! <state>/watch/<cluster>/<launch>/task     the task of one process, locked as long as the process lives
//! <state>/watch/<cluster>/<launch>/seen     what the poller last learnt of it, replaced by rename
//! ```
//!
//! One small file for each process, and not one for the cluster: with a thousand jobs waiting, all of them
//! would read all of it at every change. The kernel wakes a process when its own file is replaced.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::fs::inotify;
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use crate::backend::{Cause, Phase, TaskBackend, TaskId, TaskStatus};

/// DescribeTasks takes at most this many.
const TOGETHER: usize = 100;

/// Between two tries to become the poller: at least, and at most twice as long.
const ELECTION: Duration = Duration::from_millis(250);

/// Between two looks for processes that have newly come.
const DISCOVERY: Duration = Duration::from_millis(100);

/// A poller without a sign of life for this long is stopped or stuck, and each process asks for itself.
const SILENCE: Duration = Duration::from_secs(30);

/// Of the read budget; the rest is for sweeps and diagnoses.
const SHARE: f64 = 0.6;

/// What is heard of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum News {
    /// How it is now.
    Status(TaskStatus),
    /// The backend does not know it.
    Missing,
    /// It could not be looked at.
    Failed {
        /// Told apart.
        cause: Cause,
        /// The error.
        detail: String,
        /// Counts the failures, so that each is news.
        count: u32,
    },
}

/// Hears what becomes of one task, and does its part of the looking as long as it exists.
#[derive(Debug)]
pub(super) struct Watch {
    news: mpsc::Receiver<News>,
    looking: JoinHandle<()>,
    own: PathBuf,
}

impl Watch {
    /// Watches `task`, of the launch `name`, in `directory`, which all launches of the cluster share.
    ///
    /// # Errors
    ///
    /// Fails when the directory cannot be written.
    pub(super) fn start(
        backend: Arc<dyn TaskBackend>,
        directory: PathBuf,
        name: &str,
        task: TaskId,
    ) -> io::Result<Self> {
        let own = directory.join(name);
        let presence = Presence::enter(&own, &task)?;
        let (sender, news) = mpsc::channel(16);
        let look = Look { backend, directory, own: own.clone(), task, presence, heard: Vec::new() };
        let looking = tokio::spawn(look.on(sender));
        Ok(Self { news, looking, own })
    }

    /// The next news; pends for ever when there will be none.
    pub(super) async fn next(&mut self) -> News {
        match self.news.recv().await {
            Some(news) => news,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.looking.abort();
        // What stays is removed by the next poller.
        let _ = fs::remove_dir_all(&self.own);
    }
}

/// The sign that a process waits for a task.
#[derive(Debug)]
struct Presence {
    /// Locked until it is closed.
    _task: File,
    /// Told when something is renamed into the directory; none where the system has no more to give, and
    /// then the elections' pace is the pace of hearing.
    notices: Option<AsyncFd<OwnedFd>>,
}

impl Presence {
    fn enter(own: &Path, task: &TaskId) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(own)?;
        // Locked before it has its name: a poller takes an unlocked one for a dead process's.
        let mut file = tempfile::NamedTempFile::new_in(own)?;
        file.as_file().lock()?;
        file.write_all(task.0.as_bytes())?;
        let file = file.persist(own.join("task")).map_err(|error| error.error)?;
        Ok(Self { _task: file, notices: notices_of(own).ok() })
    }

    async fn noticed(&self) {
        let Some(notices) = &self.notices else { return std::future::pending().await };
        let Ok(mut guard) = notices.readable().await else {
            return std::future::pending().await;
        };
        let mut buffer = [MaybeUninit::uninit(); 1024];
        let mut reader = inotify::Reader::new(notices.get_ref(), &mut buffer);
        while reader.next().is_ok() {}
        guard.clear_ready();
    }
}

fn notices_of(own: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    let notices = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
    inotify::add_watch(&notices, own, inotify::WatchFlags::MOVED_TO)?;
    #[expect(deprecated, reason = "sound for an `OwnedFd`; its successor would need unsafe code")]
    AsyncFd::new(notices)
}

/// The looking itself.
struct Look {
    backend: Arc<dyn TaskBackend>,
    directory: PathBuf,
    own: PathBuf,
    task: TaskId,
    presence: Presence,
    /// The last text of `seen`.
    heard: Vec<u8>,
}

impl Look {
    async fn on(mut self, news: mpsc::Sender<News>) {
        let mut poller: Option<Poller> = None;
        loop {
            match &mut poller {
                Some(poller) => poller.round(self.backend.as_ref()).await,
                None => match self.elect() {
                    Some(lock) => {
                        poller = Some(Poller::new(self.directory.clone(), lock));
                        continue;
                    }
                    None => {
                        let patience = ELECTION.mul_f64(rand::random_range(1.0..=2.0));
                        tokio::select! {
                            () = self.presence.noticed() => {}
                            () = sleep(patience) => {
                                self.stay();
                                if self.poller_is_silent() {
                                    let alone = look_at(self.backend.as_ref(), &self.task).await;
                                    if news.send(alone).await.is_err() {
                                        return;
                                    }
                                    sleep(SILENCE / 10).await;
                                }
                            }
                        }
                    }
                },
            }
            if let Some(heard) = self.hear()
                && news.send(heard).await.is_err()
            {
                return;
            }
        }
    }

    fn elect(&self) -> Option<File> {
        let path = self.directory.join("poller.lock");
        let lock = File::options().create(true).append(true).mode(0o600).open(path).ok()?;
        lock.try_lock().ok()?;
        Some(lock)
    }

    fn poller_is_silent(&self) -> bool {
        fs::metadata(self.directory.join("poller.lock"))
            .and_then(|metadata| metadata.modified())
            .is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|since| since > SILENCE))
    }

    /// Comes back when a poller took this process for a dead one's remains.
    fn stay(&mut self) {
        if !self.own.join("task").exists()
            && let Ok(presence) = Presence::enter(&self.own, &self.task)
        {
            self.presence = presence;
        }
    }

    fn hear(&mut self) -> Option<News> {
        let text = fs::read(self.own.join("seen")).ok()?;
        if text == self.heard {
            return None;
        }
        let news = serde_json::from_slice(&text).ok()?;
        self.heard = text;
        Some(news)
    }
}

async fn look_at(backend: &dyn TaskBackend, task: &TaskId) -> News {
    match backend.describe(task).await {
        Ok(Some(status)) => News::Status(status),
        Ok(None) => News::Missing,
        Err(error) => News::Failed { cause: error.cause, detail: error.to_string(), count: 0 },
    }
}

/// The one that asks for all.
struct Poller {
    directory: PathBuf,
    lock: File,
    waiters: BTreeMap<String, Waiter>,
    discovered_at: Option<Instant>,
    /// No earlier than this, for the sake of the request budget.
    not_before: Instant,
    failures: u32,
}

struct Waiter {
    task: TaskId,
    news: Option<News>,
    /// When its phase last changed, as far as this poller knows.
    since: Instant,
    due: Instant,
}

impl Poller {
    fn new(directory: PathBuf, lock: File) -> Self {
        Self {
            directory,
            lock,
            waiters: BTreeMap::new(),
            discovered_at: None,
            not_before: Instant::now(),
            failures: 0,
        }
    }

    /// Waits until a look is due and looks; or only waits a moment for others to come.
    async fn round(&mut self, backend: &dyn TaskBackend) {
        self.discover();
        let now = Instant::now();
        let first_due = self.waiters.values().map(|waiter| waiter.due).min();
        let begin = first_due.unwrap_or(now + DISCOVERY).max(self.not_before);
        if begin > now {
            sleep_until(begin.min(now + DISCOVERY)).await;
            return;
        }
        // A sign of life.
        let _ = self.lock.set_modified(SystemTime::now());
        let names = self.due(now);
        let mut calls = 0_u32;
        for some in names.chunks(TOGETHER) {
            calls += 1;
            self.ask(backend, some).await;
        }
        let pace = backend.reads_a_second() * SHARE;
        self.not_before = now + Duration::from_secs_f64(f64::from(calls) / pace);
    }

    /// Reads who waits.
    fn discover(&mut self) {
        let now = Instant::now();
        if self.discovered_at.is_some_and(|at| now < at + DISCOVERY) {
            return;
        }
        self.discovered_at = Some(now);
        let mut present = BTreeMap::new();
        for entry in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            if let Some(waiter) = self.waiters.remove(&name) {
                present.insert(name, waiter);
            } else if let Ok(task) = fs::read_to_string(entry.path().join("task")) {
                let seen = fs::read(entry.path().join("seen")).ok();
                let news = seen.and_then(|text| serde_json::from_slice(&text).ok());
                let due = now + DISCOVERY.mul_f64(rand::random_range(0.5..=1.0));
                present.insert(name, Waiter { task: TaskId(task), news, since: now, due });
            }
        }
        self.waiters = present;
    }

    /// Those whose look is due and whose process lives, and as many more as a call has room for.
    fn due(&mut self, now: Instant) -> Vec<String> {
        let dead: Vec<String> = self
            .waiters
            .iter()
            .filter(|(name, waiter)| waiter.due <= now && !is_alive(&self.directory.join(name)))
            .map(|(name, _)| name.clone())
            .collect();
        for name in dead {
            self.waiters.remove(&name);
            let _ = fs::remove_dir_all(self.directory.join(&name));
        }
        let mut all: Vec<(Instant, &String)> =
            self.waiters.iter().map(|(name, waiter)| (waiter.due, name)).collect();
        all.sort();
        let due = all.iter().filter(|(due, _)| *due <= now).count();
        let room = due.div_ceil(TOGETHER) * TOGETHER;
        all.into_iter().take(room).map(|(_, name)| name.clone()).collect()
    }

    async fn ask(&mut self, backend: &dyn TaskBackend, names: &[String]) {
        let tasks: Vec<TaskId> = names
            .iter()
            .filter_map(|name| self.waiters.get(name))
            .map(|waiter| waiter.task.clone())
            .collect();
        let answer = backend.describe_many(&tasks).await;
        let (found, failed) = match answer {
            Ok(found) => (found.into_iter().collect(), None),
            Err(error) => {
                self.failures += 1;
                let (cause, detail) = (error.cause, error.to_string());
                (BTreeMap::new(), Some(News::Failed { cause, detail, count: self.failures }))
            }
        };
        let found: BTreeMap<TaskId, TaskStatus> = found;
        let now = Instant::now();
        for name in names {
            let Some(waiter) = self.waiters.get_mut(name) else { continue };
            let news = failed.clone().unwrap_or_else(|| {
                found.get(&waiter.task).map_or(News::Missing, |it| News::Status(it.clone()))
            });
            waiter.learn(news, now, &self.directory.join(name));
        }
    }
}

impl Waiter {
    fn learn(&mut self, news: News, now: Instant, directory: &Path) {
        if stage_of(Some(&news)) != stage_of(self.news.as_ref()) {
            self.since = now;
        }
        if self.news.as_ref() != Some(&news) {
            // The process may have left meanwhile, and its directory with it.
            let _ = tell(directory, &news);
        }
        let gap = gap(stage_of(Some(&news)), now - self.since);
        self.due = now + gap.mul_f64(rand::random_range(0.85..=1.15));
        self.news = Some(news);
    }
}

fn tell(directory: &Path, news: &News) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(&serde_json::to_vec(news)?)?;
    file.persist(directory.join("seen")).map_err(|error| error.error)?;
    Ok(())
}

/// Whether the process that waits there holds its lock.
fn is_alive(directory: &Path) -> bool {
    let Ok(task) = File::open(directory.join("task")) else { return false };
    matches!(task.try_lock_shared(), Err(TryLockError::WouldBlock))
}

/// What the next change will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The address is wanted.
    Addressless,
    /// The address is known and SSH being tried; only an end is of interest.
    Starting,
    /// The same in RUNNING.
    Running,
    /// The last has been said.
    Ended,
    /// The backend fails.
    Failing,
}

fn stage_of(news: Option<&News>) -> Stage {
    match news {
        None | Some(News::Missing) => Stage::Addressless,
        Some(News::Failed { .. }) => Stage::Failing,
        Some(News::Status(status)) if status.stopped.is_some() => Stage::Ended,
        Some(News::Status(status)) => match status.address {
            None => Stage::Addressless,
            Some(_) if status.phase >= Phase::Running => Stage::Running,
            Some(_) => Stage::Starting,
        },
    }
}

/// The time to the next look at a task that has been in `stage` for `age`.
///
/// A change is most likely soon after the one before, relative to the time it has taken already; so the gap
/// grows with the age, and what is lost by it stays a small part of the whole wait.
fn gap(stage: Stage, age: Duration) -> Duration {
    let (part, shortest, longest) = match stage {
        Stage::Addressless => (8, 100, 1000),
        Stage::Starting => (4, 500, 3000),
        Stage::Running => (4, 1000, 3000),
        Stage::Ended => (1, 1000, 3000),
        Stage::Failing => (2, 1000, 5000),
    };
    (age / part).clamp(Duration::from_millis(shortest), Duration::from_millis(longest))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;

    use super::*;
    use crate::backend::{BackendError, LaunchRequest, OwnedTask, Times};

    /// Knows every task; each has the address 127.1.2.3 from its `address_at`-th look on.
    #[derive(Debug, Default)]
    struct Counting {
        calls: Mutex<Vec<usize>>,
    }

    #[async_trait]
    impl TaskBackend for Counting {
        async fn launch(&self, _: &LaunchRequest) -> Result<TaskId, BackendError> {
            Err(BackendError::new("RunTask", "none", "none"))
        }

        async fn describe_many(
            &self,
            tasks: &[TaskId],
        ) -> Result<Vec<(TaskId, TaskStatus)>, BackendError> {
            self.calls.lock().unwrap().push(tasks.len());
            let status = TaskStatus {
                bindings: Vec::new(),
                phase: Phase::Pending,
                address: Some("127.1.2.3".parse().unwrap()),
                stopped: None,
                subnet: None,
                times: Times::default(),
            };
            Ok(tasks.iter().map(|task| (task.clone(), status.clone())).collect())
        }

        async fn stop(&self, _: &TaskId, _: &str) -> Result<Option<TaskStatus>, BackendError> {
            Ok(None)
        }

        async fn list(&self, _: &str) -> Result<Vec<OwnedTask>, BackendError> {
            Ok(Vec::new())
        }
    }

    #[tokio::test]
    async fn one_asks_for_all_and_another_takes_over() {
        let directory = tempfile::tempdir().unwrap();
        let backend = Arc::new(Counting::default());
        let start = |number: u32| {
            let shared = backend.clone() as Arc<dyn TaskBackend>;
            let task = TaskId(format!("task-{number}"));
            Watch::start(shared, directory.path().to_owned(), &number.to_string(), task).unwrap()
        };
        let mut watches: Vec<Watch> = (0..150).map(start).collect();
        for watch in &mut watches {
            assert!(matches!(watch.next().await, News::Status(status) if status.address.is_some()));
        }
        let calls = backend.calls.lock().unwrap().clone();
        assert!(calls.len() <= 8, "{calls:?}");
        assert!(calls.contains(&100), "{calls:?}");
        // Whoever polled is gone with all the others; a newcomer polls.
        watches.clear();
        let mut newcomer = start(200);
        assert!(matches!(newcomer.next().await, News::Status(_)));
        assert_eq!(backend.calls.lock().unwrap().last(), Some(&1));
        drop(newcomer);
        assert!(!directory.path().join("200").exists());
    }

    #[test]
    fn remains_of_a_dead_process_are_told_from_a_living_one() {
        let directory = tempfile::tempdir().unwrap();
        let own = directory.path().join("one");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let guard = runtime.enter();
        let presence = Presence::enter(&own, &TaskId("task".to_owned())).unwrap();
        assert!(is_alive(&own));
        drop(presence);
        assert!(!is_alive(&own));
        drop(guard);
    }

    #[test]
    fn looks_are_frequent_when_a_change_is_due() {
        for (stage, age_ms, expected_ms) in [
            (Stage::Addressless, 0, 100),
            (Stage::Addressless, 4000, 500),
            (Stage::Addressless, 60_000, 1000),
            (Stage::Starting, 0, 500),
            (Stage::Starting, 60_000, 3000),
            (Stage::Running, 0, 1000),
            (Stage::Running, 60_000, 3000),
            (Stage::Failing, 0, 1000),
        ] {
            let gap = gap(stage, Duration::from_millis(age_ms));
            assert_eq!(gap, Duration::from_millis(expected_ms), "{stage:?} {age_ms}");
        }
    }
}

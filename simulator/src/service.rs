//! The simulated service: the account behind its lock, and what tasks live on.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::account::Account;
use crate::addresses::Addresses;
use crate::arrivals::Arrivals;
use crate::clock::Clock;
use crate::faults::Target;
use crate::latency::Pace;
use crate::ledger::LedgerFile;
use crate::processes::Programs;
use crate::protocol::ApiError;
use crate::task::Task;
use crate::world::{Consistency, Image, World};

/// One simulated ECS.
#[derive(Debug)]
pub(crate) struct Service {
    account: Mutex<Account>,
    pub(crate) ledger: LedgerFile,
    pub(crate) arrivals: Arrivals,
    /// Of other services than ECS.
    pub(crate) other_arrivals: Arrivals,
    pub(crate) ledger_path: PathBuf,
    pub(crate) addresses: Addresses,
    pub(crate) programs: Programs,
    pub(crate) images: BTreeMap<String, Image>,
    pub(crate) clock: Clock,
    pub(crate) pace: Pace,
    pub(crate) consistency: Consistency,
    /// In real time.
    pub(crate) stop_timeout: Duration,
    pub(crate) probe_servers: bool,
    /// By how much AWS's clock is ahead.
    pub(crate) clock_ahead_s: i64,
    pub(crate) keep_directories: bool,
    directory: PathBuf,
    /// Becomes `true` when the simulator ends.
    ending: watch::Sender<bool>,
    /// The lives of all tasks.
    lives: Mutex<JoinSet<()>>,
}

impl Service {
    /// `directory` is an existing absolute path.
    pub(crate) fn new(
        world: World,
        account: Account,
        directory: PathBuf,
        programs: Programs,
    ) -> std::io::Result<Self> {
        std::fs::create_dir_all(directory.join("tasks"))?;
        std::fs::create_dir_all(directory.join("logs"))?;
        let ledger_path = directory.join("ledger.jsonl");
        let clock = Clock::new(world.time_scale);
        Ok(Self {
            account: Mutex::new(account),
            ledger: LedgerFile::open(&ledger_path)?,
            ledger_path,
            arrivals: Arrivals::open(&directory.join("requests.jsonl"))?,
            other_arrivals: Arrivals::open(&directory.join("others.jsonl"))?,
            addresses: Addresses::new(),
            programs,
            pace: world.pace(),
            images: world.images,
            consistency: world.consistency_ms,
            stop_timeout: clock.real(Duration::from_millis(world.stop_timeout_ms)),
            clock,
            probe_servers: world.probe_servers,
            clock_ahead_s: world.clock_ahead_s,
            keep_directories: world.keep_directories,
            directory,
            ending: watch::Sender::new(false),
            lives: Mutex::new(JoinSet::new()),
        })
    }

    /// The account. Never held over an await.
    pub(crate) fn account(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads or changes a task.
    pub(crate) fn with_task<T>(&self, id: &str, act: impl FnOnce(&mut Task) -> T) -> Option<T> {
        self.account().tasks.get_mut(id).map(act)
    }

    /// Where every call has to pass before it is looked at: AWS's throttling, and the scripted errors.
    pub(crate) fn admit(&self, operation: &str, target: &Target) -> Result<(), ApiError> {
        if operation == "RunTask" {
            self.clock.open();
        }
        let provider = target.capacity_provider.as_deref();
        let fargate = provider.is_some_and(|provider| provider.starts_with("FARGATE"));
        let mut guard = self.account();
        let account = &mut *guard;
        let admitted = account.throttle.admits(operation, fargate, self.clock.now());
        let calls = account.calls.entry(operation.to_owned()).or_default();
        calls.calls += 1;
        if !admitted {
            calls.throttled += 1;
            return Err(ApiError::throttled());
        }
        match account.faults.api_error(operation, target, self.clock.scene()) {
            None => Ok(()),
            Some((status, code, message)) => {
                Err(ApiError { status, ..ApiError::new(&code, message) })
            }
        }
    }

    pub(crate) fn task_directory(&self, id: &str) -> PathBuf {
        self.directory.join("tasks").join(id)
    }

    /// Where a container's output goes; kept when the task has stopped.
    pub(crate) fn log_file(&self, id: &str, container: &str) -> PathBuf {
        self.directory.join("logs").join(format!("{id}.{container}.log"))
    }

    pub(crate) fn watch_ending(&self) -> watch::Receiver<bool> {
        self.ending.subscribe()
    }

    /// The lives of all tasks, to add one; whoever holds the guard and finds that the simulator is not
    /// [ending](Self::is_ending) can be sure that what it adds will be waited for.
    pub(crate) fn lives(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_ending(&self) -> bool {
        *self.ending.borrow()
    }

    /// Ends all tasks' lives, and waits until the last of their processes is gone.
    pub(crate) async fn end(&self) {
        self.ending.send_replace(true);
        let mut lives =
            std::mem::take(&mut *self.lives.lock().unwrap_or_else(PoisonError::into_inner));
        while lives.join_next().await.is_some() {}
    }
}

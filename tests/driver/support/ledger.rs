//! The simulator's ledger: what was started and stopped.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

/// The ledger's lines so far.
pub(crate) struct Ledger(Vec<Value>);

impl Ledger {
    pub(crate) fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        Self(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }

    pub(crate) fn events<'l>(&'l self, kind: &'l str) -> impl Iterator<Item = &'l Value> + 'l {
        self.0.iter().filter(move |event| event["event"] == kind)
    }

    /// The tasks that were started, each as its `run-task` event, repetitions of a token left out.
    pub(crate) fn started(&self) -> Vec<&Value> {
        self.events("run-task").filter(|event| event["repeated"] != true).collect()
    }

    fn names(&self, kind: &str) -> BTreeSet<String> {
        self.events(kind).map(|event| event["task"].as_str().unwrap().to_owned()).collect()
    }

    /// The tasks that were started and have not stopped.
    pub(crate) fn running(&self) -> BTreeSet<String> {
        let stopped = self.names("stopped");
        self.names("run-task").into_iter().filter(|task| !stopped.contains(task)).collect()
    }
}

/// Waits until no task runs any more; a task that was told to stop takes a moment.
pub(crate) fn settle(path: &Path) -> Ledger {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let ledger = Ledger::read(path);
        if ledger.running().is_empty() {
            return ledger;
        }
        assert!(Instant::now() < deadline, "tasks left running: {:?}", ledger.running());
        std::thread::sleep(Duration::from_millis(20));
    }
}

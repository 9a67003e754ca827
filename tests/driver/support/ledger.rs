//! The simulator's ledger: what was started and stopped.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

/// The states of a task that is meant to run.
const RISING: [&str; 4] = ["PROVISIONING", "PENDING", "ACTIVATING", "RUNNING"];

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

    /// Asserts that at no moment two tasks of one attempt were meant to run, and that no token started two.
    pub(crate) fn assert_nothing_twice(&self) {
        let mut meant_to_run: BTreeMap<&str, &str> = BTreeMap::new();
        let mut tokens = BTreeSet::new();
        for event in &self.0 {
            let task = event["task"].as_str().unwrap_or_default();
            match event["event"].as_str().unwrap() {
                "run-task" if event["repeated"] != true => {
                    let attempt = event["tags"]["pointsman:attempt"].as_str().unwrap_or(task);
                    let other = meant_to_run.values().find(|running| **running == attempt);
                    assert_eq!(other, None, "a second task beside another: {event}");
                    assert!(tokens.insert(event["client_token"].as_str()), "twice: {event}");
                    meant_to_run.insert(task, attempt);
                }
                // What stops by itself says so by its next state.
                "stop-task" | "stopped" => {
                    meant_to_run.remove(task);
                }
                "state"
                    if event["status"].as_str().is_some_and(|status| !RISING.contains(&status)) =>
                {
                    meant_to_run.remove(task);
                }
                _ => {}
            }
        }
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

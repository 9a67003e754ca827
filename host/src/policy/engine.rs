//! The settings of the WebAssembly runtime, and the clock that ends a call that takes too long.
//!
//! Everything that policies do not need is off or not even built in: WASI, async, GC, threads, the pooling
//! allocator, Winch. Most of the runtime's security advisories are about those.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use wasmtime::{Config, Engine, Result, Store, UpdateDeadline};

use super::imports::Guest;
use super::limits;

/// Counts up when the store's files change their meaning for another reason than the runtime.
const LAYOUT: u32 = 1;

/// The runtime that all policies of a process share.
pub(super) fn engine() -> Result<Engine> {
    let mut config = Config::new();
    config
        // Naming the target turns the detection of this machine's CPU off: files then fit every machine of
        // the architecture, and a fleet can share them.
        .target(&format!("{}-unknown-linux-gnu", std::env::consts::ARCH))?
        .wasm_component_model(true)
        .concurrency_support(false)
        .consume_fuel(true)
        .epoch_interruption(true)
        // The same decision on every CPU.
        .cranelift_nan_canonicalization(true)
        .wasm_relaxed_simd(false)
        .wasm_memory64(false)
        // Multiple memories stay on: the runtime's own adapters between the parts of a component, such as an
        // engine of JavaScript and its stubs, are modules with two.
        .wasm_custom_page_sizes(false)
        .wasm_wide_arithmetic(false)
        .wasm_component_model_memory64(false)
        .wasm_component_model_gc(false)
        .wasm_component_model_error_context(false)
        .max_wasm_stack(limits::STACK_BYTES);
    Engine::new(&config)
}

/// Changes whenever a compiled component of an earlier driver would not fit any more.
pub(super) fn key(engine: &Engine) -> String {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    env!("CARGO_PKG_VERSION").hash(&mut hasher);
    LAYOUT.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// One thread that moves the engine's epoch when a call's time is over.
///
/// Calls of several threads may run side by side: a moved epoch makes each of them look at its own deadline.
#[derive(Debug)]
pub(super) struct Clock {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    running: bool,
    stopped: bool,
    /// With a number of its own, since two calls may end at the same instant.
    deadlines: BTreeSet<(Instant, u64)>,
    next: u64,
}

/// Takes a call's deadline back when the call is over.
#[derive(Debug)]
pub(super) struct Armed {
    shared: Arc<Shared>,
    entry: (Instant, u64),
}

impl Clock {
    pub(super) fn new() -> Self {
        Self { shared: Arc::default() }
    }

    /// Ends the call on `store` after `time`. The thread starts with the first call.
    pub(super) fn arm(&self, store: &mut Store<Guest>, time: Duration) -> std::io::Result<Armed> {
        let deadline = Instant::now() + time;
        store.epoch_deadline_callback(move |_| {
            Ok(if Instant::now() >= deadline {
                UpdateDeadline::Interrupt
            } else {
                UpdateDeadline::Continue(1)
            })
        });
        store.set_epoch_deadline(1);
        let mut state = lock(&self.shared.state);
        if !state.running {
            let shared = Arc::clone(&self.shared);
            let engine = store.engine().weak();
            std::thread::Builder::new()
                .name("policy clock".to_owned())
                .stack_size(64 * 1024)
                .spawn(move || run(&shared, || engine.upgrade().is_some_and(|e| bump(&e))))?;
            state.running = true;
        }
        let entry = (deadline, state.next);
        state.next += 1;
        let first = state.deadlines.first().is_none_or(|earliest| entry < *earliest);
        state.deadlines.insert(entry);
        drop(state);
        if first {
            self.shared.changed.notify_one();
        }
        Ok(Armed { shared: Arc::clone(&self.shared), entry })
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        lock(&self.shared.state).stopped = true;
        self.shared.changed.notify_one();
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        // The thread is not woken for this: it finds nothing to do at the old instant.
        lock(&self.shared.state).deadlines.remove(&self.entry);
    }
}

fn bump(engine: &Engine) -> bool {
    engine.increment_epoch();
    true
}

/// Ends when the clock is gone, or the engine.
fn run(shared: &Shared, bump: impl Fn() -> bool) {
    let mut state = lock(&shared.state);
    while !state.stopped {
        let now = Instant::now();
        let Some(&(earliest, _)) = state.deadlines.first() else {
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        if let Some(left) = earliest.checked_duration_since(now).filter(|left| !left.is_zero()) {
            state =
                shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            continue;
        }
        state.deadlines.pop_first();
        if !bump() {
            return;
        }
    }
}

/// A poisoned lock is no reason to let a guest run on.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

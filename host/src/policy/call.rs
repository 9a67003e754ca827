//! One call of a guest: a store of its own, a budget, and an error for each way to break the contract.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::{Engine, Error, Result, Store, Trap};
use wasmtime_wasi::I32Exit;

use super::bindings::guard::{GuardPolicy, GuardPolicyPre};
use super::bindings::mutation::{MutationPolicy, MutationPolicyPre};
use super::bindings::placement::{PlacementPolicy, PlacementPolicyPre};
use super::bindings::recovery::{LostAttempt, RecoveryHook, RecoveryHookPre};
use super::bindings::types;
use super::engine::{self, Clock};
use super::imports::{Guest, Reads};
use super::inputs::Inputs;
use super::limits::{self, MemoryExceeded};
use super::wasi::{self, Waited};
use super::{BrokenKind, Kind};
use crate::settings;

/// What calls share.
pub(super) struct Runtime {
    pub(super) engine: Engine,
    linker: Linker<Guest>,
    /// With WASI; made when a policy with the grant is first linked.
    granted: OnceLock<Linker<Guest>>,
    clock: Clock,
}

impl Runtime {
    pub(super) fn new() -> Result<Self> {
        let engine = engine::engine()?;
        let mut linker = Linker::new(&engine);
        // The other worlds have the same imports.
        PlacementPolicy::add_to_linker::<_, HasSelf<_>>(&mut linker, |guest| guest)?;
        Ok(Self { engine, linker, granted: OnceLock::new(), clock: Clock::new() })
    }

    /// Everything that can be checked of `component` before it runs.
    pub(super) fn link(&self, component: &Component, kind: Kind, shape: Shape) -> Result<Linked> {
        let linker = if shape.wasi { self.granted()? } else { &self.linker };
        let pre = linker.instantiate_pre(component)?;
        let recovery = shape.recovers.then(|| RecoveryHookPre::new(pre.clone())).transpose()?;
        let exported = match kind {
            Kind::Placer => Exported::Placer(PlacementPolicyPre::new(pre)?),
            Kind::Mutator => Exported::Mutator(MutationPolicyPre::new(pre)?),
            Kind::Guard => Exported::Guard(GuardPolicyPre::new(pre)?),
        };
        Ok(Linked { exported, recovery })
    }

    fn granted(&self) -> Result<&Linker<Guest>> {
        if let Some(linker) = self.granted.get() {
            return Ok(linker);
        }
        let mut linker = self.linker.clone();
        wasi::add_to_linker(&mut linker)?;
        Ok(self.granted.get_or_init(|| linker))
    }

    /// Runs `call` with a fresh store.
    fn run<T>(
        &self,
        caller: &Caller<'_>,
        call: impl FnOnce(&mut Store<Guest>) -> Result<T, Failed>,
    ) -> Ran<T> {
        let started = Instant::now();
        let policy = caller.policy;
        let guest = Guest::new(caller.name, Arc::clone(&caller.inputs), policy.memory_mib);
        let mut store = Store::new(&self.engine, guest);
        let result = catch_unwind(AssertUnwindSafe(|| {
            store.limiter(|guest| &mut guest.limits);
            store.set_hostcall_fuel(limits::COPIED_BYTES);
            store.set_fuel(policy.fuel).map_err(Failed::Instantiate)?;
            let armed = self
                .clock
                .arm(&mut store, policy.deadline)
                .map_err(|error| Failed::Instantiate(error.into()))?;
            let answer = call(&mut store);
            drop(armed);
            answer
        }));
        let elapsed = started.elapsed();
        match result {
            Ok(result) => {
                let left = store.get_fuel().unwrap_or(0);
                let Guest { reads, notices, .. } = store.into_data();
                Ran {
                    result: result.map_err(|failed| broken(&failed, policy)),
                    fuel: policy.fuel.saturating_sub(left),
                    elapsed,
                    reads,
                    notices,
                }
            }
            Err(panic) => {
                let reads = std::mem::take(&mut store.data_mut().reads);
                // After a panic in its middle the store's inside is unknown: better leaked than dropped.
                std::mem::forget(store);
                Ran {
                    result: Err(BrokenKind::Panic(panic_text(panic.as_ref()))),
                    fuel: 0,
                    elapsed,
                    reads,
                    notices: Vec::new(),
                }
            }
        }
    }
}

/// A policy with a budget, about to be asked.
pub(super) struct Caller<'a> {
    pub(super) name: &'a str,
    pub(super) policy: &'a settings::Policy,
    pub(super) inputs: Arc<Inputs>,
}

/// What came of a call.
pub(super) struct Ran<T> {
    pub(super) result: Result<T, BrokenKind>,
    pub(super) fuel: u64,
    pub(super) elapsed: Duration,
    pub(super) reads: Reads,
    pub(super) notices: Vec<String>,
}

/// What besides its kind decides how a component is linked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    /// Whether it is granted WASI.
    pub(super) wasi: bool,
    /// Whether it exports `recovery`.
    pub(super) recovers: bool,
}

/// A component that fits its world.
pub(super) struct Linked {
    pub(super) exported: Exported,
    pub(super) recovery: Option<RecoveryHookPre<Guest>>,
}

/// By kind.
pub(super) enum Exported {
    Placer(PlacementPolicyPre<Guest>),
    Mutator(MutationPolicyPre<Guest>),
    Guard(GuardPolicyPre<Guest>),
}

impl Linked {
    pub(super) const fn kind(&self) -> Kind {
        match self.exported {
            Exported::Placer(_) => Kind::Placer,
            Exported::Mutator(_) => Kind::Mutator,
            Exported::Guard(_) => Kind::Guard,
        }
    }

    /// `lifecycle.describe`
    pub(super) fn describe(&self, runtime: &Runtime, caller: &Caller<'_>) -> Ran<types::Metadata> {
        runtime.run(caller, |store| match &self.exported {
            Exported::Placer(pre) => instantiate(pre.instantiate(&mut *store))?
                .pointsman_policy_lifecycle()
                .call_describe(store)
                .map_err(Failed::Call),
            Exported::Mutator(pre) => instantiate(pre.instantiate(&mut *store))?
                .pointsman_policy_lifecycle()
                .call_describe(store)
                .map_err(Failed::Call),
            Exported::Guard(pre) => instantiate(pre.instantiate(&mut *store))?
                .pointsman_policy_lifecycle()
                .call_describe(store)
                .map_err(Failed::Call),
        })
    }

    /// `lifecycle.validate-settings`
    pub(super) fn validate_settings(
        &self,
        runtime: &Runtime,
        caller: &Caller<'_>,
    ) -> Ran<Vec<types::SettingProblem>> {
        let json = caller.policy.settings.to_string();
        runtime.run(caller, |store| match &self.exported {
            Exported::Placer(pre) => instantiate(pre.instantiate(&mut *store))?
                .pointsman_policy_lifecycle()
                .call_validate_settings(store, &json)
                .map_err(Failed::Call),
            Exported::Mutator(pre) => instantiate(pre.instantiate(&mut *store))?
                .pointsman_policy_lifecycle()
                .call_validate_settings(store, &json)
                .map_err(Failed::Call),
            Exported::Guard(pre) => instantiate(pre.instantiate(&mut *store))?
                .pointsman_policy_lifecycle()
                .call_validate_settings(store, &json)
                .map_err(Failed::Call),
        })
    }
}

/// `placer.place`
pub(super) fn place(
    pre: &PlacementPolicyPre<Guest>,
    runtime: &Runtime,
    caller: &Caller<'_>,
) -> Ran<types::Decision> {
    let json = caller.policy.settings.to_string();
    runtime.run(caller, |store| {
        let policy: PlacementPolicy = instantiate(pre.instantiate(&mut *store))?;
        policy.pointsman_policy_placer().call_place(store, &json).map_err(Failed::Call)
    })
}

/// `mutator.mutate`
pub(super) fn mutate(
    pre: &MutationPolicyPre<Guest>,
    runtime: &Runtime,
    caller: &Caller<'_>,
    candidates: &[types::Placement],
) -> Ran<Result<Vec<types::Placement>, types::Rejection>> {
    let json = caller.policy.settings.to_string();
    runtime.run(caller, |store| {
        let policy: MutationPolicy = instantiate(pre.instantiate(&mut *store))?;
        policy
            .pointsman_policy_mutator()
            .call_mutate(store, &json, candidates)
            .map_err(Failed::Call)
    })
}

/// `guard.check`
pub(super) fn check(
    pre: &GuardPolicyPre<Guest>,
    runtime: &Runtime,
    caller: &Caller<'_>,
    candidate: &types::Placement,
) -> Ran<Result<(), types::Rejection>> {
    let json = caller.policy.settings.to_string();
    runtime.run(caller, |store| {
        let policy: GuardPolicy = instantiate(pre.instantiate(&mut *store))?;
        policy.pointsman_policy_guard().call_check(store, &json, candidate).map_err(Failed::Call)
    })
}

/// `recovery.recover`
pub(super) fn recover(
    pre: &RecoveryHookPre<Guest>,
    runtime: &Runtime,
    caller: &Caller<'_>,
    lost: &LostAttempt,
) -> Ran<types::Decision> {
    let json = caller.policy.settings.to_string();
    runtime.run(caller, |store| {
        let policy: RecoveryHook = instantiate(pre.instantiate(&mut *store))?;
        policy.pointsman_policy_recovery().call_recover(store, &json, lost).map_err(Failed::Call)
    })
}

/// Where a call failed decides what an unknown error means.
enum Failed {
    Instantiate(Error),
    Call(Error),
}

fn instantiate<T>(result: Result<T>) -> Result<T, Failed> {
    result.map_err(Failed::Instantiate)
}

fn broken(failed: &Failed, policy: &settings::Policy) -> BrokenKind {
    let (Failed::Instantiate(error) | Failed::Call(error)) = failed;
    if let Some(trap) = error.downcast_ref::<Trap>() {
        return match trap {
            Trap::OutOfFuel => BrokenKind::OutOfFuel { budget: policy.fuel },
            Trap::Interrupt => BrokenKind::Deadline { deadline: policy.deadline },
            Trap::UnreachableCodeReached => {
                BrokenKind::Trap("it panicked (`unreachable` was executed)".to_owned())
            }
            trap => {
                let text = trap.to_string();
                BrokenKind::Trap(text.strip_prefix("wasm trap: ").unwrap_or(&text).to_owned())
            }
        };
    }
    if error.downcast_ref::<MemoryExceeded>().is_some() {
        return BrokenKind::Memory { limit_mib: policy.memory_mib };
    }
    if let Some(waited) = error.downcast_ref::<Waited>() {
        return BrokenKind::Trap(waited.to_string());
    }
    if let Some(exit) = error.downcast_ref::<I32Exit>() {
        return BrokenKind::Trap(format!("it exited with status {}", exit.0));
    }
    let cause = error.root_cause().to_string();
    // No type of its own in wasmtime 48.
    if cause.starts_with("too much data is being copied") {
        return BrokenKind::TooMuchData { limit: limits::COPIED_BYTES };
    }
    match failed {
        Failed::Instantiate(_) => BrokenKind::Trap(format!("cannot be instantiated: {cause}")),
        Failed::Call(_) => BrokenKind::WrongAnswer(cause),
    }
}

/// What a panic said.
pub(super) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no text".to_owned())
}

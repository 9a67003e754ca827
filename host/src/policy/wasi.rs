//! An inert WASI, for components that cannot do without: it is linked only where a policy's entry grants it.
//!
//! There are no directories, variables, arguments or sockets; standard input is at its end, standard output goes
//! nowhere, standard error goes to the trace log. Clocks stand still and randomness is the same each time, so a
//! decision stays a function of its question. Whoever waits is ended: a wait inside the host is the one thing
//! that neither fuel nor the deadline would end.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime::component::{Linker, ResourceTable};
use wasmtime::{Error, Result};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};
use wasmtime_wasi::{
    Deterministic, HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxBuilder, WasiCtxView,
    WasiView,
};

use super::imports::Guest;
use crate::placement::text::one_line;

/// Streams, pollables and the like that one call may hold.
const RESOURCES: usize = 1024;
/// Bytes of randomness that one call may ask for at once.
const RANDOM_BYTES: u64 = 64 * 1024;
/// Lines of standard error that one call may write.
const MAX_LINES: usize = 100;
/// Characters of such a line.
const MAX_LINE: usize = 1000;

/// The packages that are linked. `wasi:http` is none of them.
const PACKAGES: [&str; 6] =
    ["wasi:cli/", "wasi:clocks/", "wasi:filesystem/", "wasi:io/", "wasi:random/", "wasi:sockets/"];

/// Whether a grant covers `import`.
pub(super) fn covers(import: &str) -> bool {
    PACKAGES.iter().any(|package| import.starts_with(package))
        && import.rsplit_once('@').is_some_and(|(_, version)| version.starts_with("0.2."))
}

/// The state of one call.
pub(super) struct Wasi {
    context: WasiCtx,
    table: ResourceTable,
}

impl Wasi {
    pub(super) fn inert(policy: &str) -> Self {
        let mut builder = WasiCtxBuilder::new();
        builder
            .stderr(TraceLog { policy: policy.to_owned() })
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            .secure_random(Deterministic::new(vec![0x5a, 0xa5, 0x3c, 0xc3]))
            .insecure_random(Deterministic::new(vec![0x5a, 0xa5, 0x3c, 0xc3]))
            .insecure_random_seed(0x5aa5_3cc3)
            .max_random_size(RANDOM_BYTES)
            .wall_clock(Standing)
            .monotonic_clock(Standing);
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES);
        Self { context: builder.build(), table }
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let Wasi { context, table } = self.wasi();
        WasiCtxView { ctx: context, table }
    }
}

/// Adds WASI to `linker`.
pub(super) fn add_to_linker(linker: &mut Linker<Guest>) -> Result<()> {
    wasmtime_wasi::p2::add_to_linker_sync(linker)?;
    linker.allow_shadowing(true);
    let mut poll = linker.instance("wasi:io/poll@0.2.12")?;
    for function in ["poll", "[method]pollable.block"] {
        poll.func_new(function, |_, _, _, _| Err(Error::new(Waited)))?;
    }
    linker.allow_shadowing(false);
    Ok(())
}

/// The error of a guest that wanted to sleep.
#[derive(Debug, thiserror::Error)]
#[error("it wanted to wait, which policies may not")]
pub(super) struct Waited;

/// A clock that shows the beginning of time and stays there.
struct Standing;

impl HostWallClock for Standing {
    fn resolution(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn now(&self) -> Duration {
        Duration::ZERO
    }
}

impl HostMonotonicClock for Standing {
    fn resolution(&self) -> u64 {
        1_000_000_000
    }

    fn now(&self) -> u64 {
        0
    }
}

/// Standard error of a guest, line by line.
#[derive(Clone)]
struct TraceLog {
    policy: String,
}

impl IsTerminal for TraceLog {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for TraceLog {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(Lines { policy: self.policy.clone(), begun: Vec::new(), written: 0 })
    }

    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        // Only WASI 0.3 asks for it, which is not linked.
        Box::new(tokio::io::empty())
    }
}

struct Lines {
    policy: String,
    begun: Vec<u8>,
    written: usize,
}

impl Lines {
    fn end_line(&mut self) {
        let line = one_line(&String::from_utf8_lossy(&self.begun), MAX_LINE);
        self.begun.clear();
        if !line.is_empty() && self.written < MAX_LINES {
            self.written += 1;
            let policy = &self.policy;
            tracing::warn!(target: "pointsman::guest", policy, "{line}");
        }
    }
}

#[async_trait::async_trait]
impl Pollable for Lines {
    async fn ready(&mut self) {}
}

impl OutputStream for Lines {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        for byte in bytes {
            match byte {
                b'\n' => self.end_line(),
                // What does not fit a line is cut off there anyway.
                byte if self.begun.len() <= 4 * MAX_LINE => self.begun.push(byte),
                _ => {}
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(64 * 1024)
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.end_line();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_covers_what_is_inert() {
        for import in ["wasi:cli/environment@0.2.0", "wasi:io/poll@0.2.6", "wasi:sockets/tcp@0.2.3"]
        {
            assert!(covers(import), "{import}");
        }
        for import in [
            "wasi:http/outgoing-handler@0.2.0",
            "wasi:cli/environment@0.3.0",
            "wasi:cli/environment",
            "wasi:keyvalue/store@0.2.0",
            "pointsman:policy/facts@0.1.0",
        ] {
            assert!(!covers(import), "{import}");
        }
    }
}

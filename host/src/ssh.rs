//! Scripts over SSH: the driver's client, for stock OpenSSH and for the agent alike.
//!
//! Nothing outside this module names the SSH library. A [`Target`] says where a task listens and which
//! keys belong to it; [`connect_until_ready`] waits for its server; [`run_script`] runs one script, which with
//! the agent survives a lost connection.
//!
//! How a slow reader is borne: the library delivers output by a queue that, when full, stops the whole
//! connection: keepalives, signals and input included. So the queue is never full here. Output is taken
//! at once and kept, up to a bound; above it the *socket* is no longer read ([`gate`]), so that the
//! server is slowed down by TCP while everything we send goes on. Keepalives are ours for the same
//! reason ([`session`]): while we do not read, a missing answer means nothing, but what we send still
//! tells the server that we live.

mod error;
mod gate;
mod key;
mod outflow;
mod ready;
mod session;
mod strike;
mod surviving;
mod wire;

pub use error::{ConnectError, NotReady, Phase, RunError};
pub use key::{KeyError, KeyPair};
pub use ready::connect_until_ready;
pub use session::{Exit, Session, connect};
pub use surviving::{Link, Usage};
pub use wire::Malformed;

use std::fs::File;
use std::future::Future;
use std::net::SocketAddr;

use tokio::io::AsyncWrite;

use crate::settings::SshTimes;

/// Where and how to log in.
#[derive(Debug, Clone)]
pub struct Target {
    /// Where the server listens.
    pub address: SocketAddr,
    /// The login name. The agent takes any.
    pub user: String,
    /// The key that logs in.
    pub client_key: KeyPair,
    /// Who may answer.
    pub host_key: HostKey,
}

/// What is known of the server's host key before connecting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostKey {
    /// Only this key may answer: a line `ssh-ed25519 AAAA…`, as [`KeyPair::public_line`] and
    /// [`Session::host_key`] give it.
    Known(String),
    /// Any key may answer. [`Session::host_key`] tells which did; the caller shall pin it.
    FirstContact,
}

/// Runs `command` with `script` as its standard input, over `session` at first, and passes its output on until
/// it has ended.
///
/// With the agent the script goes on when the connection is lost; then `target` is connected to again, for
/// `times.resume_timeout` at most and only as long as `still_there` says that there is a task at all. `on_link`
/// hears of both. With other servers, and for scripts above 64 MiB, a lost connection is an error.
///
/// For `stop`, `stdout` and `stderr` see [`Session::run`].
///
/// # Errors
///
/// Fails when it cannot be known how the script ended, or when it could not be sent.
#[expect(clippy::too_many_arguments, reason = "what a script needs, at its only caller")]
pub async fn run_script(
    mut session: Session,
    target: &Target,
    times: &SshTimes,
    command: &str,
    script: &File,
    stdout: impl AsyncWrite + Unpin + Send,
    stderr: impl AsyncWrite + Unpin + Send,
    stop: impl Future<Output = ()>,
    on_link: impl FnMut(Link),
    still_there: impl AsyncFnMut() -> bool,
) -> Result<(Exit, Option<Usage>), RunError> {
    let length = script.metadata().map_err(RunError::Script)?.len();
    if session.is_agent() && length <= wire::LONGEST_SCRIPT {
        let work = surviving::Work { target, times, command, script, length };
        return surviving::run(session, work, stdout, stderr, stop, on_link, still_there).await;
    }
    let script = tokio::fs::File::from_std(script.try_clone().map_err(RunError::Script)?);
    let exit = session.run(command, script, stdout, stderr, stop, times.stop_grace).await?;
    if exit != Exit::Stopped {
        session.close().await;
    }
    Ok((exit, None))
}

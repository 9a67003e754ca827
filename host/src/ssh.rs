//! Scripts over SSH: the driver's client, for stock OpenSSH and for the agent alike.
//!
//! Nothing outside this module names the SSH library. A [`Target`] says where a task listens and which
//! keys belong to it; [`connect_until_ready`] waits for its server; [`Session::run`] runs one script.
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

pub use error::{ConnectError, NotReady, Phase, RunError};
pub use key::{KeyError, KeyPair};
pub use ready::connect_until_ready;
pub use session::{Exit, Session, connect};

use std::net::SocketAddr;

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

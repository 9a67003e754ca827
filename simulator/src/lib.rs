//! A simulated Amazon ECS on loopback, whose tasks are real processes.
//!
//! It speaks the service's protocol, so that a real SDK talks to it through `AWS_ENDPOINT_URL_ECS`; refuses what the
//! service refuses; takes tasks through the states that Fargate takes them through; lets tests script what goes
//! wrong; and keeps a [`ledger`] of everything started and stopped, and beside it, in `requests.jsonl`, every request as
//! it arrived.

mod account;
mod addresses;
mod arrivals;
mod capacity;
mod clock;
mod definitions;
mod description;
mod diagnostics;
mod draw;
mod failures;
mod faults;
mod instances;
mod latency;
pub mod ledger;
mod life;
mod lifecycle;
mod model;
mod names;
mod network;
mod operations;
mod ordering;
mod permissions;
mod probe;
mod processes;
mod protocol;
mod query;
mod requests;
mod scenario;
mod server;
mod service;
mod sessions;
mod size;
mod sshd;
mod strategy;
mod supervisor;
mod tags;
mod task;
mod throttle;
mod validation;
mod world;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use crate::lifecycle::Status;
pub use crate::scenario::{Mistake, Scenario, ScenarioError};
pub use crate::supervisor::supervise;
pub use crate::world::{World, WorldError};

use crate::account::Account;
use crate::processes::Programs;
use crate::service::Service;
use crate::world::Server;

/// Where a simulator lives and what it is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// For the ledger, the requests, the containers' logs and the tasks' own directories. Made when it is not there.
    pub directory: PathBuf,
    /// Where to listen; port 0 is any free one.
    pub listen: SocketAddr,
    /// The program `pointsman-agent`, for images with `"server": "agent"`.
    pub agent: PathBuf,
    /// The absolute path of OpenSSH's server, for images with `"server": "openssh"`.
    pub sshd: PathBuf,
    /// The program `pointsman-simulator` itself, whose hidden command `supervise` stands between it and each container.
    pub supervisor: PathBuf,
}

/// Why a simulator did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A task definition of the world that RegisterTaskDefinition would refuse.
    #[error("a task definition of the world file is not valid: {0}")]
    TaskDefinition(String),
    /// An image needs a program that is not there.
    #[error("an image of the world file needs the program `{0}`, which is not there")]
    Program(PathBuf),
    /// The directory cannot be used.
    #[error("cannot use the directory `{path}`")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on `{address}`")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// A running simulator. Dropping it without [`Simulator::end`] kills its tasks, but does not wait for that.
#[derive(Debug)]
pub struct Simulator {
    address: SocketAddr,
    service: Arc<Service>,
    server: JoinHandle<()>,
}

impl Simulator {
    /// Starts a simulator in the current tokio runtime.
    ///
    /// # Errors
    ///
    /// When the world contradicts the service's rules, or directory, address or a program cannot be used.
    pub async fn start(world: World, options: Options) -> Result<Self, StartError> {
        for (server, program) in [(Server::Agent, &options.agent), (Server::Openssh, &options.sshd)]
        {
            if world.images.values().any(|image| image.server == server) && !program.is_file() {
                return Err(StartError::Program(program.clone()));
            }
        }
        let account =
            Account::new(&world).map_err(|error| StartError::TaskDefinition(error.message))?;
        let unusable = |source| StartError::Directory { path: options.directory.clone(), source };
        std::fs::create_dir_all(&options.directory).map_err(unusable)?;
        let directory = options.directory.canonicalize().map_err(unusable)?;
        let programs =
            Programs { supervisor: options.supervisor, agent: options.agent, sshd: options.sshd };
        let service =
            Arc::new(Service::new(world, account, directory, programs).map_err(unusable)?);
        let refused = |source| StartError::Listen { address: options.listen, source };
        let listener = TcpListener::bind(options.listen).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let router = server::router(Arc::clone(&service));
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                diagnostics::report(&format!("the server has ended: {error}"));
            }
        });
        Ok(Self { address, service, server })
    }

    /// What `AWS_ENDPOINT_URL_ECS` has to be.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Takes no more calls, and kills all tasks; returns when the last process is gone.
    pub async fn end(self) {
        self.server.abort();
        self.service.end().await;
    }
}

//! A task's life: through all its states, with real processes in between.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::account::now;
use crate::addresses::Reservation;
use crate::diagnostics;
use crate::faults::Fate;
use crate::instances;
use crate::ledger::Event;
use crate::lifecycle::Status;
use crate::model::{ContainerDefinition, TaskOverride};
use crate::processes::{self, Launch, Processes};
use crate::service::Service;
use crate::supervisor::Report;
use crate::task::{StopCause, Task};
use crate::world::{Image, Server};

/// Lives the life of task `id` to its end, or to the simulator's.
pub(crate) async fn live(service: Arc<Service>, id: String) {
    let mut ending = service.watch_ending();
    let found = service.with_task(&id, |task| {
        let definition = &task.revision.definition;
        Life {
            service: Arc::clone(&service),
            id: id.clone(),
            arn: task.arn.clone(),
            directory: service.task_directory(&id),
            containers: instances::on_host(definition),
            overrides: task.overrides.clone(),
            fate: task.fate.clone(),
            stopping: task.watch_stopping(),
            processes: Processes::none(),
            started: Vec::new(),
            reservation: None,
        }
    });
    let Some(mut life) = found else { return };
    let interrupted = tokio::select! {
        () = life.run() => false,
        () = ordered(&mut ending) => true,
    };
    if interrupted {
        life.processes.kill();
        life.await_ends().await;
        life.remove_directory();
        life.record_interruption();
    }
}

struct Life {
    service: Arc<Service>,
    id: String,
    arn: String,
    directory: PathBuf,
    containers: Vec<ContainerDefinition>,
    overrides: TaskOverride,
    fate: Fate,
    stopping: watch::Receiver<bool>,
    processes: Processes,
    /// Indexes of containers, in the order of their processes' starts.
    started: Vec<usize>,
    reservation: Option<Reservation>,
}

impl Life {
    async fn run(&mut self) {
        self.rise().await;
        self.fall().await;
    }

    /// From PROVISIONING until the task is to stop.
    async fn rise(&mut self) {
        loop {
            let status = self.status();
            if status > Status::Running {
                return;
            }
            if let Some((phase, code, reason)) = self.fate.stop.clone()
                && phase == status
            {
                self.fail(0, StopCause { code, reason });
                return;
            }
            if status == Status::Running {
                return self.keep_running().await;
            }
            tokio::select! {
                () = sleep(self.service.delays.of(status)) => {}
                () = ordered(&mut self.stopping) => return,
            }
            let done = match status {
                Status::Provisioning => self.attach_network(),
                Status::Pending => self.pull_images(),
                _ => self.start_containers(),
            };
            if let Err((container, cause)) = done {
                self.fail(container, cause);
                return;
            }
            self.advance();
        }
    }

    /// From wherever it is to STOPPED.
    async fn fall(&mut self) {
        loop {
            let status = self.status();
            match status {
                Status::Stopped => return,
                Status::Stopping => {
                    self.processes.terminate().await;
                    let deadline = Instant::now() + self.service.stop_timeout;
                    if timeout_at(deadline, self.await_ends()).await.is_err() {
                        self.processes.kill();
                        self.await_ends().await;
                    }
                    self.change(|task| task.times.execution_stopped = Some(now()));
                    sleep(self.service.delays.of(status)).await;
                }
                Status::Deactivating => sleep(self.service.delays.of(status)).await,
                Status::Deprovisioning => {
                    sleep(self.service.delays.of(status)).await;
                    self.reservation = None;
                    self.remove_directory();
                }
                Status::Provisioning | Status::Pending | Status::Activating | Status::Running => {
                    // A container may have been started just before the task was told to stop; it is ended in
                    // STOPPING, which ACTIVATING leads to.
                }
            }
            self.advance();
        }
    }

    /// The network interface with its address: from PENDING on the task has both.
    fn attach_network(&mut self) -> Result<(), (usize, StopCause)> {
        let server = |container: &ContainerDefinition| {
            self.service.images.get(&container.image).map(|one| one.server)
        };
        let ports: Vec<u16> = self
            .containers
            .iter()
            .filter_map(|container| processes::port(container, server(container)?))
            .collect();
        let reservation = self.service.addresses.reserve(&ports).map_err(|error| {
            let reason = format!(
                "Unexpected EC2 error while attempting to Create Network Interface: {error}"
            );
            (0, StopCause::failed_to_start(reason))
        })?;
        self.change(|task| task.address = Some(reservation.address));
        self.reservation = Some(reservation);
        Ok(())
    }

    fn pull_images(&self) -> Result<(), (usize, StopCause)> {
        for (index, container) in self.containers.iter().enumerate() {
            if !self.service.images.contains_key(&container.image) {
                let reason = format!(
                    "CannotPullContainerError: pull image manifest has been retried 1 time(s): failed to resolve ref {image}: {image}: not found",
                    image = container.image
                );
                return Err((index, StopCause::failed_to_start(reason)));
            }
        }
        Ok(())
    }

    fn start_containers(&mut self) -> Result<(), (usize, StopCause)> {
        let failed = |index: usize, error: &io::Error| {
            (index, StopCause::failed_to_start(format!("CannotStartContainerError: {error}")))
        };
        std::fs::create_dir_all(&self.directory).map_err(|error| failed(0, &error))?;
        let Some(address) = self.reservation.as_ref().map(|one| one.address) else { return Ok(()) };
        for (index, container) in self.containers.iter().enumerate() {
            let Some(image) = self.service.images.get(&container.image) else { continue };
            let log = self.service.log_file(&self.id, &container.name);
            let launch = Launch {
                definition: container,
                overrides: &self.overrides,
                image,
                address,
                directory: &self.directory,
                log: &log,
                without_server: self.fate.agent_does_not_start,
            };
            self.processes
                .start(&self.service.programs, &launch)
                .map_err(|error| failed(index, &error))?;
            self.started.push(index);
            self.service.ledger.write(Event::ProcessStarted {
                task: self.arn.clone(),
                container: container.name.clone(),
                address: shown_address(&launch, image),
            });
        }
        Ok(())
    }

    /// RUNNING: until the task is told to stop, an essential container ends or a scripted fault strikes.
    async fn keep_running(&mut self) {
        let since = Instant::now();
        let never = Duration::from_secs(86_400 * 365);
        let spot = self.fate.spot_interruption;
        let spot_at = since + spot.map_or(never, |(after, _)| after);
        let memory_at = since + self.fate.out_of_memory.unwrap_or(never);
        loop {
            let strike = tokio::select! {
                biased;
                () = ordered(&mut self.stopping) => Strike::Stop,
                Some((number, report)) = self.processes.next_end() => Strike::End(number, report),
                () = sleep_until(spot_at) => Strike::Spot,
                () = sleep_until(memory_at) => Strike::OutOfMemory,
            };
            match strike {
                Strike::Stop => {}
                Strike::End(number, report) => {
                    if !self.record_end(number, report) {
                        continue;
                    }
                    self.order_stop(essential_exited());
                }
                Strike::Spot => {
                    self.order_stop(StopCause::new(
                        "SpotInterruption",
                        "Your Spot Task was interrupted.",
                    ));
                    self.processes.terminate().await;
                    let notice = spot.map_or(Duration::ZERO, |(_, notice)| notice);
                    // Until the notice is over the task stays RUNNING, with SIGTERM as its only sign.
                    if timeout_at(Instant::now() + notice, self.await_ends()).await.is_err() {
                        self.processes.kill();
                    }
                }
                Strike::OutOfMemory => {
                    let container = self.started.first().copied().unwrap_or(0);
                    let reason = "OutOfMemoryError: Container killed due to memory usage";
                    self.change(|task| task.set_container_reason(container, reason));
                    self.processes.kill();
                    self.await_ends().await;
                    self.order_stop(essential_exited());
                }
            }
            return;
        }
    }

    async fn await_ends(&mut self) {
        while let Some((number, report)) = self.processes.next_end().await {
            self.record_end(number, report);
        }
    }

    /// Notes how a container ended; whether the task depends on it.
    fn record_end(&self, number: usize, report: Report) -> bool {
        let Some(index) = self.started.get(number).copied() else { return false };
        let Some(definition) = self.containers.get(index) else { return false };
        self.change(|task| {
            if let Some(container) = task.containers.get_mut(index) {
                container.exit_code = Some(report.exit_code);
            }
        });
        self.service.ledger.write(Event::ProcessEnded {
            task: self.arn.clone(),
            container: definition.name.clone(),
            exit_code: report.exit_code,
            left_over: report.left_over,
        });
        definition.essential
    }

    /// Tells the task to stop; a container's reason says so too, as on ECS, when the task never started.
    fn fail(&self, container: usize, cause: StopCause) {
        if cause.code == "TaskFailedToStart" {
            self.change(|task| task.set_container_reason(container, &cause.reason));
        }
        self.order_stop(cause);
    }

    fn order_stop(&self, cause: StopCause) {
        self.service.with_task(&self.id, |task| task.order_stop(cause));
    }

    fn change(&self, change: impl FnOnce(&mut Task)) {
        self.service.with_task(&self.id, |task| {
            task.version += 1;
            change(task);
        });
    }

    fn status(&self) -> Status {
        self.service.with_task(&self.id, |task| task.status).unwrap_or(Status::Stopped)
    }

    fn advance(&self) {
        self.service.with_task(&self.id, |task| {
            let Some(status) = task.advance() else { return };
            // Under the account's lock, so that the ledger's order is the order of what callers can see.
            self.service.ledger.write(Event::State { task: task.arn.clone(), status });
            if status == Status::Stopped {
                let cause = task.stop.clone().unwrap_or_else(essential_exited);
                let StopCause { code, reason } = cause;
                self.service.ledger.write(Event::Stopped { task: task.arn.clone(), code, reason });
            }
        });
    }

    /// A task that nobody told to stop was leaked; one that was stopping would have stopped.
    fn record_interruption(&self) {
        let cause = self.service.with_task(&self.id, |task| task.stop.clone()).flatten();
        let task = self.arn.clone();
        self.service.ledger.write(match cause {
            None => Event::LeftRunning { task },
            Some(StopCause { code, reason }) => Event::Stopped { task, code, reason },
        });
    }

    fn remove_directory(&self) {
        if self.service.keep_directories {
            return;
        }
        match std::fs::remove_dir_all(&self.directory) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let directory = self.directory.display();
                diagnostics::report(&format!("cannot remove {directory}: {error}"));
            }
        }
    }
}

/// What ends the quiet of a running task.
enum Strike {
    Stop,
    End(usize, Report),
    Spot,
    OutOfMemory,
}

/// Waits for `true`. A sender that is gone never sends it, and its receiver has nothing to wait for.
async fn ordered(receiver: &mut watch::Receiver<bool>) {
    let _ = receiver.wait_for(|ordered| *ordered).await;
}

fn essential_exited() -> StopCause {
    StopCause::new("EssentialContainerExited", "Essential container in task exited")
}

fn shown_address(launch: &Launch<'_>, image: &Image) -> String {
    match processes::port(launch.definition, image.server) {
        Some(port) if image.server != Server::None => format!("{}:{port}", launch.address),
        _ => launch.address.to_string(),
    }
}

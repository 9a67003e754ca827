//! A task's life: through all its states, with real processes in between.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::account::now;
use crate::addresses::Reservation;
use crate::diagnostics;
use crate::failures::OUT_OF_MEMORY;
use crate::faults::Fate;
use crate::instances;
use crate::ledger::Event;
use crate::lifecycle::Status;
use crate::model::{ContainerDefinition, TaskOverride};
use crate::ordering::{self, Progress, Readiness};
use crate::probe;
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
            ordinal: task.ordinal,
            stopping: task.watch_stopping(),
            processes: Processes::none(),
            started: Vec::new(),
            ended: BTreeSet::new(),
            reservation: None,
        }
    });
    let Some(mut life) = found else { return };
    let interrupted = tokio::select! {
        () = life.run() => false,
        () = ordered(&mut ending) => true,
    };
    if interrupted {
        life.processes.kill_all();
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
    ordinal: u64,
    stopping: watch::Receiver<bool>,
    processes: Processes,
    /// Indexes of containers, in the order of their processes' starts.
    started: Vec<usize>,
    /// The numbers of those that have ended.
    ended: BTreeSet<usize>,
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
            if let Some((phase, code, reason, _)) = self.fate.stop.clone()
                && phase == status
                && status < Status::Running
            {
                self.fail(0, StopCause { code, reason });
                return;
            }
            if status == Status::Running {
                return self.keep_running().await;
            }
            tokio::select! {
                () = sleep(self.delay(status)) => {}
                () = ordered(&mut self.stopping) => return,
            }
            let done = match status {
                Status::Provisioning => self.attach_network(),
                Status::Pending => self.pull_images(),
                _ => self.start_containers().await,
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
                    for wave in ordering::stop_waves(&self.containers) {
                        self.stop_containers(&wave).await;
                    }
                    self.change(|task| task.times.execution_stopped = Some(now()));
                    sleep(self.delay(status)).await;
                }
                Status::Deactivating => sleep(self.delay(status)).await,
                Status::Deprovisioning => {
                    sleep(self.delay(status)).await;
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

    /// ACTIVATING: each container as soon as those that it depends on have come far enough.
    async fn start_containers(&mut self) -> Result<(), (usize, StopCause)> {
        std::fs::create_dir_all(&self.directory).map_err(|error| cannot_start(0, &error))?;
        let mut progress = vec![Progress::Waiting; self.containers.len()];
        loop {
            let mut has_changed = false;
            for index in 0..self.containers.len() {
                if progress.get(index) != Some(&Progress::Waiting) {
                    continue;
                }
                let next = match ordering::readiness(index, &self.containers, &progress) {
                    Readiness::Later => continue,
                    Readiness::Now => {
                        self.start_container(index)?;
                        Progress::Running
                    }
                    Readiness::Never(why) if self.is_essential(index) => {
                        return Err((index, StopCause::failed_to_start(why)));
                    }
                    Readiness::Never(why) => {
                        self.change(|task| task.set_container_reason(index, &why));
                        Progress::Left
                    }
                };
                progress.splice(index..=index, [next]);
                has_changed = true;
            }
            if has_changed {
                continue;
            }
            if !progress.contains(&Progress::Waiting) {
                return Ok(());
            }
            tokio::select! {
                Some((number, report)) = self.processes.next_end() => {
                    if self.record_end(number, report) {
                        self.order_stop(essential_exited());
                        return Ok(());
                    }
                    if let Some(far) = self.started.get(number).and_then(|index| progress.get_mut(*index)) {
                        *far = Progress::Ended(report.exit_code);
                    }
                }
                () = ordered(&mut self.stopping) => return Ok(()),
            }
        }
    }

    fn is_essential(&self, index: usize) -> bool {
        self.containers.get(index).is_some_and(|container| container.essential)
    }

    fn start_container(&mut self, index: usize) -> Result<(), (usize, StopCause)> {
        let Some(address) = self.reservation.as_ref().map(|one| one.address) else { return Ok(()) };
        let Some(container) = self.containers.get(index) else { return Ok(()) };
        let Some(image) = self.service.images.get(&container.image) else { return Ok(()) };
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
            .map_err(|error| cannot_start(index, &error))?;
        self.started.push(index);
        self.service.ledger.write(Event::ProcessStarted {
            task: self.arn.clone(),
            container: container.name.clone(),
            address: shown_address(&launch, image),
        });
        if self.service.probe_servers
            && !launch.without_server
            && let Some(port) = processes::port(container, image.server)
        {
            let arn = self.arn.clone();
            let (service, name) = (Arc::clone(&self.service), container.name.clone());
            tokio::spawn(probe::probe(service, arn, name, SocketAddrV4::new(address, port)));
        }
        Ok(())
    }

    /// SIGTERM to the containers with these indexes, and SIGKILL after the time that containers have to stop.
    async fn stop_containers(&mut self, indexes: &[usize]) {
        let is_meant = |index: &usize| indexes.contains(index);
        let numbers: Vec<usize> = self
            .started
            .iter()
            .enumerate()
            .filter(|(_, index)| is_meant(index))
            .map(|(number, _)| number)
            .collect();
        self.processes.terminate(&numbers).await;
        let deadline = Instant::now() + self.service.stop_timeout;
        if timeout_at(deadline, self.await_ends_of(&numbers)).await.is_err() {
            self.processes.kill(&numbers);
            self.await_ends_of(&numbers).await;
        }
    }

    async fn await_ends_of(&mut self, numbers: &[usize]) {
        while numbers.iter().any(|number| !self.ended.contains(number)) {
            let Some((number, report)) = self.processes.next_end().await else { return };
            self.record_end(number, report);
        }
    }

    /// RUNNING: until the task is told to stop, an essential container ends or a scripted fault strikes.
    async fn keep_running(&mut self) {
        let since = Instant::now();
        let at = |after: Option<Duration>| match after {
            Some(after) => since + self.service.clock.real(after),
            None => since + Duration::from_secs(86_400 * 365),
        };
        let spot = self.fate.spot_interruption.clone();
        let stop = self.fate.stop.clone().filter(|(phase, ..)| *phase == Status::Running);
        let spot_at = at(spot.as_ref().map(|(after, ..)| *after));
        let memory_at = at(self.fate.out_of_memory);
        let kill_at = at(self.fate.kill);
        let stop_at = at(stop.as_ref().map(|(.., after)| *after));
        loop {
            let strike = tokio::select! {
                biased;
                () = ordered(&mut self.stopping) => Strike::Stop,
                Some((number, report)) = self.processes.next_end() => Strike::End(number, report),
                () = sleep_until(spot_at) => Strike::Spot,
                () = sleep_until(memory_at) => Strike::OutOfMemory,
                () = sleep_until(kill_at) => Strike::Kill,
                () = sleep_until(stop_at) => Strike::Fault,
            };
            match strike {
                Strike::Stop => {}
                Strike::Fault => {
                    if let Some((_, code, reason, _)) = stop {
                        self.fail(0, StopCause { code, reason });
                    }
                }
                Strike::End(number, report) => {
                    if !self.record_end(number, report) {
                        continue;
                    }
                    self.order_stop(essential_exited());
                }
                Strike::Spot => {
                    let Some((_, notice, code)) = spot else { return };
                    self.order_stop(StopCause::new(&code, "Your Spot Task was interrupted."));
                    self.processes.terminate_all().await;
                    let notice = self.service.clock.real(notice);
                    // Until the notice is over the task stays RUNNING, with SIGTERM as its only sign.
                    if timeout_at(Instant::now() + notice, self.await_ends()).await.is_err() {
                        self.processes.kill_all();
                    }
                }
                Strike::OutOfMemory => {
                    let container = self.started.first().copied().unwrap_or(0);
                    self.change(|task| task.set_container_reason(container, OUT_OF_MEMORY));
                    self.processes.kill_all();
                    self.await_ends().await;
                    self.order_stop(essential_exited());
                }
                Strike::Kill => {
                    self.processes.kill_all();
                    self.await_ends().await;
                    self.order_stop(essential_exited());
                }
            }
            return;
        }
    }

    /// How long the task stays in `status`.
    fn delay(&self, status: Status) -> Duration {
        self.service.clock.real(self.service.pace.of(self.ordinal, status))
    }

    async fn await_ends(&mut self) {
        while let Some((number, report)) = self.processes.next_end().await {
            self.record_end(number, report);
        }
    }

    /// Notes how a container ended; whether the task depends on it.
    fn record_end(&mut self, number: usize, report: Report) -> bool {
        self.ended.insert(number);
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
    fn fail(&self, container: usize, mut cause: StopCause) {
        let filled = self.service.with_task(&self.id, |task| task.fill(&cause.reason));
        cause.reason = filled.unwrap_or(cause.reason);
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
    Kill,
    /// The scripted stop of a running task.
    Fault,
}

/// Waits for `true`. A sender that is gone never sends it, and its receiver has nothing to wait for.
async fn ordered(receiver: &mut watch::Receiver<bool>) {
    let _ = receiver.wait_for(|ordered| *ordered).await;
}

fn cannot_start(index: usize, error: &io::Error) -> (usize, StopCause) {
    (index, StopCause::failed_to_start(format!("CannotStartContainerError: {error}")))
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

//! From DescribeTasks' answer to our types: pure.

use std::net::IpAddr;

use aws_sdk_ecs::error::SdkError;
use aws_sdk_ecs::operation::run_task::RunTaskError;
use aws_sdk_ecs::primitives::DateTime;
use aws_sdk_ecs::types::{Container, NetworkBinding, Task};
use jiff::Timestamp;

use super::classify;
use crate::backend::{
    OwnedTask, Phase, PortBinding, Stopped, StoppedContainer, TaskId, TaskStatus, Times,
};

fn phase(task: &Task) -> Phase {
    match task.last_status().unwrap_or_default() {
        "PROVISIONING" => Phase::Provisioning,
        "ACTIVATING" => Phase::Activating,
        "RUNNING" => Phase::Running,
        "DEACTIVATING" | "STOPPING" | "DEPROVISIONING" => Phase::Stopping,
        "STOPPED" | "DELETED" => Phase::Stopped,
        // Also what a later ECS may call a state in which nothing runs yet.
        _ => Phase::Pending,
    }
}

/// What the API says of one task.
pub(super) fn of_task(task: &Task) -> TaskStatus {
    let phase = phase(task);
    // At a Spot notice `lastStatus` is still RUNNING and only `desiredStatus` says STOPPED.
    let is_told_to_stop = task.desired_status() == Some("STOPPED");
    let stopped = (is_told_to_stop || phase >= Phase::Stopping).then(|| stopped(task));
    TaskStatus {
        phase,
        address: address(task),
        bindings: bindings(task),
        stopped,
        subnet: interface_detail(task, "subnetId").map(str::to_owned),
        times: Times {
            created_at: time(task.created_at()),
            pull_started_at: time(task.pull_started_at()),
            pull_stopped_at: time(task.pull_stopped_at()),
            started_at: time(task.started_at()),
            stopped_at: time(task.stopped_at()),
        },
    }
}

fn stopped(task: &Task) -> Stopped {
    let code = task.stop_code().map(|code| code.as_str().to_owned()).unwrap_or_default();
    let reason = task.stopped_reason().unwrap_or_default().to_owned();
    let containers: Vec<StoppedContainer> = task
        .containers()
        .iter()
        .map(|container| StoppedContainer {
            name: container.name().unwrap_or_default().to_owned(),
            exit_code: container.exit_code(),
            reason: container.reason().unwrap_or_default().to_owned(),
        })
        .collect();
    Stopped { cause: classify::stop(&code, &reason, &containers), code, reason, containers }
}

fn time(time: Option<&DateTime>) -> Option<Timestamp> {
    let time = time?;
    Timestamp::new(time.secs(), i32::try_from(time.subsec_nanos()).ok()?).ok()
}

/// The one task that a repeated token with other parameters belongs to.
pub(super) fn conflicting_task<R>(error: &SdkError<RunTaskError, R>) -> Option<TaskId> {
    match error.as_service_error()? {
        RunTaskError::ConflictException(conflict) => match conflict.resource_ids() {
            [task] => Some(TaskId(task.clone())),
            _ => None,
        },
        _ => None,
    }
}

/// The private address, known from PENDING on.
fn address(task: &Task) -> Option<IpAddr> {
    let interface = interface_detail(task, "privateIPv4Address");
    // All containers of an awsvpc task share the interface, so any of them will do.
    let container = || {
        task.containers()
            .iter()
            .flat_map(|container| container.network_interfaces())
            .find_map(|interface| interface.private_ipv4_address())
    };
    interface.or_else(container)?.parse().ok()
}

/// The network interface of an awsvpc task.
pub(super) fn interface(task: &Task) -> Option<&str> {
    interface_detail(task, "networkInterfaceId")
}

fn interface_detail<'t>(task: &'t Task, name: &str) -> Option<&'t str> {
    // By type: Service Connect and EBS volumes are attachments too.
    task.attachments()
        .iter()
        .filter(|attachment| attachment.r#type() == Some("ElasticNetworkInterface"))
        .flat_map(|attachment| attachment.details())
        .find(|detail| detail.name() == Some(name))
        .and_then(|detail| detail.value())
}

/// Which ports of the host lead to the containers; none in awsvpc mode.
fn bindings(task: &Task) -> Vec<PortBinding> {
    let of = |container: &Container, binding: &NetworkBinding| {
        Some(PortBinding {
            container: container.name()?.to_owned(),
            container_port: u16::try_from(binding.container_port()?).ok()?,
            host_port: u16::try_from(binding.host_port()?).ok()?,
        })
    };
    task.containers()
        .iter()
        .flat_map(|container| {
            container.network_bindings().iter().filter_map(move |binding| of(container, binding))
        })
        .collect()
}

/// A task of this manager's with its tags; none when it has been told to stop since ListTasks named it.
pub(super) fn owned_task(task: &Task) -> Option<OwnedTask> {
    if task.desired_status() == Some("STOPPED") {
        return None;
    }
    let tags = task.tags().iter().filter_map(|tag| {
        Some((tag.key()?.to_owned(), tag.value().unwrap_or_default().to_owned()))
    });
    Some(OwnedTask {
        id: TaskId(task.task_arn()?.to_owned()),
        tags: tags.collect(),
        created_at: time(task.created_at()),
        phase: phase(task),
        is_hidden: false,
    })
}

/// Whether StopTask's error says that there is no such task.
pub(super) fn says_no_such_task(code: Option<&str>, message: Option<&str>) -> bool {
    code == Some("InvalidParameterException")
        && message.is_some_and(|message| message.contains("task was not found"))
}

#[cfg(test)]
mod tests {
    use aws_sdk_ecs::types::{Attachment, KeyValuePair, TaskStopCode};

    use super::*;

    fn attachment(kind: &str, name: &str, value: &str) -> Attachment {
        Attachment::builder()
            .r#type(kind)
            .details(KeyValuePair::builder().name(name).value(value).build())
            .build()
    }

    #[test]
    fn the_address_is_the_network_interfaces_not_the_first_attachments() {
        let task = Task::builder()
            .last_status("PENDING")
            .desired_status("RUNNING")
            .attachments(attachment("ServiceConnect", "privateIPv4Address", "10.9.9.9"))
            .attachments(attachment("ElasticNetworkInterface", "subnetId", "subnet-1"))
            .attachments(attachment("ElasticNetworkInterface", "privateIPv4Address", "10.0.0.7"))
            .build();
        let status = of_task(&task);
        assert_eq!(status.phase, Phase::Pending);
        assert_eq!(status.address, Some("10.0.0.7".parse().unwrap()));
        assert_eq!(status.stopped, None);
    }

    #[test]
    fn mapped_ports_are_told_by_container_and_port() {
        let binding = |container, host| {
            NetworkBinding::builder().container_port(container).host_port(host).build()
        };
        let task = Task::builder()
            .last_status("RUNNING")
            .containers(
                Container::builder().name("db").network_bindings(binding(22, 40_000)).build(),
            )
            .containers(
                Container::builder()
                    .name("ci-coordinator")
                    .network_bindings(binding(80, 40_001))
                    .network_bindings(binding(22, 40_002))
                    .build(),
            )
            .build();
        let status = of_task(&task);
        assert_eq!(status.port("ci-coordinator", 22), Some(40_002));
        assert_eq!(status.port("ci-coordinator", 2222), None);
        let without = of_task(&Task::builder().last_status("RUNNING").build());
        assert_eq!(without.port("ci-coordinator", 22), Some(22));
    }

    #[test]
    fn a_spot_notice_counts_as_stopping_while_the_task_still_runs() {
        let task = Task::builder()
            .last_status("RUNNING")
            .desired_status("STOPPED")
            .stop_code(TaskStopCode::SpotInterruption)
            .stopped_reason("Your Spot Task was interrupted.")
            .containers(Container::builder().name("ci-coordinator").exit_code(137).build())
            .build();
        let status = of_task(&task);
        assert_eq!(status.phase, Phase::Running);
        let stopped = status.stopped.unwrap();
        assert_eq!(stopped.code, "SpotInterruption");
        assert_eq!(stopped.containers[0].exit_code, Some(137));
    }

    #[test]
    fn a_task_that_was_told_to_stop_is_not_listed() {
        let task = |desired| Task::builder().task_arn("arn").desired_status(desired).build();
        let living = OwnedTask {
            id: TaskId("arn".to_owned()),
            tags: [].into(),
            created_at: None,
            phase: Phase::Pending,
            is_hidden: false,
        };
        assert_eq!(owned_task(&task("RUNNING")), Some(living));
        assert_eq!(owned_task(&task("STOPPED")), None);
    }

    #[test]
    fn only_the_missing_task_is_told_apart() {
        let code = Some("InvalidParameterException");
        assert!(says_no_such_task(code, Some("The referenced task was not found.")));
        assert!(!says_no_such_task(code, Some("The referenced cluster was inactive.")));
        assert!(!says_no_such_task(Some("ClientException"), Some("task was not found")));
    }
}

//! Where a task is reached, when DescribeTasks alone does not say: its public address, or its instance's.
//!
//! What to ask is decided by pure functions; the answers stay for the process, since an interface keeps its
//! address and a task its instance.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use aws_sdk_ecs::types::{ContainerInstance, Task};

use super::query::{self, Action, Addresses};
use super::{DESCRIBE_LIMIT, Ecs, failed, status};
use crate::backend::{BackendError, Phase, TaskStatus};
use crate::settings::{AddressKind, EcsCluster, LaunchKind, NetworkMode};

/// The attribute of a container instance that names the address at which the driver reaches it. External
/// instances have no other that AWS knows; elsewhere it comes before EC2's.
const ATTRIBUTE: &str = "pointsman.address";

/// By network interface, and by the ARN of a container instance.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<BTreeMap<String, IpAddr>>);

impl Known {
    fn get(&self, key: &str) -> Option<IpAddr> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).copied()
    }

    fn put(&self, key: &str, address: IpAddr) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key.to_owned(), address);
    }
}

/// What a task's address hangs on.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// Known, not there yet, or not needed any more.
    Settled,
    /// The public address of this network interface.
    Interface(String),
    /// The address of this container instance.
    Instance(String),
}

fn place(cluster: &EcsCluster, task: &Task, status: &TaskStatus) -> Place {
    if status.stopped.is_some() {
        return Place::Settled;
    }
    match (cluster.network_mode, cluster.address) {
        (NetworkMode::Awsvpc, AddressKind::Private) => Place::Settled,
        (NetworkMode::Awsvpc, AddressKind::Public) => {
            status::interface(task).map_or(Place::Settled, |id| Place::Interface(id.to_owned()))
        }
        // Before a mapped port is known, an address would lead to another one.
        (NetworkMode::Bridge, _) if status.bindings.is_empty() => Place::Settled,
        (NetworkMode::Bridge | NetworkMode::Host, _) => {
            let instance = task.container_instance_arn();
            instance.map_or(Place::Settled, |arn| Place::Instance(arn.to_owned()))
        }
    }
}

/// The status as others shall see it: with `address`, or with none while there is none to be had.
fn located(
    cluster: &EcsCluster,
    mut status: TaskStatus,
    place: &Place,
    address: Option<IpAddr>,
) -> Result<TaskStatus, BackendError> {
    let own =
        (cluster.network_mode, cluster.address) == (NetworkMode::Awsvpc, AddressKind::Private);
    if own || status.stopped.is_some() {
        return Ok(status);
    }
    status.address = address;
    if status.address.is_some() || status.phase < Phase::Running {
        return Ok(status);
    }
    Err(match place {
        Place::Interface(id) => BackendError {
            hint: Some(
                "use subnets whose tasks get one (with `assign_public_ip = true` and an internet gateway), or set `address = \"private\"`".to_owned(),
            ),
            ..BackendError::new(
                "DescribeNetworkInterfaces",
                "no public address",
                format!("network interface {id} of the running task has no public address"),
            )
        },
        Place::Instance(arn) => BackendError {
            hint: Some(format!("give it one: `aws ecs put-attributes` with `{ATTRIBUTE}`")),
            ..BackendError::new(
                "DescribeInstances",
                "no address",
                format!("container instance {arn} of the running task has no {} address", kind(cluster)),
            )
        },
        Place::Settled if cluster.network_mode == NetworkMode::Bridge => BackendError {
            hint: Some(
                "add a port mapping for the SSH server to the ECS task definition, with `hostPort` 0".to_owned(),
            ),
            ..BackendError::new(
                "DescribeTasks",
                "no port mapping",
                "no port of the running task is mapped to its host",
            )
        },
        Place::Settled => BackendError::new(
            "DescribeTasks",
            "no address",
            "the running task has neither a network interface nor a container instance",
        ),
    })
}

fn kind(cluster: &EcsCluster) -> &'static str {
    match cluster.address {
        AddressKind::Private => "private",
        AddressKind::Public => "public",
    }
}

/// The instance's own word, or the id by which EC2 knows it.
#[derive(Debug, PartialEq, Eq)]
enum InstanceAddress {
    Attribute(IpAddr),
    Ec2(String),
}

fn of_instance(
    cluster: &EcsCluster,
    instance: &ContainerInstance,
) -> Result<InstanceAddress, BackendError> {
    let arn = instance.container_instance_arn().unwrap_or_default();
    let error = |message: String, hint: String| BackendError {
        hint: Some(hint),
        ..BackendError::new("DescribeContainerInstances", "no address", message)
    };
    let attribute = instance.attributes().iter().find(|attribute| attribute.name() == ATTRIBUTE);
    if let Some(value) = attribute.map(|attribute| attribute.value().unwrap_or_default()) {
        return value.parse().map(InstanceAddress::Attribute).map_err(|_| {
            error(
                format!("attribute `{ATTRIBUTE}` of container instance {arn} is `{value}`, no IP address"),
                "correct it with `aws ecs put-attributes`".to_owned(),
            )
        });
    }
    match instance.ec2_instance_id() {
        // External instances are Systems Manager's, named `mi-…`.
        Some(id) if cluster.launch != LaunchKind::External && id.starts_with("i-") => {
            Ok(InstanceAddress::Ec2(id.to_owned()))
        }
        _ => Err(error(
            format!(
                "container instance {arn} is none of EC2's and does not say where it is reached"
            ),
            format!(
                "set the attribute: `aws ecs put-attributes --cluster {} --attributes name={ATTRIBUTE},value=ADDRESS,targetId={arn}`",
                cluster.cluster
            ),
        )),
    }
}

impl Ecs {
    /// The tasks' statuses, in their order, with the addresses that the driver connects to. Tasks of one answer
    /// are looked up together.
    pub(super) async fn statuses(&self, tasks: &[Task]) -> Vec<Result<TaskStatus, BackendError>> {
        let looked: Vec<(TaskStatus, Place)> = tasks
            .iter()
            .map(|task| {
                let status = status::of_task(task);
                let place = place(&self.cluster, task, &status);
                (status, place)
            })
            .collect();
        let wanted = |of: fn(&Place) -> Option<&String>| -> Vec<String> {
            let mut keys: Vec<String> =
                looked.iter().filter_map(|(_, place)| of(place)).cloned().collect();
            keys.sort_unstable();
            keys.dedup();
            keys.retain(|key| self.known.get(key).is_none());
            keys
        };
        let interfaces = wanted(|place| match place {
            Place::Interface(id) => Some(id),
            Place::Settled | Place::Instance(_) => None,
        });
        let instances = wanted(|place| match place {
            Place::Instance(arn) => Some(arn),
            Place::Settled | Place::Interface(_) => None,
        });
        let interfaces = self.ask_interfaces(&interfaces).await;
        let mut refused = BTreeMap::new();
        let instances = self.ask_instances(&instances, &mut refused).await;
        looked
            .into_iter()
            .map(|(status, place)| {
                let (failure, key) = match &place {
                    Place::Settled => (None, None),
                    Place::Interface(id) => (interfaces.as_ref().err(), Some(id)),
                    Place::Instance(arn) => {
                        (refused.get(arn).or(instances.as_ref().err()), Some(arn))
                    }
                };
                let address = key.and_then(|key| self.known.get(key));
                match failure {
                    Some(failure) if address.is_none() => Err(again(failure)),
                    _ => located(&self.cluster, status, &place, address),
                }
            })
            .collect()
    }

    async fn ask_interfaces(&self, ids: &[String]) -> Result<(), BackendError> {
        for found in self.ask_ec2(Action::DescribeNetworkInterfaces, ids).await? {
            self.learn(&found.id, &found);
        }
        Ok(())
    }

    /// Fills in `refused` by ARN what is one instance's own fault.
    async fn ask_instances(
        &self,
        arns: &[String],
        refused: &mut BTreeMap<String, BackendError>,
    ) -> Result<(), BackendError> {
        let mut in_ec2 = BTreeMap::new();
        for some in arns.chunks(DESCRIBE_LIMIT) {
            let answer = self
                .client()
                .await?
                .describe_container_instances()
                .cluster(&self.cluster.cluster)
                .set_container_instances(Some(some.to_vec()))
                .send()
                .await
                .map_err(|error| failed("DescribeContainerInstances", &error))?;
            for instance in answer.container_instances() {
                let arn = instance.container_instance_arn().unwrap_or_default();
                match of_instance(&self.cluster, instance) {
                    Ok(InstanceAddress::Attribute(address)) => self.known.put(arn, address),
                    Ok(InstanceAddress::Ec2(id)) => {
                        in_ec2.insert(id, arn.to_owned());
                    }
                    Err(error) => {
                        refused.insert(arn.to_owned(), error);
                    }
                }
            }
        }
        let ids: Vec<String> = in_ec2.keys().cloned().collect();
        for found in self.ask_ec2(Action::DescribeInstances, &ids).await? {
            if let Some(arn) = in_ec2.get(&found.id) {
                self.learn(arn, &found);
            }
        }
        Ok(())
    }

    async fn ask_ec2(
        &self,
        action: Action,
        ids: &[String],
    ) -> Result<Vec<Addresses>, BackendError> {
        let mut found = Vec::new();
        for some in ids.chunks(query::FILTER_LIMIT) {
            let credentials = self.credentials.get().await?;
            let region = &self.cluster.region;
            found.extend(query::describe(&self.sdk, &credentials, region, action, some).await?);
        }
        Ok(found)
    }

    fn learn(&self, key: &str, found: &Addresses) {
        let address = match self.cluster.address {
            AddressKind::Private => &found.private,
            AddressKind::Public => &found.public,
        };
        if let Some(address) = address.as_ref().and_then(|address| address.parse().ok()) {
            self.known.put(key, address);
        }
    }
}

/// The same error for another task of the same answer.
fn again(error: &BackendError) -> BackendError {
    BackendError {
        call: error.call,
        code: error.code.clone(),
        message: error.message.clone(),
        hint: error.hint.clone(),
        cause: error.cause.clone(),
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_ecs::types::{Attachment, Attribute, Container, KeyValuePair, NetworkBinding};

    use super::*;
    use crate::backend::ecs::request::tests::cluster;

    fn of(launch: LaunchKind, network_mode: NetworkMode, address: AddressKind) -> EcsCluster {
        EcsCluster { launch, network_mode, address, ..cluster() }
    }

    fn awsvpc(phase: &str) -> Task {
        let detail = |name, value| KeyValuePair::builder().name(name).value(value).build();
        Task::builder()
            .last_status(phase)
            .attachments(
                Attachment::builder()
                    .r#type("ElasticNetworkInterface")
                    .details(detail("networkInterfaceId", "eni-1"))
                    .details(detail("privateIPv4Address", "10.0.0.7"))
                    .build(),
            )
            .build()
    }

    fn on_instance(phase: &str, mapped: bool) -> Task {
        let binding = NetworkBinding::builder().container_port(22).host_port(40_000).build();
        let container = Container::builder()
            .name("ci")
            .set_network_bindings(mapped.then(|| vec![binding]))
            .build();
        Task::builder()
            .last_status(phase)
            .container_instance_arn("arn:i")
            .containers(container)
            .build()
    }

    #[test]
    fn an_address_is_asked_for_where_ecs_does_not_say_it() {
        use AddressKind::{Private, Public};
        use LaunchKind::{Ec2, External, Fargate};
        use NetworkMode::{Awsvpc, Bridge, Host};
        let instance = || Place::Instance("arn:i".into());
        for (cluster, task, expected) in [
            (of(Fargate, Awsvpc, Private), awsvpc("PENDING"), Place::Settled),
            (of(Fargate, Awsvpc, Public), awsvpc("PENDING"), Place::Interface("eni-1".into())),
            (of(Fargate, Awsvpc, Public), awsvpc("STOPPED"), Place::Settled),
            (of(Fargate, Awsvpc, Public), Task::builder().build(), Place::Settled),
            (of(Ec2, Awsvpc, Private), awsvpc("RUNNING"), Place::Settled),
            (of(Ec2, Host, Private), on_instance("PENDING", false), instance()),
            (of(Ec2, Bridge, Private), on_instance("PENDING", false), Place::Settled),
            (of(Ec2, Bridge, Public), on_instance("RUNNING", true), instance()),
            (of(External, Bridge, Private), on_instance("RUNNING", true), instance()),
        ] {
            let status = status::of_task(&task);
            assert_eq!(place(&cluster, &task, &status), expected, "{cluster:?} {task:?}");
        }
    }

    #[test]
    fn a_running_task_without_an_address_says_what_to_do() {
        use AddressKind::{Private, Public};
        use LaunchKind::{Ec2, Fargate};
        use NetworkMode::{Awsvpc, Bridge, Host};
        for (cluster, task, said) in [
            (of(Fargate, Awsvpc, Public), awsvpc("RUNNING"), "assign_public_ip"),
            (of(Ec2, Host, Private), on_instance("RUNNING", false), "pointsman.address"),
            (of(Ec2, Bridge, Private), on_instance("RUNNING", false), "port mapping"),
        ] {
            let status = status::of_task(&task);
            let place = place(&cluster, &task, &status);
            let error = located(&cluster, status, &place, None).unwrap_err();
            assert!(error.hint.unwrap().contains(said), "{said}");
        }
        // Not yet: the private address must not be taken for it meanwhile.
        let early = status::of_task(&awsvpc("PENDING"));
        let cluster = of(Fargate, Awsvpc, Public);
        let place = Place::Interface("eni-1".into());
        assert_eq!(located(&cluster, early, &place, None).unwrap().address, None);
        let public = "203.0.113.7".parse().unwrap();
        let running = status::of_task(&awsvpc("RUNNING"));
        assert_eq!(located(&cluster, running, &place, Some(public)).unwrap().address, Some(public));
        let stopped = status::of_task(&awsvpc("STOPPED"));
        assert!(located(&cluster, stopped, &place, None).is_ok());
    }

    #[test]
    fn an_instance_says_itself_where_it_is_or_ec2_does() {
        use AddressKind::Private;
        use LaunchKind::{Ec2, External};
        let instance = |id: &str, attribute: Option<&str>| {
            let attribute = attribute.map(|value| {
                vec![Attribute::builder().name(ATTRIBUTE).value(value).build().unwrap()]
            });
            ContainerInstance::builder()
                .container_instance_arn("arn:i")
                .ec2_instance_id(id)
                .set_attributes(attribute)
                .build()
        };
        let ec2 = of(Ec2, NetworkMode::Host, Private);
        let external = of(External, NetworkMode::Bridge, Private);
        let attribute = InstanceAddress::Attribute("10.1.2.3".parse().unwrap());
        assert_eq!(of_instance(&external, &instance("mi-1", Some("10.1.2.3"))).unwrap(), attribute);
        assert_eq!(of_instance(&ec2, &instance("i-1", Some("10.1.2.3"))).unwrap(), attribute);
        let found = of_instance(&ec2, &instance("i-1", None)).unwrap();
        assert_eq!(found, InstanceAddress::Ec2("i-1".into()));
        for (cluster, wrong) in [
            (&external, instance("mi-1", None)),
            (&ec2, instance("mi-1", None)),
            (&ec2, instance("i-1", Some("host.example"))),
        ] {
            let error = of_instance(cluster, &wrong).unwrap_err();
            assert!(error.hint.unwrap().contains("put-attributes"));
        }
    }
}

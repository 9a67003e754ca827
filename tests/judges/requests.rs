//! Every request that the driver sends, recorded by the simulator, against botocore's service model.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pointsman::backend::ecs::Ecs;
use pointsman::backend::survey::Asked;
use pointsman::backend::{Phase, TaskBackend, TaskId, TaskStatus};
use pointsman::settings::{AddressKind, EcsCluster};
use serde_json::Value;
use tempfile::TempDir;

use crate::launches::{cluster, matrix, on_an_instance, open, request, world};
use crate::processes::{Server, simulator};
use crate::reentry;
use crate::verdict::{Verdict, verdict};

/// A simulator, and where it records what arrives.
fn start(world: &Value) -> (Server, PathBuf, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("world.json");
    std::fs::write(&file, world.to_string()).unwrap();
    let own = directory.path().join("simulator");
    let server = Server::start(simulator().arg("--world").arg(file).arg("--directory").arg(&own));
    (server, own.join("requests.jsonl"), directory)
}

fn recorded(requests: &Path) -> Vec<(String, Value)> {
    let text = std::fs::read_to_string(requests).unwrap();
    let parse = |line| {
        let mut request: Value = serde_json::from_str(line).unwrap();
        (request["operation"].as_str().unwrap().to_owned(), request["body"].take())
    };
    text.lines().map(parse).collect()
}

/// The operations whose calls are in the backend's source, so that a new one cannot go unjudged.
fn in_the_source() -> BTreeSet<String> {
    let backend = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/backend");
    let mut files = vec![backend.join("ecs.rs")];
    files
        .extend(std::fs::read_dir(backend.join("ecs")).unwrap().map(|entry| entry.unwrap().path()));
    let mut operations = BTreeSet::new();
    for file in files.into_iter().filter(|file| file.is_file()) {
        let source: String = std::fs::read_to_string(file).unwrap().split_whitespace().collect();
        for call in source.split("self.client().await?.").skip(1) {
            let (method, _) = call.split_once('(').unwrap();
            let capitalised = |word: &str| word[..1].to_uppercase() + &word[1..];
            operations.insert(method.split('_').map(capitalised).collect());
        }
    }
    operations
}

async fn until(
    backend: &Ecs,
    task: &TaskId,
    name: &str,
    reached: impl Fn(&TaskStatus) -> bool,
) -> TaskStatus {
    let patience = Instant::now() + Duration::from_secs(60);
    loop {
        let status = backend.describe(task).await.unwrap().unwrap();
        if reached(&status) {
            return status;
        }
        assert!(Instant::now() < patience, "{name}: {status:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn drive_the_matrix() {
    for (name, cluster, request) in matrix().into_iter().chain([on_an_instance()]) {
        let backend = open(cluster).await;
        let task = backend.launch(&request).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(backend.launch(&request).await.unwrap(), task, "{name}: repeated");
        let running = |status: &TaskStatus| status.phase == Phase::Running;
        assert!(until(&backend, &task, name, running).await.address.is_some(), "{name}");
        let listed = backend.list(&request.started_by).await.unwrap();
        assert_eq!(listed.iter().map(|owned| &owned.id).collect::<Vec<_>>(), [&task], "{name}");
        assert!(listed[0].tags.len() <= request.tags.len().min(50), "{name}: {listed:?}");
        backend.stop(&task, &format!("judged: {name} \u{1f600}\n")).await.unwrap();
        until(&backend, &task, name, |status| status.phase == Phase::Stopped).await;
        backend.stop(&task, "again").await.unwrap();
        assert_eq!(backend.list(&request.started_by).await.unwrap(), [], "{name}");
    }
    let surveyed = open(cluster()).await;
    assert_eq!(surveyed.survey_cluster().await.unwrap().unwrap().status, "ACTIVE");
    assert_eq!(surveyed.survey_definition("judged:1").await.unwrap().status, "ACTIVE");
    let unknown = format!("arn:aws:ecs:eu-west-1:123456789012:task/judged/{:032x}", 7);
    let backend = open(cluster()).await;
    assert_eq!(backend.describe(&TaskId(unknown.clone())).await.unwrap(), None);
    backend.stop(&TaskId(unknown), "").await.unwrap();
}

#[test]
fn every_request_is_valid_by_the_service_model() {
    if reentry::service().is_some() {
        return reentry::block_on(drive_the_matrix());
    }
    let (simulator, requests, _directory) = start(&world(1));
    reentry::run("requests::every_request_is_valid_by_the_service_model", &simulator.ready);

    assert_eq!(verdict(&requests), Verdict { status: 0, violations: Vec::new() });
    let recorded = recorded(&requests);
    let operations: BTreeSet<String> =
        recorded.iter().map(|(operation, _)| operation.clone()).collect();
    assert_eq!(operations, in_the_source());
    // And of RunTask, everything that it can send.
    let launches = || recorded.iter().filter(|(operation, _)| operation == "RunTask");
    let members: BTreeSet<&str> = launches()
        .flat_map(|(_, body)| body.as_object().unwrap().keys())
        .map(String::as_str)
        .collect();
    let expected = [
        "capacityProviderStrategy",
        "clientToken",
        "cluster",
        "count",
        "enableExecuteCommand",
        "launchType",
        "networkConfiguration",
        "overrides",
        "platformVersion",
        "startedBy",
        "tags",
        "taskDefinition",
    ];
    assert_eq!(members, BTreeSet::from(expected));
    // Once, and repeated.
    assert_eq!(launches().count(), 2 * (matrix().len() + 1));
}

/// More than one page of ListTasks, and more than one DescribeTasks takes.
const MANY: usize = 101;

async fn drive_many() {
    let backend = open(cluster()).await;
    let mut launched = BTreeSet::new();
    for token in 0..MANY {
        launched.insert(backend.launch(&request(token)).await.unwrap().0);
    }
    let listed = backend.list(&request(0).started_by).await.unwrap();
    assert_eq!(listed.into_iter().map(|owned| owned.id.0).collect::<BTreeSet<_>>(), launched);
}

#[test]
fn the_requests_for_a_long_list_are_valid_too() {
    if reentry::service().is_some() {
        return reentry::block_on(drive_many());
    }
    // The tasks stay in PROVISIONING, so that there is no process for each.
    let (simulator, requests, _directory) = start(&world(3_600_000));
    reentry::run("requests::the_requests_for_a_long_list_are_valid_too", &simulator.ready);

    assert_eq!(verdict(&requests), Verdict { status: 0, violations: Vec::new() });
    let recorded = recorded(&requests);
    let sizes = |wanted: &str, member: &str| -> Vec<usize> {
        let bodies = recorded.iter().filter(|(operation, _)| operation == wanted);
        bodies.map(|(_, body)| body[member].as_array().map_or(0, Vec::len)).collect()
    };
    assert_eq!(sizes("DescribeTasks", "tasks"), [100, 1]);
    let tokens: Vec<bool> = recorded
        .iter()
        .filter(|(operation, _)| operation == "ListTasks")
        .map(|(_, body)| body.get("nextToken").is_some())
        .collect();
    assert_eq!(tokens, [false, true]);
}

/// What the doctor asks other services, and what an address is asked for with.
async fn drive_other_services() {
    let backend = open(cluster()).await;
    let caller = backend.caller().await.0.unwrap();
    assert_eq!(caller.account, "123456789012");
    let mut network = backend.survey_subnets().await.unwrap();
    assert_eq!(network.subnets.len(), 1);
    backend.survey_routes(&mut network).await.unwrap();
    backend.survey_endpoints(&mut network).await.unwrap();
    backend.survey_groups(&mut network).await.unwrap();
    assert_eq!(network.groups.len(), 1);
    let without = open(EcsCluster { security_groups: Vec::new(), ..cluster() }).await;
    without.survey_groups(&mut network).await.unwrap();
    let asked = Asked {
        action: "iam:PassRole".to_owned(),
        resource: "arn:aws:iam::123456789012:role/ci/deploy".to_owned(),
        context: vec![
            ("iam:PassedToService".to_owned(), "ecs-tasks.amazonaws.com".to_owned()),
            ("ecs:CreateAction".to_owned(), "RunTask".to_owned()),
        ],
    };
    let plain = Asked { context: Vec::new(), ..asked.clone() };
    let ruled =
        backend.simulate("arn:aws:iam::123456789012:role/ci/manager", &[asked, plain]).await;
    assert_eq!(ruled.unwrap().len(), 2);
    assert!(backend.quota("L-3032A538").await.unwrap() > 0.0);
    // Public addresses are asked for by network interface.
    let public = EcsCluster { assign_public_ip: true, address: AddressKind::Public, ..cluster() };
    let backend = open(public).await;
    let task = backend.launch(&request(0)).await.unwrap();
    until(&backend, &task, "public", |status| status.phase == Phase::Running).await;
    backend.stop(&task, "judged").await.unwrap();
}

#[test]
fn requests_to_other_services_are_valid_by_their_models() {
    if reentry::service().is_some() {
        return reentry::block_on(drive_other_services());
    }
    let (simulator, requests, _directory) = start(&world(1));
    reentry::run(
        "requests::requests_to_other_services_are_valid_by_their_models",
        &simulator.ready,
    );

    let others = requests.with_file_name("others.jsonl");
    assert_eq!(verdict(&others), Verdict { status: 0, violations: Vec::new() });
    let text = std::fs::read_to_string(&others).unwrap();
    for (service, action) in [
        ("sts", "GetCallerIdentity"),
        ("ec2", "DescribeSubnets"),
        ("ec2", "DescribeRouteTables"),
        ("ec2", "DescribeVpcEndpoints"),
        ("ec2", "DescribeSecurityGroups"),
        ("ec2", "DescribeNetworkInterfaces"),
        ("iam", "SimulatePrincipalPolicy"),
        ("servicequotas", "GetServiceQuota"),
    ] {
        let is_it = |line: &&str| {
            line.contains(&format!("\"service\":\"{service}\"")) && line.contains(action)
        };
        assert!(text.lines().any(|line| is_it(&line)), "{action} was not sent");
    }
}

//! The driver's launch, describe, list and stop against moto's server.
//!
//! moto is no judge of client tokens (a repeated one starts another task), of the way to RUNNING, of capacity,
//! failures and stop codes, of ListTasks' default (it lists stopped tasks too), nor of sizes, tags and lengths. It does judge the wire: protocol, names, and the answers'
//! shapes, read as somebody else wrote them. Nobody connects to the addresses that it invents: they may be somebody's.

use std::net::IpAddr;

use pointsman::backend::{Phase, TaskBackend};
use pointsman::placement::Capacity;
use pointsman::settings::EcsCluster;
use serde_json::Value;

use crate::launches::{REGION, cluster, open, request};
use crate::processes::{Server, python, script};
use crate::reentry;

fn strings(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|each| each.as_str().unwrap().to_owned()).collect()
}

async fn drive(service: Value) {
    let cluster = EcsCluster {
        cluster: service["cluster"].as_str().unwrap().to_owned(),
        subnets: strings(&service["subnets"]),
        security_groups: strings(&service["security_groups"]),
        ..cluster()
    };
    let by_provider =
        EcsCluster { on_demand_provider: Some("FARGATE".to_owned()), ..cluster.clone() };
    let ways = [
        (cluster.clone(), Capacity::OnDemand),
        (by_provider, Capacity::OnDemand),
        (cluster, Capacity::Spot),
    ];
    for (number, (cluster, capacity)) in ways.into_iter().enumerate() {
        let backend = open(cluster).await;
        let mut request = request(number);
        request.capacity = capacity;
        request.task_definition = service["task_definition"].as_str().unwrap().to_owned();
        request.started_by = format!("pointsman/judged-{number}");
        request.ephemeral_storage_gib = Some(50);
        request.role_arn = Some("arn:aws:iam::123456789012:role/ci/deploy".to_owned());
        request.tags.insert("name".to_owned(), "Prüfung 東京".to_owned());

        let task = backend.launch(&request).await.unwrap();
        let status = backend.describe(&task).await.unwrap().unwrap();
        assert_eq!((status.phase, status.stopped), (Phase::Running, None));
        assert!(
            matches!(status.address, Some(IpAddr::V4(address)) if address.is_private()),
            "{:?}",
            status.address
        );

        let listed = backend.list(&request.started_by).await.unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!((&listed[0].id, &listed[0].tags), (&task, &request.tags));
        assert_eq!(backend.list("pointsman/somebody-else").await.unwrap(), []);

        backend.stop(&task, "judged: done").await.unwrap();
        let status = backend.describe(&task).await.unwrap().unwrap();
        assert_eq!(status.phase, Phase::Stopped);
        assert_eq!(status.stopped.unwrap().reason, "judged: done");
        assert_eq!(backend.list(&request.started_by).await.unwrap(), []);
    }
    errors(&service).await;
}

/// The errors that moto words as AWS does.
async fn errors(service: &Value) {
    let elsewhere = open(EcsCluster { cluster: "nowhere".to_owned(), ..cluster() }).await;
    let error = elsewhere.launch(&request(90)).await.unwrap_err();
    assert_eq!((error.call, error.code.as_str()), ("RunTask", "ClusterNotFoundException"));
    assert!(error.hint.is_some(), "{error:?}");

    let cluster = EcsCluster {
        cluster: service["cluster"].as_str().unwrap().to_owned(),
        subnets: strings(&service["subnets"]),
        ..cluster()
    };
    let mut unknown = request(91);
    unknown.task_definition = "unknown:1".to_owned();
    let error = open(cluster).await.launch(&unknown).await.unwrap_err();
    assert_eq!(error.code, "ClientException");
    assert_eq!(error.message, "Unable to describe task definition.");
    assert!(error.hint.is_some(), "{error:?}");
}

#[test]
fn the_driver_launches_describes_lists_and_stops_on_moto() {
    if let Some(service) = reentry::service() {
        return reentry::block_on(drive(service));
    }
    let moto = Server::start(python().arg(script("moto_world.py")).arg(REGION));
    reentry::run("moto::the_driver_launches_describes_lists_and_stops_on_moto", &moto.ready);
}

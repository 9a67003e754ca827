//! The operations: from a request's JSON to an answer's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::account::{Account, Cluster, Granted};
use crate::description;
use crate::faults::Target;
use crate::instances;
use crate::ledger::{self, Event};
use crate::life;
use crate::lifecycle::Status;
use crate::model::TaskDefinition;
use crate::protocol::ApiError;
use crate::requests::{
    CreateCluster, DescribeClusters, DescribeTaskDefinition, DescribeTasks, GetServiceQuota,
    ListTasks, PutClusterCapacityProviders, RunTask, StopTask,
};
use crate::service::Service;
use crate::strategy;
use crate::tags;
use crate::task::{StopCause, Task, random_id};
use crate::validation::{self, Plan};

/// How long a client token is known at most (API reference, "Ensuring idempotency").
const TOKEN_LIFE: Duration = Duration::from_secs(24 * 3600);
/// How long a task is described after it has stopped, and its client token known: ECS says at least an hour.
const MEMORY: Duration = Duration::from_secs(3600);

/// Performs `operation` for `caller`, an access key id. Errors are in the ledger when this returns.
pub(crate) fn perform(
    service: &Arc<Service>,
    operation: &str,
    caller: Option<&str>,
    body: &[u8],
) -> Result<Value, ApiError> {
    let result = dispatch(service, operation, caller, body);
    if let Err(error) = &result {
        service.ledger.write(Event::Refused {
            operation: operation.to_owned(),
            code: error.code.clone(),
            message: error.message.clone(),
        });
    }
    result
}

fn dispatch(
    service: &Arc<Service>,
    operation: &str,
    caller: Option<&str>,
    body: &[u8],
) -> Result<Value, ApiError> {
    let request: Value = match body {
        [] => json!({}),
        body => serde_json::from_slice(body).map_err(|error| serialization(&error))?,
    };
    let target = Target::of(&service.account().names, &request);
    service.admit(operation, &target)?;
    authorize(&service.account(), operation, &request)?;
    match operation {
        "RunTask" => run_task(service, caller, request, &target),
        "DescribeTasks" => describe_tasks(service, caller, &service.account(), &parse(request)?),
        "StopTask" => stop_task(service, caller, parse(request)?),
        "ListTasks" => list_tasks(service, &service.account(), &parse(request)?),
        "RegisterTaskDefinition" => {
            register_task_definition(&mut service.account(), parse(request)?)
        }
        "DescribeTaskDefinition" => describe_task_definition(&service.account(), &parse(request)?),
        "DescribeClusters" => describe_clusters(&service.account(), &parse(request)?),
        "DescribeContainerInstances" => instances::describe(&service.account(), &parse(request)?),
        "CreateCluster" => create_cluster(&mut service.account(), parse(request)?),
        "PutClusterCapacityProviders" => {
            put_capacity_providers(&mut service.account(), parse(request)?)
        }
        _ => Err(ApiError::new("UnknownOperationException", "")),
    }
}

/// IAM's look at a request, which comes before the service's own.
fn authorize(account: &Account, operation: &str, request: &Value) -> Result<(), ApiError> {
    let permissions = &account.permissions;
    let text = |key: &str| request[key].as_str();
    let resource = text("taskDefinition").or(text("task")).or(text("cluster")).unwrap_or("*");
    permissions.check(&format!("ecs:{operation}"), resource)?;
    let has_tags = request["tags"].as_array().is_some_and(|tags| !tags.is_empty());
    if operation == "RunTask" && has_tags {
        permissions.check("ecs:TagResource", resource)?;
    }
    Ok(())
}

fn parse<T: DeserializeOwned>(request: Value) -> Result<T, ApiError> {
    serde_json::from_value(request).map_err(|error| serialization(&error))
}

/// A field that the API has not, one that is missing or one of the wrong type.
fn serialization(error: &serde_json::Error) -> ApiError {
    ApiError::new("SerializationException", error.to_string())
}

fn run_task(
    service: &Arc<Service>,
    caller: Option<&str>,
    request: Value,
    target: &Target,
) -> Result<Value, ApiError> {
    // The limit is on the JSON as it came, "including the JSON formatting characters of the structure".
    let overrides_length =
        request.get("overrides").map_or(0, |overrides| overrides.to_string().chars().count());
    let request: RunTask = parse(request)?;
    let mut guard = service.account();
    let account = &mut *guard;
    let plan = validation::check(account, &request, overrides_length)?;
    account.sessions.allow(caller, "RunTask", &plan.revision.arn, &plan.tags)?;
    let token = request.client_token.clone().map(|token| (plan.cluster.clone(), token));
    if let Some(token) = &token
        && let Some(granted) = account.client_tokens.get(token)
        && !is_expired(service, account, granted)
    {
        return repeat(service, account, granted, &request, &plan);
    }
    let scene = service.clock.scene();
    let loads = plan.loads();
    let refused = account
        .faults
        .no_capacity(target, scene)
        .or_else(|| account.capacity.refuses(&loads, &account.running(), scene).map(str::to_owned));
    if let Some(reason) = refused {
        let answer = json!({"tasks": [], "failures": [{"reason": reason}]});
        service.ledger.write(Event::NoCapacity {
            cluster: plan.cluster.clone(),
            client_token: request.client_token.clone(),
            reason,
        });
        return Ok(answer);
    }
    let n_spot = loads.iter().filter(|load| load.is_spot()).count();
    let now = service.clock.now();
    if plan.launch_type == "FARGATE"
        && [(true, n_spot), (false, loads.len() - n_spot)]
            .into_iter()
            .any(|(spot, n)| n > 0 && !account.throttle.launches(spot, n, now))
    {
        account.calls.entry("RunTask".to_owned()).or_default().throttled += 1;
        return Err(ApiError::throttled());
    }
    let mut lives = service.lives();
    if service.is_ending() {
        return Err(ApiError::server("The simulator is ending."));
    }
    // Lives that are over leave the set, which would grow without end.
    while lives.try_join_next().is_some() {}
    let mut ids = Vec::new();
    let mut tasks = Vec::new();
    for provider in &plan.capacity_providers {
        let id = random_id();
        let arn = account.names.task_arn(&plan.cluster, &id);
        let fate = account.faults.fate(target, scene);
        let ordinal = account.tasks.len() as u64;
        let task = Task::new(id.clone(), arn, &request, &plan, provider.clone(), fate, ordinal);
        service.ledger.write(Event::RunTask(Box::new(entry(&task, &request, &plan, false))));
        service.ledger.write(Event::State { task: task.arn.clone(), status: task.status });
        tasks.push(description::task(&account.names, &task, true));
        account.tasks.insert(id.clone(), task);
        lives.spawn(life::live(Arc::clone(service), id.clone()));
        ids.push(id);
    }
    if let Some(token) = token {
        account.client_tokens.insert(token, Granted { request, ids, at: Instant::now() });
    }
    Ok(json!({"tasks": tasks, "failures": []}))
}

/// A token lives for 24 hours, or until its tasks have been stopped for an hour.
fn is_expired(service: &Service, account: &Account, granted: &Granted) -> bool {
    let forgotten = |id: &String| {
        let gone = account.tasks.get(id).and_then(|task| task.gone);
        gone.is_some_and(|gone| service.clock.since(gone) >= MEMORY)
    };
    service.clock.since(granted.at) >= TOKEN_LIFE || granted.ids.iter().all(forgotten)
}

/// The answer to a token that is known: its tasks, or a conflict when something else was asked for.
fn repeat(
    service: &Service,
    account: &Account,
    granted: &Granted,
    request: &RunTask,
    plan: &Plan,
) -> Result<Value, ApiError> {
    let tasks: Vec<&Task> = granted.ids.iter().filter_map(|id| account.tasks.get(id)).collect();
    if granted.request != *request {
        let message =
            "The request uses the same client token as a previous, but non-identical request.";
        return Err(ApiError {
            resource_ids: tasks.iter().map(|task| task.arn.clone()).collect(),
            ..ApiError::new("ConflictException", message)
        });
    }
    for task in &tasks {
        service.ledger.write(Event::RunTask(Box::new(entry(task, request, plan, true))));
    }
    // Of a task that has stopped a repeated answer has only the name and the statuses.
    let describe = |task: &&Task| match task.gone {
        None => description::task(&account.names, task, true),
        Some(_) => json!({
            "taskArn": task.arn,
            "lastStatus": task.status,
            "desiredStatus": task.desired_status(),
        }),
    };
    Ok(json!({"tasks": tasks.iter().map(describe).collect::<Vec<_>>(), "failures": []}))
}

/// Whether DescribeTasks knows the task.
fn is_described(service: &Service, task: &Task) -> bool {
    let hidden = Duration::from_millis(service.consistency.describe);
    is_there(service, task, hidden)
}

fn is_there(service: &Service, task: &Task, hidden: Duration) -> bool {
    let hidden = hidden.max(task.fate.missing.unwrap_or_default());
    service.clock.since(task.created) >= hidden
        && task.gone.is_none_or(|gone| service.clock.since(gone) < MEMORY)
}

fn entry(task: &Task, request: &RunTask, plan: &Plan, repeated: bool) -> ledger::RunTask {
    let number = |number: Option<u32>| number.map(|number| number.to_string()).unwrap_or_default();
    ledger::RunTask {
        task: task.arn.clone(),
        cluster: task.cluster.clone(),
        task_definition: task.revision.arn.clone(),
        launch_type: task.launch_type.to_owned(),
        capacity_provider: task.capacity_provider.clone(),
        cpu: number(task.cpu),
        memory: number(task.memory),
        task_role: plan.task_role.clone(),
        started_by: request.started_by.clone(),
        client_token: request.client_token.clone(),
        subnets: plan.subnets.clone(),
        tags: task.tags.iter().map(|tag| (tag.key.clone(), tag.value.clone())).collect(),
        repeated,
    }
}

/// The id in a task's name, by the API's rules for its shape.
fn task_id<'a>(
    account: &Account,
    name: &'a str,
    cluster: &str,
) -> Result<Option<&'a str>, ApiError> {
    let id = account.names.task(name, cluster);
    if !name.starts_with("arn:") && ![32, 36].contains(&name.len()) {
        return Err(ApiError::invalid_parameter("taskId length should be one of [32,36]"));
    }
    Ok(id)
}

fn describe_tasks(
    service: &Service,
    caller: Option<&str>,
    account: &Account,
    request: &DescribeTasks,
) -> Result<Value, ApiError> {
    let cluster = account.cluster(request.cluster.as_deref())?;
    if request.tasks.is_empty() {
        return Err(ApiError::invalid_parameter("Tasks cannot be empty."));
    }
    if request.tasks.len() > 100 {
        return Err(ApiError::invalid_parameter("Tasks cannot have more than 100 items."));
    }
    check_include(&request.include, &["TAGS"])?;
    let with_tags = !request.include.is_empty();
    let (mut tasks, mut failures) = (Vec::new(), Vec::new());
    for name in &request.tasks {
        let found = task_id(account, name, &cluster.name)?.and_then(|id| account.tasks.get(id));
        match found.filter(|task| task.cluster == cluster.name && is_described(service, task)) {
            Some(task) => {
                // One task that may not be seen, and the whole call is refused.
                account.sessions.allow(caller, "DescribeTasks", &task.arn, &task.tags)?;
                tasks.push(description::task(&account.names, task, with_tags));
            }
            None => {
                let arn = match name.starts_with("arn:") {
                    true => name.clone(),
                    false => account.names.task_arn(&cluster.name, name),
                };
                failures.push(json!({"arn": arn, "reason": "MISSING"}));
            }
        }
    }
    Ok(json!({"tasks": tasks, "failures": failures}))
}

fn check_include(include: &[String], known: &[&str]) -> Result<(), ApiError> {
    match include.iter().find(|field| !known.contains(&field.as_str())) {
        None => Ok(()),
        Some(field) => Err(ApiError::invalid_parameter(format!(
            "include {field} is not valid: it should be one of [{}].",
            known.join(", ")
        ))),
    }
}

fn stop_task(
    service: &Service,
    caller: Option<&str>,
    request: StopTask,
) -> Result<Value, ApiError> {
    let mut guard = service.account();
    let account = &mut *guard;
    let cluster = account.cluster(request.cluster.as_deref())?.name.clone();
    let reason = request.reason.unwrap_or_else(|| "Task stopped by user".to_owned());
    if reason.chars().count() > 255 {
        return Err(ApiError::invalid_parameter("The reason must be at most 255 characters."));
    }
    let not_found = || ApiError::invalid_parameter("The referenced task was not found.");
    let id = task_id(account, &request.task, &cluster)?.ok_or_else(not_found)?.to_owned();
    let task =
        account.tasks.get_mut(&id).filter(|task| task.cluster == cluster).ok_or_else(not_found)?;
    account.sessions.allow(caller, "StopTask", &task.arn, &task.tags)?;
    service.ledger.write(Event::StopTask { task: task.arn.clone(), reason: reason.clone() });
    task.order_stop(StopCause::new("UserInitiated", reason));
    Ok(json!({"task": description::task(&account.names, task, true)}))
}

fn list_tasks(
    service: &Service,
    account: &Account,
    request: &ListTasks,
) -> Result<Value, ApiError> {
    let cluster = account.cluster(request.cluster.as_deref())?;
    let others = [
        &request.container_instance,
        &request.family,
        &request.service_name,
        &request.desired_status,
        &request.launch_type,
        &request.daemon_name,
    ];
    // API reference: "When you specify startedBy as the filter, it must be the only filter that you use."
    if request.started_by.is_some() && others.iter().any(|other| other.is_some()) {
        return Err(ApiError::invalid_parameter("cannot specify startedBy with any other filter."));
    }
    // Without a filter ListTasks answers the tasks that are to run.
    let desired = match request.desired_status.as_deref() {
        None | Some("RUNNING") => Status::Running,
        Some("STOPPED") => Status::Stopped,
        // The API takes it and says that it matches nothing: ECS never sets a desired status of PENDING.
        Some("PENDING") => Status::Pending,
        Some(other) => {
            return Err(ApiError::invalid_parameter(format!(
                "desiredStatus {other} is not valid: it should be one of [RUNNING, PENDING, STOPPED]."
            )));
        }
    };
    let page = request.max_results.unwrap_or(100);
    if !(1..=100).contains(&page) {
        return Err(ApiError::invalid_parameter("maxResults should be between 1 and 100."));
    }
    let from: usize = match request.next_token.as_deref() {
        None => 0,
        Some(token) => {
            token.parse().map_err(|_| ApiError::invalid_parameter("Invalid token provided."))?
        }
    };
    let lag = Duration::from_millis(service.consistency.list);
    let wanted = |task: &&Task| {
        let stops = |told: Instant| {
            if service.clock.since(told) >= lag { Status::Stopped } else { Status::Running }
        };
        let equal = |filter: &Option<String>, value: Option<&str>| {
            filter.is_none() || filter.as_deref() == value
        };
        task.cluster == cluster.name
            && is_there(service, task, lag)
            && task.told_to_stop.map_or(Status::Running, stops) == desired
            && equal(&request.started_by, task.started_by.as_deref())
            && equal(&request.family, Some(task.revision.definition.family.as_str()))
            && equal(&request.launch_type, Some(task.launch_type))
            && equal(&request.service_name, None)
            && equal(&request.container_instance, None)
            && equal(&request.daemon_name, None)
    };
    let all: Vec<&str> =
        account.tasks.values().filter(wanted).map(|task| task.arn.as_str()).collect();
    let page: Vec<&str> = all.iter().copied().skip(from).take(page as usize).collect();
    let end = from + page.len();
    match end < all.len() {
        true => Ok(json!({"taskArns": page, "nextToken": end.to_string()})),
        false => Ok(json!({"taskArns": page})),
    }
}

fn register_task_definition(
    account: &mut Account,
    definition: TaskDefinition,
) -> Result<Value, ApiError> {
    let tags = definition.tags.clone();
    let revision = account.register(definition)?;
    Ok(json!({"taskDefinition": description::task_definition(&revision), "tags": tags}))
}

fn describe_task_definition(
    account: &Account,
    request: &DescribeTaskDefinition,
) -> Result<Value, ApiError> {
    check_include(&request.include, &["TAGS"])?;
    let revision = account.definition(&request.task_definition)?;
    let tags =
        if request.include.is_empty() { Vec::new() } else { revision.definition.tags.clone() };
    Ok(json!({"taskDefinition": description::task_definition(&revision), "tags": tags}))
}

fn describe_clusters(account: &Account, request: &DescribeClusters) -> Result<Value, ApiError> {
    check_include(
        &request.include,
        &["ATTACHMENTS", "CONFIGURATIONS", "SETTINGS", "STATISTICS", "TAGS"],
    )?;
    if request.clusters.len() > 100 {
        return Err(ApiError::invalid_parameter("Clusters cannot have more than 100 items."));
    }
    let default = ["default".to_owned()];
    let names = if request.clusters.is_empty() { &default[..] } else { &request.clusters };
    let (mut clusters, mut failures) = (Vec::new(), Vec::new());
    for name in names {
        match account.cluster(Some(name)) {
            Ok(cluster) => clusters.push(description::cluster(account, cluster)),
            Err(_) => {
                let arn = match name.starts_with("arn:") {
                    true => name.clone(),
                    false => account.names.cluster_arn(name),
                };
                failures.push(json!({"arn": arn, "reason": "MISSING"}));
            }
        }
    }
    Ok(json!({"clusters": clusters, "failures": failures}))
}

/// A call of Service Quotas, of which there is one.
pub(crate) fn quotas(service: &Service, operation: &str, body: &[u8]) -> Result<Value, ApiError> {
    let target = Target::of(&service.account().names, &Value::Null);
    service.admit(operation, &target)?;
    if operation != "GetServiceQuota" {
        return Err(ApiError::new("UnknownOperationException", ""));
    }
    let account = service.account();
    account.permissions.check("servicequotas:GetServiceQuota", "*")?;
    let request: GetServiceQuota =
        serde_json::from_slice(body).map_err(|error| serialization(&error))?;
    let found = account.capacity.quota(&request.quota_code);
    let (name, value) = found.filter(|_| request.service_code == "fargate").ok_or_else(|| {
        ApiError::new(
            "NoSuchResourceException",
            "The request failed because the specified resource doesn't exist.",
        )
    })?;
    Ok(json!({"Quota": {
        "ServiceCode": "fargate", "ServiceName": "AWS Fargate", "QuotaCode": request.quota_code,
        "QuotaName": name, "Value": value, "Unit": "None", "Adjustable": true, "GlobalQuota": false,
    }}))
}

fn create_cluster(account: &mut Account, request: CreateCluster) -> Result<Value, ApiError> {
    let name = request.cluster_name.unwrap_or_else(|| "default".to_owned());
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if name.is_empty() || name.len() > 255 || !name.bytes().all(word) {
        return Err(ApiError::invalid_parameter(
            "Identifiers must be letters, numbers, hyphens and underscores.",
        ));
    }
    tags::check(&request.tags)?;
    strategy::check(&request.default_capacity_provider_strategy, &request.capacity_providers)?;
    // Creating a cluster that is there answers it as it is.
    if !account.clusters.contains_key(&name) {
        let cluster = Cluster {
            default_strategy: request.default_capacity_provider_strategy,
            tags: request.tags,
            settings: request.settings,
            configuration: request.configuration,
            service_connect_defaults: request.service_connect_defaults,
            ..Cluster::new(name.clone(), request.capacity_providers)
        };
        account.clusters.insert(name.clone(), cluster);
    }
    let cluster = account.cluster(Some(&name))?;
    Ok(json!({"cluster": description::cluster(account, cluster)}))
}

fn put_capacity_providers(
    account: &mut Account,
    request: PutClusterCapacityProviders,
) -> Result<Value, ApiError> {
    let name = account.cluster(Some(&request.cluster))?.name.clone();
    strategy::check(&request.default_capacity_provider_strategy, &request.capacity_providers)?;
    if let Some(cluster) = account.clusters.get_mut(&name) {
        cluster.capacity_providers = request.capacity_providers;
        cluster.default_strategy = request.default_capacity_provider_strategy;
    }
    let cluster = account.cluster(Some(&name))?;
    Ok(json!({"cluster": description::cluster(account, cluster)}))
}

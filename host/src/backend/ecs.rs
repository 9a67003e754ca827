//! Tasks on Amazon ECS. The only place that names `aws_sdk_ecs`.
//!
//! [`request`] and [`status`] are pure: they turn our types into the SDK's and back. This file does the
//! calls: each is one call of the API. Falling back to other placements, sharing the API's request budget,
//! repeating calls and sweeping are built on top of it.

mod address;
mod advice;
mod classify;
mod credentials;
mod query;
mod request;
mod status;
mod survey;
mod xml;

#[cfg(test)]
pub(crate) use request::tests::cluster as tests_cluster;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_ecs::Client;
use aws_sdk_ecs::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_ecs::types::TaskField;
use aws_types::SdkConfig;
use tokio::sync::OnceCell;
use tokio::time::sleep;

use super::{
    BackendError, Cause, LaunchRequest, OwnedTask, SessionFacts, TaskBackend, TaskId, TaskStatus,
};
use crate::settings::EcsCluster;

/// Of a call. A repetition is cheap, since `clientToken` makes it safe, and a driver without an answer for
/// this long had better say so.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(20);

/// Of a TCP connection; AWS's own default is longer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// DescribeTasks takes at most this many.
const DESCRIBE_LIMIT: usize = 100;

/// Calls for tasks of which the session may not see all, before it is taken to see none of the rest.
const REFUSALS: usize = 100;

/// Before the next of them: half of what all processes together may ask a second.
const AFTER_REFUSAL: Duration = Duration::from_millis(125);

/// One ECS cluster.
pub struct Ecs {
    client: Client,
    /// For the calls that no SDK client is there for.
    sdk: SdkConfig,
    credentials: Arc<credentials::Sessions>,
    /// Set when credentials were found.
    authenticated: OnceCell<()>,
    /// What was found out about addresses.
    known: address::Known,
    cluster: EcsCluster,
}

impl fmt::Debug for Ecs {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Ecs").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

impl Ecs {
    /// Prepares to talk to `cluster`: nothing is called yet. Sessions that end are kept in `state` for the next
    /// process.
    pub async fn open(cluster: EcsCluster, state: &Path, facts: &SessionFacts) -> Self {
        let timeouts = TimeoutConfig::builder()
            .operation_timeout(CALL_TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT);
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            // Set, since the default chains of both would end in requests to IMDS.
            .region(Region::new(cluster.region.clone()))
            .no_credentials()
            // Repeated by those above, who know the request budget of all processes and the job log.
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts.build());
        if let Some(profile) = &cluster.profile {
            loader = loader.profile_name(profile);
        }
        let sdk = loader.load().await;
        let credentials = Arc::new(credentials::Sessions::new(&cluster, &sdk, state, facts));
        let sdk = credentials::config_with(&sdk, Arc::clone(&credentials));
        Self {
            client: Client::new(&sdk),
            sdk,
            credentials,
            authenticated: OnceCell::new(),
            known: address::Known::default(),
            cluster,
        }
    }

    /// The client, when there are credentials for it: their absence has its own error, with what was tried.
    async fn client(&self) -> Result<&Client, BackendError> {
        self.authenticated
            .get_or_try_init(|| async { self.credentials.get().await.map(|_| ()) })
            .await?;
        Ok(&self.client)
    }
}

#[async_trait]
impl TaskBackend for Ecs {
    async fn launch(&self, request: &LaunchRequest) -> Result<TaskId, BackendError> {
        const CALL: &str = "RunTask";
        let input = request::run_task(&self.cluster, request)
            .map_err(|message| BackendError::new(CALL, "request", message))?;
        let answer = self
            .client()
            .await?
            .run_task()
            .set_cluster(input.cluster)
            .set_task_definition(input.task_definition)
            .set_count(input.count)
            .set_launch_type(input.launch_type)
            .set_capacity_provider_strategy(input.capacity_provider_strategy)
            .set_platform_version(input.platform_version)
            .set_network_configuration(input.network_configuration)
            .set_overrides(input.overrides)
            .set_tags(input.tags)
            .set_propagate_tags(input.propagate_tags)
            .set_enable_execute_command(input.enable_execute_command)
            .set_started_by(input.started_by)
            .set_client_token(input.client_token)
            .send()
            .await;
        let answer = match answer {
            Ok(answer) => answer,
            // The token is known with other parameters. Only this attempt makes this token, so the task is ours.
            Err(error) => match status::conflicting_task(&error) {
                Some(task) => return Ok(task),
                None => return Err(failed(CALL, &error)),
            },
        };
        // An answer without a task and with `failures` is HTTP 200: GitLab's driver crashes on it.
        if let Some(arn) = answer.tasks().first().and_then(|task| task.task_arn()) {
            return Ok(TaskId(arn.to_owned()));
        }
        let failure = answer.failures().first();
        let reason =
            failure.and_then(|failure| failure.reason()).unwrap_or("no task and no failure");
        let detail = failure.and_then(|failure| failure.detail()).unwrap_or("no task was started");
        Err(with_advice(BackendError::new(CALL, reason, detail)))
    }

    async fn describe_many(
        &self,
        tasks: &[TaskId],
    ) -> Result<Vec<(TaskId, TaskStatus)>, BackendError> {
        let mut found = Vec::new();
        for some in tasks.chunks(DESCRIBE_LIMIT) {
            let answer = self
                .client()
                .await?
                .describe_tasks()
                .cluster(&self.cluster.cluster)
                .set_tasks(Some(some.iter().map(|task| task.0.clone()).collect()))
                .send()
                .await
                .map_err(|error| failed("DescribeTasks", &error))?;
            let statuses = self.statuses(answer.tasks()).await;
            for (task, status) in answer.tasks().iter().zip(statuses) {
                if let Some(arn) = task.task_arn() {
                    found.push((TaskId(arn.to_owned()), status?));
                }
            }
        }
        Ok(found)
    }

    async fn stop(&self, task: &TaskId, reason: &str) -> Result<Option<TaskStatus>, BackendError> {
        let answer = self
            .client()
            .await?
            .stop_task()
            .cluster(&self.cluster.cluster)
            .task(&task.0)
            .reason(reason)
            .send()
            .await;
        match answer {
            Ok(answer) => Ok(answer.task().map(status::of_task)),
            // A task is forgotten an hour or so after it stopped, so this is what we want.
            Err(error) if status::says_no_such_task(error.code(), error.message()) => Ok(None),
            Err(error) => Err(failed("StopTask", &error)),
        }
    }

    async fn list(&self, started_by: &str) -> Result<Vec<OwnedTask>, BackendError> {
        let mut arns = Vec::new();
        let mut next = None;
        loop {
            // ECS takes no other filter beside `startedBy`, and lists what shall run.
            let page = self
                .client()
                .await?
                .list_tasks()
                .cluster(&self.cluster.cluster)
                .started_by(started_by)
                .set_next_token(next)
                .send()
                .await
                .map_err(|error| failed("ListTasks", &error))?;
            arns.extend_from_slice(page.task_arns());
            next = page.next_token().map(str::to_owned);
            if next.is_none() {
                break;
            }
        }
        let mut owned = Vec::new();
        // The next is the last.
        let mut rest: Vec<Vec<String>> =
            arns.chunks(DESCRIBE_LIMIT).rev().map(<[_]>::to_vec).collect();
        let mut refusals = 0;
        while let Some(mut some) = rest.pop() {
            let answer = self
                .client()
                .await?
                .describe_tasks()
                .cluster(&self.cluster.cluster)
                .set_tasks(Some(some.clone()))
                .include(TaskField::Tags)
                .send()
                .await
                .map_err(|error| failed("DescribeTasks", &error));
            match answer {
                Ok(answer) => owned.extend(answer.tasks().iter().filter_map(status::owned_task)),
                Err(error) if error.cause == Cause::Denied => {
                    refusals += 1;
                    if some.len() == 1 || refusals >= REFUSALS {
                        owned.extend(some.into_iter().map(|arn| OwnedTask::hidden(TaskId(arn))));
                        continue;
                    }
                    // One that the session may not see is enough; the others may be its own.
                    rest.push(some.split_off(some.len() / 2));
                    rest.push(some);
                    sleep(AFTER_REFUSAL).await;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(owned)
    }
}

fn failed<E>(call: &'static str, error: &SdkError<E>) -> BackendError
where
    E: std::error::Error + ProvideErrorMetadata + 'static,
{
    match error.code() {
        Some(code) => {
            with_advice(BackendError::new(call, code, error.message().unwrap_or("no message")))
        }
        // No answer of the API's: credentials, DNS, TLS, time-outs.
        None => with_advice(BackendError::new(
            call,
            "no answer",
            DisplayErrorContext(error).to_string(),
        )),
    }
}

fn with_advice(error: BackendError) -> BackendError {
    let hint = advice::on(error.call, &error.code, &error.message);
    let cause = classify::error(&error.code, &error.message);
    BackendError { hint: hint.map(str::to_owned), cause, ..error }
}

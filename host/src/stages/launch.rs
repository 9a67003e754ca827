//! From an attempt to what the backend and the SSH client need of it: pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::Context;
use crate::backend::{LaunchRequest, SessionFacts, TaskId, TaskStatus};
use crate::failure::{Failure, Report};
use crate::placement::Placement;
use crate::secret::Secret;
use crate::settings::{HostKeySource, SessionFact, Settings, SshServer, TaskDefinition};
use crate::ssh::{HostKey, KeyPair, Target};
use crate::state::{Attempt, Keys, Launch};

/// Without a connection for this long the agent ends its task. The longest pause between two scripts is
/// GitLab Runner's back-off of 5 min between attempts at fetching sources.
const IDLE_TIMEOUT: Duration = Duration::from_secs(900);

/// The agent waits for so much longer than a driver that tries to come back.
const IDLE_SLACK: Duration = Duration::from_secs(300);

fn idle_timeout(resume_timeout: Duration) -> Duration {
    IDLE_TIMEOUT.max(resume_timeout.saturating_add(IDLE_SLACK))
}

pub(super) fn definition_of<'c>(
    context: &'c Context,
    placement: &Placement,
) -> Result<&'c TaskDefinition, Failure> {
    let name = &placement.task_definition;
    context.settings.task_definitions.get(name).ok_or_else(|| {
        Failure::system(format!("the task definition `{name}` is no longer in the settings"))
            .hint("keep a task definition in the file until its jobs have ended")
    })
}

fn key(seed: &Secret<String>) -> Result<KeyPair, Failure> {
    KeyPair::from_seed_base64(seed).map_err(|error| Failure::System(Report::of(&error)))
}

fn keys_of(attempt: &Attempt) -> Result<&Keys, Failure> {
    attempt.keys.as_ref().ok_or_else(|| Failure::system("the attempt has no keys any more"))
}

pub(crate) fn target(
    attempt: &Attempt,
    definition: &TaskDefinition,
    address: IpAddr,
    status: &TaskStatus,
) -> Result<Target, Failure> {
    let keys = keys_of(attempt)?;
    let (container, port) = (&definition.container, definition.ssh.port);
    let port = status.port(container, port).ok_or_else(|| {
        Failure::system(format!(
            "port {port} of container `{container}` is not mapped to a port of its host"
        ))
        .hint("add a port mapping for it to the ECS task definition, with `hostPort` 0")
    })?;
    Ok(Target {
        address: SocketAddr::new(address, port),
        user: definition.ssh.user.clone(),
        client_key: key(&keys.client)?,
        host_key: match definition.ssh.host_key {
            HostKeySource::Injected => HostKey::Known(key(&keys.host)?.public_line()),
            HostKeySource::FirstContact => HostKey::FirstContact,
        },
    })
}

/// The target of a task that `prepare` has reached: its host key is known by now, however it came to be.
pub(super) fn known_target(context: &Context, attempt: &Attempt) -> Result<Target, Failure> {
    let not_ready = || {
        Failure::system("there is no task for this script: `prepare` did not finish")
            .hint("look for its error further up in the job log")
    };
    let launch = attempt.launch.as_ref().ok_or_else(not_ready)?;
    let placement = attempt.launched_placement().ok_or_else(not_ready)?;
    let definition = definition_of(context, placement)?;
    Ok(Target {
        address: launch.address.ok_or_else(not_ready)?,
        user: definition.ssh.user.clone(),
        client_key: key(&keys_of(attempt)?.client)?,
        host_key: HostKey::Known(launch.host_key.clone().ok_or_else(not_ready)?),
    })
}

/// The same, byte for byte, for the same attempt and launch: ECS takes a repeated token with another request
/// for a conflict. `state` is [`crate::state::State::identity`].
pub(crate) fn request(
    context: &Context,
    attempt: &Attempt,
    launch: &Launch,
    placement: &Placement,
    definition: &TaskDefinition,
    state: &str,
) -> Result<LaunchRequest, Failure> {
    let task_definition = definition.by_arch.get(&placement.arch).ok_or_else(|| {
        let name = &placement.task_definition;
        Failure::system(format!("the task definition `{name}` has no {} any more", placement.arch))
    })?;
    let role_arn = match &placement.role {
        None => None,
        Some(role) => {
            Some(context.settings.roles.get(role).map(|role| role.arn.clone()).ok_or_else(
                || Failure::system(format!("the role `{role}` is no longer in the settings")),
            )?)
        }
    };
    let keys = keys_of(attempt)?;
    let mut environment = BTreeMap::from([
        ("SSH_PUBLIC_KEY".to_owned(), Secret::new(key(&keys.client)?.public_line())),
        ("POINTSMAN_DEADLINE".to_owned(), Secret::new(attempt.deadline.as_second().to_string())),
    ]);
    if definition.ssh.host_key == HostKeySource::Injected {
        environment.insert("POINTSMAN_HOST_KEY".to_owned(), keys.host.clone());
    }
    if definition.ssh.server == SshServer::Agent {
        let seconds = idle_timeout(context.settings.ssh.resume_timeout).as_secs().to_string();
        environment.insert("POINTSMAN_IDLE_TIMEOUT".to_owned(), Secret::new(seconds));
    }
    Ok(LaunchRequest {
        attempt: attempt.id.to_string(),
        client_token: client_token(attempt, launch),
        started_by: started_by(&context.settings),
        task_definition: task_definition.clone(),
        container: definition.container.clone(),
        arch: placement.arch,
        capacity: placement.capacity,
        size: placement.size,
        ephemeral_storage_gib: placement.ephemeral_storage_gib,
        role_arn,
        environment,
        tags: tags(context, attempt, placement, state),
        port: definition.ssh.port,
        avoid_subnets: [&launch.avoid_subnets[..], &launch.full_elsewhere[..]].concat(),
    })
}

/// The same for the same attempt, placement and number, so that asking again finds the first task (ECS API
/// reference, "Ensuring idempotency"); another placement or number is another task.
fn client_token(attempt: &Attempt, launch: &Launch) -> String {
    let digest = Sha256::new()
        .chain_update(attempt.id.as_str())
        .chain_update([0])
        .chain_update(format!("{}/{}", launch.placement, launch.number))
        .finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// ListTasks takes no other filter beside it, so it names the manager; tags name the rest.
pub(crate) fn started_by(settings: &Settings) -> String {
    // Dots are legal in a name of ours and not in `startedBy`.
    format!("pointsman/{}", settings.manager.replace('.', "-"))
}

/// The tag that tells an attempt's task from the manager's others.
pub(crate) const ATTEMPT_TAG: &str = "pointsman:attempt";

/// The tag with the manager's whole name.
pub(crate) const MANAGER_TAG: &str = "pointsman:manager";

/// The tag that says in which state directory the attempt is.
pub(crate) const STATE_TAG: &str = "pointsman:state";

/// The tag that says when the task has to be gone.
pub(crate) const DEADLINE_TAG: &str = "pointsman:deadline";

fn tags(
    context: &Context,
    attempt: &Attempt,
    placement: &Placement,
    state: &str,
) -> BTreeMap<String, String> {
    let mut tags = BTreeMap::from([
        (MANAGER_TAG.to_owned(), context.settings.manager.clone()),
        (STATE_TAG.to_owned(), state.to_owned()),
        (ATTEMPT_TAG.to_owned(), attempt.id.to_string()),
        ("pointsman:job".to_owned(), attempt.job.id.to_string()),
        ("pointsman:project".to_owned(), attempt.job.project_id.to_string()),
        ("pointsman:pipeline".to_owned(), attempt.job.pipeline_id.to_string()),
        ("pointsman:profile".to_owned(), attempt.profile.clone()),
        (DEADLINE_TAG.to_owned(), attempt.deadline.to_string()),
    ]);
    if let Some(profile) = context.settings.profiles.get(&attempt.profile) {
        for name in &profile.policies {
            if let Some(policy) = context.settings.policies.get(name) {
                let digest = policy.sha256.get(..16).unwrap_or_default();
                tags.insert(format!("pointsman:policy:{name}"), digest.to_owned());
            }
        }
    }
    for (key, value) in &placement.labels {
        tags.insert(format!("pointsman:label:{key}"), value.clone());
    }
    tags
}

/// Whom a session in the cluster's account is for.
pub(crate) fn session_facts(context: &Context, attempt: &Attempt) -> SessionFacts {
    facts_of(&context.settings, attempt)
}

/// The same without a stage.
pub(crate) fn facts_of(settings: &Settings, attempt: &Attempt) -> SessionFacts {
    SessionFacts::from([
        (SessionFact::Manager, settings.manager.clone()),
        (SessionFact::Profile, attempt.profile.clone()),
        (SessionFact::Project, attempt.job.project_id.to_string()),
        (SessionFact::Pipeline, attempt.job.pipeline_id.to_string()),
        (SessionFact::Job, attempt.job.id.to_string()),
    ])
}

/// The last part of an ARN.
pub(crate) fn short(task: &TaskId) -> &str {
    task.0.rsplit('/').next().unwrap_or(&task.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_outlives_the_driver_s_patience() {
        for (resume, expected) in [(0, 900), (300, 900), (600, 900), (601, 901), (3600, 3900)] {
            assert_eq!(idle_timeout(Duration::from_secs(resume)).as_secs(), expected, "{resume}");
        }
    }
}

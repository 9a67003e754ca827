//! What the credentials may do, by calls that change nothing and by IAM's own word: pure.
//!
//! ECS has no dry run. So RunTask is sent with the name of a container that is in no task definition: whoever may
//! not run tasks is refused for that, and whoever may is refused for the name.

use super::finding::{Finding, list};
use super::scope::Scope;
use crate::backend::survey::{Asked, Caller, Ruled, SeenDefinition};
use crate::backend::{BackendError, Cause, TaskId};
use crate::settings::{AddressKind, EcsCluster, NetworkMode, Settings};

/// What RunTask answered to the request that it must refuse.
#[derive(Debug)]
pub(super) enum Tried {
    /// Refused, as it must be.
    Refused(BackendError),
    /// AWS started a task after all, which was told to stop: with or without success.
    Started(TaskId, Result<(), BackendError>),
}

/// Whether the answer is about the container's name, behind the look at rights.
fn is_about_the_name(error: &BackendError) -> bool {
    error.message.contains("is not a container in the TaskDefinition")
}

/// What RunTask's answer says of the right to run `family`.
pub(super) fn judge_run(about: &str, family: &str, cluster: &EcsCluster, tried: &Tried) -> Finding {
    let error = match tried {
        Tried::Refused(error) => error,
        Tried::Started(task, stopped) => {
            let ended = match stopped {
                Ok(()) => "it was told to stop".to_owned(),
                Err(error) => format!("it could not be stopped: {error}"),
            };
            return Finding::failure("run-task-started", about, format!("AWS started {task} for a request that it should have refused; {ended}"))
                .why("the doctor must not start anything unless `--launch` asks for it; please report this")
                .run(format!("aws ecs stop-task --region {} --cluster {} --task {task}", cluster.region, cluster.cluster));
        }
    };
    if is_about_the_name(error) {
        return Finding::ok(
            "run-task",
            about,
            format!(
                "RunTask of {family} is allowed, as far as can be told without a task: a request with one deliberate mistake, a container that does not exist, was refused for that mistake and not for rights"
            ),
        );
    }
    let denied = error.cause == Cause::Denied;
    let is = |action: &str| denied && error.message.contains(action);
    if is("iam:PassRole") {
        return pass_role(
            about,
            &resource_of(&error.message).unwrap_or_else(|| "ROLE_ARN".to_owned()),
            &error.to_string(),
        );
    }
    if is("ecs:TagResource") {
        return tag_resource(about, cluster, &error.to_string());
    }
    if denied {
        return Finding::failure(
            "run-task-denied",
            about,
            format!("RunTask of {family} is refused: {error}"),
        )
        .why("no job can start with this task definition")
        .change(statement(
            "ecs:RunTask",
            &format!(
                "arn:aws:ecs:{}:ACCOUNT:task-definition/{}:*",
                cluster.region,
                family_of(family)
            ),
        ));
    }
    let finding = match error.cause {
        Cause::Throttled | Cause::Server | Cause::NoAnswer => Finding::note(
            "run-task-not-told",
            about,
            format!("whether RunTask of {family} is allowed is not known: {error}"),
        ),
        _ => Finding::warning(
            "run-task-refused",
            about,
            format!(
                "RunTask of {family} is refused before the doctor's own mistake in the request: {error}"
            ),
        ),
    };
    finding
        .why("a job's request, which is the same but for the container's name, would meet the same answer")
        .change(error.hint.clone().unwrap_or_else(|| "try again; `pointsman doctor --launch` sends a job's request".to_owned()))
}

/// `family`, without its revision and without an ARN's head.
fn family_of(name: &str) -> &str {
    let short = name.rsplit('/').next().unwrap_or(name);
    short.split(':').next().unwrap_or(short)
}

fn resource_of(message: &str) -> Option<String> {
    message.split("on resource: ").nth(1)?.split_whitespace().next().map(str::to_owned)
}

fn statement(action: &str, resource: &str) -> String {
    format!(
        "add to the policy of the runner manager's role: {{\"Effect\": \"Allow\", \"Action\": \"{action}\", \"Resource\": \"{resource}\"}}; docs/clusters.md has the whole policy"
    )
}

fn pass_role(about: &str, role: &str, said: &str) -> Finding {
    Finding::failure("pass-role-denied", about, format!("the role {role} may not be passed to tasks: {said}"))
        .why("RunTask refuses every placement whose task gets this role, by the placement or by the task definition")
        .change(format!(
            "add to the policy of the runner manager's role: {{\"Effect\": \"Allow\", \"Action\": \"iam:PassRole\", \"Resource\": \"{role}\", \"Condition\": {{\"StringEquals\": {{\"iam:PassedToService\": \"ecs-tasks.amazonaws.com\"}}}}}}"
        ))
}

fn tag_resource(about: &str, cluster: &EcsCluster, said: &str) -> Finding {
    Finding::failure("tag-denied", about, format!("tasks may not be tagged: {said}"))
        .why("each task is started with tags, by which a sweep knows whose it is: RunTask refuses it without ecs:TagResource")
        .change(format!(
            "add to the policy of the runner manager's role: {{\"Effect\": \"Allow\", \"Action\": \"ecs:TagResource\", \"Resource\": \"arn:aws:ecs:{}:ACCOUNT:task/{}/*\", \"Condition\": {{\"StringEquals\": {{\"ecs:CreateAction\": \"RunTask\"}}}}}}",
            cluster.region, cluster.cluster
        ))
}

/// What the answer to a call about a task that there is not says of the right to make it.
pub(super) fn judge_call(
    about: &str,
    action: &str,
    cluster: &EcsCluster,
    answer: &Result<(), BackendError>,
) -> Finding {
    let (name, denied_name, why) = match action {
        "ecs:ListTasks" => (
            "list-tasks",
            "list-tasks-denied",
            "tasks whose `prepare` was killed are not found, by `cleanup` and by `pointsman sweep`: they go on and cost money",
        ),
        "ecs:StopTask" => (
            "stop-task",
            "stop-task-denied",
            "no task is ever stopped: each job leaves one that goes on and costs money",
        ),
        _ => (
            "describe-tasks",
            "describe-tasks-denied",
            "the driver cannot learn a task's address, nor why a task ended: no job runs",
        ),
    };
    let error = match answer {
        Ok(()) => return Finding::ok(name, about, format!("{action} is allowed")),
        Err(error) => error,
    };
    if error.cause != Cause::Denied {
        return Finding::warning(
            "call-failed",
            about,
            format!("whether {action} is allowed is not known: {error}"),
        )
        .why("the call failed for another reason, which jobs would meet as well")
        .change(error.hint.clone().unwrap_or_else(|| "try again".to_owned()));
    }
    let resource = if action == "ecs:ListTasks" {
        "*".to_owned()
    } else {
        format!("arn:aws:ecs:{}:ACCOUNT:task/{}/*", cluster.region, cluster.cluster)
    };
    let finding = Finding::failure(denied_name, about, format!("{action} is refused: {error}"))
        .why(why)
        .change(statement(action, &resource));
    if action == "ecs:ListTasks" {
        return finding;
    }
    finding.change("if the policy allows it by `aws:ResourceTag` only, this may mislead, since the task that the doctor names does not exist and has no tags: then `pointsman doctor --launch` tells")
}

/// The user or role behind a caller, as IAM simulates it. The path of a role is not in its session's ARN.
pub(super) fn principal(caller: &Caller) -> Option<String> {
    let Some((_, rest)) = caller.arn.split_once(":assumed-role/") else {
        return caller.arn.contains(":user/").then(|| caller.arn.clone());
    };
    let partition = caller.arn.split(':').nth(1)?;
    let role = rest.split('/').next()?;
    Some(format!("arn:{partition}:iam::{}:role/{role}", caller.account))
}

/// The roles that tasks on the cluster can get: the placements', the task definitions', the cluster's.
pub(super) fn roles(
    settings: &Settings,
    cluster: &EcsCluster,
    scope: &Scope,
    seen: &[SeenDefinition],
) -> Vec<String> {
    let placed =
        scope.roles.iter().filter_map(|name| settings.roles.get(name)).map(|role| &role.arn);
    let own = seen.iter().flat_map(|definition| {
        // The cluster's takes the place of the definition's.
        let execution =
            definition.execution_role.iter().filter(|_| cluster.execution_role.is_none());
        definition.task_role.iter().chain(execution)
    });
    let mut all: Vec<String> = placed.chain(own).chain(&cluster.execution_role).cloned().collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// What no call can tell without a task: IAM is asked.
pub(super) fn questions(cluster: &EcsCluster, caller: &Caller, roles: &[String]) -> Vec<Asked> {
    let asked = |action: &str, resource: String, key: &str, value: String| Asked {
        action: action.to_owned(),
        resource,
        context: if key.is_empty() { Vec::new() } else { vec![(key.to_owned(), value)] },
    };
    let name = cluster.cluster.rsplit('/').next().unwrap_or_default();
    let task =
        format!("arn:aws:ecs:{}:{}:task/{name}/{}", cluster.region, caller.account, "0".repeat(32));
    let mut all = vec![asked("ecs:TagResource", task, "ecs:CreateAction", "RunTask".to_owned())];
    for role in roles {
        let service = "ecs-tasks.amazonaws.com".to_owned();
        all.push(asked("iam:PassRole", role.clone(), "iam:PassedToService", service));
    }
    let plain = |action: &str| asked(action, "*".to_owned(), "", String::new());
    match (cluster.network_mode, cluster.address) {
        (NetworkMode::Awsvpc, AddressKind::Public) => {
            all.push(plain("ec2:DescribeNetworkInterfaces"))
        }
        (NetworkMode::Host | NetworkMode::Bridge, _) => {
            all.push(plain("ecs:DescribeContainerInstances"));
            all.push(plain("ec2:DescribeInstances"));
        }
        (NetworkMode::Awsvpc, AddressKind::Private) => {}
    }
    all
}

/// What IAM's word says; `asked` is what it was to be asked.
pub(super) fn judge_ruled(
    about: &str,
    cluster: &EcsCluster,
    asked: &[Asked],
    ruled: &Result<Vec<Ruled>, BackendError>,
) -> Vec<Finding> {
    let ruled = match ruled {
        Ok(ruled) => ruled,
        Err(error) => return vec![not_tried(about, asked, error)],
    };
    let mut findings = Vec::new();
    for each in ruled.iter().filter(|each| !each.is_allowed) {
        let Asked { action, resource, .. } = &each.asked;
        let said = format!("IAM says {}", each.decision);
        findings.push(match action.as_str() {
            "iam:PassRole" => pass_role(about, resource, &said),
            "ecs:TagResource" => tag_resource(about, cluster, &said),
            _ => Finding::failure(
                "address-denied",
                about,
                format!("{action} is not allowed: {said}"),
            )
            .why("the driver cannot learn where its tasks are reached")
            .change(statement(action, resource)),
        });
    }
    let allowed: Vec<String> = ruled
        .iter()
        .filter(|each| each.is_allowed)
        .map(|each| match each.asked.action.as_str() {
            "iam:PassRole" => format!("iam:PassRole of {}", each.asked.resource),
            action => action.to_owned(),
        })
        .collect();
    if !allowed.is_empty() {
        findings.push(Finding::ok(
            "rights",
            about,
            format!("IAM's simulation allows {}", list(&allowed)),
        ));
    }
    findings
}

fn not_tried(about: &str, asked: &[Asked], error: &BackendError) -> Finding {
    let what: Vec<String> = asked
        .iter()
        .map(|asked| match asked.action.as_str() {
            "iam:PassRole" => format!("iam:PassRole of {}", asked.resource),
            action => action.to_owned(),
        })
        .collect();
    Finding::note("rights-not-tried", about, format!("not tried: {} (IAM's simulation is not to be had: {})", list(&what), error.code))
        .why("ECS has no dry run: whether these are allowed shows only when a task is started")
        .run("pointsman doctor --launch")
        .change("or allow iam:SimulatePrincipalPolicy to these credentials, or run the doctor with an administrator's")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::ecs::tests_cluster as cluster;
    use crate::doctor::finding::Severity;

    const ROLE: &str = "arn:aws:iam::123456789012:role/deploy";

    fn error(cause: Cause, message: &str) -> BackendError {
        BackendError { cause, ..BackendError::new("RunTask", "code", message) }
    }

    fn caller() -> Caller {
        Caller {
            account: "123456789012".into(),
            arn: "arn:aws:sts::123456789012:assumed-role/manager/i-1".into(),
        }
    }

    #[test]
    fn every_answer_of_run_task_has_its_finding() {
        use Cause::{Configuration, Denied, Server};
        let pass = format!(
            "User: x is not authorized to perform: iam:PassRole on resource: {ROLE} because no"
        );
        let name = "Override for container named x is not a container in the TaskDefinition.";
        for (cause, message, expected, severity) in [
            (Configuration, name, "run-task", Severity::Ok),
            (
                Denied,
                "not authorized to perform: ecs:RunTask",
                "run-task-denied",
                Severity::Failure,
            ),
            (Denied, pass.as_str(), "pass-role-denied", Severity::Failure),
            (Denied, "not authorized to perform: ecs:TagResource", "tag-denied", Severity::Failure),
            (Configuration, "Error retrieving subnet", "run-task-refused", Severity::Warning),
            (Server, "busy", "run-task-not-told", Severity::Note),
        ] {
            let tried = Tried::Refused(error(cause, message));
            let finding = judge_run("c", "ci:3", &cluster(), &tried);
            assert_eq!((finding.name, finding.severity), (expected, severity), "{message}");
            assert_eq!(finding.remedy.is_empty(), severity == Severity::Ok, "{finding:?}");
        }
        let tried = Tried::Refused(error(Denied, &pass));
        assert!(judge_run("c", "ci:3", &cluster(), &tried).what.contains(ROLE));
        let started = Tried::Started(TaskId("arn:task".into()), Ok(()));
        let finding = judge_run("c", "ci:3", &cluster(), &started);
        assert_eq!((finding.name, finding.severity), ("run-task-started", Severity::Failure));
        assert!(finding.what.contains("it was told to stop"));
    }

    #[test]
    fn calls_about_no_task_tell_their_right() {
        for action in ["ecs:ListTasks", "ecs:StopTask", "ecs:DescribeTasks"] {
            let allowed = judge_call("c", action, &cluster(), &Ok(()));
            assert_eq!(allowed.severity, Severity::Ok);
            let denied = judge_call("c", action, &cluster(), &Err(error(Cause::Denied, "no")));
            assert_eq!(denied.name, format!("{}-denied", allowed.name));
            let failed = judge_call("c", action, &cluster(), &Err(error(Cause::Server, "busy")));
            assert_eq!(failed.name, "call-failed");
        }
    }

    #[test]
    fn iam_is_asked_for_what_calls_cannot_tell() {
        let asked = questions(&cluster(), &caller(), &[ROLE.to_owned()]);
        let actions: Vec<&str> = asked.iter().map(|asked| asked.action.as_str()).collect();
        assert_eq!(actions, ["ecs:TagResource", "iam:PassRole"]);
        assert!(
            asked[0]
                .resource
                .ends_with(":task/acme-gitlab-dev-cluster/00000000000000000000000000000000")
        );
        let public = EcsCluster { address: AddressKind::Public, ..cluster() };
        assert_eq!(questions(&public, &caller(), &[])[1].action, "ec2:DescribeNetworkInterfaces");
        let host = EcsCluster { network_mode: NetworkMode::Host, ..cluster() };
        assert_eq!(questions(&host, &caller(), &[]).len(), 3);
    }

    #[test]
    fn iams_word_becomes_findings() {
        let asked = questions(&cluster(), &caller(), &[ROLE.to_owned()]);
        let rule = |is_allowed: [bool; 2]| {
            let ruled = asked.iter().zip(is_allowed).map(|(asked, is_allowed)| Ruled {
                asked: asked.clone(),
                is_allowed,
                decision: if is_allowed { "allowed" } else { "implicitDeny" }.into(),
            });
            let findings = judge_ruled("c", &cluster(), &asked, &Ok(ruled.collect()));
            findings.iter().map(|finding| finding.name).collect::<Vec<_>>()
        };
        assert_eq!(rule([true, true]), ["rights"]);
        assert_eq!(rule([false, true]), ["tag-denied", "rights"]);
        assert_eq!(rule([true, false]), ["pass-role-denied", "rights"]);
        let error = error(Cause::Denied, "no");
        let finding = &judge_ruled("c", &cluster(), &asked, &Err(error))[0];
        assert_eq!((finding.name, finding.severity), ("rights-not-tried", Severity::Note));
        assert!(finding.what.contains(ROLE) && finding.what.contains("ecs:TagResource"));
    }

    #[test]
    fn a_session_is_of_a_role() {
        let of = |arn: &str| principal(&Caller { arn: arn.into(), ..caller() });
        assert_eq!(
            of("arn:aws:sts::123456789012:assumed-role/manager/i-1").as_deref(),
            Some("arn:aws:iam::123456789012:role/manager")
        );
        let user = "arn:aws:iam::123456789012:user/ci/manager";
        assert_eq!(of(user).as_deref(), Some(user));
        assert_eq!(of("arn:aws:iam::123456789012:root"), None);
    }
}

//! What to do about an error of the ECS API: pure, worded for operators.

/// The remedy for an error `code` with `message` (or a `failures[].reason`) of `call`, where one is known.
pub(super) fn on(call: &str, code: &str, message: &str) -> Option<&'static str> {
    let is = |text: &str| code.contains(text) || message.contains(text);
    if is("No Container Instances were found") {
        // The article's own troubleshooting case.
        return Some(
            "the cluster has no default capacity provider and the request names none: set `on_demand_provider`, or associate FARGATE with the cluster",
        );
    }
    if is("AccessDenied") {
        return Some(match call {
            "RunTask" => {
                "the runner manager's IAM role needs ecs:RunTask on this task definition, ecs:TagResource, and iam:PassRole for the task's roles"
            }
            "StopTask" => {
                "the runner manager's IAM role needs ecs:StopTask on the tasks of this cluster"
            }
            _ => {
                "the runner manager's IAM role needs ecs:DescribeTasks and ecs:ListTasks on this cluster"
            }
        });
    }
    if is("ClusterNotFoundException") {
        return Some("compare `cluster` and `region` of [clusters.*] with `aws ecs list-clusters`");
    }
    if is("Unable to describe task definition") {
        return Some(
            "compare the names in [task_definitions.*] with `aws ecs list-task-definition-families --status ACTIVE`",
        );
    }
    if is("is not a container in the TaskDefinition") || is("Override for container named") {
        return Some(
            "set `container` in [task_definitions.*] to the container that runs the SSH server",
        );
    }
    if is("capacity provider") {
        return Some(
            "associate the provider with the cluster: `aws ecs put-cluster-capacity-providers`",
        );
    }
    if is("Capacity is unavailable") {
        return Some(
            "try again later, or let the policy rank another capacity, architecture or size",
        );
    }
    if is("No Fargate configuration exists") || is("Invalid 'cpu' setting") {
        return Some("let the policy or [task_definitions.*] name a pair that Fargate offers");
    }
    if code == "no answer" {
        return Some(
            "look at the credentials (`aws sts get-caller-identity`), at the `region`, and at the route to ecs.<region>.amazonaws.com",
        );
    }
    None
}

#[cfg(test)]
mod tests {
    use super::on;

    #[test]
    fn each_known_error_has_its_remedy() {
        let check = |call, code, message, expected: &str| {
            let advice = on(call, code, message).unwrap_or("none");
            assert!(advice.contains(expected), "{code}: {advice}");
        };
        check("RunTask", "AccessDeniedException", "User is not authorized", "iam:PassRole");
        check("StopTask", "AccessDeniedException", "User is not authorized", "ecs:StopTask");
        check("RunTask", "ClusterNotFoundException", "Cluster not found.", "`region`");
        check(
            "RunTask",
            "InvalidParameterException",
            "No Container Instances were found in your cluster.",
            "on_demand_provider",
        );
        check("RunTask", "ClientException", "Unable to describe task definition.", "list-task-def");
        check(
            "RunTask",
            "Capacity is unavailable at this time. Please try again later",
            "",
            "rank another",
        );
        check("RunTask", "no answer", "dispatch failure", "credentials");
        assert_eq!(on("RunTask", "ServerException", "busy"), None);
    }
}

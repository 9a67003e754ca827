//! What to do about an error of the ECS API: pure, worded for operators.

/// The remedy for an error `code` with `message` (or a `failures[].reason`) of `call`, where one is known.
pub(super) fn on(call: &str, code: &str, message: &str) -> Option<&'static str> {
    let is = |text: &str| code.contains(text) || message.contains(text);
    if let Some(advice) = on_accounts(call, code, message) {
        return Some(advice);
    }
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

/// The remedy for an error of the calls around ECS: credentials, STS, addresses.
fn on_accounts(call: &str, code: &str, message: &str) -> Option<&'static str> {
    let is = |text: &str| code.contains(text) || message.contains(text);
    if call == "credentials" {
        return Some(if message.contains("profile `") {
            "look at that profile in AWS's files (`aws configure list --profile NAME`), and at `profile` of [clusters.*]"
        } else {
            "give the runner manager's instance or task an IAM role, set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for gitlab-runner, or name a `profile` in [clusters.*]"
        });
    }
    let denied = is("AccessDenied") || is("UnauthorizedOperation");
    match call {
        "AssumeRole" if is("sts:TagSession") => Some(
            "the role's trust policy and the runner manager's IAM role need sts:TagSession as well; or leave `session_tags` out",
        ),
        "AssumeRole" if denied => Some(
            "the runner manager's IAM role needs sts:AssumeRole on that role, and the role's trust policy must name it and ask for this `external_id`",
        ),
        "AssumeRole" if is("ExpiredToken") || is("InvalidClientTokenId") => {
            Some("the credentials that the role is taken with are not valid any more")
        }
        "AssumeRole" if is("DurationSeconds") => Some(
            "lower `duration` to the role's maximum session duration; an hour when the manager has a role itself",
        ),
        "AssumeRole" if code == "no answer" => {
            Some("look at the route to sts.<region>.amazonaws.com")
        }
        "DescribeNetworkInterfaces" if denied => Some(
            "`address = \"public\"` needs ec2:DescribeNetworkInterfaces on resource `*`, or use `address = \"private\"`",
        ),
        "DescribeInstances" if denied => Some(
            "tasks in host or bridge mode need ec2:DescribeInstances on resource `*`, or the attribute `pointsman.address` on each container instance",
        ),
        "DescribeContainerInstances" if denied => Some(
            "tasks in host or bridge mode need ecs:DescribeContainerInstances on the cluster's container instances",
        ),
        "DescribeNetworkInterfaces" | "DescribeInstances" if code == "no answer" => {
            Some("look at the route to ec2.<region>.amazonaws.com")
        }
        _ => None,
    }
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
        check("credentials", "not found", "tried the environment: not set", "AWS_ACCESS_KEY_ID");
        check("credentials", "not found", "tried profile `ci`: no such profile", "that profile");
        let tags = "User: x is not authorized to perform: sts:TagSession on resource: y";
        check("AssumeRole", "AccessDenied", tags, "`session_tags`");
        let role = "User: x is not authorized to perform: sts:AssumeRole on resource: y";
        check("AssumeRole", "AccessDenied", role, "`external_id`");
        check("AssumeRole", "ExpiredToken", "", "not valid any more");
        let duration = "The requested DurationSeconds exceeds the MaxSessionDuration";
        check("AssumeRole", "ValidationError", duration, "`duration`");
        let ec2 = "UnauthorizedOperation";
        check("DescribeNetworkInterfaces", ec2, "", "ec2:DescribeNetworkInterfaces");
        check("DescribeInstances", ec2, "", "pointsman.address");
        check("DescribeContainerInstances", "AccessDeniedException", "", "ecs:DescribeContainer");
        assert_eq!(on("RunTask", "ServerException", "busy"), None);
    }
}

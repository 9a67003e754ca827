//! What the caller may not do, and IAM's word on it: pure.

use std::collections::BTreeSet;

use crate::protocol::ApiError;

/// The actions that are refused, such as `ecs:StopTask`; all others are allowed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Permissions {
    denied: BTreeSet<String>,
}

impl Permissions {
    pub(crate) fn new(denied: &[String]) -> Self {
        Self { denied: denied.iter().cloned().collect() }
    }

    pub(crate) fn allow(&self, action: &str) -> bool {
        !self.denied.contains(action)
    }

    /// Refuses what is denied, in the words and by the code of the service.
    pub(crate) fn check(&self, action: &str, resource: &str) -> Result<(), ApiError> {
        if self.allow(action) {
            return Ok(());
        }
        let message = format!(
            "User: arn:aws:sts::123456789012:assumed-role/simulated/simulated is not authorized to perform: {action} on resource: {resource} because no identity-based policy allows the {action} action"
        );
        Err(match action.split(':').next() {
            Some("ec2") => {
                let message = "You are not authorized to perform this operation.";
                ApiError { status: 403, ..ApiError::new("UnauthorizedOperation", message) }
            }
            Some("iam" | "sts") => {
                ApiError { status: 403, ..ApiError::new("AccessDenied", message) }
            }
            _ => ApiError::new("AccessDeniedException", message),
        })
    }

    /// `EvalDecision` of SimulatePrincipalPolicy. Only the roles of the world can be passed.
    pub(crate) fn decision(&self, action: &str, resource: &str, roles: &[String]) -> &'static str {
        let passes = action != "iam:PassRole" || roles.iter().any(|role| role == resource);
        if self.allow(action) && passes { "allowed" } else { "implicitDeny" }
    }
}

#[cfg(test)]
mod tests {
    use super::Permissions;

    #[test]
    fn each_service_refuses_in_its_own_way() {
        let denied = ["ecs:StopTask", "ec2:DescribeSubnets", "iam:SimulatePrincipalPolicy"];
        let permissions = Permissions::new(&denied.map(str::to_owned));
        let code = |action| permissions.check(action, "*").unwrap_err().code;
        assert_eq!(code("ecs:StopTask"), "AccessDeniedException");
        assert_eq!(code("ec2:DescribeSubnets"), "UnauthorizedOperation");
        assert_eq!(code("iam:SimulatePrincipalPolicy"), "AccessDenied");
        assert!(permissions.check("ecs:RunTask", "*").is_ok());
        let roles = ["arn:aws:iam::123456789012:role/deploy".to_owned()];
        assert_eq!(permissions.decision("ecs:StopTask", "*", &roles), "implicitDeny");
        assert_eq!(permissions.decision("iam:PassRole", &roles[0], &roles), "allowed");
        assert_eq!(permissions.decision("iam:PassRole", "arn:x", &roles), "implicitDeny");
    }
}

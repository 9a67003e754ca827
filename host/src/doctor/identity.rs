//! Who we are, and what time it is: pure.

use std::time::Duration;

use super::finding::Finding;
use crate::backend::survey::{Caller, Skew};
use crate::backend::{BackendError, Cause};
use crate::settings::EcsCluster;

/// AWS refuses requests that were signed at another time than its own (IAM user guide, "Signature Version 4": five
/// minutes for most services).
const SIGNATURES_FAIL: Duration = Duration::from_secs(4 * 60);

/// From here on deadlines of tasks and times in job logs mislead.
const MISLEADING: Duration = Duration::from_secs(30);

/// What AWS's answer to "who am I?" says of the credentials for `cluster`.
pub(super) fn judge_caller(
    about: &str,
    cluster: &EcsCluster,
    caller: &Result<Caller, BackendError>,
) -> Finding {
    let caller = match caller {
        Ok(caller) => caller,
        Err(error) => return no_caller(about, error),
    };
    let role = match &cluster.assume_role {
        Some(role) => format!(", by the role {}", role.arn),
        None => String::new(),
    };
    let who = format!("calls are made as {} in account {}{role}", caller.arn, caller.account);
    if caller.arn.ends_with(":root") {
        return Finding::warning("identity-root", about, who)
            .why("the account's root user may do everything: whoever takes over the runner manager has the whole account")
            .change("give the runner manager an IAM role of its own, with what docs/clusters.md lists");
    }
    if cluster.cluster.starts_with("arn:") {
        let account = cluster.cluster.split(':').nth(4).unwrap_or_default();
        if account != caller.account {
            return Finding::failure(
                "identity-account",
                about,
                format!("{who}, but the cluster's ARN is of account {account}"),
            )
            .why("calls reach only the account that the credentials are of, so ECS does not find the cluster")
            .change("set `assume_role` of the cluster to a role of its account, or correct `cluster`");
        }
    }
    Finding::ok("identity", about, who)
}

fn no_caller(about: &str, error: &BackendError) -> Finding {
    let what = format!("AWS does not say who we are: {error}");
    let finding = match (error.call, error.cause) {
        ("credentials", _) => Finding::failure("credentials-missing", about, what),
        ("AssumeRole", _) => Finding::failure("role-not-assumed", about, what),
        (_, Cause::NoAnswer) => Finding::failure("sts-unreachable", about, what),
        _ => Finding::failure("credentials-refused", about, what),
    }
    .why("without valid credentials no task can be started, looked at or stopped; nothing else of this cluster was looked at");
    let finding = match &error.hint {
        Some(hint) => finding.change(hint.clone()),
        None => finding,
    };
    finding.run("aws sts get-caller-identity")
}

/// What another's clock says of this machine's; `whose` is such as `AWS's`.
pub(super) fn judge_clock(about: &str, whose: &str, skew: Skew) -> Finding {
    let (apart, way) = match skew {
        Skew::Behind(apart) => (apart, "behind"),
        Skew::Ahead(apart) => (apart, "ahead of"),
    };
    let seconds = apart.as_secs();
    if apart < MISLEADING {
        return Finding::ok(
            "clock",
            about,
            format!("the clock agrees with {whose} ({seconds} s apart)"),
        );
    }
    let what = format!("this machine's clock is {seconds} s {way} {whose}");
    let finding = if apart >= SIGNATURES_FAIL {
        Finding::failure("clock-skew", about, what)
            .why("AWS refuses requests that were signed more than five minutes before or after its own time")
    } else {
        Finding::warning("clock-skew", about, what).why(
            "tasks get their deadline by this clock and keep it by their own; at five minutes AWS refuses every request",
        )
    };
    finding
        .change("let a time service keep the clock: chrony or systemd-timesyncd; on EC2 with `server 169.254.169.123`")
        .run("timedatectl status")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::ecs::tests_cluster as cluster;
    use crate::doctor::finding::Severity;

    fn caller(arn: &str) -> Result<Caller, BackendError> {
        Ok(Caller { account: "123456789012".into(), arn: arn.into() })
    }

    fn error(call: &'static str, cause: Cause) -> Result<Caller, BackendError> {
        let hint = Some("look".to_owned());
        Err(BackendError { cause, hint, ..BackendError::new(call, "code", "message") })
    }

    #[test]
    fn every_answer_has_its_finding() {
        let role = "arn:aws:sts::123456789012:assumed-role/ci/i-1";
        for (caller, name, severity) in [
            (caller(role), "identity", Severity::Ok),
            (caller("arn:aws:iam::123456789012:root"), "identity-root", Severity::Warning),
            (error("credentials", Cause::Other), "credentials-missing", Severity::Failure),
            (error("AssumeRole", Cause::Denied), "role-not-assumed", Severity::Failure),
            (error("GetCallerIdentity", Cause::NoAnswer), "sts-unreachable", Severity::Failure),
            (error("GetCallerIdentity", Cause::Denied), "credentials-refused", Severity::Failure),
        ] {
            let finding = judge_caller("cluster dev", &cluster(), &caller);
            assert_eq!((finding.name, finding.severity), (name, severity), "{caller:?}");
            assert_eq!(finding.remedy.is_empty(), severity == Severity::Ok);
        }
        let foreign = EcsCluster {
            cluster: "arn:aws:ecs:eu-west-1:999999999999:cluster/dev".into(),
            ..cluster()
        };
        let finding = judge_caller("cluster dev", &foreign, &caller(role));
        assert_eq!(finding.name, "identity-account");
    }

    #[test]
    fn clocks_may_be_apart_by_seconds_and_not_by_minutes() {
        let seconds = Duration::from_secs;
        for (skew, severity, said) in [
            (Skew::Behind(seconds(0)), Severity::Ok, "agrees"),
            (Skew::Ahead(seconds(29)), Severity::Ok, "29 s apart"),
            (Skew::Ahead(seconds(90)), Severity::Warning, "90 s ahead of AWS's"),
            (Skew::Behind(seconds(600)), Severity::Failure, "600 s behind AWS's"),
        ] {
            let finding = judge_clock("this machine", "AWS's", skew);
            assert_eq!(finding.severity, severity, "{skew:?}");
            assert!(finding.what.contains(said), "{}", finding.what);
        }
    }
}

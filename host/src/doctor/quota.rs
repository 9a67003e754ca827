//! How much Fargate lets the account run at the same time: pure.

use super::finding::Finding;
use crate::backend::BackendError;
use crate::placement::Capacity;

/// Service Quotas' code of what counts for `capacity` (AWS general reference, "Fargate service quotas").
pub(super) fn code(capacity: Capacity) -> &'static str {
    match capacity {
        Capacity::OnDemand => "L-3032A538",
        Capacity::Spot => "L-36FBB829",
    }
}

/// What a quota of so many vCPU means for jobs of at most `max_cpu_units`, which have `usual_cpu_units` unless their
/// policy says otherwise.
pub(super) fn judge(
    about: &str,
    region: &str,
    capacity: Capacity,
    max_cpu_units: u32,
    usual_cpu_units: Option<u32>,
    quota: &Result<f64, BackendError>,
) -> Finding {
    let code = code(capacity);
    let largest = f64::from(max_cpu_units) / 1024.0;
    let raise = format!(
        "aws service-quotas request-service-quota-increase --region {region} --service-code fargate --quota-code {code} --desired-value {}",
        (largest * 16.0).max(64.0).ceil()
    );
    let vcpu = match quota {
        Ok(vcpu) => *vcpu,
        Err(error) => {
            return Finding::note("quota-not-seen", about, format!("the quota of Fargate {capacity} is not known: {error}"))
                .why("new accounts may have no more than 6 vCPU for each of on-demand and Spot, some have none: then RunTask answers \"You've reached the limit on the number of vCPUs you can run concurrently\"")
                .run(format!("aws service-quotas get-service-quota --region {region} --service-code fargate --quota-code {code}"));
        }
    };
    let usual = f64::from(usual_cpu_units.unwrap_or(256)) / 1024.0;
    let runs = format!("Fargate {capacity} may run {vcpu} vCPU at the same time");
    if vcpu < usual {
        return Finding::failure("quota-too-small", about, format!("{runs}, and a job has {usual} where its policy says nothing else"))
            .why("RunTask answers \"You've reached the limit on the number of vCPUs you can run concurrently\" and starts nothing")
            .run(raise);
    }
    if vcpu < largest {
        return Finding::warning(
            "quota-small",
            about,
            format!("{runs}, and profiles allow a job {largest}"),
        )
        .why("a job of that size can never start")
        .run(raise)
        .change("or lower `bounds.max_cpu` of the profiles");
    }
    let jobs = (vcpu / usual.max(0.25)).floor();
    let what =
        format!("{runs}: {jobs} jobs of {usual} vCPU, and profiles allow a job up to {largest}");
    if jobs < 4.0 {
        return Finding::warning("quota-small", about, what)
            .why("further jobs find no capacity and fall back to the next placement, or fail")
            .run(raise);
    }
    Finding::ok("quota", about, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Severity;

    #[test]
    fn a_quota_counts_in_jobs() {
        for (vcpu, max, usual, name, severity) in [
            (0.0, 256, None, "quota-too-small", Severity::Failure),
            (0.5, 8192, Some(1024), "quota-too-small", Severity::Failure),
            (6.0, 8192, Some(256), "quota-small", Severity::Warning),
            (6.0, 2048, Some(2048), "quota-small", Severity::Warning),
            (6.0, 4096, Some(1024), "quota", Severity::Ok),
            (4000.0, 4096, None, "quota", Severity::Ok),
        ] {
            let finding = judge("c", "eu-west-1", Capacity::Spot, max, usual, &Ok(vcpu));
            assert_eq!((finding.name, finding.severity), (name, severity), "{vcpu} {max}");
        }
        let error = BackendError::new("GetServiceQuota", "AccessDeniedException", "no");
        let finding = judge("c", "eu-west-1", Capacity::OnDemand, 1024, None, &Err(error));
        assert_eq!((finding.name, finding.severity), ("quota-not-seen", Severity::Note));
    }
}

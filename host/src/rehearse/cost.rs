//! What a task on Fargate costs. Pure.
//!
//! Prices are list prices of Linux tasks in USD, from the AWS Price List as quoted in October 2026
//! (us-east-1) and from audits against the Pricing API (eu-west-1, eu-west-2). Billing is by the second
//! with a minimum of one minute, from the start of the image pull to the end of the task.

use std::time::Duration;

use crate::placement::size::Size;
use crate::placement::{Arch, Capacity};

/// What every estimate rests on, without its times.
macro_rules! prices {
    () => {
        "Costs are estimates in USD: Fargate list prices for Linux as of October 2026, Spot assumed 65 % below \
         (AWS publishes 50 to 70 %), by the second "
    };
}

/// Printed wherever an estimate of a rehearsal is.
pub const BASIS: &str = concat!(
    prices!(),
    "from the end of prepare to the end of cleanup, at least one minute; the image pull before, storage beyond \
     20 GiB, public addresses and traffic come on top."
);

/// Printed wherever an estimate rests on the times of records.
pub const RECORDED_BASIS: &str = concat!(
    prices!(),
    "from the start of the image pull, or where ECS did not tell it from when the task was reached, to when it \
     stopped or was told to, at least one minute for each task; the time a task takes to stop, storage beyond \
     20 GiB, public addresses and traffic come on top."
);

/// What Spot is assumed to cost of the on-demand price.
const SPOT: f64 = 0.35;
const MINIMUM: Duration = Duration::from_secs(60);
const SECONDS_PER_HOUR: f64 = 3600.0;

struct Price {
    region: &'static str,
    arch: Arch,
    vcpu_hour: f64,
    gib_hour: f64,
}

const fn price(region: &'static str, arch: Arch, vcpu_hour: f64, gib_hour: f64) -> Price {
    Price { region, arch, vcpu_hour, gib_hour }
}

const PRICES: [Price; 6] = [
    price("us-east-1", Arch::X86_64, 0.04048, 0.004445),
    price("us-east-1", Arch::Arm64, 0.03238, 0.00356),
    price("eu-west-1", Arch::X86_64, 0.04048, 0.004445),
    price("eu-west-1", Arch::Arm64, 0.03238, 0.00356),
    price("eu-west-2", Arch::X86_64, 0.04656, 0.00511),
    price("eu-west-2", Arch::Arm64, 0.03725, 0.00409),
];

/// USD; `None` when the region's price or the task's size is not known.
pub(super) fn estimate(
    region: &str,
    arch: Arch,
    capacity: Capacity,
    size: Size,
    running: Duration,
) -> Option<f64> {
    if size.is_own() {
        return None;
    }
    let price = PRICES.iter().find(|price| price.region == region && price.arch == arch)?;
    let hourly = price.vcpu_hour * f64::from(size.cpu_units) / 1024.0
        + price.gib_hour * f64::from(size.memory_mib) / 1024.0;
    let share = match capacity {
        Capacity::OnDemand => 1.0,
        Capacity::Spot => SPOT,
    };
    Some(hourly * share * running.max(MINIMUM).as_secs_f64() / SECONDS_PER_HOUR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_follow_the_price_list() {
        let size = Size { cpu_units: 2048, memory_mib: 4096 };
        let check = |region: &str, arch, capacity, seconds, expected: Option<&str>| {
            let cost = estimate(region, arch, capacity, size, Duration::from_secs(seconds));
            assert_eq!(cost.map(|cost| format!("{cost:.6}")).as_deref(), expected);
        };
        // 2 vCPU and 4 GiB for 10 minutes.
        check("us-east-1", Arch::X86_64, Capacity::OnDemand, 600, Some("0.016457"));
        check("eu-west-1", Arch::Arm64, Capacity::OnDemand, 600, Some("0.013167"));
        check("eu-west-1", Arch::X86_64, Capacity::Spot, 600, Some("0.005760"));
        check("eu-west-1", Arch::X86_64, Capacity::OnDemand, 1, Some("0.001646"));
        check("eu-west-1", Arch::X86_64, Capacity::OnDemand, 60, Some("0.001646"));
        check("mars-1", Arch::X86_64, Capacity::OnDemand, 600, None);
    }
}

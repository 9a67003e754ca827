//! What comes after a launch that led to nothing: pure.

use std::time::Duration;

use crate::backend::{Cause, Step, pause};
use crate::placement::Placement;
use crate::state::Launch;

/// Tasks that a placement gets while failures that pass by themselves strike it.
const TASKS_PER_PLACEMENT: u32 = 3;

/// Times that one RunTask is asked for, with one token.
const CALLS: u32 = 6;

/// Tasks that one `prepare` asks for at most, whatever happens.
const TASKS: usize = 12;

/// The next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Turn {
    /// Ask for the same task once more after a pause.
    Repeat(Duration),
    /// Ask for another task with the same placement after a pause.
    Again(Next, Duration),
    /// Ask for a task in the subnets that are left.
    OtherSubnet(Next),
    /// Ask for a task with another placement.
    OtherPlacement(Next),
    /// Nothing is left to try.
    End,
}

/// What [`Launch::new`] takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Next {
    pub(super) placement: usize,
    pub(super) number: u32,
    pub(super) avoid_subnets: Vec<String>,
}

impl Next {
    pub(super) fn launch(self) -> Launch {
        Launch::new(self.placement, self.number, self.avoid_subnets)
    }
}

/// Where a `prepare` stands when a launch has failed.
#[derive(Debug)]
pub(super) struct Standing<'s> {
    /// Ranked.
    pub(super) placements: &'s [Placement],
    /// The subnets of the failed launch's cluster; empty where there is no such thing.
    pub(super) subnets: &'s [String],
    /// The subnet that the failed task was in, if that is known.
    pub(super) subnet: Option<&'s str>,
    /// The failed launch.
    pub(super) launch: &'s Launch,
    /// How many launches there were before it.
    pub(super) earlier: usize,
    /// How often its RunTask has been sent.
    pub(super) calls: u32,
    /// Whether a task came of it.
    pub(super) has_task: bool,
}

/// What comes after `cause`; `jitter`, from 0.5 to 1, keeps jobs apart that failed together.
pub(super) fn after(cause: Cause, standing: &Standing<'_>, jitter: f64) -> Turn {
    match cause.step() {
        Step::Final(_) => Turn::End,
        // The call may have been heard, or was not: the same token finds the task in both cases.
        Step::SameAgain if !standing.has_task && cause != Cause::Infrastructure => {
            if standing.calls < CALLS {
                Turn::Repeat(pause(standing.calls + 1, jitter))
            } else if cause.leaves_open_what_happened() {
                // Another placement could be a second task beside one that nobody knows of.
                Turn::End
            } else {
                standing.other_placement(|_| true)
            }
        }
        Step::SameAgain => {
            standing.same_placement().filter(|next| next.number < TASKS_PER_PLACEMENT).map_or_else(
                || standing.other_placement(|_| true),
                |next| Turn::Again(next.clone(), pause(next.number + 1, jitter)),
            )
        }
        Step::OtherSubnet => standing.other_subnet(),
        Step::NextPlacement if cause == Cause::ArchMissing => {
            // What uses the same image for the same architecture would fail alike.
            let image = |placement: &Placement| (placement.task_definition.clone(), placement.arch);
            let failed = standing.placements.get(standing.launch.placement).map(image);
            standing.other_placement(|placement| Some(image(placement)) != failed)
        }
        Step::NextPlacement => standing.other_placement(|_| true),
    }
}

impl Standing<'_> {
    fn is_worn_out(&self) -> bool {
        self.earlier + 1 >= TASKS
    }

    fn same_placement(&self) -> Option<Next> {
        (!self.is_worn_out()).then(|| Next {
            placement: self.launch.placement,
            number: self.launch.number + 1,
            avoid_subnets: self.launch.avoid_subnets.clone(),
        })
    }

    /// The subnet that has no addresses left; the likeliest one, where ECS does not say where the task was to be.
    pub(super) fn full_subnet(&self) -> Option<String> {
        let launch = self.launch;
        let is_open = |subnet: &&String| {
            !launch.avoid_subnets.contains(subnet) && !launch.full_elsewhere.contains(subnet)
        };
        self.subnet.map(str::to_owned).or_else(|| self.subnets.iter().find(is_open).cloned())
    }

    fn other_subnet(&self) -> Turn {
        let mut full = self.launch.avoid_subnets.clone();
        full.extend(self.full_subnet());
        full.sort();
        full.dedup();
        let is_left = self.subnets.iter().any(|subnet| !full.contains(subnet));
        match self.same_placement() {
            Some(next) if is_left => Turn::OtherSubnet(Next { avoid_subnets: full, ..next }),
            _ => {
                let cluster = self.placements.get(self.launch.placement).map(|it| &it.cluster);
                self.other_placement(|placement| Some(&placement.cluster) != cluster)
            }
        }
    }

    fn other_placement(&self, is_wanted: impl Fn(&Placement) -> bool) -> Turn {
        if self.is_worn_out() {
            return Turn::End;
        }
        let later = self.placements.iter().enumerate().skip(self.launch.placement + 1);
        let mut wanted = later.filter(|(_, placement)| is_wanted(placement));
        match wanted.next() {
            Some((placement, _)) => {
                Turn::OtherPlacement(Next { placement, number: 0, avoid_subnets: Vec::new() })
            }
            None => Turn::End,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::placement::size::Size;
    use crate::placement::{Arch, Capacity};

    fn placement(cluster: &str, arch: Arch, capacity: Capacity) -> Placement {
        Placement {
            cluster: cluster.to_owned(),
            task_definition: "node".to_owned(),
            arch,
            capacity,
            size: Size::DEFAULT,
            ephemeral_storage_gib: None,
            role: None,
            labels: BTreeMap::new(),
            reason: String::new(),
        }
    }

    /// ARM on Spot, ARM on demand, x86, and x86 on another cluster.
    fn placements() -> Vec<Placement> {
        vec![
            placement("a", Arch::Arm64, Capacity::Spot),
            placement("a", Arch::Arm64, Capacity::OnDemand),
            placement("a", Arch::X86_64, Capacity::OnDemand),
            placement("b", Arch::X86_64, Capacity::OnDemand),
        ]
    }

    struct Case {
        launch: Launch,
        subnet: Option<&'static str>,
        earlier: usize,
        calls: u32,
        has_task: bool,
    }

    fn case(placement: usize, number: u32, avoid: &[&str]) -> Case {
        let avoid = avoid.iter().map(|&subnet| subnet.to_owned()).collect();
        let launch = Launch::new(placement, number, avoid);
        Case { launch, subnet: None, earlier: 0, calls: 1, has_task: true }
    }

    fn turn(cause: Cause, case: &Case) -> Turn {
        let standing = Standing {
            placements: &placements(),
            subnets: &["s1".to_owned(), "s2".to_owned(), "s3".to_owned()],
            subnet: case.subnet,
            launch: &case.launch,
            earlier: case.earlier,
            calls: case.calls,
            has_task: case.has_task,
        };
        after(cause, &standing, 1.0)
    }

    fn next(placement: usize, number: u32, avoid: &[&str]) -> Next {
        let avoid_subnets = avoid.iter().map(|&subnet| subnet.to_owned()).collect();
        Next { placement, number, avoid_subnets }
    }

    #[test]
    fn placements_follow_each_other_as_ranked() {
        for cause in [Cause::NoCapacity, Cause::SpotGone, Cause::TooSlow] {
            let expected = Turn::OtherPlacement(next(1, 0, &[]));
            assert_eq!(turn(cause, &case(0, 0, &["s1"])), expected, "{cause:?}");
            assert_eq!(turn(cause, &case(3, 0, &[])), Turn::End, "{cause:?}");
        }
    }

    #[test]
    fn an_image_without_an_architecture_is_not_tried_on_it_again() {
        let expected = Turn::OtherPlacement(next(2, 0, &[]));
        assert_eq!(turn(Cause::ArchMissing, &case(0, 0, &[])), expected);
        assert_eq!(turn(Cause::ArchMissing, &case(2, 0, &[])), Turn::End);
    }

    #[test]
    fn full_subnets_are_left_out_one_after_the_other() {
        let full = Cause::SubnetFull;
        assert_eq!(turn(full, &case(0, 0, &[])), Turn::OtherSubnet(next(0, 1, &["s1"])));
        let told = Case { subnet: Some("s2"), ..case(0, 0, &[]) };
        assert_eq!(turn(full, &told), Turn::OtherSubnet(next(0, 1, &["s2"])));
        assert_eq!(turn(full, &case(0, 1, &["s2"])), Turn::OtherSubnet(next(0, 2, &["s1", "s2"])));
        // None is left: only another cluster has other subnets.
        let last = case(0, 2, &["s1", "s2"]);
        assert_eq!(turn(full, &last), Turn::OtherPlacement(next(3, 0, &[])));
    }

    #[test]
    fn what_passes_by_itself_is_tried_three_times_and_then_elsewhere() {
        let network = |number| turn(Cause::Network, &case(0, number, &[]));
        assert_eq!(network(0), Turn::Again(next(0, 1, &[]), Duration::from_millis(500)));
        assert_eq!(network(1), Turn::Again(next(0, 2, &[]), Duration::from_millis(1000)));
        assert_eq!(network(2), Turn::OtherPlacement(next(1, 0, &[])));
        let worn = Case { earlier: 11, ..case(0, 0, &[]) };
        assert_eq!(turn(Cause::Network, &worn), Turn::End);
    }

    #[test]
    fn a_call_is_repeated_with_its_token_as_long_as_no_task_is_known() {
        for (cause, calls, expected) in [
            (Cause::Throttled, 1, Turn::Repeat(Duration::from_millis(500))),
            (Cause::Server, 5, Turn::Repeat(Duration::from_secs(8))),
            (Cause::Throttled, 6, Turn::OtherPlacement(next(1, 0, &[]))),
            (Cause::Server, 6, Turn::End),
            (Cause::NoAnswer, 6, Turn::End),
        ] {
            let standing = Case { calls, has_task: false, ..case(0, 0, &[]) };
            assert_eq!(turn(cause, &standing), expected, "{cause:?} {calls}");
        }
    }

    #[test]
    fn what_is_final_ends_it() {
        for cause in [Cause::Denied, Cause::NotFound, Cause::ImageNotFound, Cause::Configuration] {
            assert_eq!(turn(cause, &case(0, 0, &[])), Turn::End, "{cause:?}");
        }
    }
}

//! Policies that mean harm, through the real `config`: the job ends within the deadline with one line that names
//! the policy, in the exit code that says whose fault it is, and the next job is decided as if nothing had been.

use std::time::{Duration, Instant};

use crate::support::{House, Job};
use crate::villains::{self, Ends, Villain, villains};

/// What a stage takes beside the call itself, on a busy machine.
const ROOM: Duration = Duration::from_secs(20);

/// The names that villains know.
const WORLD: &str = r#"
[clusters.dev]
backend = "ecs"
region = "eu-west-1"
cluster = "test-cluster"
subnets = ["subnet-12345"]
security_groups = ["sg-12345"]

[clusters.prod]
backend = "ecs"
region = "eu-west-1"
cluster = "test-cluster"
subnets = ["subnet-12345"]
security_groups = ["sg-12345"]

[task_definitions.node]
x86_64 = "agent-task"
arm64 = "agent-task-arm64"
ssh = { server = "agent" }

[roles.admin]
arn = "arn:aws:iam::123456789012:role/admin"

[profiles.hostile]
tags = ["hostile"]
policies = ["bad"]
[profiles.hostile.bounds]
clusters = ["dev"]
task_definitions = ["node"]
roles = ["deploy"]
capacities = ["on-demand", "spot"]
max_cpu = "4"
max_memory = "16GiB"
"#;

fn plays(villain: &Villain) {
    let house = House::new();
    house.edit_settings(|text| text + WORLD);
    let mut budget = format!("deadline = \"{}ms\"", villain.deadline.as_millis());
    if let Some(fuel) = villain.fuel {
        budget.push_str(&format!("\nfuel = {fuel}"));
    }
    if let Some(mib) = villain.memory_mib {
        budget.push_str(&format!("\nmemory = \"{mib}MiB\""));
    }
    house.add_policy("bad", &villain.component, &budget);
    // The first job compiles what can be compiled; the clock is held against the second.
    let mut attempt = house.attempt("hostile", &Job::default());
    let _ = attempt.config();
    let _ = attempt.cleanup();
    let mut attempt = house.attempt("hostile", &Job::default());
    let started = Instant::now();
    let output = attempt.config();
    let elapsed = started.elapsed();
    assert!(elapsed < villain.deadline + ROOM, "{elapsed:?}");
    let text = output.stderr_text();
    let most = if matches!(villain.ends, Ends::Complains) { 16_000 } else { 4000 };
    assert!(text.len() < most, "{} bytes: {text:.4000}", text.len());
    assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
    assert!(!text.contains("panicked at"), "{text}");
    match villain.ends {
        Ends::Broken(words) => {
            let _ = output.fails_the_system().says(&format!("Error: policy `bad` {words}"));
        }
        Ends::Refused(words) => {
            let _ = output.fails_the_build().says(&format!("caused by: policy bad: {words}"));
        }
        Ends::Placed => {
            let _ = output.succeeds().says("Placed on cluster dev, task definition node");
        }
        Ends::Complains => {
            let output = output.fails_the_system();
            let _ = output.says("the settings of policy `bad` are wrong").says("and 980 more");
        }
        Ends::InTime => {
            let output = output.fails_the_system();
            let says = output.stderr_text();
            assert!(
                says.contains("Error: policy `bad` did not answer within")
                    || says.contains("Error: no policy of profile `hostile` answered: asked bad"),
                "{output}"
            );
        }
    }
    let errors = usize::from(!matches!(villain.ends, Ends::Placed));
    assert_eq!(text.matches("Error: ").count(), errors, "{text}");
    let _ = attempt.cleanup().succeeds();
    let mut good = house.attempt("agent", &Job::default());
    let _ = good.config().succeeds().says("Placed on cluster test");
    let _ = good.cleanup().succeeds();
    house.settled(0);
}

macro_rules! tests {
    ($($name:ident,)*) => {
        $(
            #[test]
            fn $name() {
                plays(&villains::$name());
            }
        )*
    };
}
villains!(tests);

//! AWS's token buckets.

use std::time::Instant;

use serde_json::{Value, json};

use crate::support::{Simulator, run_task, spot, world};

/// A world with buckets in which no task gets as far as a process.
fn throttled() -> Value {
    let mut world = world();
    world["throttling"] = json!(true);
    world["delays_ms"] = json!({"provisioning": 600_000});
    world
}

/// Calls `n` times: how many calls were let through, and how many seconds they took.
fn let_through(simulator: &Simulator, operation: &str, request: &Value, n: usize) -> (usize, f64) {
    let start = Instant::now();
    let mut passed = 0;
    for _ in 0..n {
        match simulator.call(operation, request) {
            (200, _) => passed += 1,
            refused => {
                let body = json!({"__type": "ThrottlingException", "message": "Rate exceeded"});
                assert_eq!(refused, (400, body));
            }
        }
    }
    (passed, start.elapsed().as_secs_f64())
}

/// Whether it was `burst`, and what came in by `refill` in the meantime.
fn is_bucket((passed, seconds): (usize, f64), burst: f64, refill: f64) -> bool {
    let passed = passed as f64;
    passed >= burst && passed <= burst + refill * seconds + 1.0
}

#[test]
fn reading_has_one_bucket() {
    let simulator = Simulator::start(&throttled());
    let request = json!({"cluster": "dev", "tasks": ["0123456789abcdef0123456789abcdef"]});
    let passed = let_through(&simulator, "DescribeTasks", &request, 300);
    assert!(is_bucket(passed, 100.0, 20.0), "{passed:?}");
    let calls = simulator.calls();
    assert_eq!(calls["DescribeTasks"], json!({"calls": 300, "throttled": 300 - passed.0}));
    let (listed, _) = let_through(&simulator, "ListTasks", &json!({"cluster": "dev"}), 100);
    assert!(listed < 100, "ListTasks has no bucket of its own");
    let refused =
        simulator.ledger().refused().filter(|(.., text)| *text == "Rate exceeded").count();
    assert_eq!(refused, 400 - passed.0 - listed);
}

#[test]
fn fargate_limits_run_task_by_itself() {
    let simulator = Simulator::start(&throttled());
    let passed = let_through(&simulator, "RunTask", &run_task("ci"), 150);
    assert!(is_bucket(passed, 20.0, 20.0), "{passed:?}");
    assert_eq!(simulator.ledger().started().count(), passed.0);
}

#[test]
fn fargate_limits_launched_tasks_and_spot_apart() {
    let simulator = Simulator::start(&throttled());
    let ten = |mut request: Value| {
        request["count"] = json!(10);
        let (passed, seconds) = let_through(&simulator, "RunTask", &request, 17);
        (passed * 10, seconds)
    };
    // A call that is refused for its tasks has still cost a call, so 17 of each stay below Fargate's 20 only when
    // they do not come at once.
    let on_demand = ten(run_task("ci"));
    assert!(is_bucket(on_demand, 100.0, 20.0), "{on_demand:?}");
    std::thread::sleep(std::time::Duration::from_secs(1));
    let on_spot = ten(spot("ci"));
    assert!(is_bucket(on_spot, 100.0, 20.0), "{on_spot:?}");
}

#[test]
fn a_repeated_token_launches_nothing_and_costs_no_launch() {
    let simulator = Simulator::start(&throttled());
    let mut request = run_task("ci");
    request["count"] = json!(10);
    request["clientToken"] = json!("token");
    let (passed, _) = let_through(&simulator, "RunTask", &request, 18);
    assert_eq!(passed, 18);
}

#[test]
fn buckets_grow_with_the_speed_of_time() {
    let mut world = throttled();
    world["time_scale"] = json!(10);
    let simulator = Simulator::start(&world);
    let (passed, _) = let_through(&simulator, "RunTask", &run_task("ci"), 150);
    assert_eq!(passed, 150);
    let definition = simulator.ok("DescribeTaskDefinition", &json!({"taskDefinition": "ci"}));
    assert_eq!(definition["taskDefinition"]["family"], "ci");
}

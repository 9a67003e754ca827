//! Clusters in other accounts and on other kinds of capacity: whose calls are made, and how tasks are reached.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::attempt::{Attempt, Job, collect};
use crate::support::house::House;
use crate::support::ledger::Ledger;

const ROLE: &str = "arn:aws:iam::123456789012:role/ci";
const CLUSTER: &str = "cluster = \"test-cluster\"\n";

/// A house whose ECS cluster has `keys` as well.
fn house(keys: &str, change_world: impl FnOnce(&mut Value)) -> House {
    let change = |settings: &mut String| {
        assert!(settings.contains(CLUSTER));
        *settings = settings.replacen(CLUSTER, &format!("{CLUSTER}{keys}\n"), 1);
    };
    House::with(change, change_world)
}

/// A house whose cluster is in another account, which gives sessions of `seconds`.
fn in_another_account(role: &str, seconds: Option<i64>) -> House {
    house(&format!("assume_role = {{ arn = \"{ROLE}\", {role} }}"), |world| {
        let trusted = json!({ "arn": ROLE, "external_id": "acme", "seconds": seconds });
        world["assumable_roles"] = json!([trusted]);
    })
}

fn sessions(ledger: &Ledger) -> Vec<Value> {
    ledger.events("assume-role").cloned().collect()
}

/// Plays a job to its end.
fn play<'h>(house: &'h House, profile: &str) -> Attempt<'h> {
    let mut attempt = house.prepared(profile);
    assert_eq!(attempt.run(b"echo played\n").succeeds().stdout_text(), "played\n");
    let _ = attempt.cleanup().succeeds();
    attempt
}

#[test]
fn one_session_serves_all_stages_of_a_job() {
    let house = in_another_account(
        "external_id = \"acme\", session_name = \"ci-{project}\", session_tags = [\"project\", \"job\", \"pipeline\"]",
        None,
    );
    let attempt = play(&house, "agent");
    let ledger = house.settled(1);
    let sessions = sessions(&ledger);
    assert_eq!(sessions.len(), 1, "{sessions:?}");
    let job = attempt.job_env["POINTSMAN_ATTEMPT"].split('-').next().unwrap();
    assert_eq!(sessions[0]["role"], ROLE);
    assert_eq!(sessions[0]["session_name"], "ci-7");
    assert_eq!(sessions[0]["external_id"], "acme");
    assert_eq!(
        sessions[0]["tags"],
        json!({ "pointsman:job": job, "pointsman:pipeline": "55", "pointsman:project": "7" })
    );
    let kept: Vec<_> = fs::read_dir(house.state().join("sessions"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    assert_eq!(kept.len(), 1);
    assert_eq!(fs::metadata(&kept[0]).unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&kept[0]).unwrap();
    assert!(text.contains(sessions[0]["access_key"].as_str().unwrap()));
    assert!(!text.contains("secret-of-the-runner-manager"), "static credentials are kept");
}

#[test]
fn jobs_share_a_session_that_does_not_name_them() {
    let house = in_another_account("external_id = \"acme\"", None);
    play(&house, "agent");
    play(&house, "openssh");
    let sessions = sessions(&house.settled(2));
    assert_eq!(sessions.len(), 1, "{sessions:?}");
    assert_eq!(
        (&sessions[0]["session_name"], &sessions[0]["tags"]),
        (&json!("pointsman"), &json!({}))
    );
}

#[test]
fn a_session_that_ends_soon_is_not_used_again() {
    let house = in_another_account("external_id = \"acme\"", Some(120));
    play(&house, "agent");
    assert_eq!(sessions(&house.settled(1)).len(), 2);
}

#[test]
fn a_role_that_does_not_trust_the_manager_is_a_system_failure_with_a_remedy() {
    let house = in_another_account("external_id = \"other\"", None);
    let mut attempt = house.attempt("agent", &Job::default());
    let _ = attempt.config().succeeds();
    let _ = attempt
        .prepare()
        .fails_the_system()
        .says("AssumeRole: AccessDenied: ")
        .says("sts:AssumeRole on resource")
        .says("ask for this `external_id`");
    assert_eq!(sessions(&house.ledger()).len(), 0);
}

#[test]
fn a_profile_of_awss_files_is_asked_once_for_what_it_gives_to_several_stages() {
    let mut house = house("profile = \"ci\"", |_| ());
    let expires = "2099-01-01T00:00:00Z";
    let given = json!({ "Version": 1, "AccessKeyId": "ASIAPROFILE", "SecretAccessKey": "x",
        "SessionToken": "y", "Expiration": expires });
    let directory = house.path().to_owned();
    fs::write(directory.join("given.json"), given.to_string()).unwrap();
    let program = directory.join("credentials");
    let script =
        format!("#!/bin/sh\necho asked >> {0}/asked\ncat {0}/given.json\n", directory.display());
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
    let config = format!("[profile ci]\ncredential_process = {}\n", program.display());
    fs::write(directory.join("aws-config"), config).unwrap();
    let path = directory.join("aws-config").display().to_string();
    house.environment.push(("AWS_CONFIG_FILE", path));
    play(&house, "agent");
    house.settled(1);
    assert_eq!(fs::read_to_string(directory.join("asked")).unwrap(), "asked\n");
}

#[test]
fn a_profile_that_is_not_there_is_named() {
    let house = house("profile = \"ci\"", |_| ());
    let mut attempt = house.attempt("agent", &Job::default());
    let _ = attempt.config().succeeds();
    let _ = attempt
        .prepare()
        .fails_the_system()
        .says("credentials: not found: tried profile `ci`: ")
        .says("aws configure list --profile NAME");
}

#[test]
fn without_credentials_prepare_says_at_once_what_was_tried() {
    let house = House::new();
    let mut attempt = house.attempt("agent", &Job::default());
    let _ = attempt.config().succeeds();
    // Takes connections and never answers, as IMDS does when the hop limit is too low.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let mut command = attempt.command(&["prepare"]);
    for (key, _) in house.cloud_environment() {
        command.env_remove(key);
    }
    command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", endpoint);
    let began = Instant::now();
    let output = collect(command.spawn().unwrap());
    let took = began.elapsed();
    let _ = output
        .fails_the_system()
        .says("credentials: not found: tried the environment (AWS_ACCESS_KEY_ID): ")
        .says("the default profile (AWS_PROFILE): ")
        .says("a web identity (AWS_WEB_IDENTITY_TOKEN_FILE): ")
        .says("the container's role (AWS_CONTAINER_CREDENTIALS_RELATIVE_URI): ")
        .says("the instance's role (IMDS): timed out")
        .says("hint: give the runner manager's instance or task an IAM role");
    // 1.5 s of waiting, and the start of a debug build on a busy machine.
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[test]
fn scripts_need_no_credentials() {
    let house = House::new();
    let attempt = house.prepared("agent");
    let script = attempt.directory.path().join("a-script");
    fs::write(&script, "echo no cloud needed\n").unwrap();
    let mut command = attempt.command(&["run", script.to_str().unwrap(), "build_script"]);
    for (key, _) in house.cloud_environment() {
        command.env_remove(key);
    }
    let output = collect(command.spawn().unwrap()).succeeds();
    assert_eq!(output.stdout_text(), "no cloud needed\n");
    let _ = attempt.cleanup().succeeds();
    house.settled(1);
}

#[test]
fn the_public_address_is_asked_for_once() {
    let house = house("assign_public_ip = true\naddress = \"public\"", |_| ());
    play(&house, "agent");
    let ledger = house.settled(1);
    let asked: Vec<_> = ledger.events("describe-addresses").collect();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(asked[0]["operation"], "DescribeNetworkInterfaces");
}

#[test]
fn a_public_address_that_may_not_be_asked_for_names_the_permission() {
    let house = house("assign_public_ip = true\naddress = \"public\"", |world| {
        world["faults"] = json!([{ "match": {}, "fault": { "kind": "api-error",
            "operation": "DescribeNetworkInterfaces", "status": 403, "code": "UnauthorizedOperation",
            "message": "You are not authorized to perform this operation." } }]);
    });
    let mut attempt = house.attempt("agent", &Job::default());
    let _ = attempt.config().succeeds();
    let _ = attempt
        .prepare()
        .fails_the_system()
        .says("DescribeNetworkInterfaces: UnauthorizedOperation")
        .says("ec2:DescribeNetworkInterfaces on resource `*`");
    let _ = attempt.cleanup().succeeds();
    house.settled(1);
}

/// Removes the network, which tasks on instances have none of their own of, and says what is there instead.
fn on_instances(keys: &str, mode: &str, change_world: impl FnOnce(&mut Value)) -> House {
    let change = |settings: &mut String| {
        *settings = settings
            .replacen("subnets = [\"subnet-12345\"]\nsecurity_groups = [\"sg-12345\"]\n", keys, 1)
            // Spot is another provider's.
            .replacen("capacity = \"spot\"", "capacity = \"on-demand\"", 1);
    };
    House::with(change, |world| {
        for definition in world["task_definitions"].as_array_mut().unwrap() {
            definition["networkMode"] = json!(mode);
            definition["requiresCompatibilities"] = json!(["EC2", "EXTERNAL"]);
        }
        change_world(world);
    })
}

#[test]
fn a_task_on_ec2_is_reached_at_its_instance_and_mapped_port() {
    let keys = "launch = \"ec2\"\nnetwork_mode = \"bridge\"\n";
    let house = on_instances(keys, "bridge", |world| {
        world["clusters"][0]["launch_types"] = json!(["EC2"]);
    });
    let mut attempt = house.attempt("agent", &Job::default());
    let _ = attempt.config().succeeds();
    // Docker's port for 2222.
    let _ = attempt.prepare().succeeds().says(":34990 after ");
    let output = attempt.run(b"echo on an instance\n").succeeds();
    assert_eq!(output.stdout_text(), "on an instance\n");
    let _ = attempt.cleanup().succeeds();
    let ledger = house.settled(1);
    assert_eq!(ledger.started()[0]["launch_type"], "EC2");
    assert_eq!(ledger.started()[0]["subnets"], json!([]));
    let asked: Vec<_> = ledger.events("describe-addresses").collect();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(asked[0]["operation"], "DescribeInstances");
}

#[test]
fn an_external_instance_says_its_address_itself() {
    let house = on_instances("launch = \"external\"\n", "bridge", |world| {
        world["clusters"][0]["launch_types"] = json!(["EXTERNAL"]);
    });
    play(&house, "agent");
    let ledger = house.settled(1);
    assert_eq!(ledger.started()[0]["launch_type"], "EXTERNAL");
    assert_eq!(ledger.events("describe-addresses").count(), 0);
}

#[test]
fn managed_instances_are_reached_through_the_clusters_provider() {
    let keys = "launch = \"managed-instances\"\nnetwork_mode = \"host\"\non_demand_provider = \"managed\"\n";
    let house = on_instances(keys, "host", |world| {
        world["clusters"][0]["capacity_providers"] = json!(["managed"]);
    });
    play(&house, "agent");
    let ledger = house.settled(1);
    assert_eq!(ledger.started()[0]["capacity_provider"], "managed");
}

#[test]
fn sizes_on_instances_are_taken_as_they_are() {
    let keys = "launch = \"ec2\"\nnetwork_mode = \"host\"\n";
    let change = |settings: &mut String| {
        *settings = settings
            .replacen("subnets = [\"subnet-12345\"]\nsecurity_groups = [\"sg-12345\"]\n", keys, 1)
            .replacen(
                "capacity = \"spot\"\ncpu = \"0.5\"\nmemory = \"1GiB\"",
                "capacity = \"on-demand\"\ncpu = \"0.3\"\nmemory = \"700MiB\"",
                1,
            );
    };
    let house = House::with(change, |world| {
        world["clusters"][0]["launch_types"] = json!(["EC2"]);
        for definition in world["task_definitions"].as_array_mut().unwrap() {
            definition["networkMode"] = json!("host");
            definition["requiresCompatibilities"] = json!(["EC2"]);
        }
    });
    play(&house, "agent");
    let ledger = house.settled(1);
    let task = &ledger.started()[0];
    assert_eq!((&task["cpu"], &task["memory"]), (&json!("308"), &json!("700")));
}

#[test]
fn spot_on_a_cluster_without_it_is_refused_by_config() {
    let keys = "launch = \"ec2\"\n";
    let house = house(keys, |_| ());
    let mut attempt = house.attempt("agent", &Job::default());
    let output = attempt.config();
    let _ = output.says("capacity `spot` is not available: cluster `test` has no `spot_provider`");
}

#[test]
fn the_operators_extras_reach_the_task() {
    let keys = "execution_role = \"arn:aws:iam::123456789012:role/exec\"\nenable_execute_command = true\npropagate_tags = true\nplatform_version = \"1.4.0\"";
    let house = house(keys, |world| {
        world["roles"].as_array_mut().unwrap().push(json!("arn:aws:iam::123456789012:role/exec"));
        for definition in world["task_definitions"].as_array_mut().unwrap() {
            definition["tags"] = json!([{ "key": "cost-centre", "value": "ci" }]);
        }
    });
    play(&house, "agent");
    let ledger = house.settled(1);
    assert_eq!(ledger.started()[0]["tags"]["cost-centre"], "ci");
}

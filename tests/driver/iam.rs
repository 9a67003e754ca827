//! `pointsman iam-policy`: what it allows is what the driver does, no less and no more.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::attempt::Attempt;
use crate::support::house::{DRIVER, House};
use crate::support::output::StageOutput;

const ACCOUNT: &str = "123456789012";
const NETWORK: &str = "subnets = [\"subnet-12345\"]\nsecurity_groups = [\"sg-12345\"]\n";

/// One request as IAM sees it.
struct Request {
    action: String,
    resource: String,
    context: Vec<(&'static str, String)>,
}

/// Whether `policy` allows `request`: every operator, key and wildcard that the driver's policies use, and a panic for
/// any other.
fn allows(policy: &Value, request: &Request) -> bool {
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    policy["Statement"].as_array().unwrap().iter().any(|statement| {
        assert_eq!(statement["Effect"], "Allow");
        let conditions = statement["Condition"].as_object().into_iter().flatten();
        let mut keys = conditions.flat_map(|(operator, keys)| {
            assert!(["ArnEquals", "StringEquals"].contains(&operator.as_str()), "{operator}");
            keys.as_object().unwrap()
        });
        texts(&statement["Action"]).contains(&request.action)
            && texts(&statement["Resource"]).iter().any(|text| like(text, &request.resource))
            && keys.all(|(key, values)| {
                request
                    .context
                    .iter()
                    .any(|(own, value)| own == key && texts(values).contains(value))
            })
    })
}

/// IAM's `*`.
fn like(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => text.strip_prefix(head).is_some_and(|rest| {
            (0..=rest.len()).any(|at| rest.is_char_boundary(at) && like(tail, &rest[at..]))
        }),
    }
}

fn printed(settings: &Path, arguments: &[&str]) -> StageOutput {
    let output = Command::new(DRIVER)
        .arg("--config")
        .arg(settings)
        .arg("iam-policy")
        .args(arguments)
        .env_clear()
        .output()
        .unwrap();
    StageOutput { stdout: output.stdout, stderr: output.stderr, status: output.status }
}

fn policy_of(house: &House, arguments: &[&str]) -> Value {
    let output = printed(&house.settings_file(), arguments).succeeds();
    serde_json::from_slice(&output.stdout).unwrap()
}

fn actions(policy: &Value) -> BTreeSet<String> {
    let statements = policy["Statement"].as_array().unwrap();
    let actions = statements.iter().flat_map(|statement| statement["Action"].as_array().unwrap());
    actions.map(|action| action.as_str().unwrap().to_owned()).collect()
}

/// Everything that the driver calls: a job, the list of tasks, a sweep.
fn play<'h>(house: &'h House, profile: &str) -> Attempt<'h> {
    let mut attempt = house.prepared(profile);
    let _ = attempt.run(b"true\n").succeeds();
    let _ = house.operator(&["tasks"]).succeeds();
    let _ = house.operator(&["sweep"]).succeeds();
    let _ = attempt.cleanup().succeeds();
    attempt
}

/// What the simulator was asked for by the driver's calls, as IAM would be: the calls by name, and with them what AWS
/// asks for beside.
fn requests(house: &House) -> Vec<Request> {
    let ledger = house.settled(1);
    let cluster = format!("arn:aws:ecs:eu-west-1:{ACCOUNT}:cluster/test-cluster");
    let task = ledger.started()[0];
    let arn = task["task"].as_str().unwrap().to_owned();
    let region = ("aws:RequestedRegion", "eu-west-1".to_owned());
    let in_cluster = ("ecs:cluster", cluster);
    let mut requests = Vec::new();
    let mut add = |action: &str, resource: &str, context: &[(&'static str, String)]| {
        let (action, resource) = (action.to_owned(), resource.to_owned());
        requests.push(Request { action, resource, context: context.to_vec() });
    };
    let calls = house.calls();
    for (operation, _) in calls.as_object().unwrap() {
        let action = format!("ecs:{operation}");
        match operation.as_str() {
            "RunTask" => {
                let definition = task["task_definition"].as_str().unwrap();
                let definition = if definition.starts_with("arn:") {
                    definition.to_owned()
                } else {
                    format!("arn:aws:ecs:eu-west-1:{ACCOUNT}:task-definition/{definition}")
                };
                add(&action, &definition, std::slice::from_ref(&in_cluster));
                assert!(!task["tags"].as_object().unwrap().is_empty());
                add("ecs:TagResource", &arn, &[("ecs:CreateAction", "RunTask".to_owned())]);
                if let Some(role) = task["task_role"].as_str() {
                    let service = ("iam:PassedToService", "ecs-tasks.amazonaws.com".to_owned());
                    add("iam:PassRole", role, &[service]);
                }
            }
            "DescribeTasks" | "StopTask" => add(&action, &arn, std::slice::from_ref(&in_cluster)),
            "ListTasks" => add(
                &action,
                &format!("arn:aws:ecs:eu-west-1:{ACCOUNT}:container-instance/test-cluster/x"),
                std::slice::from_ref(&in_cluster),
            ),
            "DescribeContainerInstances" => add(
                &action,
                &format!("arn:aws:ecs:eu-west-1:{ACCOUNT}:container-instance/test-cluster/x"),
                std::slice::from_ref(&in_cluster),
            ),
            "AssumeRole" | "DescribeNetworkInterfaces" | "DescribeInstances" => {}
            other => panic!("the driver called {other}, which no test knows the permission for"),
        }
    }
    for asked in ledger.events("describe-addresses") {
        add(
            &format!("ec2:{}", asked["operation"].as_str().unwrap()),
            "*",
            std::slice::from_ref(&region),
        );
    }
    for session in ledger.events("assume-role") {
        let role = session["role"].as_str().unwrap();
        add("sts:AssumeRole", role, &[]);
        if !session["tags"].as_object().unwrap().is_empty() {
            add("sts:TagSession", role, &[]);
        }
    }
    requests
}

/// Asserts that `policy` allows all that was done and has no action that was not.
fn fits(policy: &Value, requests: &[Request]) {
    for request in requests {
        let (action, resource) = (&request.action, &request.resource);
        assert!(allows(policy, request), "{action} on {resource} is missing in {policy:#}");
    }
    let done: BTreeSet<String> = requests.iter().map(|request| request.action.clone()).collect();
    assert_eq!(actions(policy), done);
}

fn house(keys: &str, change_world: impl FnOnce(&mut Value)) -> House {
    let change = |settings: &mut String| *settings = settings.replace(NETWORK, keys);
    House::with(change, change_world)
}

#[test]
fn on_fargate_the_policy_allows_what_the_driver_does_and_nothing_else() {
    let house = House::new();
    play(&house, "agent");
    let policy = policy_of(&house, &["--profile", "agent"]);
    let requests = requests(&house);
    fits(&policy, &requests);
    // Elsewhere, or otherwise, the same is not allowed.
    for request in &requests {
        let elsewhere = Request {
            action: request.action.clone(),
            resource: request
                .resource
                .replace("test-cluster", "other")
                .replace("role/deploy", "role/admin")
                .replace("/agent-task", "/other-task"),
            context: request.context.iter().map(|(key, _)| (*key, "other".to_owned())).collect(),
        };
        assert!(!allows(&policy, &elsewhere), "{} on {}", elsewhere.action, elsewhere.resource);
    }
}

#[test]
fn a_public_address_needs_ec2s_word() {
    let keys = format!("{NETWORK}assign_public_ip = true\naddress = \"public\"\n");
    let house = house(&keys, |_| ());
    play(&house, "agent");
    let policy = policy_of(&house, &["--profile", "agent"]);
    assert!(actions(&policy).contains("ec2:DescribeNetworkInterfaces"));
    fits(&policy, &requests(&house));
}

#[test]
fn on_instances_their_addresses_may_be_asked_for() {
    for (launch, has_ec2) in [("ec2", true), ("external", false)] {
        let change = |settings: &mut String| {
            *settings = settings
                .replacen(
                    NETWORK,
                    &format!("launch = \"{launch}\"\nnetwork_mode = \"bridge\"\n"),
                    1,
                )
                .replacen("capacity = \"spot\"", "capacity = \"on-demand\"", 1);
        };
        let house = House::with(change, |world| {
            world["clusters"][0]["launch_types"] = json!(["EC2", "EXTERNAL"]);
            for definition in world["task_definitions"].as_array_mut().unwrap() {
                definition["networkMode"] = json!("bridge");
                definition["requiresCompatibilities"] = json!(["EC2", "EXTERNAL"]);
            }
        });
        play(&house, "agent");
        let policy = policy_of(&house, &["--profile", "agent"]);
        assert_eq!(actions(&policy).contains("ec2:DescribeInstances"), has_ec2, "{launch}");
        fits(&policy, &requests(&house));
    }
}

#[test]
fn a_cluster_in_another_account_needs_two_policies() {
    let role = format!("arn:aws:iam::{ACCOUNT}:role/ci");
    let keys = format!(
        "{NETWORK}assume_role = {{ arn = \"{role}\", external_id = \"acme\", session_tags = [\"project\"] }}\n"
    );
    // Both clusters of the file, which a sweep looks into.
    let change = |settings: &mut String| {
        *settings = settings.replace(NETWORK, &keys).replace(
            "[\"subnet-12345\", \"subnet-67890\"]\nsecurity_groups = [\"sg-12345\"]\n",
            &format!(
                "[\"subnet-12345\"]\nassume_role = {{ arn = \"{role}\", external_id = \"acme\" }}\n"
            ),
        );
    };
    let house = House::with(change, |world| {
        world["assumable_roles"] = json!([{ "arn": role, "external_id": "acme" }]);
    });
    play(&house, "agent");
    let (sts, rest): (Vec<_>, Vec<_>) =
        requests(&house).into_iter().partition(|request| request.action.starts_with("sts:"));
    let output = printed(&house.settings_file(), &[]).succeeds();
    let own: Value = serde_json::from_slice(&output.stdout).unwrap();
    let _ =
        output.says(&format!("`pointsman iam-policy --role {role}` prints what that role needs"));
    fits(&own, &sts);
    fits(&policy_of(&house, &["--profile", "agent", "--role", &role]), &rest);
    let _ = printed(&house.settings_file(), &["--role", &role.replace("/ci", "/cd")])
        .says("did you mean `arn:aws:iam::123456789012:role/ci`?");
}

#[test]
fn the_example_of_three_environments_keeps_them_apart() {
    let example =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/three-environments/pointsman.toml");
    let all: Value = serde_json::from_slice(&printed(&example, &[]).succeeds().stdout).unwrap();
    let run = |environment: &str, family: &str| Request {
        action: "ecs:RunTask".to_owned(),
        resource: format!(
            "arn:aws:ecs:eu-west-1:{ACCOUNT}:task-definition/gitlab-runner-{family}-task:3"
        ),
        context: vec![(
            "ecs:cluster",
            format!("arn:aws:ecs:eu-west-1:{ACCOUNT}:cluster/acme-gitlab-{environment}-cluster"),
        )],
    };
    assert!(allows(&all, &run("dev", "dev")) && allows(&all, &run("production", "prod")));
    assert!(!allows(&all, &run("dev", "prod")), "another environment's task definition");
    let production: Value = serde_json::from_slice(
        &printed(
            &example,
            &["--profile", "production", "--pass-role", "arn:aws:iam::123456789012:role/exec"],
        )
        .succeeds()
        .says_nothing()
        .stdout,
    )
    .unwrap();
    assert!(!production.to_string().contains("dev") && !production.to_string().contains("stag"));
    assert!(production.to_string().contains("role/exec"));
    let both = printed(&example, &["--profile", "dev", "--profile", "production"]).succeeds();
    assert!(both.stdout_text().contains("acme-gitlab-dev-cluster"), "{both}");
    assert!(both.stdout_text().contains("acme-gitlab-production-cluster"), "{both}");
    let _ = both.says("taskRoleArn").says("--pass-role ARN");
    let output = printed(&example, &["--profile", "prodution"]);
    assert_eq!(output.status.code(), Some(1));
    let _ = output.says("the settings file has no profile `prodution`: did you mean `production`?");
}

#[test]
fn the_doctor_sees_everything_with_what_is_printed_for_it() {
    let house = House::new();
    let (jobs, both) = (
        actions(&policy_of(&house, &["--profile", "agent"])),
        actions(&policy_of(&house, &["--profile", "agent", "--doctor"])),
    );
    let more: BTreeSet<String> = both.difference(&jobs).cloned().collect();
    // What the doctor's own page says that it needs.
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/troubleshooting.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, section) = page.split_once("### Permissions for the doctor").unwrap();
    let table = section
        .lines()
        .skip_while(|line| !line.starts_with("| `"))
        .take_while(|line| line.starts_with('|'));
    let documented: BTreeSet<String> = table
        .flat_map(|line| line.split('|').nth(1).unwrap().split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect();
    assert_eq!(more, documented);
    // And so it is: nothing else may be done, and nothing stays unseen.
    let known = [
        "ec2:DescribeInstances",
        "ec2:DescribeNetworkInterfaces",
        "ec2:DescribeRouteTables",
        "ec2:DescribeSecurityGroups",
        "ec2:DescribeSubnets",
        "ec2:DescribeVpcEndpoints",
        "ecs:DescribeClusters",
        "ecs:DescribeContainerInstances",
        "ecs:DescribeTaskDefinition",
        "ecs:DescribeTasks",
        "ecs:ListTasks",
        "ecs:RunTask",
        "ecs:StopTask",
        "ecs:TagResource",
        "iam:PassRole",
        "iam:SimulatePrincipalPolicy",
        "servicequotas:GetServiceQuota",
    ];
    for (allowed, sees_all) in [(both, true), (jobs, false)] {
        let denied: Vec<&str> =
            known.into_iter().filter(|action| !allowed.contains(*action)).collect();
        let house = House::altered(&json!({ "denied": denied }), |settings| settings);
        let output = house.operator(&[
            "doctor",
            "--format",
            "json",
            "--profile",
            "agent",
            "--cluster",
            "test",
        ]);
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        let unseen = answer["findings"].as_array().unwrap().iter().filter(|finding| {
            let name = finding["name"].as_str().unwrap();
            name.ends_with("-not-seen") || name.ends_with("-not-tried") || name.ends_with("-denied")
        });
        assert_eq!(unseen.count() == 0, sees_all, "{output}");
    }
}

#[test]
fn what_cannot_be_told_is_asked_for() {
    let house = House::new();
    // Without a role, nothing names the account.
    let output = printed(&house.settings_file(), &["--profile", "openssh"]);
    assert_eq!(output.status.code(), Some(1));
    let _ = output.says("the account of cluster `test` cannot be told").says("--account ID");
    let with = printed(
        &house.settings_file(),
        &["--profile", "openssh", "--account", "210987654321", "--partition", "aws-cn"],
    );
    let text = with.succeeds().stdout_text();
    assert!(text.contains("arn:aws-cn:ecs:eu-west-1:210987654321:cluster/test-cluster"), "{text}");
    let _ = printed(&house.settings_file(), &["--account", "12"]).says("expected 12 digits");
    let _ = printed(&house.settings_file(), &["--profile", "local"])
        .says("no cluster that was asked for is on ECS");
}

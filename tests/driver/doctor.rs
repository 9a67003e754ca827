//! `doctor`: each finding through the real binary, and that nothing is started for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::house::House;
use crate::support::http::{Response, Server};
use crate::support::output::StageOutput;

/// The findings of one examination.
struct Examined {
    output: StageOutput,
    findings: Vec<Value>,
}

impl Examined {
    /// Runs `doctor` on the cluster `test`, whose task definitions the profile `profile` names.
    fn of(house: &House, profile: &str) -> Self {
        Self::with(house, &["--profile", profile, "--cluster", "test"])
    }

    fn with(house: &House, arguments: &[&str]) -> Self {
        let mut all = vec!["doctor", "--format", "json"];
        all.extend(arguments);
        let output = house.operator(&all);
        let answer: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("no JSON: {error}\n{output}"));
        let findings = answer["findings"].as_array().unwrap().clone();
        let failures = findings.iter().filter(|finding| finding["severity"] == "failure").count();
        assert_eq!(answer["ok"], json!(failures == 0), "{output}");
        assert_eq!(output.status.code(), Some(i32::from(failures > 0)), "{output}");
        for finding in findings.iter().filter(|finding| finding["severity"] != "ok") {
            let has_remedy = finding["remedy"].as_array().is_some_and(|list| !list.is_empty());
            assert!(finding["why"].is_string() && has_remedy, "{finding}");
        }
        assert_eq!(house.ledger().started().len(), 0, "the doctor starts nothing by itself");
        Self { output, findings }
    }

    fn severities(&self) -> BTreeMap<&str, &str> {
        self.findings
            .iter()
            .map(|finding| {
                (finding["name"].as_str().unwrap(), finding["severity"].as_str().unwrap())
            })
            .collect()
    }

    /// Asserts that the finding is there, and answers its text as JSON.
    fn has(&self, name: &str, severity: &str) -> String {
        let found = self.findings.iter().find(|finding| finding["name"] == name);
        let finding = found.unwrap_or_else(|| panic!("no `{name}` in {:#?}", self.severities()));
        assert_eq!(finding["severity"], severity, "{finding}");
        finding.to_string()
    }

    fn lacks(&self, name: &str) -> &Self {
        assert!(!self.severities().contains_key(name), "{:#?}", self.severities());
        self
    }
}

/// A house whose world and settings are changed.
fn house_of(
    change_settings: impl Fn(String) -> String,
    change_world: impl FnOnce(&mut Value),
) -> House {
    House::with(|settings| *settings = change_settings(std::mem::take(settings)), change_world)
}

fn world(change: impl FnOnce(&mut Value)) -> House {
    house_of(|settings| settings, change)
}

/// A house whose ECS cluster has `keys` as well.
fn keys(keys: &str, change_world: impl FnOnce(&mut Value)) -> House {
    const CLUSTER: &str = "cluster = \"test-cluster\"\n";
    house_of(|settings| settings.replacen(CLUSTER, &format!("{CLUSTER}{keys}\n"), 1), change_world)
}

#[test]
fn a_house_in_order_is_told_so() {
    let house = world(|_| ());
    let _ = house.operator(&["policy", "sync"]).succeeds();
    let examined = Examined::of(&house, "agent");
    for name in [
        "state",
        "policies",
        "open-files",
        "identity",
        "clock",
        "cluster",
        "capacity-provider",
        "launch-type",
        "definition",
        "subnets",
        "routes",
        "list-tasks",
        "describe-tasks",
        "stop-task",
        "run-task",
        "rights",
        "quota",
    ] {
        examined.has(name, "ok");
    }
    let warned = examined.findings.iter().filter(|finding| finding["severity"] == "warning");
    // Where this machine has no private address, its way to the port is not known.
    let warned: Vec<_> = warned.filter(|finding| finding["name"] != "port-closed-to-us").collect();
    assert_eq!(warned, Vec::<&Value>::new());
    assert!(
        examined
            .has("rights", "ok")
            .contains("iam:PassRole of arn:aws:iam::123456789012:role/deploy")
    );

    // For people, with progress.
    let output = house.operator(&["doctor", "--profile", "agent"]).succeeds();
    let text = output.stdout_text();
    assert!(
        text.contains("ok        cluster test: the ECS cluster test-cluster is ACTIVE\n"),
        "{output}"
    );
    assert!(text.contains("note      task definition agent (x86_64) on cluster test: container ci-coordinator has no log configuration [logs-off]\n          why: "), "{output}");
    assert!(text.contains("0 failures, "), "{output}");
    let _ = output.says("Looking at cluster test (test-cluster, eu-west-1)...");
    assert_eq!(house.ledger().started().len(), 0);
    assert_eq!(house.ledger().events("stop-task").count(), 0);
}

#[test]
fn all_clusters_are_looked_at_unless_some_are_named() {
    let house = world(|_| ());
    let clusters = |arguments: &[&str]| -> BTreeSet<String> {
        let examined = Examined::with(&house, arguments);
        let about = examined.findings.iter().filter_map(|finding| finding["about"].as_str());
        about.filter_map(|about| about.strip_prefix("cluster ").map(str::to_owned)).collect()
    };
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(clusters(&[]), set(&["here", "test", "two-subnets"]));
    assert_eq!(clusters(&["--profile", "two-subnets"]), set(&["two-subnets"]));
    assert_eq!(clusters(&["--cluster", "here"]), set(&["here"]));
    Examined::with(&house, &["--cluster", "here"]).has("cluster-local", "ok");
    let bare = house_of(|text| text.replace("/pointsman-agent\"", "/no-agent\""), |_| ());
    Examined::with(&bare, &["--cluster", "here"]).has("agent-missing", "failure");

    let output = house.operator(&["doctor", "--cluster", "tst"]);
    assert_eq!(output.status.code(), Some(2));
    let _ = output
        .says("the settings file has no cluster `tst`")
        .says("it has: here, test, two-subnets");
    let output = house.operator(&["doctor", "--profile", "x"]);
    let _ = output.fails_the_system().says("the settings file has no profile `x`");
    let output = house.operator(&["doctor", "--role", "deploy"]);
    let _ = output.fails_the_system().says("--launch");
}

#[test]
fn what_is_wrong_with_this_machine_is_told() {
    let house = world(|_| ());
    fs::set_permissions(house.state(), fs::Permissions::from_mode(0o777)).unwrap();
    let examined = Examined::of(&house, "agent");
    assert!(examined.has("state-unusable", "failure").contains("others can write to it"));
    examined.has("cluster", "ok");
    fs::remove_dir_all(house.state()).unwrap();
    Examined::of(&house, "agent").has("state-missing", "note");
    assert!(!house.state().exists(), "the doctor makes no state directory");

    let house = world(|_| ());
    house.edit_settings(|text| {
        format!(
            "{text}\n[policies.gone]\ncomponent = \"gone.wasm\"\nsha256 = \"{}\"\n",
            "0".repeat(64)
        )
    });
    fs::remove_dir_all(house.state().join("policies")).unwrap();
    let examined = Examined::of(&house, "agent");
    assert!(examined.has("policies-not-compiled", "note").contains("by-tag"));
    assert!(examined.has("policy-broken", "failure").contains("gone.wasm"));
    fs::set_permissions(house.state().join("policies"), fs::Permissions::from_mode(0o777)).unwrap();
    Examined::of(&house, "agent").has("policies-unsafe", "failure");

    // A limit that a shell sets for what it starts.
    let house = world(|_| ());
    let mut command = std::process::Command::new("sh");
    command
        .arg("-c")
        .arg(format!(
            "ulimit -n 100; exec {} --config {} doctor --profile agent",
            crate::support::house::DRIVER,
            house.settings_file().display()
        ))
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .envs(house.cloud_environment());
    let text = String::from_utf8(command.output().unwrap().stdout).unwrap();
    assert!(text.contains("a process may have 100 files open [few-open-files]"), "{text}");
}

#[test]
fn a_state_directory_of_another_user_is_left_alone() {
    let house = world(|_| ());
    if std::os::unix::fs::chown(house.state(), Some(12_345), None).is_err() {
        eprintln!("only root can give a directory away: not tried");
        return;
    }
    let examined = Examined::of(&house, "agent");
    assert!(examined.has("state-foreign", "warning").contains("sudo -u '#12345' pointsman doctor"));
    examined.has("cluster", "ok");
    assert!(!house.state().join("sessions").exists() && !house.state().join("budget").exists());
}

#[test]
fn gitlab_is_asked_without_a_token() {
    let ask = |status: u16, tags: &str, headers: &[(&'static str, &str)]| {
        let headers: Vec<(&'static str, String)> =
            headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let server = Server::start(move |_| Response {
            headers: headers.clone(),
            ..Response::of(status, "{}")
        });
        let url = format!("http://{}", server.address);
        let house = house_of(
            |settings| format!("[gitlab]\nurl = \"{url}\"\njob_tags = \"{tags}\"\n{settings}"),
            |_| (),
        );
        let examined = Examined::with(&house, &["--cluster", "here"]);
        (examined, server.requests())
    };
    let (examined, requests) = ask(401, "preferred", &[]);
    examined.has("gitlab", "ok");
    assert_eq!(requests.len(), 1);
    assert_eq!((requests[0].method.as_str(), requests[0].path.as_str()), ("GET", "/api/v4/job"));
    assert!(!requests[0].headers.contains_key("job-token"), "{requests:?}");
    ask(302, "preferred", &[("location", "https://elsewhere.example.com")])
        .0
        .has("gitlab-redirect", "warning");
    ask(404, "required", &[]).0.has("gitlab-strange", "failure");
    let (examined, _) = ask(401, "preferred", &[("date", "Tue, 14 Nov 2023 22:13:20 GMT")]);
    assert!(examined.has("clock-skew", "failure").contains("ahead of GitLab's"));

    let house =
        house_of(|settings| format!("[gitlab]\nurl = \"http://127.0.0.1:9\"\n{settings}"), |_| ());
    Examined::with(&house, &["--cluster", "here"]).has("gitlab-unreachable", "warning");
    let house = world(|_| ());
    Examined::with(&house, &["--cluster", "here"]).has("gitlab-off", "note");
}

#[test]
fn credentials_are_judged_before_anything_else() {
    let house = world(|_| ());
    let mut command = std::process::Command::new(crate::support::house::DRIVER);
    command
        .arg("--config")
        .arg(house.settings_file())
        .args(["doctor", "--format", "json", "--profile", "agent"])
        .env_clear()
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("HOME", house.path());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("\"credentials-missing\"") && text.contains("AWS_ACCESS_KEY_ID"),
        "{text}"
    );
    assert!(!text.contains("\"cluster-missing\""), "nothing else was looked at: {text}");

    let role =
        "assume_role = { arn = \"arn:aws:iam::123456789012:role/ci\", external_id = \"other\" }";
    let trusted = json!([{ "arn": "arn:aws:iam::123456789012:role/ci", "external_id": "acme" }]);
    let refused = keys(role, |world| world["assumable_roles"] = trusted.clone());
    let examined = Examined::of(&refused, "agent");
    assert!(examined.has("role-not-assumed", "failure").contains("ask for this `external_id`"));
    examined.lacks("cluster");

    let taken = keys(&role.replace("other", "acme"), |world| world["assumable_roles"] = trusted);
    let examined = Examined::of(&taken, "agent");
    let identity = examined.has("identity", "ok");
    assert!(identity.contains("assumed-role/ci/pointsman in account 123456789012"), "{identity}");
    examined.has("cluster", "ok");
    examined.has("run-task", "ok");

    let foreign = house_of(
        |text| {
            text.replacen(
                "\"test-cluster\"",
                "\"arn:aws:ecs:eu-west-1:999999999999:cluster/test-cluster\"",
                1,
            )
        },
        |_| (),
    );
    Examined::of(&foreign, "agent").has("identity-account", "failure");

    let invalid = world(|world| {
        world["faults"] = json!([{ "fault": { "kind": "api-error", "operation": "GetCallerIdentity",
            "status": 403, "code": "InvalidClientTokenId", "message": "The security token included in the request is invalid" } }]);
    });
    let examined = Examined::with(&invalid, &[]);
    examined.has("credentials-refused", "failure");
    // The same account's other cluster.
    examined.has("cluster-skipped", "note");
    let unanswered = {
        let mut house = world(|_| ());
        house.environment.push(("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:9".to_owned()));
        house
    };
    Examined::of(&unanswered, "agent").has("sts-unreachable", "failure");
}

#[test]
fn clocks_are_compared() {
    let ahead = |seconds: i64| world(|world| world["clock_ahead_s"] = json!(seconds));
    assert!(
        Examined::of(&ahead(100), "agent").has("clock-skew", "warning").contains("behind AWS's")
    );
    let examined = Examined::of(&ahead(-400), "agent");
    assert!(examined.has("clock-skew", "failure").contains("ahead of AWS's"));
    assert!(examined.has("clock-skew", "failure").contains("chrony"));
}

#[test]
fn what_is_wrong_with_a_cluster_is_told() {
    let missing = house_of(|text| text.replace("\"test-cluster\"", "\"tset-cluster\""), |_| ());
    let examined = Examined::of(&missing, "agent");
    assert!(
        examined
            .has("cluster-missing", "failure")
            .contains("aws ecs list-clusters --region eu-west-1")
    );
    examined.lacks("run-task");

    let inactive = world(|world| world["clusters"][0]["status"] = json!("INACTIVE"));
    Examined::of(&inactive, "agent").has("cluster-inactive", "failure");

    let no_spot = world(|world| world["clusters"][0]["capacity_providers"] = json!(["FARGATE"]));
    let examined = Examined::of(&no_spot, "agent");
    let finding = examined.has("capacity-provider-missing", "failure");
    assert!(finding.contains("--capacity-providers FARGATE FARGATE_SPOT"), "{finding}");
    assert!(finding.contains("No Container Instances were found in your cluster."), "{finding}");
    // Nobody asks for Spot there.
    Examined::of(&no_spot, "openssh").lacks("capacity-provider-missing");

    // The article's own case: what stops GitLab's driver does not stop this one.
    let none = world(|world| world["clusters"][0]["capacity_providers"] = json!([]));
    let examined = Examined::of(&none, "openssh");
    examined.has("launch-type", "ok");
    assert_eq!(examined.output.status.code(), Some(0));

    let ec2 = |launch_types: Value| {
        house_of(
            |text| {
                text.replacen(
                    "subnets = [\"subnet-12345\"]\nsecurity_groups = [\"sg-12345\"]\n",
                    "launch = \"ec2\"\nnetwork_mode = \"bridge\"\n",
                    1,
                )
            },
            |world| {
                world["clusters"][0]["launch_types"] = launch_types;
                for definition in world["task_definitions"].as_array_mut().unwrap() {
                    definition["networkMode"] = json!("bridge");
                    definition["requiresCompatibilities"] = json!(["EC2"]);
                }
            },
        )
    };
    let examined = Examined::of(&ec2(json!([])), "openssh");
    assert!(
        examined
            .has("no-container-instances", "failure")
            .contains("No Container Instances were found")
    );
    assert!(
        examined.has("run-task-refused", "warning").contains("No Container Instances were found")
    );
    let examined = Examined::of(&ec2(json!(["EC2"])), "openssh");
    examined.has("container-instances", "ok");
    assert!(examined.has("rights", "ok").contains("ecs:DescribeContainerInstances"));

    let unused = house_of(
        |text| text.replace("clusters = [\"two-subnets\"]", "clusters = [\"test\"]"),
        |_| (),
    );
    Examined::with(&unused, &["--cluster", "two-subnets"]).has("cluster-unused", "note");

    let unanswered = {
        let mut house = world(|_| ());
        house.environment.push(("AWS_ENDPOINT_URL_ECS", "http://127.0.0.1:9".to_owned()));
        house
    };
    Examined::of(&unanswered, "agent").has("ecs-unreachable", "failure");
}

#[test]
fn what_is_wrong_with_a_task_definition_is_told() {
    const OPENSSH: usize = 2;
    type Change = fn(&mut Value);
    let logs = |options: Value| json!({ "logDriver": "awslogs", "options": options });
    let table: [(Change, &str, &str); 12] = [
        (
            |one| one["runtimePlatform"]["cpuArchitecture"] = json!("ARM64"),
            "definition-architecture",
            "failure",
        ),
        (
            |one| {
                one["runtimePlatform"]["operatingSystemFamily"] = json!("WINDOWS_SERVER_2022_CORE")
            },
            "definition-system",
            "failure",
        ),
        (
            |one| {
                one["networkMode"] = json!("host");
                one["requiresCompatibilities"] = json!(["EC2"]);
            },
            "definition-network-mode",
            "failure",
        ),
        (
            |one| one["requiresCompatibilities"] = json!(["EC2"]),
            "definition-compatibility",
            "failure",
        ),
        (
            |one| one["containerDefinitions"][0]["name"] = json!("web"),
            "container-missing",
            "failure",
        ),
        (
            |one| one["containerDefinitions"][0]["portMappings"][0]["containerPort"] = json!(22),
            "port-other",
            "warning",
        ),
        (
            |one| {
                one["containerDefinitions"][0]["essential"] = json!(false);
                let side = json!({ "name": "side", "image": "example/openssh" });
                one["containerDefinitions"].as_array_mut().unwrap().push(side);
            },
            "container-not-essential",
            "warning",
        ),
        (
            |one| one["containerDefinitions"][0]["readonlyRootFilesystem"] = json!(true),
            "container-read-only",
            "warning",
        ),
        (
            |one| one["containerDefinitions"][0]["memory"] = json!(512),
            "container-memory-limit",
            "warning",
        ),
        (
            |one| {
                one["containerDefinitions"][0]["image"] =
                    json!("123456789012.dkr.ecr.eu-west-1.amazonaws.com/ci:1");
            },
            "execution-role-missing",
            "failure",
        ),
        (
            |one| {
                one["executionRoleArn"] = json!("arn:aws:iam::123456789012:role/deploy");
                one["containerDefinitions"][0]["logConfiguration"] =
                    json!({ "logDriver": "awslogs", "options": { "awslogs-group": "ci" } });
            },
            "logs-incomplete",
            "failure",
        ),
        (|_| (), "logs-off", "note"),
    ];
    for (change, name, severity) in table {
        let house = world(|world| change(&mut world["task_definitions"][OPENSSH]));
        Examined::of(&house, "openssh").has(name, severity);
    }

    let whole = world(|world| {
        let one = &mut world["task_definitions"][OPENSSH];
        one["executionRoleArn"] = json!("arn:aws:iam::123456789012:role/deploy");
        one["containerDefinitions"][0]["logConfiguration"] =
            logs(json!({ "awslogs-group": "ci", "awslogs-region": "eu-west-1" }));
    });
    let examined = Examined::of(&whole, "openssh");
    assert!(examined.has("definition", "ok").contains("openssh-task:1 is ACTIVE, for x86_64"));

    let missing = house_of(|text| text.replace("\"openssh-task\"", "\"opensshtask\""), |_| ());
    let examined = Examined::of(&missing, "openssh");
    assert!(
        examined.has("definition-missing", "failure").contains("list-task-definition-families")
    );

    let inactive = house_of(
        |text| text.replace("\"openssh-task\"", "\"openssh-task:1\""),
        |world| world["inactive_task_definitions"] = json!(["openssh-task:1"]),
    );
    let examined = Examined::of(&inactive, "openssh");
    examined.has("definition-inactive", "failure");
    assert!(examined.has("run-task-refused", "warning").contains("TaskDefinition is inactive"));

    let unreadable = world(|world| {
        world["faults"] = json!([{ "fault": { "kind": "api-error", "operation": "DescribeTaskDefinition",
            "status": 500, "code": "ServerException", "message": "busy" } }]);
    });
    Examined::of(&unreadable, "openssh").has("definition-unreadable", "failure");

    let execute = keys("enable_execute_command = true", |_| ());
    Examined::of(&execute, "openssh").has("definition-execute-command", "warning");

    let bridge = house_of(
        |text| {
            text.replacen(
                "subnets = [\"subnet-12345\"]\nsecurity_groups = [\"sg-12345\"]\n",
                "launch = \"ec2\"\nnetwork_mode = \"bridge\"\n",
                1,
            )
        },
        |world| {
            world["clusters"][0]["launch_types"] = json!(["EC2"]);
            let one = &mut world["task_definitions"][OPENSSH];
            one["networkMode"] = json!("bridge");
            one["requiresCompatibilities"] = json!(["EC2"]);
            one["containerDefinitions"][0]["portMappings"] = json!([]);
        },
    );
    Examined::of(&bridge, "openssh").has("port-not-mapped", "failure");
}

#[test]
fn what_is_wrong_with_the_network_is_told() {
    let network = |network: Value| world(|world| world["network"] = network);
    let subnet = |fields: Value| network(json!({ "subnets": { "subnet-12345": fields } }));
    let group = |fields: Value| network(json!({ "security_groups": { "sg-12345": fields } }));
    let rule = |blocks: &[&str], groups: &[&str]| json!({ "protocol": "tcp", "ports": [22, 2222], "blocks": blocks, "groups": groups });
    for (house, name, severity, said) in [
        (subnet(json!({ "free": 0 })), "subnet-full", "failure", "none can start"),
        (subnet(json!({ "free": 5 })), "subnet-nearly-full", "warning", "5 free"),
        (subnet(json!({})), "subnets-one-zone", "note", "eu-west-1a"),
        (
            subnet(json!({ "way_out": "nat-1", "black_hole": true })),
            "route-black-hole",
            "failure",
            "nat-1",
        ),
        (
            subnet(json!({ "way_out": null, "main": true })),
            "route-missing",
            "failure",
            "no default route",
        ),
        (subnet(json!({ "way_out": "igw-1" })), "route-missing", "failure", "assign_public_ip"),
        (
            group(json!({ "ingress": [] })),
            "port-closed",
            "failure",
            "authorize-security-group-ingress",
        ),
        (
            group(json!({ "ingress": [rule(&["203.0.113.0/24"], &[])] })),
            "port-closed-to-us",
            "warning",
            "203.0.113.0/24",
        ),
        (
            group(json!({ "ingress": [rule(&[], &["sg-manager"])] })),
            "port-by-group",
            "note",
            "sg-manager",
        ),
        (
            group(json!({ "ingress": [rule(&["0.0.0.0/0"], &[])] })),
            "port-open-to-all",
            "note",
            "revoke-",
        ),
        (group(json!({ "egress": [] })), "egress-closed", "failure", "lets nothing out"),
        (group(json!({ "vpc": "vpc-2" })), "group-elsewhere", "failure", "vpc-2"),
    ] {
        let finding = Examined::of(&house, "openssh").has(name, severity);
        assert!(finding.contains(said), "{finding}");
    }

    // ECR without a way out wants endpoints; with them there is one thing left to know.
    let isolated = |endpoints: &[&str]| {
        let names: Vec<String> =
            endpoints.iter().map(|name| format!("com.amazonaws.eu-west-1.{name}")).collect();
        world(|world| {
            world["network"] =
                json!({ "subnets": { "subnet-12345": { "way_out": null } }, "endpoints": names });
            world["task_definitions"][2]["containerDefinitions"][0]["image"] =
                json!("123456789012.dkr.ecr.eu-west-1.amazonaws.com/ci:1");
            world["task_definitions"][2]["executionRoleArn"] =
                json!("arn:aws:iam::123456789012:role/deploy");
        })
    };
    let finding = Examined::of(&isolated(&["ecr.api"]), "openssh").has("route-missing", "failure");
    assert!(
        finding.contains("com.amazonaws.eu-west-1.ecr.dkr and com.amazonaws.eu-west-1.s3"),
        "{finding}"
    );
    assert!(
        finding.contains("--vpc-endpoint-type Gateway --service-name com.amazonaws.eu-west-1.s3"),
        "{finding}"
    );
    Examined::of(&isolated(&["ecr.api", "ecr.dkr", "s3"]), "openssh").has("route-isolated", "note");

    let gone = house_of(
        |text| text.replace("\"subnet-12345\"", "\"subnet-0\"").replace("\"sg-12345\"", "\"sg-0\""),
        |_| (),
    );
    let examined = Examined::of(&gone, "openssh");
    examined.has("subnet-missing", "failure");
    examined.has("group-missing", "failure");
    assert!(examined.has("run-task-refused", "warning").contains("subnet-0"));

    let apart = network(json!({ "subnets": { "subnet-67890": { "vpc": "vpc-2" } } }));
    Examined::with(&apart, &["--cluster", "two-subnets"]).has("subnets-apart", "failure");

    let public = keys("assign_public_ip = true\naddress = \"public\"", |_| ());
    Examined::of(&public, "openssh").has("address-not-public", "failure");
    let open = keys("assign_public_ip = true", |world| {
        world["network"] = json!({ "security_groups": { "sg-12345": { "ingress": [rule(&["0.0.0.0/0"], &[])] } } });
    });
    Examined::of(&open, "openssh").has("port-open-to-all", "warning");

    // Without a group of its own a task is in the VPC's default one, which lets in its members only.
    let default =
        house_of(|text| text.replacen("security_groups = [\"sg-12345\"]\n", "", 1), |_| ());
    assert!(Examined::of(&default, "openssh").has("port-by-group", "note").contains("sg-default"));
}

#[test]
fn each_permission_that_jobs_need_is_told() {
    for (action, name, said) in [
        ("ecs:RunTask", "run-task-denied", "\\\"Action\\\": \\\"ecs:RunTask\\\""),
        ("ecs:TagResource", "tag-denied", "ecs:CreateAction"),
        ("ecs:ListTasks", "list-tasks-denied", "ecs:ListTasks"),
        ("ecs:DescribeTasks", "describe-tasks-denied", "aws:ResourceTag"),
        ("ecs:StopTask", "stop-task-denied", "goes on and costs money"),
        ("iam:PassRole", "pass-role-denied", "role/deploy"),
    ] {
        let house = world(|world| world["denied"] = json!([action]));
        let finding = Examined::of(&house, "agent").has(name, "failure");
        assert!(finding.contains(said), "{finding}");
    }
    let no_role = world(|world| world["roles"] = json!([]));
    let finding = Examined::of(&no_role, "agent").has("pass-role-denied", "failure");
    assert!(finding.contains("iam:PassedToService"), "{finding}");
    let public = keys("assign_public_ip = true\naddress = \"public\"", |world| {
        world["denied"] = json!(["ec2:DescribeNetworkInterfaces"]);
    });
    Examined::of(&public, "openssh").has("address-denied", "failure");
    let busy = |operation: &str| {
        world(|world| {
            world["faults"] = json!([{ "fault": { "kind": "api-error", "operation": operation,
                "code": "InvalidParameterException", "message": "no" } }]);
        })
    };
    Examined::of(&busy("ListTasks"), "agent").has("call-failed", "warning");
    let busy = world(|world| {
        world["faults"] = json!([{ "fault": { "kind": "api-error", "operation": "RunTask",
            "status": 500, "code": "ServerException", "message": "busy" } }]);
    });
    Examined::of(&busy, "agent").has("run-task-not-told", "note");
}

#[test]
fn what_was_not_tried_is_said_and_is_no_failure() {
    for (action, name, said) in [
        ("ecs:DescribeClusters", "cluster-not-seen", "only the doctor does"),
        ("ecs:DescribeTaskDefinition", "definition-not-seen", "only the doctor does"),
        ("ec2:DescribeSubnets", "subnets-not-seen", "ec2:DescribeSubnets"),
        ("ec2:DescribeRouteTables", "routes-not-seen", "ec2:DescribeRouteTables"),
        ("ec2:DescribeSecurityGroups", "groups-not-seen", "ec2:DescribeSecurityGroups"),
        ("iam:SimulatePrincipalPolicy", "rights-not-tried", "pointsman doctor --launch"),
        ("servicequotas:GetServiceQuota", "quota-not-seen", "6 vCPU"),
    ] {
        let house = world(|world| world["denied"] = json!([action]));
        let examined = Examined::of(&house, "agent");
        let finding = examined.has(name, "note");
        assert!(finding.contains(said), "{finding}");
        assert_eq!(examined.output.status.code(), Some(0), "{action}");
    }
    let house = world(|world| {
        world["denied"] = json!(["ec2:DescribeVpcEndpoints"]);
        world["network"] = json!({ "subnets": { "subnet-12345": { "way_out": null } } });
        world["task_definitions"][2]["containerDefinitions"][0]["image"] =
            json!("123456789012.dkr.ecr.eu-west-1.amazonaws.com/ci:1");
    });
    Examined::of(&house, "openssh").has("route-missing", "warning");
}

#[test]
fn quotas_are_held_against_the_largest_job() {
    let quotas = |vcpus: f64| world(|world| world["quotas"] = json!({ "on_demand_vcpus": vcpus }));
    Examined::of(&quotas(0.0), "openssh").has("quota-too-small", "failure");
    let finding = Examined::of(&quotas(0.5), "openssh").has("quota-small", "warning");
    assert!(finding.contains("--quota-code L-3032A538"), "{finding}");
    Examined::of(&quotas(64.0), "openssh").has("quota", "ok");
}

/// The names in the sources of `doctor`, by how they are spelled there.
fn names_in_the_source() -> BTreeSet<String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/doctor");
    let mut sources = fs::read_to_string(directory.with_extension("rs")).unwrap();
    let network = fs::read_dir(directory.join("network")).unwrap();
    for entry in fs::read_dir(directory).unwrap().chain(network) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            continue;
        }
        let text = fs::read_to_string(path).unwrap();
        sources.push_str(text.split("#[cfg(test)]").next().unwrap());
    }
    let is_name = |text: &str| {
        text.contains('-') && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
    };
    let source: String = sources.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut names = BTreeSet::new();
    for call in [
        "::note(",
        "::warning(",
        "::failure(",
        ".failure(",
        ".warning(",
        "bad(",
        "not_looked_at(",
        "unseen(",
    ] {
        for rest in source.split(call).skip(1) {
            let literal =
                rest.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next());
            names.extend(literal.filter(|text| is_name(text)).map(str::to_owned));
        }
    }
    // Chosen by what was called.
    names
        .extend(["list-tasks", "describe-tasks", "stop-task"].map(|name| format!("{name}-denied")));
    names
}

#[test]
fn every_finding_is_documented_and_tested() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = fs::read_to_string(root.join("docs/troubleshooting.md")).unwrap();
    let mut tests = include_str!("doctor.rs").to_owned();
    tests.push_str(include_str!("doctor_launch.rs"));
    let names = names_in_the_source();
    assert!(names.len() > 70, "{}: {names:?}", names.len());
    // What no test can bring about through the real binary, and table tests beside the sources hold.
    // Simulated tasks run on this machine's architecture, whatever theirs is, and faster than is long.
    let apart =
        ["identity-root", "state-full", "run-task-started", "launch-long", "launch-architecture"];
    for name in &names {
        assert!(page.contains(&format!("`{name}`")), "{name} is not in docs/troubleshooting.md");
        // The second is how a test spells it that looks into JSON as text.
        let is_tested = tests.contains(&format!("\"{name}\""))
            || tests.contains(&format!("\"{name}\\\""))
            || apart.contains(&name.as_str());
        assert!(is_tested || tests.contains(&format!("[{name}]")), "no test has {name}");
    }
}

#[test]
fn a_file_of_gitlabs_driver_is_examined_as_it_is() {
    let house = world(|world| world["clusters"][0]["capacity_providers"] = json!([]));
    let file = format!(
        "LogLevel = \"info\"\nLogFormat = \"text\"\n[Fargate]\nCluster = \"test-cluster\"\nRegion = \"eu-west-1\"\nSubnet = \"subnet-12345\"\nSecurityGroup = \"sg-12345\"\nTaskDefinition = \"openssh-task\"\nEnablePublicIP = false\n[TaskMetadata]\nDirectory = \"{}\"\n[SSH]\nUsername = \"root\"\nPort = 2022\n",
        house.state().display()
    );
    fs::write(house.settings_file(), file).unwrap();
    let examined = Examined::with(&house, &[]);
    // The article's "No Container Instances were found in your cluster" does not come.
    examined.has("launch-type", "ok");
    examined.has("run-task", "ok");
    assert_eq!(examined.output.status.code(), Some(0), "{}", examined.output);
}

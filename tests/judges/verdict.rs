//! botocore's verdict on a file of requests, and a proof that it is one: it refuses bad requests.

use std::path::Path;

use serde_json::{Value, json};

use crate::processes::{python, script};

/// What the judge says of the requests in a file.
#[derive(Debug, PartialEq)]
pub(crate) struct Verdict {
    /// 0: all are valid; 1: some are not; 2: there are none.
    pub(crate) status: i32,
    /// Each with the line of the request and the place in it.
    pub(crate) violations: Vec<String>,
}

/// Lets botocore's service model judge `requests`, a file as the simulator records it.
pub(crate) fn verdict(requests: &Path) -> Verdict {
    let output = python().arg(script("judge_requests.py")).arg(requests).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!stderr.contains("Traceback"), "{stderr}");
    let stdout = String::from_utf8(output.stdout).unwrap();
    Verdict {
        status: output.status.code().unwrap(),
        violations: stdout.lines().map(str::to_owned).collect(),
    }
}

/// RunTask's body with `member` in place of what is there.
fn run_task(member: &str, value: Value) -> Value {
    let mut body = json!({"taskDefinition": "ci:1", "count": 1});
    body[member] = value;
    json!({"operation": "RunTask", "body": body})
}

#[test]
fn bad_requests_are_refused() {
    let tag = |key: &str, value: &str| run_task("tags", json!([{"key": key, "value": value}]));
    let many: Vec<Value> = (0..51).map(|n| json!({"key": format!("k{n}")})).collect();
    let weight = |weight: i64| {
        run_task(
            "capacityProviderStrategy",
            json!([{"capacityProvider": "FARGATE", "weight": weight}]),
        )
    };
    let network =
        |network: Value| run_task("networkConfiguration", json!({"awsvpcConfiguration": network}));
    let table = [
        // Members.
        (json!({"operation": "RunTask", "body": {}}), "\"taskDefinition\""),
        (run_task("taskdefinition", json!("ci")), "\"taskdefinition\""),
        (network(json!({"assignPublicIp": "ENABLED"})), "\"subnets\""),
        (run_task("overrides", json!({"ephemeralStorage": {}})), "\"sizeInGiB\""),
        (run_task("overrides", json!({"image": "x"})), "\"image\""),
        (json!({"operation": "DescribeTasks", "body": {"cluster": "dev"}}), "\"tasks\""),
        (json!({"operation": "StopTask", "body": {"reason": "done"}}), "\"task\""),
        (json!({"operation": "StartJob", "body": {}}), "no such operation"),
        // Types.
        (run_task("count", json!("1")), "parameter count"),
        (run_task("count", json!(true)), "RunTask.count: True is no number"),
        (run_task("count", json!(1.5)), "parameter count"),
        (run_task("startedBy", json!(null)), "parameter startedBy"),
        (run_task("tags", json!({"key": "value"})), "parameter tags"),
        (json!({"operation": "ListTasks", "body": "startedBy"}), "parameter input"),
        // Enumerations.
        (run_task("launchType", json!("FARGATE_SPOT")), "RunTask.launchType: 'FARGATE_SPOT'"),
        (network(json!({"subnets": ["s"], "assignPublicIp": "disabled"})), ".assignPublicIp: "),
        (
            json!({"operation": "DescribeTasks", "body": {"tasks": ["t"], "include": ["tags"]}}),
            "DescribeTasks.include[0]: 'tags'",
        ),
        (
            json!({"operation": "ListTasks", "body": {"desiredStatus": "PROVISIONING"}}),
            "ListTasks.desiredStatus: ",
        ),
        // Patterns.
        (tag("a<b", "v"), "RunTask.tags[0].key: 'a<b' does not match"),
        (tag("k", "line\n"), "RunTask.tags[0].value: 'line\\n' does not match"),
        (tag("k", "\u{939}\u{93f}"), "RunTask.tags[0].value: "),
        // Lengths, sizes and ranges.
        (tag("", "v"), "tags[0].key"),
        (tag(&"k".repeat(129), "v"), "RunTask.tags[0].key: 129 characters"),
        (tag("k", &"ü".repeat(257)), "RunTask.tags[0].value: 257 characters"),
        (run_task("tags", json!(many)), "RunTask.tags: 51 items"),
        (weight(-1), "capacityProviderStrategy[0].weight"),
        (weight(1001), "RunTask.capacityProviderStrategy[0].weight: 1001"),
    ];
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("requests.jsonl");
    let mut lines: Vec<String> = table.iter().map(|(request, _)| request.to_string()).collect();
    // What serde_json cannot write.
    lines.push(r#"{"operation":"StopTask","body":{"task":"a","task":"b"}}"#.to_owned());
    lines.push(r#"{"operation":"StopTask","body":{"task":"#.to_owned());
    std::fs::write(&file, lines.join("\n")).unwrap();

    let Verdict { status, violations } = verdict(&file);
    assert_eq!(status, 1);
    let expected =
        table.iter().map(|(_, words)| *words).chain(["`task` is there twice", "no JSON"]);
    for (index, words) in expected.enumerate() {
        let prefix = format!("line {}: ", index + 1);
        let own: Vec<&String> =
            violations.iter().filter(|violation| violation.starts_with(&prefix)).collect();
        // One mistake each, so that no mistake hides behind another.
        assert_eq!(own.len(), 1, "{}: {own:?}", lines[index]);
        assert!(own[0].contains(words), "`{}` should contain `{words}`", own[0]);
    }
    assert_eq!(violations.len(), lines.len(), "{violations:?}");
}

#[test]
fn bad_requests_to_other_services_are_refused() {
    let form = |service: &str, form: &str| json!({"service": service, "form": form});
    let subnets = "Action=DescribeSubnets&Version=2016-11-15";
    let policy = "Action=SimulatePrincipalPolicy&Version=2010-05-08";
    let table = [
        (
            form("ec2", &format!("{subnets}&Filters.1.Name=vpc-id")),
            "no member is called Filters.1.Name",
        ),
        (form("ec2", &format!("{subnets}&Filter.1.Values.1=vpc-1")), "called Filter.1.Values.1"),
        (form("ec2", &format!("{subnets}&Filter.2.Name=vpc-id")), "called Filter.2.Name"),
        (form("ec2", "Action=DescribeSubnets&Version=2014-10-01"), "the version is 2014-10-01"),
        (form("ec2", "Action=DescribeNets&Version=2016-11-15"), "no such operation"),
        (form("iam", &format!("{policy}&ActionNames.member.1=a")), "\"PolicySourceArn\""),
        (
            form(
                "iam",
                &format!("{policy}&PolicySourceArn=arn:aws:iam::1:role/x&ActionNames.1=a:b"),
            ),
            "ActionNames",
        ),
        (form("sts", "Action=GetCallerIdentity&Version=2011-06-15&A=1"), "no member is called A"),
        (form("s3", "Action=X&Version=1"), "no such service"),
        (
            json!({"service": "servicequotas", "operation": "GetServiceQuota", "body": {"ServiceCode": "fargate"}}),
            "\"QuotaCode\"",
        ),
    ];
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("others.jsonl");
    let lines: Vec<String> = table.iter().map(|(request, _)| request.to_string()).collect();
    std::fs::write(&file, lines.join("\n")).unwrap();
    let Verdict { status, violations } = verdict(&file);
    assert_eq!(status, 1);
    for (index, (request, words)) in table.iter().enumerate() {
        let prefix = format!("line {}: ", index + 1);
        let is_it = |line: &&String| line.starts_with(&prefix) && line.contains(words);
        assert!(violations.iter().any(|line| is_it(&line)), "{request}: {violations:?}");
    }
}

#[test]
fn good_requests_pass_and_nothing_is_no_pass() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("requests.jsonl");
    let tag = json!([{"key": "k".repeat(128), "value": "Prüfung ½ 東京 +-=._:/@".repeat(8)}]);
    let good = [
        run_task("tags", tag),
        run_task("launchType", json!("FARGATE")),
        json!({"operation": "DescribeTasks", "body": {"tasks": ["t"], "include": ["TAGS"]}}),
        json!({"operation": "StopTask", "body": {"task": "t", "reason": "a\nb"}}),
        json!({"operation": "ListTasks", "body": {}}),
    ];
    std::fs::write(&file, good.map(|request| format!("{request}\n")).concat()).unwrap();
    assert_eq!(verdict(&file), Verdict { status: 0, violations: Vec::new() });

    std::fs::write(&file, "").unwrap();
    assert_eq!(verdict(&file), Verdict { status: 2, violations: Vec::new() });
}

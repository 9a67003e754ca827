//! A simulator for one test, the calls to it, and a look at the machine's processes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use pointsman_simulator::ledger::Ledger;
use serde_json::{Value, json};
use tempfile::TempDir;

/// The account of [`world`].
pub(crate) const ACCOUNT: &str = "123456789012";

/// A world with clusters `dev` and `bare`, and the families `ci` and `two`.
pub(crate) fn world() -> Value {
    json!({
        "account": ACCOUNT,
        "region": "eu-west-1",
        "clusters": [{"name": "dev", "capacity_providers": ["FARGATE", "FARGATE_SPOT"]}, {"name": "bare"}],
        "subnets": ["subnet-1", "subnet-2"],
        "security_groups": ["sg-1"],
        "roles": ["arn:aws:iam::123456789012:role/deploy"],
        "task_definitions": [
            definition("ci", &[("main", "sleeper")]),
            definition("two", &[("main", "sleeper"), ("side", "sleeper")]),
        ],
        "images": {"sleeper": {"server": "none"}},
        "delays_ms": {"provisioning": 5, "pending": 5, "activating": 5, "stopping": 5, "deprovisioning": 5},
        "stop_timeout_ms": 500,
        // Tests ask far more often than AWS would have it.
        "throttling": false,
    })
}

/// A task definition with these containers, each a name and an image; all but the first are not essential.
pub(crate) fn definition(family: &str, containers: &[(&str, &str)]) -> Value {
    let containers: Vec<Value> = containers
        .iter()
        .enumerate()
        .map(
            |(index, (name, image))| json!({"name": name, "image": image, "essential": index == 0}),
        )
        .collect();
    json!({
        "family": family, "networkMode": "awsvpc", "requiresCompatibilities": ["FARGATE"],
        "cpu": "256", "memory": "512", "containerDefinitions": containers,
        "tags": [{"key": "team", "value": "ci"}],
    })
}

/// A request that RunTask accepts.
pub(crate) fn run_task(family: &str) -> Value {
    json!({
        "cluster": "dev", "taskDefinition": family, "launchType": "FARGATE",
        "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-1"], "securityGroups": ["sg-1"]}},
    })
}

/// The same on Spot.
pub(crate) fn spot(family: &str) -> Value {
    let mut request = run_task(family);
    request["launchType"] = Value::Null;
    request["capacityProviderStrategy"] =
        json!([{"capacityProvider": "FARGATE_SPOT", "weight": 1}]);
    request
}

/// A running simulator; ends when dropped.
pub(crate) struct Simulator {
    child: Child,
    /// Its first line.
    pub(crate) hello: Value,
    address: String,
    directory: TempDir,
}

impl Simulator {
    pub(crate) fn start(world: &Value) -> Self {
        Self::start_with(world, &[])
    }

    pub(crate) fn start_with(world: &Value, arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("world.json");
        std::fs::write(&file, world.to_string()).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_pointsman-simulator"))
            .arg("--world")
            .arg(file)
            .arg("--directory")
            .arg(directory.path().join("simulator"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let first: Value = serde_json::from_str(&line).unwrap();
        let address =
            first["endpoint"].as_str().unwrap().strip_prefix("http://").unwrap().to_owned();
        Self { child, address, directory, hello: first }
    }

    /// Calls the API: HTTP status and answer.
    pub(crate) fn call(&self, operation: &str, request: &Value) -> (u16, Value) {
        let target = format!("AmazonEC2ContainerServiceV20141113.{operation}");
        let headers =
            [("x-amz-target", target.as_str()), ("content-type", "application/x-amz-json-1.1")];
        let (status, body) = self.http("POST", "/", &headers, &request.to_string());
        (status, serde_json::from_str(&body).unwrap())
    }

    /// Calls the API, which has to succeed.
    pub(crate) fn ok(&self, operation: &str, request: &Value) -> Value {
        let (status, body) = self.call(operation, request);
        assert_eq!(status, 200, "{operation}: {body}");
        body
    }

    pub(crate) fn http(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let mut request =
            format!("{method} {path} HTTP/1.1\r\nhost: simulator\r\nconnection: close\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
        stream.write_all(request.as_bytes()).unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// Adds a fault.
    pub(crate) fn fault(&self, fault: &Value) {
        let (status, body) = self.http("POST", "/simulator/faults", &[], &fault.to_string());
        assert_eq!(status, 204, "{body}");
    }

    /// Sets capacity.
    pub(crate) fn capacity(&self, rule: &Value) {
        let (status, body) = self.http("POST", "/simulator/capacity", &[], &rule.to_string());
        assert_eq!(status, 204, "{body}");
    }

    /// How often each operation was called.
    pub(crate) fn calls(&self) -> Value {
        let (status, body) = self.http("GET", "/simulator/calls", &[], "");
        assert_eq!(status, 200);
        serde_json::from_str(&body).unwrap()
    }

    /// Starts one task; its ARN.
    pub(crate) fn run(&self, request: &Value) -> String {
        let answer = self.ok("RunTask", request);
        assert_eq!(answer["failures"], json!([]), "{answer}");
        answer["tasks"][0]["taskArn"].as_str().unwrap().to_owned()
    }

    pub(crate) fn describe(&self, arn: &str) -> Value {
        self.ok("DescribeTasks", &json!({"cluster": "dev", "tasks": [arn], "include": ["TAGS"]}))["tasks"][0].clone()
    }

    pub(crate) fn stop(&self, arn: &str) {
        self.ok("StopTask", &json!({"cluster": "dev", "task": arn, "reason": "the test is over"}));
    }

    /// Waits until the task has this `lastStatus`; its description.
    pub(crate) fn wait_for(&self, arn: &str, status: &str) -> Value {
        eventually(|| Some(self.describe(arn)).filter(|task| task["lastStatus"] == status))
    }

    pub(crate) fn ledger(&self) -> Ledger {
        let (status, text) = self.http("GET", "/simulator/ledger", &[], "");
        assert_eq!(status, 200);
        Ledger::parse(&text).unwrap()
    }

    /// All states of a task, in the ledger's order.
    pub(crate) fn states(&self, arn: &str) -> String {
        let states: Vec<String> = self
            .ledger()
            .entries
            .iter()
            .filter_map(|entry| match &entry.event {
                pointsman_simulator::ledger::Event::State { task, status } if task == arn => {
                    Some(status.to_string())
                }
                _ => None,
            })
            .collect();
        states.join(" ")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("simulator").join(name)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Closes its stdin, and waits for its end.
    pub(crate) fn close(&mut self) -> ExitStatus {
        drop(self.child.stdin.take());
        self.child.wait().unwrap()
    }

    /// Waits for its end, which something else brings about.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// The id in an ARN.
pub(crate) fn id(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap()
}

/// Tries until there is an answer; fails after 20 s.
pub(crate) fn eventually<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(answer) = attempt() {
            return answer;
        }
        assert!(Instant::now() < deadline, "it did not come true within 20 s");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A number of seconds to sleep that no other process has on its command line.
pub(crate) fn unique_seconds() -> String {
    format!("{}.{}", 9000 + rand::random::<u16>() as u32, rand::random::<u32>())
}

/// How many processes have `word` as an argument.
pub(crate) fn n_processes(word: &str) -> usize {
    let is = |pid: &std::fs::DirEntry| {
        let line = std::fs::read(pid.path().join("cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|argument| argument == word.as_bytes())
    };
    std::fs::read_dir("/proc").unwrap().flatten().filter(is).count()
}

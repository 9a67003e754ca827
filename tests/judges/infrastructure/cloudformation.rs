//! Reads the CloudFormation templates as CloudFormation would resolve them, as far as their own values go.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use pointsman::placement::Arch;
use serde_json::{Map, Value};
use serde_yaml_ng::Value as Yaml;

use super::terraform::Service;
use super::{ACCOUNT, Environment, examples};

/// Every template.
pub(super) fn templates() -> Vec<PathBuf> {
    ["infrastructure/cloudformation/environment.yaml", MANAGER, "runner-manager/service.yaml"]
        .map(|path| examples().join(path))
        .to_vec()
}

const MANAGER: &str = "infrastructure/cloudformation/manager.yaml";

/// A template, with `!Sub` filled in from `parameters`; what refers to a resource is `@Name`, to an export `^name`.
fn read(path: &str, parameters: &BTreeMap<&str, String>) -> Value {
    let text = fs::read_to_string(examples().join(path)).unwrap();
    resolve(serde_yaml_ng::from_str(&text).unwrap(), parameters)
}

fn resolve(value: Yaml, parameters: &BTreeMap<&str, String>) -> Value {
    match value {
        Yaml::Null => Value::Null,
        Yaml::Bool(value) => value.into(),
        Yaml::Number(number) => number.as_i64().unwrap().into(),
        Yaml::String(text) => text.into(),
        Yaml::Sequence(items) => {
            items.into_iter().map(|item| resolve(item, parameters)).collect::<Vec<_>>().into()
        }
        Yaml::Mapping(entries) => {
            let mut object = Map::new();
            for (key, value) in entries {
                let value = resolve(value, parameters);
                match key.as_str().unwrap() {
                    "Fn::ImportValue" => return format!("^{}", value.as_str().unwrap()).into(),
                    key => object.insert(key.to_owned(), value),
                };
            }
            object.into()
        }
        Yaml::Tagged(tagged) => {
            let inner = resolve(tagged.value, parameters);
            match (tagged.tag.to_string().as_str(), &inner) {
                ("!Sub", Value::String(text)) => fill_in(text, parameters).into(),
                // A text and values of its own.
                ("!Sub", Value::Array(parts)) => {
                    let mut text = parts[0].as_str().unwrap().to_owned();
                    for (name, value) in parts[1].as_object().unwrap() {
                        text = text.replace(&format!("${{{name}}}"), value.as_str().unwrap());
                    }
                    fill_in(&text, parameters).into()
                }
                ("!Ref", Value::String(name)) => {
                    parameters.get(name.as_str()).cloned().unwrap_or(format!("@{name}")).into()
                }
                ("!GetAtt", Value::String(name)) => format!("@{name}").into(),
                (tag, _) => panic!("`{tag}` is not read by this test"),
            }
        }
    }
}

fn fill_in(text: &str, parameters: &BTreeMap<&str, String>) -> String {
    parameters
        .iter()
        .fold(text.to_owned(), |text, (name, value)| text.replace(&format!("${{{name}}}"), value))
}

fn parameters() -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        ("AWS::Region", "eu-west-1".to_owned()),
        ("AWS::AccountId", ACCOUNT.to_owned()),
        ("AWS::StackName", "acme-gitlab-manager".to_owned()),
        ("ManagerStack", "acme-gitlab-manager".to_owned()),
    ])
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

fn port(value: &Value) -> u16 {
    value.as_u64().unwrap().try_into().unwrap()
}

/// The stack of the environment `name`.
pub(super) fn environment(name: &str) -> Environment {
    let mut parameters = parameters();
    parameters.insert("Environment", name.to_owned());
    let template = read("infrastructure/cloudformation/environment.yaml", &parameters);
    let properties = |resource: &str| template["Resources"][resource]["Properties"].clone();
    let mut families = BTreeMap::new();
    let mut containers = BTreeSet::new();
    let mut ports = BTreeSet::new();
    for (resource, family) in [("TaskDefinition", ""), ("TaskDefinitionArm64", "-arm64")] {
        let definition = properties(resource);
        let arch = match definition["RuntimePlatform"]["CpuArchitecture"].as_str() {
            Some("X86_64") => Arch::X86_64,
            Some("ARM64") => Arch::Arm64,
            other => panic!("{other:?}"),
        };
        assert_eq!(text(&definition["Family"]).ends_with("-arm64"), !family.is_empty());
        families.insert(arch, text(&definition["Family"]));
        assert_eq!(definition["ExecutionRoleArn"], "@ExecutionRole.Arn");
        // A role in the definition would be one for jobs that no policy gave a role to.
        assert_eq!(definition["TaskRoleArn"], Value::Null);
        let [container] = definition["ContainerDefinitions"].as_array().unwrap().as_slice() else {
            panic!("one container")
        };
        containers.insert(text(&container["Name"]));
        ports.insert(port(&container["PortMappings"][0]["ContainerPort"]));
        assert_eq!(container["LogConfiguration"]["Options"]["awslogs-group"], "@LogGroup");
    }
    let group = properties("SecurityGroup");
    let [rule] = group["SecurityGroupIngress"].as_array().unwrap().as_slice() else {
        panic!("one rule")
    };
    assert_eq!(rule["SourceSecurityGroupId"], "^acme-gitlab-manager-security-group");
    assert_eq!(rule["CidrIp"], Value::Null);
    ports.extend([port(&rule["FromPort"]), port(&rule["ToPort"])]);
    let cluster = properties("Cluster");
    assert_eq!(containers.len(), 1, "{containers:?}");
    Environment {
        cluster: text(&cluster["ClusterName"]),
        providers: cluster["CapacityProviders"].as_array().unwrap().iter().map(text).collect(),
        families,
        container: containers.pop_first().unwrap(),
        ports,
        execution_role: text(&properties("ExecutionRole")["RoleName"]),
        job_roles: BTreeSet::from([text(&properties("DeployRole")["RoleName"])]),
    }
}

/// What the manager may do in AWS, in the example's account.
pub(super) fn manager_policy() -> Value {
    let template = read(MANAGER, &parameters());
    let role = &template["Resources"]["ManagerRole"]["Properties"];
    let [policy] = role["Policies"].as_array().unwrap().as_slice() else { panic!("one policy") };
    policy["PolicyDocument"].clone()
}

/// The manager's service.
pub(super) fn manager_service() -> Service {
    let template = read("runner-manager/service.yaml", &parameters());
    let properties = |resource: &str| template["Resources"][resource]["Properties"].clone();
    let (definition, service) = (properties("TaskDefinition"), properties("Service"));
    let [container] = definition["ContainerDefinitions"].as_array().unwrap().as_slice() else {
        panic!("one container")
    };
    let secret = |secret: &Value| {
        let source = text(&secret["ValueFrom"]);
        let key = source.strip_prefix("^acme-gitlab-manager-runner-tokens:").unwrap();
        format!("{} from {}", text(&secret["Name"]), key.strip_suffix("::").unwrap())
    };
    assert_eq!(definition["TaskRoleArn"], "^acme-gitlab-manager-manager-role");
    assert_eq!(definition["ExecutionRoleArn"], "^acme-gitlab-manager-execution-role");
    Service {
        name: text(&service["ServiceName"]),
        family: text(&definition["Family"]),
        container: text(&container["Name"]),
        size: format!("{} {}", text(&definition["Cpu"]), text(&definition["Memory"])),
        launch_type: text(&service["LaunchType"]),
        count: service["DesiredCount"].as_u64().unwrap(),
        stop_timeout: container["StopTimeout"].as_u64().unwrap(),
        secrets: container["Secrets"].as_array().unwrap().iter().map(secret).collect(),
    }
}

/// The names that the manager's stack exports.
pub(super) fn exports() -> BTreeSet<String> {
    let template = read(MANAGER, &parameters());
    let outputs = template["Outputs"].as_object().unwrap().values();
    outputs.filter_map(|output| output["Export"]["Name"].as_str()).map(str::to_owned).collect()
}

/// The names that any stack imports.
pub(super) fn imports() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for path in ["infrastructure/cloudformation/environment.yaml", "runner-manager/service.yaml"] {
        let template = read(path, &parameters()).to_string();
        for rest in template.split("\"^").skip(1) {
            let (name, _) = rest.split_once(['"', ':']).unwrap();
            names.insert(name.to_owned());
        }
    }
    names
}

//! The launches that are judged: each choice of settings and placement that changes a request.

use std::collections::BTreeMap;
use std::path::Path;

use pointsman::backend::LaunchRequest;
use pointsman::backend::SessionFacts;
use pointsman::backend::ecs::Ecs;
use pointsman::placement::{Arch, Capacity, size::Size};
use pointsman::secret::Secret;
use pointsman::settings::{EcsCluster, LaunchKind, NetworkMode};
use serde_json::{Value, json};

/// The Region of everything here.
pub(crate) const REGION: &str = "eu-west-1";
const ROLE: &str = "arn:aws:iam::123456789012:role/ci/deploy";

/// Sixteen, the most that a request takes.
fn subnets() -> Vec<String> {
    (0..16).map(|n| format!("subnet-{n:017x}")).collect()
}

/// Five, the most that a request takes.
fn security_groups() -> Vec<String> {
    (0..5).map(|n| format!("sg-{n:017x}")).collect()
}

/// The simulator's world for all of [`matrix`]; tasks stay `provisioning_ms` in PROVISIONING.
pub(crate) fn world(provisioning_ms: u64) -> Value {
    json!({
        "account": "123456789012",
        "region": REGION,
        "clusters": [{"name": "judged", "capacity_providers": ["FARGATE", "FARGATE_SPOT"], "launch_types": ["EXTERNAL"]}],
        "subnets": subnets(),
        "security_groups": security_groups(),
        "roles": [ROLE],
        "task_definitions": [{
            "family": "judged", "networkMode": "awsvpc", "requiresCompatibilities": ["FARGATE"],
            "cpu": "256", "memory": "512",
            "containerDefinitions": [{"name": "ci-coordinator", "image": "sleeper"}],
        }, {
            "family": "judged-external", "networkMode": "host", "requiresCompatibilities": ["EXTERNAL"],
            "containerDefinitions": [{"name": "ci-coordinator", "image": "sleeper", "memory": 512}],
        }],
        "images": {"sleeper": {"server": "none"}},
        "delays_ms": {"provisioning": provisioning_ms, "pending": 1, "activating": 1},
        "stop_timeout_ms": 500,
        // The requests are what is judged here, not how many there are.
        "throttling": false,
    })
}

/// A cluster of [`world`], with the least that can be set.
pub(crate) fn cluster() -> EcsCluster {
    EcsCluster {
        security_groups: security_groups()[..1].to_vec(),
        ..EcsCluster::fargate(REGION, "judged", subnets()[..1].to_vec())
    }
}

/// The backend of `cluster`, with static credentials: nothing is kept.
pub(crate) async fn open(cluster: EcsCluster) -> Ecs {
    Ecs::open(cluster, Path::new(env!("CARGO_TARGET_TMPDIR")), &SessionFacts::new()).await
}

/// A launch with a token of its own, otherwise with the least that can be asked for.
pub(crate) fn request(token: usize) -> LaunchRequest {
    LaunchRequest {
        attempt: format!("{token}-0123456789abcdef"),
        client_token: format!("{token:064x}"),
        started_by: "pointsman/judged".into(),
        task_definition: "judged:1".into(),
        container: "ci-coordinator".into(),
        arch: Arch::X86_64,
        capacity: Capacity::OnDemand,
        size: Size::SMALLEST,
        ephemeral_storage_gib: None,
        role_arn: None,
        environment: BTreeMap::from([(
            "SSH_PUBLIC_KEY".to_owned(),
            Secret::new("ssh-ed25519 AAAA".to_owned()),
        )]),
        tags: BTreeMap::from([("pointsman:job".to_owned(), "7".to_owned())]),
        port: 22,
        avoid_subnets: Vec::new(),
    }
}

fn tags<const N: usize>(tags: [(&str, &str); N]) -> BTreeMap<String, String> {
    tags.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// A launch on a container instance, which the driver has to ask for its address. Beside [`matrix`], whose launches
/// are what others simulate as well.
pub(crate) fn on_an_instance() -> (&'static str, EcsCluster, LaunchRequest) {
    let cluster = EcsCluster {
        launch: LaunchKind::External,
        network_mode: NetworkMode::Host,
        subnets: Vec::new(),
        security_groups: Vec::new(),
        spot_provider: None,
        ..cluster()
    };
    let request =
        LaunchRequest { task_definition: "judged-external:1".into(), ..request(1_000_000) };
    ("on an instance", cluster, request)
}

/// Every launch to be judged, with a name for messages.
pub(crate) fn matrix() -> Vec<(&'static str, EcsCluster, LaunchRequest)> {
    let mut matrix: Vec<(&'static str, EcsCluster, LaunchRequest)> = Vec::new();
    let mut add = |name, change: &dyn Fn(&mut EcsCluster, &mut LaunchRequest)| {
        let (mut cluster, mut request) = (cluster(), request(matrix.len()));
        change(&mut cluster, &mut request);
        matrix.push((name, cluster, request));
    };
    add("on-demand by launch type", &|_, _| {});
    add("on-demand by provider", &|cluster, _| cluster.on_demand_provider = Some("FARGATE".into()));
    add("spot", &|_, request| request.capacity = Capacity::Spot);
    add("least storage", &|_, request| request.ephemeral_storage_gib = Some(21));
    add("most storage", &|_, request| request.ephemeral_storage_gib = Some(200));
    add("role", &|_, request| request.role_arn = Some(ROLE.into()));
    add("large", &|_, request| {
        request.size = Size { cpu_units: 16_384, memory_mib: 122_880 };
    });
    add("arm", &|_, request| request.arch = Arch::Arm64);
    add("everything at once", &|cluster, request| {
        cluster.platform_version = Some("1.4.0".into());
        cluster.assign_public_ip = true;
        request.capacity = Capacity::Spot;
        request.ephemeral_storage_gib = Some(50);
        request.role_arn = Some(ROLE.into());
    });
    add("public address", &|cluster, _| cluster.assign_public_ip = true);
    add("platform version", &|cluster, _| cluster.platform_version = Some("LATEST".into()));
    add("no security groups", &|cluster, _| cluster.security_groups.clear());
    add("most security groups", &|cluster, _| cluster.security_groups = security_groups());
    add("most subnets", &|cluster, _| cluster.subnets = subnets());
    add("names as ARNs", &|cluster, request| {
        cluster.cluster = format!("arn:aws:ecs:{REGION}:123456789012:cluster/judged");
        request.task_definition =
            format!("arn:aws:ecs:{REGION}:123456789012:task-definition/judged:1");
    });
    add("longest words", &|_, request| {
        request.started_by = "pointsman/_-0".repeat(9) + "abcdefghijk"
    });
    add("no environment", &|_, request| request.environment.clear());
    add("awkward environment", &|_, request| {
        for (name, value) in
            [("EMPTY", ""), ("LINES", "a\r\nb\t\u{1}\""), ("SCRIPT", "東京 \u{1f600}")]
        {
            request.environment.insert(name.to_owned(), Secret::new(value.to_owned()));
        }
    });
    add("no tags", &|_, request| request.tags.clear());
    add("tags with characters that AWS refuses", &|_, request| {
        request.tags = tags([
            ("job", "build <x86> & \"test\"\n\t#1 (50%) $HOME `id` [a] {b} a,b;c!*?^~|\\'"),
            ("ref<name>", "feature/ünïcödé-東京"),
            // A letter with a vowel sign, circled letters, a Roman numeral, a fraction, an emoji, marks and controls.
            (
                "scripts",
                "\u{939}\u{93f}\u{928} \u{e01}\u{e33} Ⓐⓩ Ⅷ ½ ⁵ \u{1f600} e\u{301} \u{1885} ℮ ℘ \u{0}\u{7f}",
            ),
            ("spaces", "a\u{a0}b\u{2003}c\u{2028}d\u{3000}e\u{200b}f\u{feff}g"),
            ("name\u{94d}", "\u{fdfa} \u{2160} \u{24b6} \u{1d400} \u{20000} \u{e000} \u{10ffff}"),
        ]);
    });
    add("tags that AWS keeps for itself", &|_, request| {
        request.tags =
            tags([("aws:job", "1"), ("AWS:job", "2"), ("job", "Aws:deploy"), ("aws", "aws")]);
    });
    add("tags that are none, or become one", &|_, request| {
        request.tags = tags([("", "no key"), ("empty", ""), ("a<", "1"), ("a>", "2"), ("a_", "3")]);
    });
    add("sixty tags, long ones", &|_, request| {
        request.tags = (0..60)
            .map(|n| (format!("{n:02}{}", "ключ".repeat(40)), "значение".repeat(40)))
            .collect();
    });
    matrix
}

//! `pointsman policy sync` and `push`: files, and a registry on loopback that is as strict as the specification.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::guests::Guest;
use crate::support::attempt::collect;
use crate::support::house::{DRIVER, built, digest};
use crate::support::http::{Request, Response, Server};
use crate::support::output::StageOutput;
use crate::support::{House, Job};

fn pointsman(house: &House, arguments: &[&str]) -> StageOutput {
    let child = Command::new(DRIVER)
        .arg("--config")
        .arg(house.settings_file())
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    collect(child)
}

fn sync(house: &House) -> StageOutput {
    pointsman(house, &["policy", "sync"])
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a registry holds (opencontainers/distribution-spec, "Endpoints").
#[derive(Default)]
struct Shelf {
    blobs: HashMap<String, Vec<u8>>,
    manifests: HashMap<String, Vec<u8>>,
    /// Of uploads that are under way.
    uploads: HashMap<String, Vec<u8>>,
    closed: bool,
    /// `Authorization` that is demanded.
    demands: Option<String>,
}

impl Shelf {
    fn answer(&mut self, request: &Request) -> Response {
        if self.closed {
            return Response::of(503, "closed");
        }
        if let Some(demanded) = &self.demands
            && request.headers.get("authorization") != Some(demanded)
        {
            return Response::of(401, r#"{"errors":[{"code":"UNAUTHORIZED","message":"no"}]}"#)
                .header("WWW-Authenticate", "Basic realm=\"registry\"");
        }
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let Some(rest) = path.strip_prefix("/v2/") else { return Response::of(404, "") };
        let parts: Vec<&str> = rest.split('/').collect();
        let found = |bytes: Option<&Vec<u8>>, kind: &str| match bytes {
            Some(bytes) => Response::of(200, bytes.clone())
                .header("Content-Type", kind)
                .header("Docker-Content-Digest", format!("sha256:{}", sha256(bytes))),
            None => Response::of(404, r#"{"errors":[{"code":"UNKNOWN","message":"not here"}]}"#),
        };
        match (request.method.as_str(), parts.as_slice()) {
            ("GET", [""]) => Response::of(200, "{}"),
            ("POST", [.., "blobs", "uploads", ""] | [.., "blobs", "uploads"]) => {
                let id = self.uploads.len().to_string();
                self.uploads.insert(id.clone(), Vec::new());
                Response::of(202, "").header("Location", format!("/v2/ci/x/blobs/uploads/{id}"))
            }
            ("PATCH", [.., "uploads", id]) => {
                let upload = self.uploads.get_mut(*id).unwrap();
                upload.extend(&request.body);
                let end = upload.len() - 1;
                Response::of(202, "")
                    .header("Location", format!("/v2/ci/x/blobs/uploads/{id}"))
                    .header("Range", format!("0-{end}"))
            }
            ("PUT", [.., "uploads", id]) => {
                let mut upload = self.uploads.remove(*id).unwrap();
                upload.extend(&request.body);
                let digest = query.replace("%3A", ":");
                let actual = format!("sha256:{}", sha256(&upload));
                if !digest.ends_with(&actual) {
                    return Response::of(400, "digest");
                }
                self.blobs.insert(actual.clone(), upload);
                Response::of(201, "").header("Location", format!("/v2/ci/x/blobs/{actual}"))
            }
            ("GET" | "HEAD", [.., "blobs", digest]) => {
                found(self.blobs.get(*digest), "application/octet-stream")
            }
            ("PUT", [.., "manifests", tag]) => {
                let manifest: Value = serde_json::from_slice(&request.body).unwrap();
                for part in
                    manifest["layers"].as_array().unwrap().iter().chain([&manifest["config"]])
                {
                    let blob = self.blobs.get(part["digest"].as_str().unwrap());
                    if blob.map(|blob| json!(blob.len())) != Some(part["size"].clone()) {
                        return Response::of(400, "a blob is missing");
                    }
                }
                let digest = format!("sha256:{}", sha256(&request.body));
                for key in [(*tag).to_owned(), digest.clone()] {
                    self.manifests.insert(key, request.body.clone());
                }
                Response::of(201, "").header("Location", format!("/v2/ci/x/manifests/{digest}"))
            }
            ("GET" | "HEAD", [.., "manifests", key]) => {
                found(self.manifests.get(*key), "application/vnd.oci.image.manifest.v1+json")
            }
            _ => Response::of(405, ""),
        }
    }
}

struct Registry {
    shelf: Arc<Mutex<Shelf>>,
    server: Server,
}

impl Registry {
    fn start() -> Self {
        let shelf = Arc::new(Mutex::new(Shelf::default()));
        let answering = Arc::clone(&shelf);
        let server = Server::start(move |request| answering.lock().unwrap().answer(request));
        Self { shelf, server }
    }

    fn place(&self) -> String {
        format!("oci://{}/ci/by-tag:0.1.0", self.server.address)
    }

    fn shelf(&self) -> std::sync::MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap()
    }

    /// Pushes the built `by-tag`, and has the house's settings name it.
    fn publish(&self, house: &House) {
        let component = built("policies/by-tag.wasm");
        let output =
            pointsman(house, &["policy", "push", component.to_str().unwrap(), &self.place()])
                .succeeds();
        let lines = output.stdout_text();
        assert!(lines.contains(&format!("sha256 = \"{}\"", digest(&component))), "{lines}");
        let line = lines.lines().next().unwrap().to_owned();
        assert!(line.starts_with(&format!(
            "component = \"oci://{}/ci/by-tag@sha256:",
            self.server.address
        )));
        house.edit_settings(|text| {
            let old =
                text.lines().find(|line| line.starts_with("component = ")).unwrap().to_owned();
            text.replacen(&old, &line, 1)
        });
    }
}

fn without_compiled(house: &House) {
    let _ = fs::remove_dir_all(house.state().join("policies"));
}

#[test]
fn a_pushed_policy_is_installed_and_jobs_need_no_registry() {
    let registry = Registry::start();
    let house = House::new();
    without_compiled(&house);
    registry.publish(&house);
    let manifest: Value = serde_json::from_slice(&registry.shelf().manifests["0.1.0"]).unwrap();
    assert_eq!(manifest["layers"][0]["mediaType"], "application/wasm");
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.wasm.config.v0+json");
    assert_eq!(manifest["annotations"]["org.opencontainers.image.title"], "by-tag");

    let mut attempt = house.attempt("agent", &Job::default());
    let _ = attempt
        .config()
        .fails_the_system()
        .says("policy `by-tag` cannot be loaded")
        .says("is not installed")
        .says("an operator has to run `pointsman policy sync`");

    let output = sync(&house).succeeds();
    let text = output.stdout_text();
    assert!(text.starts_with("by-tag: ready, placer by-tag "), "{text}");
    assert!(text.contains(", fetched, compiled in "), "{text}");
    assert!(text.contains(", tried for "), "{text}");

    registry.shelf().closed = true;
    let _ = attempt.again().config().succeeds().says("Placed on cluster test").hides("Compiling");
    let asked = registry.server.requests().len();
    let output = sync(&house).succeeds();
    assert!(output.stdout_text().contains(", was compiled, tried for "), "{output}");
    assert_eq!(registry.server.requests().len(), asked, "what is there is not fetched again");

    // A new driver has other entries: what was kept is enough.
    for entry in fs::read_dir(house.state().join("policies")).unwrap().flatten() {
        if entry.path().extension().is_some_and(|extension| extension != "wasm") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    let _ = attempt.again().config().succeeds().says("Compiling policy `by-tag`");
}

#[test]
fn what_a_registry_swapped_is_refused_and_what_is_damaged_is_fetched_anew() {
    let registry = Registry::start();
    let house = House::new();
    without_compiled(&house);
    registry.publish(&house);
    let component = built("policies/by-tag.wasm");
    let good = fs::read(&component).unwrap();
    let key = format!("sha256:{}", digest(&component));
    registry.shelf().blobs.insert(key.clone(), Guest::default().placer());
    let output = sync(&house);
    assert_eq!(output.status.code(), Some(1), "{output}");
    let output = output.says("cannot pull `oci://");
    assert!(output.stdout_text().contains("by-tag: not ready"), "{output}");

    registry.shelf().blobs.insert(key, good.clone());
    let _ = sync(&house).succeeds();
    let kept = house.state().join(format!("policies/{}.wasm", digest(&component)));
    fs::write(&kept, b"junk").unwrap();
    let output = sync(&house).succeeds();
    assert!(output.stdout_text().contains("fetched"), "{output}");
    assert_eq!(fs::read(&kept).unwrap(), good);
}

#[test]
fn the_digest_of_the_settings_counts_whatever_the_manifest_says() {
    let registry = Registry::start();
    let house = House::new();
    without_compiled(&house);
    registry.publish(&house);
    let right = digest(&built("policies/by-tag.wasm"));
    let wrong = "ab".repeat(32);
    house.edit_settings(|text| text.replace(&right, &wrong));
    let output = sync(&house);
    assert_eq!(output.status.code(), Some(1));
    let _ = output.says(&right).says(&wrong).says("has the SHA-256 digest");
    assert_eq!(
        fs::read_dir(house.state().join("policies"))
            .unwrap()
            .flatten()
            .filter(|entry| { entry.path().extension().is_some() })
            .count(),
        0
    );
}

#[test]
fn credentials_are_read_from_a_file_and_told_to_nobody() {
    let registry = Registry::start();
    let house = House::new();
    // robot:secret-password
    let basic = "cm9ib3Q6c2VjcmV0LXBhc3N3b3Jk";
    registry.shelf().demands = Some(format!("Basic {basic}"));
    let component = built("policies/by-tag.wasm");
    let file = house.path().join("auth.json");
    let auths = json!({ "auths": { registry.server.address.to_string(): { "auth": basic } } });
    fs::write(&file, auths.to_string()).unwrap();
    let place = registry.place();
    let push = ["policy", "push", component.to_str().unwrap(), place.as_str()];
    let output = pointsman(&house, &push);
    assert_eq!(output.status.code(), Some(1), "{output}");
    let _ = output.says("cannot push `oci://");
    let with_file = [&push[..], &["--auth-file", file.to_str().unwrap()]].concat();
    let output = pointsman(&house, &with_file).succeeds().hides("secret-password").hides(basic);
    assert!(output.stdout_text().starts_with("component = \"oci://"));
}

#[test]
fn only_a_policy_is_pushed() {
    let registry = Registry::start();
    let house = House::new();
    let path = house.path().join("core.wasm");
    fs::write(&path, wat::parse_str("(module)").unwrap()).unwrap();
    let output = pointsman(&house, &["policy", "push", path.to_str().unwrap(), &registry.place()]);
    assert_eq!(output.status.code(), Some(1));
    let _ = output.says("policy `core` is not a WebAssembly component: a core module");
    assert_eq!(registry.server.requests().len(), 0);
}

#[test]
fn one_bad_policy_hides_no_other_and_json_tells_of_all() {
    let house = House::new();
    house.add_policy("crashes", &Guest { place: "unreachable", ..Guest::default() }.placer(), "");
    house.add_policy("guards", &Guest::guard("i32.const 2048"), "");
    house.add_policy("mutates", &Guest::mutator("unreachable"), "");
    let text = fs::read_to_string(house.settings_file()).unwrap();
    let rules = "[policies.wrong]\ncomponent = \"@\"\nsha256 = \"#\"\n[policies.wrong.settings]\nrules = 7\n"
        .replace('@', built("policies/by-tag.wasm").to_str().unwrap())
        .replace('#', &digest(&built("policies/by-tag.wasm")));
    fs::write(house.settings_file(), text + "\n" + &rules).unwrap();
    house.set_chain("agent", "policies = [\"by-tag\", \"crashes\", \"guards\", \"mutates\"]");
    let output = pointsman(&house, &["policy", "sync", "--format", "json"]);
    assert_eq!(output.status.code(), Some(1), "{output}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let of = |name: &str| {
        report["policies"]
            .as_array()
            .unwrap()
            .iter()
            .find(|policy| policy["policy"] == name)
            .unwrap()
    };
    assert_eq!(of("by-tag")["result"], "ready");
    assert!(of("by-tag")["trials"]["agent"].as_u64().unwrap() > 0);
    assert_eq!(
        (&of("guards")["result"], &of("guards")["kind"]),
        (&json!("ready"), &json!("guard"))
    );
    for (name, said) in [
        ("crashes", "policy `crashes` crashed: it panicked"),
        ("mutates", "policy `mutates` crashed: it panicked"),
        ("wrong", "the settings of policy `wrong` are wrong"),
    ] {
        assert_eq!(of(name)["result"], "failed");
        assert!(of(name)["error"].as_str().unwrap().starts_with(said), "{}", of(name));
    }
    assert_eq!(report["removed"], json!([]), "nothing goes while something is wrong");
}

#[test]
fn what_no_policy_needs_any_more_goes() {
    let house = House::new();
    let abstains = Guest::default().placer();
    house.add_policy("old", &abstains, "");
    let _ = sync(&house).succeeds();
    let policies = house.state().join("policies");
    let of_old = || {
        let prefix = sha256(&abstains);
        fs::read_dir(&policies)
            .unwrap()
            .flatten()
            .filter(|entry| entry.file_name().to_str().unwrap().starts_with(&prefix))
            .count()
    };
    assert_eq!(of_old(), 2);
    fs::write(policies.join("notes.txt"), "mine").unwrap();
    house.edit_settings(|text| text.split("[policies.old]").next().unwrap().to_owned());
    let output = pointsman(&house, &["policy", "sync", "--no-prune"]).succeeds();
    assert!(!output.stdout_text().contains("removed"));
    assert_eq!(of_old(), 2);
    let output = sync(&house).succeeds();
    assert!(
        output.stdout_text().contains("removed 2 files that no policy of the file needs"),
        "{output}"
    );
    assert_eq!(of_old(), 0);
    assert!(policies.join("notes.txt").exists());
    let _ = house.attempt("agent", &Job::default()).config().succeeds().hides("Compiling");
}

/// The files of a store: name, inode and time of the last change; a file that was made anew has another inode.
fn listing(house: &House) -> BTreeMap<String, (u64, SystemTime)> {
    use std::os::unix::fs::MetadataExt;
    fs::read_dir(house.state().join("policies"))
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_name() != "lock")
        .map(|entry| {
            let metadata = entry.metadata().unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, (metadata.ino(), metadata.modified().unwrap()))
        })
        .collect()
}

#[test]
fn after_a_sync_no_job_compiles_anything() {
    let house = House::new();
    without_compiled(&house);
    let names = ["after-spot", "by-tag", "more-memory", "protected-roles"];
    for (name, settings) in [
        ("after-spot", ""),
        ("more-memory", ""),
        ("protected-roles", "[policies.protected-roles.settings]\nroles = [\"deploy\"]"),
    ] {
        let component = fs::read(built(&format!("policies/examples/{name}.wasm"))).unwrap();
        house.add_policy(name, &component, settings);
    }
    house.set_chain("agent", &format!("policies = {names:?}"));
    let synced = sync(&house).succeeds().stdout_text();
    for name in names {
        assert!(synced.contains(&format!("{name}: ready")), "{synced}");
    }
    let installed = listing(&house);
    assert_eq!(installed.len(), 2 * names.len(), "compiled and described: {installed:?}");
    // Nobody could compile from here on: the components are gone.
    for name in &names {
        let _ = fs::remove_file(house.path().join(format!("{name}.wasm")));
    }
    let old = built("policies/by-tag.wasm");
    house.edit_settings(|text| text.replace(old.to_str().unwrap(), "gone.wasm"));
    for profile in ["agent", "openssh", "agent"] {
        let mut attempt = house.attempt(profile, &Job::default());
        let _ = attempt.config().succeeds().says("Placed on cluster test").hides("Compiling");
        let _ = attempt.cleanup().succeeds();
        assert_eq!(listing(&house), installed, "jobs only load");
    }
    house.settled(0);
}

#[test]
fn a_reference_without_a_digest_is_a_mistake_of_the_file() {
    let house = House::new();
    house.edit_settings(|text| {
        let old = text.lines().find(|line| line.starts_with("component = ")).unwrap().to_owned();
        text.replacen(&old, "component = \"oci://registry.example/ci/by-tag:latest\"", 1)
    });
    let output = sync(&house);
    assert_eq!(output.status.code(), Some(1));
    let _ = output.says("policies.by-tag.component: is `oci://registry.example/ci/by-tag:latest`, expected its digest as well");
}

//! The store: digests, damaged and foreign entries, and processes that come at once.

use super::*;

#[test]
fn a_wrong_digest_names_both() {
    let house = House::new();
    let bytes = Guest::default().placer();
    let actual = digest(&bytes);
    let policy = Policy { sha256: "0".repeat(64), ..house.policy(&bytes) };
    let Err(PolicyError::Store { policy, source }) = house.store.ensure("by-tag", &policy) else {
        panic!("refused")
    };
    assert_eq!(policy, "by-tag");
    assert_eq!(
        source.to_string(),
        format!(
            "the component {}/{actual}.wasm has the SHA-256 digest {actual}, but `sha256` of the policy is {}",
            house.directory.display(),
            "0".repeat(64)
        )
    );
}

#[test]
fn an_entry_is_used_without_the_component() {
    let house = House::new();
    let policy = by_tag(rules());
    let bytes = fs::read(file_of(&policy)).unwrap();
    let policy = Policy { settings: rules(), ..house.policy(&bytes) };
    house.compiled(&policy);
    fs::remove_file(file_of(&policy)).unwrap();
    let store = house.again();
    let decision =
        decide(&Asked::with_tags(&["dev"]).question(), &[("by-tag", &policy)], &store).unwrap();
    assert_eq!(decision.placements.len(), 1);
    let description = store.describe("by-tag", &policy).unwrap();
    assert_eq!((description.name.as_str(), description.kind), ("by-tag", Kind::Placer));
    assert!(description.imports.contains("pointsman:policy/facts@0.1.0"));
    assert!(!description.imports.contains("pointsman:policy/claims@0.1.0"), "by-tag reads none");
}

#[test]
fn a_damaged_entry_is_made_anew() {
    let house = House::new();
    let policy = house.policy(&Guest::default().placer());
    let compiled = house.compiled(&policy);
    let good = fs::read(&compiled).unwrap();
    let damages: [(&str, &dyn Fn()); 4] = [
        ("cut off", &|| fs::write(&compiled, &good[..good.len() / 2]).unwrap()),
        ("junk of the same length", &|| fs::write(&compiled, vec![b'x'; good.len()]).unwrap()),
        ("gone", &|| fs::remove_file(&compiled).unwrap()),
        ("writable by others", &|| {
            fs::set_permissions(&compiled, fs::Permissions::from_mode(0o666)).unwrap();
        }),
    ];
    for (what, damage) in damages {
        damage();
        house.again().ensure("p", &policy).unwrap();
        assert_eq!(fs::read(&compiled).unwrap(), good, "{what}");
        assert_eq!(fs::metadata(&compiled).unwrap().permissions().mode() & 0o777, 0o600, "{what}");
    }
}

#[test]
fn an_entry_of_another_user_or_of_another_runtime_is_made_anew() {
    let house = House::new();
    let policy = house.policy(&Guest::default().placer());
    let compiled = house.compiled(&policy);
    let good = fs::read(&compiled).unwrap();
    let description = compiled.with_extension("json");
    // Of another runtime: other settings, and a description that fits its length.
    let bytes = fs::read(file_of(&policy)).unwrap();
    let foreign = wasmtime::Engine::new(wasmtime::Config::new().consume_fuel(false)).unwrap();
    let foreign =
        wasmtime::component::Component::new(&foreign, &bytes).unwrap().serialize().unwrap();
    let mut json: Value = serde_json::from_slice(&fs::read(&description).unwrap()).unwrap();
    json["compiled_bytes"] = json!(foreign.len());
    fs::write(&description, json.to_string()).unwrap();
    fs::write(&compiled, &foreign).unwrap();
    house.again().ensure("p", &policy).unwrap();
    assert_eq!(fs::read(&compiled).unwrap(), good);

    // Only root can give a file away; what others see of that is tested where owners are judged.
    if rustix::process::geteuid().is_root() {
        for file in [&compiled, &description] {
            std::os::unix::fs::chown(file, Some(65_534), None).unwrap();
            house.again().ensure("p", &policy).unwrap();
            assert_eq!(std::os::unix::fs::MetadataExt::uid(&fs::metadata(file).unwrap()), 0);
            assert_eq!(fs::read(&compiled).unwrap(), good);
        }
    }
    // Descriptions that are none.
    for text in ["", "{}", "[1", &json.to_string().replace("placer", "cook")] {
        fs::write(&description, text).unwrap();
        house.again().ensure("p", &policy).unwrap();
        assert_eq!(fs::read(&compiled).unwrap(), good);
    }
}

#[test]
fn settings_are_validated_once() {
    let house = House::new();
    // Traps when it is asked to validate.
    let guest = Guest { validate_settings: "unreachable", ..Guest::default() };
    let policy = house.policy(&guest.placer());
    assert!(matches!(house.store.ensure("p", &policy), Err(PolicyError::Broken { .. })));

    let policy = by_tag(rules());
    let compiled = house.compiled(&policy);
    let description = compiled.with_extension("json");
    let before = fs::metadata(&description).unwrap().modified().unwrap();
    house.again().ensure("by-tag", &policy).unwrap();
    assert_eq!(fs::metadata(&description).unwrap().modified().unwrap(), before, "remembered");
    let other = Policy { settings: json!({"rules": []}), ..policy };
    assert!(matches!(house.again().ensure("by-tag", &other), Err(PolicyError::Settings { .. })));
}

#[test]
fn processes_that_compile_at_once_do_not_disturb_each_other() {
    let house = House::new();
    let policy = house.policy(&Guest::default().placer());
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| house.again().ensure("p", &policy).map(|_| ())))
            .collect();
        for thread in threads {
            thread.join().unwrap().unwrap();
        }
    });
    house.again().ensure("p", &policy).unwrap();
}

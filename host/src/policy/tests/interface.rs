//! `wit/policy.wit` against what was released: docs/policy-interface-versioning.md says what these hold.

use std::fs;
use std::path::{Path, PathBuf};

use wit_component::semver_check;
use wit_parser::{PackageId, Resolve};

const PACKAGE: &str = "package pointsman:policy@";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit")
}

fn current() -> String {
    fs::read_to_string(folder().join("policy.wit")).unwrap()
}

fn parse(resolve: &mut Resolve, text: &str) -> PackageId {
    resolve.push_str("policy.wit", text).unwrap()
}

/// Both texts are one package to the resolver unless their versions differ, and the newer one may not be older
/// than its own `@since`.
fn renumbered(text: &str) -> String {
    let (_, rest) = text.split_once(PACKAGE).unwrap();
    let (_, rest) = rest.split_once(';').unwrap();
    format!("{PACKAGE}0.1.4294967295;{rest}")
}

/// Holds every world of `released` against `new`.
fn check(released: &str, new: &str) -> Result<(), String> {
    let mut resolve = Resolve::default();
    let old = parse(&mut resolve, released);
    let new = parse(&mut resolve, &renumbered(new));
    let worlds: Vec<_> =
        resolve.packages[old].worlds.iter().map(|(name, id)| (name.clone(), *id)).collect();
    assert!(worlds.len() >= 5, "{worlds:?}");
    for (name, old) in worlds {
        let Some(new) = resolve.packages[new].worlds.get(&name) else {
            return Err(format!("the world `{name}` is gone"));
        };
        semver_check(resolve.clone(), old, *new)
            .map_err(|error| format!("the world `{name}`: {error:#}"))?;
    }
    Ok(())
}

#[test]
fn the_text_is_compatible_with_every_release() {
    let mut released = 0;
    for entry in fs::read_dir(folder().join("released")).unwrap().flatten() {
        let text = fs::read_to_string(entry.path()).unwrap();
        released += 1;
        if let Err(error) = check(&text, &current()) {
            panic!("{} would break: {error}", entry.path().display());
        }
    }
    assert!(released >= 1);
}

#[test]
fn the_check_sees_a_break() {
    let text = current();
    let changed = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    };
    // What a patch may do.
    let more = changed(
        "  job-id: func() -> u64;",
        "  job-id: func() -> u64;\n  @since(version = 0.1.9)\n  shoe-size: func() -> u32;",
    );
    check(&text, &more).unwrap();
    // What is a break.
    for broken in [
        changed("    reason: string,\n", "    reason: string,\n    colour: option<string>,\n"),
        changed("    spot,\n  }", "    spot,\n    reserved,\n  }"),
        changed("  job-id: func() -> u64;", "  job-id: func() -> u32;"),
        changed("place: func(settings: string)", "place: func(settings: string, hurry: bool)"),
        changed(
            "  /// The server's id of the job. Server; not author-chosen.\n  @since(version = 0.1.0)\n  job-id: func() -> u64;\n",
            "",
        ),
    ] {
        assert!(check(&text, &broken).is_err());
    }
}

#[test]
fn everything_says_since_when() {
    let text = current();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let mut checked = 0;
    for (index, line) in lines.iter().enumerate() {
        let begins = [
            "interface ",
            "world ",
            "enum ",
            "record ",
            "variant ",
            "use ",
            "import ",
            "export ",
            "include ",
        ]
        .iter()
        .any(|word| line.starts_with(word));
        if begins || line.contains(": func(") {
            assert!(
                lines[index - 1].starts_with("@since(")
                    || lines[index - 1].starts_with("@unstable("),
                "line {}: {line}",
                index + 1
            );
            checked += 1;
        }
    }
    assert!(checked > 60, "{checked}");
    // And what is for people to read is there: fields, cases and functions.
    for (index, line) in lines.iter().enumerate() {
        let is_documented = |back: usize| lines[index - back].starts_with("///");
        if line.contains(": func(") {
            assert!(is_documented(2), "line {}: {line}", index + 1);
        } else if line.ends_with(',') && !line.starts_with("///") && !line.starts_with('@') {
            assert!(is_documented(1), "line {}: {line}", index + 1);
        }
    }
}

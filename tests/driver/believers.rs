//! Policies that believe what they must not, and `policy test`, whose generated variants find them out although
//! what their authors wrote down passes.

use std::fs;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::guests::{DECISION, Guest, RawPlacement};
use crate::support::house::DRIVER;

/// Places after `trusts` has left a number that is not zero, abstains otherwise.
fn believer(imports: &'static str, data: &str, trusts: &str) -> Vec<u8> {
    let data = format!("{data} {}", RawPlacement::answer(&[RawPlacement::default()]));
    let place = format!(
        "(if (result i32) (block (result i32) {trusts})
            (then (i32.const {DECISION})) (else (i32.const 1024)))"
    );
    // Guests hold literals; a test's few bytes may stay.
    Guest { imports, data: data.leak(), place: place.leak(), ..Guest::default() }.placer()
}

/// Takes `CI_COMMIT_REF_PROTECTED=true` for the flag, as a shell script would.
fn believes_a_variable() -> Vec<u8> {
    believer(
        r#"(import "pointsman:policy/claims@0.1.0" "variable" (func $variable (param i32 i32 i32)))"#,
        r#"(data (i32.const 3000) "CI_COMMIT_REF_PROTECTED")"#,
        // `option<string>`: its case, then address and length; is there one that begins with `t`?
        "(call $variable (i32.const 3000) (i32.const 23) (i32.const 3104))
        (if (i32.eqz (i32.load8_u (i32.const 3104))) (then (br 1 (i32.const 0))))
        (if (i32.ne (i32.load (i32.const 3112)) (i32.const 4)) (then (br 1 (i32.const 0))))
        (i32.eq (i32.load8_u (i32.load (i32.const 3108))) (i32.const 116))",
    )
}

/// Takes an image for proof of who is asking.
fn believes_the_image() -> Vec<u8> {
    believer(
        r#"(import "pointsman:policy/claims@0.1.0" "image" (func $image (param i32)))"#,
        "",
        "(call $image (i32.const 3104)) (i32.load8_u (i32.const 3104))",
    )
}

/// Takes "not told" for "protected": only `false` is none.
fn believes_what_is_missing() -> Vec<u8> {
    believer(
        r#"(import "pointsman:policy/facts@0.1.0" "get-ref" (func $ref (param i32)))"#,
        "",
        // `protected` is `option<bool>` at 20: its case, then the flag.
        "(call $ref (i32.const 3104))
        (i32.or (i32.eqz (i32.load8_u offset=20 (i32.const 3104)))
            (i32.load8_u offset=21 (i32.const 3104)))",
    )
}

/// Knows its project by the path, of which it looks at the length.
fn believes_the_path() -> Vec<u8> {
    believer(
        r#"(import "pointsman:policy/facts@0.1.0" "get-project" (func $project (param i32)))"#,
        "",
        "(call $project (i32.const 3104))
        (i32.eq (i32.load offset=12 (i32.const 3104)) (i32.const 13))",
    )
}

/// Knows it by the id.
fn believes_nothing() -> Vec<u8> {
    believer(
        r#"(import "pointsman:policy/facts@0.1.0" "get-project" (func $project (param i32)))"#,
        "",
        "(call $project (i32.const 3104)) (i64.eq (i64.load (i32.const 3104)) (i64.const 1))",
    )
}

/// `policy test` of the component with one fixture, which expects `decision` and names `variants`.
fn tested(component: &[u8], decision: &str, variants: &[&str]) -> Output {
    let directory = TempDir::with_prefix_in("believers-", env!("CARGO_TARGET_TMPDIR")).unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let component = write("believer.wasm", component);
    let fixture = format!(
        "name = \"a job\"\n[facts]\nproject = {{ id = 1, full_path = \"group/project\" }}\n\
         [catalog.clusters.dev]\n[catalog.task_definitions.node]\n\
         [expect]\ndecision = \"{decision}\"\nunchanged_under = {variants:?}\n"
    );
    let fixture = write("fixture.toml", fixture.as_bytes());
    Command::new(DRIVER)
        .args(["policy", "test"])
        .arg(&fixture)
        .arg("--policy")
        .arg(&component)
        .env("XDG_CACHE_HOME", directory.path().join("cache"))
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat()).into_owned()
}

#[track_caller]
fn is_found_out(component: &[u8], decision: &str, variant: &str, words: &str) {
    let plain = tested(component, decision, &[]);
    assert!(plain.status.success(), "its own fixture passes: {}", said(&plain));
    let varied = tested(component, decision, &[variant]);
    let text = said(&varied);
    assert_eq!(varied.status.code(), Some(1), "{text}");
    assert!(text.contains("0 passed, 1 failed"), "{text}");
    let line = text
        .lines()
        .find(|line| line.contains(&format!("{variant} (")))
        .unwrap_or_else(|| panic!("no line names the variant {variant}\n{text}"));
    assert!(line.contains(words), "{line}");
}

#[test]
fn forged_claims_find_out_who_believes_a_variable() {
    is_found_out(
        &believes_a_variable(),
        "abstain",
        "forged-claims",
        "(each is \"true\"): decision: abstain becomes place",
    );
}

#[test]
fn forged_claims_find_out_who_believes_the_image() {
    is_found_out(&believes_the_image(), "abstain", "forged-claims", "abstain becomes place");
}

#[test]
fn missing_protected_finds_out_who_takes_no_word_for_a_yes() {
    is_found_out(
        &believes_what_is_missing(),
        "abstain",
        "missing-protected",
        "(compared to a ref that is not protected): decision: abstain becomes place",
    );
}

#[test]
fn renamed_project_finds_out_who_goes_by_the_path() {
    is_found_out(
        &believes_the_path(),
        "place",
        "renamed-project",
        "(to `group/project-renamed`): decision: place becomes abstain",
    );
}

#[test]
fn who_believes_nothing_passes_all_of_them() {
    let output = tested(
        &believes_nothing(),
        "place",
        &["forged-claims", "missing-protected", "renamed-project"],
    );
    let text = said(&output);
    assert!(output.status.success() && text.contains("1 passed, 0 failed"), "{text}");
}

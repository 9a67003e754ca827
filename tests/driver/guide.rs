//! docs/writing-policies.md: its commands are run, in its order, in one shell.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::support::house::{DRIVER, executable};

const GUIDE: &str = include_str!("../../docs/writing-policies.md");

/// Everything between ```` ```sh ```` and ```` ``` ````.
fn commands() -> Vec<&'static str> {
    GUIDE.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

#[test]
fn every_command_of_the_guide_works() {
    // The rehearsal starts both.
    let _ = (executable("pointsman-agent"), executable("pointsman-simulator"));
    let directory = TempDir::with_prefix_in("guide-", env!("CARGO_TARGET_TMPDIR")).unwrap();
    let commands = commands();
    assert!(commands.len() >= 8, "{} blocks: is this test right?", commands.len());
    let script = format!("set -euxo pipefail\n{}", commands.concat());
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("authoring-cache");
    let path = std::env::var("PATH").unwrap();
    let driver = Path::new(DRIVER).parent().unwrap();
    let output = Command::new("bash")
        .arg("-c")
        .arg(&script)
        .current_dir(directory.path())
        .env("PATH", format!("{}:{path}", driver.display()))
        .env("XDG_CACHE_HOME", &cache)
        .env("CARGO_TARGET_DIR", cache.join("cargo"))
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{said}");
    // The rehearsal's one job is of a protected ref, so it is on demand already.
    let replayed = said.matches("1 jobs decided again: 0 would move, 1 stay").count();
    assert_eq!(replayed, 2, "the guide ends with two replays\n{said}");
    let project = fs::read_dir(directory.path().join("spot-wisely")).unwrap().count();
    assert!(project > 5);
}

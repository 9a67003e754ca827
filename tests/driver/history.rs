//! `history` and `report`: what attempts left, as an operator reads it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::house::{built, digest};
use crate::support::{House, Job};

fn named(name: &str) -> Job {
    Job { name: name.to_owned(), ..Job::default() }
}

/// One attempt at the job `name`, from `config` to `cleanup`, with `script` in it.
fn played(house: &House, profile: &str, name: &str, script: &[u8]) -> String {
    let mut attempt = house.attempt(profile, &named(name));
    let _ = attempt.config().succeeds();
    let _ = attempt.prepare().succeeds();
    let _ = attempt.run_as("get_sources", b"true\n").succeeds();
    let _ = attempt.run(script);
    let _ = attempt.cleanup().succeeds();
    attempt.job_env["POINTSMAN_ATTEMPT"].clone()
}

fn json(house: &House, arguments: &[&str]) -> Value {
    let output = house.operator(&[arguments, &["--format", "json"]].concat()).succeeds();
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text(house: &House, arguments: &[&str]) -> String {
    house.operator(arguments).succeeds().says_nothing().stdout_text()
}

/// Files of the records, of any age.
fn record_files(house: &House) -> Vec<PathBuf> {
    let folders = fs::read_dir(house.state().join("records")).unwrap().flatten();
    folders
        .flat_map(|folder| fs::read_dir(folder.path()).unwrap().flatten())
        .map(|file| file.path())
        .collect()
}

/// Adds a record, made of `template`, of the pipeline and with the attempt id that it gets here.
fn add_record(house: &House, template: &Value, pipeline: u64, change: impl FnOnce(&mut Value)) {
    let mut record = template.clone();
    record["job"]["pipeline_id"] = pipeline.into();
    record["job"]["id"] = (500_000 + pipeline).into();
    record["id"] = format!("{}-00000000000000aa", 500_000 + pipeline).into();
    change(&mut record);
    let folder = house.state().join(format!("records/{:02x}", pipeline % 256));
    fs::create_dir_all(&folder).unwrap();
    let id = record["id"].as_str().unwrap();
    fs::write(folder.join(format!("{pipeline}-{id}.json")), record.to_string()).unwrap();
}

#[test]
fn attempts_are_listed_newest_first_and_the_living_are_marked() {
    let house = House::new();
    played(&house, "agent", "build", b"true\n");
    played(&house, "agent", "test", b"exit 3\n");
    let _ = house.attempt("nobody", &named("deploy")).config().fails_the_build();
    let living = house.prepared("agent");

    let table = text(&house, &["history"]);
    let rows: Vec<&str> = table.lines().collect();
    assert!(rows[0].starts_with("decided") && rows[0].ends_with("decided by"), "{table}");
    for (row, parts) in rows[1..].iter().zip([
        ["build", "lives: running", "spot", "by-tag: rule"],
        ["deploy", "rejected", "nobody", "by-tag"],
        ["test", "script failed", "arm64", "0.5 vCPU / 1 GiB"],
        ["build", "done", "deploy", "acme/app"],
    ]) {
        for part in parts {
            assert!(row.contains(part), "`{part}` is missing in {row}\n{table}");
        }
    }
    assert_eq!(rows.len(), 5, "{table}");

    let answer = json(&house, &["history"]);
    let attempts = answer["attempts"].as_array().unwrap();
    let endings: Vec<&str> =
        attempts.iter().map(|attempt| attempt["ending"].as_str().unwrap()).collect();
    assert_eq!(endings, ["living", "rejected", "script-failed", "done"]);
    assert_eq!(attempts[0]["stage"], "running");
    let test = &attempts[2];
    assert_eq!(test["decided_by"], "by-tag");
    assert_eq!(test["detail"], "build_script ended with exit status 3");
    assert_eq!(test["placement"]["cluster"], "test");
    assert_eq!(test["had_task"], true);
    assert!(test["waited_seconds"].as_f64().unwrap() > 0.0, "{test}");
    assert!(test["ran_seconds"].as_f64().unwrap() > 0.0, "{test}");
    assert!(test["peak_memory_mib"].is_u64() && test["cpu_seconds"].is_f64(), "{test}");
    assert_eq!(test["scripts"][1]["sub_stage"], "build_script");
    assert_eq!(attempts[1]["had_task"], false);

    let verbose = text(&house, &["history", "--verbose", "--job", "test"]);
    for part in
        ["build_script: exit 3", "s of CPU", "MiB", "attempt 1", "pipeline 55", "since: rule"]
    {
        assert!(verbose.contains(part), "`{part}` is missing in\n{verbose}");
    }
    let _ = living.cleanup().succeeds();
    house.settled(3);
}

#[test]
fn filters_narrow_the_list_and_the_rest_is_counted() {
    let house = House::new();
    played(&house, "agent", "build", b"true\n");
    let template = house.records().remove(0);
    for pipeline in 60..70_u64 {
        add_record(&house, &template, pipeline, |record| {
            record["job"]["project"] = "other/tool".into();
            record["job"]["project_id"] = 8.into();
            record["outcome"]["kind"] = "capacity".into();
            record["decided_at"] =
                format!("2026-01-01T00:00:{pipeline:02}Z").replace(":60", ":00").into();
            if pipeline > 60 {
                record["decided_at"] = format!("2026-01-01T00:00:{:02}Z", pipeline - 60).into();
            }
        });
    }
    let found = |arguments: &[&str]| {
        let all = [&["history"], arguments].concat();
        let answer = json(&house, &all);
        (answer["found"].as_u64().unwrap(), answer["attempts"].as_array().unwrap().len())
    };
    let old = ["--since", "2026-01-01"];
    assert_eq!(found(&[]), (1, 1), "the others are too old");
    assert_eq!(found(&old), (11, 11));
    assert_eq!(found(&[&old[..], &["--limit", "3"]].concat()), (11, 3));
    assert_eq!(found(&[&old[..], &["--project", "8"]].concat()), (10, 10));
    assert_eq!(found(&[&old[..], &["--project", "acme"]].concat()), (1, 1));
    assert_eq!(found(&[&old[..], &["--pipeline", "63"]].concat()), (1, 1));
    assert_eq!(found(&[&old[..], &["--outcome", "failed"]].concat()), (10, 10));
    assert_eq!(found(&[&old[..], &["--outcome", "done"]].concat()), (1, 1));
    assert_eq!(found(&[&old[..], &["--profile", "openssh"]].concat()), (0, 0));
    let limited = text(&house, &["history", "--since", "2026-01-01", "--limit", "2"]);
    assert!(limited.contains("The newest 2 of 11 attempts; --limit shows more."), "{limited}");
    let nothing = text(&house, &["history", "--job", "nothing"]);
    assert!(nothing.starts_with("No attempt since "), "{nothing}");
    house.settled(1);
}

#[test]
fn everything_of_an_attempt_is_told_but_its_keys() {
    let house = House::with_faults(&json!([
        { "match": { "capacity_provider": "FARGATE_SPOT" }, "fault": { "kind": "no-capacity" } },
        { "match": {}, "fault": { "kind": "out-of-memory", "after_ms": 2000 } },
    ]));
    let mut attempt = house.attempt("ranked", &named("build"));
    let _ = attempt.config().succeeds();
    let _ = attempt.prepare().succeeds();
    let id = attempt.job_env["POINTSMAN_ATTEMPT"].clone();

    // While it lives, its file has keys.
    let path = house.state().join("attempts").join(format!("{id}.json"));
    let saved: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let key = saved["keys"]["client"].as_str().unwrap();
    for format in ["text", "json"] {
        let output = house.operator(&["history", &id, "--format", format]).succeeds().hides(key);
        assert!(output.stdout_text().contains("running"), "{output}");
    }

    let _ = attempt.run(b"sleep 60\n").fails_the_build();
    let _ = attempt.cleanup().succeeds();
    house.settled(1);
    let job_id = id.split_once('-').unwrap().0;
    let told = text(&house, &["history", job_id]);
    assert_eq!(told, text(&house, &["history", &id]));
    for part in [
        &format!("Attempt {id}, number 1 at the job `build` (id {job_id})"),
        "7 (acme/app), pipeline 55",
        "ended       out of memory: ",
        "by by-tag",
        "1. cluster test, task definition agent, arm64, spot, 0.25 vCPU / 0.5 GiB",
        "2. cluster test, task definition agent, arm64, on-demand",
        "1. by-tag (placer): ",
        "fact job-tags = [ranked] (set by the operator)",
        "no claim was read",
        "1. placement 1: no task",
        "came to nothing: there is no capacity for it now (Capacity is unavailable",
        "2. placement 2: task arn:aws:ecs:",
        "image pull began at ",
        "container ci-coordinator: exit code 137: OutOfMemoryError",
        "build_script: no exit status",
    ] {
        assert!(told.contains(part), "`{part}` is missing in\n{told}");
    }
    let answer = json(&house, &["history", job_id]);
    let one = &answer["attempts"][0];
    assert_eq!(one["summary"]["ending"], "out-of-memory");
    assert_eq!(one["summary"]["failed_launches"], 1);
    assert_eq!(one["record"]["question"]["job_name"], "build");
    assert!(one["record"].get("keys").is_none());

    let _ =
        house.operator(&["history", "999"]).fails_the_system().says("there is no attempt of `999`");
    let _ = house.operator(&["history", "../x"]).fails_the_system().says("neither a job's id nor");
}

#[test]
fn what_is_no_record_is_counted_and_named_and_stops_nothing() {
    let house = House::new();
    played(&house, "agent", "build", b"true\n");
    let template = house.records().remove(0);
    add_record(&house, &template, 60, |record| record["version"] = 99.into());
    let folder = house.state().join("records/3c");
    fs::write(folder.join("60-7-00000000000000bb.json"), "{\"secret").unwrap();
    fs::write(folder.join("notes\u{1b}.txt"), "mine").unwrap();
    // A reader that opened it would wait for ever.
    let pipe = Command::new("mkfifo").arg(folder.join("60-8-00000000000000bb.json")).status();
    assert!(pipe.unwrap().success());
    let closed = folder.join("60-9-00000000000000bb.json");
    fs::write(&closed, "{}").unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    for command in ["history", "report"] {
        let told = text(&house, &[command]);
        assert!(told.contains("5 files are no attempt of this version and left out:"), "{told}");
        for part in
            ["of version 99", "no whole JSON", "none that the driver gives", "no regular file"]
        {
            assert!(told.contains(part), "`{part}` is missing in\n{told}");
        }
        assert!(!told.contains("secret") && !told.contains('\u{1b}'), "{told}");
        let answer = json(&house, &[command]);
        assert_eq!(answer["unreadable"]["count"], 5);
        assert_eq!(answer["unreadable"]["files"].as_array().unwrap().len(), 5);
    }
    assert_eq!(json(&house, &["report"])["total"]["attempts"], 1);
    house.settled(1);
}

#[test]
fn nothing_is_made_where_no_job_ran() {
    let house = House::new();
    let nowhere = house.path().join("nowhere");
    for command in ["history", "report"] {
        let arguments = ["--state-directory", nowhere.to_str().unwrap(), command];
        let _ = house
            .operator(&arguments)
            .fails_the_system()
            .says("there is no state directory")
            .says("hint: the first job makes it");
        assert!(!nowhere.exists());
        let _ = house.operator(&[command]).succeeds();
    }
    assert!(!house.state().join("attempts").exists());
}

#[test]
fn a_report_sums_money_time_and_failures_by_group() {
    let house = House::with_faults(&json!([
        { "match": { "capacity_provider": "FARGATE_SPOT" }, "fault": { "kind": "no-capacity" } },
    ]));
    played(&house, "ranked", "build", b"true\n");
    played(&house, "ranked", "test", b"exit 1\n");
    played(&house, "local", "lint", b"true\n");
    let _ = house.attempt("nobody", &named("deploy")).config().fails_the_build();

    let answer = json(&house, &["report", "--by", "capacity"]);
    let group = |name: &str| {
        let groups = answer["groups"].as_array().unwrap();
        let found = groups.iter().find(|group| group["group"] == name);
        found.unwrap_or_else(|| panic!("no `{name}` in {answer:#}"))
    };
    let (on_demand, spot) = (group("on-demand"), group("spot"));
    assert_eq!((&on_demand["jobs"], &on_demand["attempts"]), (&json!(3), &json!(3)));
    assert_eq!(on_demand["script_failures"], 1);
    assert_eq!((&spot["attempts"], &spot["failed_launches"]), (&json!(0), &json!(2)));
    assert_eq!(answer["total"]["rejected"], 1);
    // 0.25 vCPU and 0.5 GiB on ARM in Ireland for the least that is paid, a minute; this machine costs nothing.
    let cost = on_demand["cost_usd"].as_f64().unwrap();
    let expected = 2.0 * (0.25 * 0.03238 + 0.5 * 0.00356) / 60.0;
    assert!((cost - expected).abs() < 1e-9, "{cost} is not {expected}");
    let each = on_demand["cost_per_job_usd"].as_f64().unwrap();
    assert!((each - expected / 2.0).abs() < 1e-9, "{each}");
    assert_eq!(on_demand["tasks_without_price"], 1);
    assert_eq!(
        answer["unknown_prices"],
        json!([{ "why": "cluster here is this machine", "tasks": 1 }])
    );
    assert!(on_demand["waiting_seconds"]["median"].as_f64().unwrap() > 0.0);
    let oversized: Vec<&str> = answer["oversized"]
        .as_array()
        .unwrap()
        .iter()
        .map(|job| job["job"].as_str().unwrap())
        .collect();
    assert!(oversized.contains(&"build") && !oversized.contains(&"lint"), "{oversized:?}");
    assert!(on_demand["vcpu_hours"].as_f64().unwrap() > 0.0);

    let told = text(&house, &["report"]);
    for part in [
        "3 attempts of 3 jobs, by placement.",
        "test, agent, arm64, on-demand, 0.25 vCPU / 0.5 GiB",
        "total",
        "1 rejected: no policy or no bounds allowed them",
        "1 of the tasks have no price: cluster here is this machine.",
        "in vain: tasks that were asked for and came to nothing.",
        "Costs are estimates in USD: Fargate list prices",
        "Oversized: ",
        "Fargate has no less with 0.25 vCPU",
    ] {
        assert!(told.contains(part), "`{part}` is missing in\n{told}");
    }
    let by_project = json(&house, &["report", "--by", "project"]);
    assert_eq!(by_project["groups"][0]["group"], "acme/app");
    assert_eq!(by_project["groups"][0]["rejected"], 1);
    let _ =
        house.operator(&["report", "--by", "colour"]).fails_the_system().says("expected placement");
    house.settled(2);
}

#[test]
fn the_sides_of_an_experiment_are_compared() {
    let house = House::new();
    let component = built("policies/experiment.wasm");
    let sha256 = digest(&component);
    house.edit_settings(|text| {
        format!(
            "{text}\n[policies.trial]\ncomponent = {component:?}\nsha256 = \"{sha256}\"\n\
             [policies.trial.settings]\nname = \"spot-2026\"\npercent = 50\ncapacity = \"spot\"\n"
        )
    });
    house.edit_settings(|text| {
        text.replacen(
            "tags = [\"ranked\"]\ncluster = \"test\"",
            "tags = [\"trial\"]\ncluster = \"test\"\ntask_definition = \"agent\"\narch = \"arm64\"\ncapacity = \"on-demand\"\n\n\
             [[policies.by-tag.settings.rules]]\ntags = [\"ranked\"]\ncluster = \"test\"",
            1,
        ) + "\n[profiles.trial]\ntags = [\"trial\"]\npolicies = [\"by-tag\", \"trial\"]\n[profiles.trial.bounds]\n\
             clusters = [\"test\"]\ntask_definitions = [\"agent\"]\ncapacities = [\"on-demand\", \"spot\"]\n\
             max_cpu = \"2\"\nmax_memory = \"8GiB\"\n"
    });
    // One job on each side, whichever names these are.
    let mut sides = std::collections::BTreeMap::new();
    for name in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        played(&house, "trial", name, b"true\n");
        let records = house.records();
        let record = records.into_iter().find(|record| record["job"]["name"] == name).unwrap();
        let side = record["placement"]["labels"]["trial/side"].as_str().unwrap().to_owned();
        sides.insert(side, record);
        if sides.len() == 2 {
            break;
        }
    }
    let by = ["report", "--by", "policy-label=trial"];
    let told = text(&house, &by);
    for part in [
        "Experiment spot-2026: ",
        "spot-2026: control",
        "spot-2026: variant",
        "too few to tell",
        "Warning: Too few jobs to tell: ",
    ] {
        assert!(told.contains(part), "`{part}` is missing in\n{told}");
    }

    // The same jobs on more days: twenty different ones on each side, in three pipelines each.
    for (index, side) in ["control", "variant"].iter().enumerate() {
        for number in 0..60_u64 {
            let pipeline = 1000 + 100 * index as u64 + number;
            add_record(&house, &sides[*side], pipeline, |record| {
                record["job"]["name"] = format!("{side}-{}", number % 20).into();
            });
        }
    }
    let answer = json(&house, &by);
    let comparison = &answer["comparisons"][0];
    assert_eq!(comparison["experiment"], "spot-2026");
    assert!(comparison["control_jobs"].as_u64().unwrap() >= 61, "{comparison:#}");
    assert_eq!(comparison["warnings"], json!([]));
    // Each was paid for a minute, and Spot is assumed to be 65 % cheaper.
    let cost = &comparison["cost_usd"];
    assert!((cost["change_percent"].as_f64().unwrap() + 65.0).abs() < 1e-6, "{cost:#}");
    assert_eq!(cost["verdict"], "less");
    assert_eq!(comparison["lost"]["verdict"], "may-be-chance");
    let told = text(&house, &by);
    assert!(told.contains("-65.0 %") && !told.contains("Warning"), "{told}");
}

#[test]
fn a_launch_of_the_doctor_is_in_the_history_and_in_no_report() {
    let house = House::new();
    let _ = house.operator(&["doctor", "--launch", "--cluster", "test", "--profile", "agent"]);
    let table = text(&house, &["history"]);
    assert!(table.contains("(doctor --launch)"), "{table}");
    let attempts = json(&house, &["history"]);
    assert_eq!(attempts["attempts"][0]["doctor"], true);
    let report = json(&house, &["report"]);
    assert_eq!((&report["total"]["attempts"], &report["doctor"]), (&json!(0), &json!(1)));
    let told = text(&house, &["report"]);
    assert!(told.contains("0 attempts of 0 jobs"), "{told}");
    assert!(told.contains("1 of `doctor --launch`, and in no sum."), "{told}");
    assert_eq!(record_files(&house).len(), 1);
    house.settled(1);
}

#[test]
fn a_rehearsal_leaves_a_history_and_a_report() {
    let directory = crate::rehearsal::pinned("three-environments");
    let pipeline = crate::rehearsal::root().join("examples/three-environments/.gitlab-ci.yml");
    let output = crate::rehearsal::rehearse(directory.path(), &pipeline, &[]);
    assert!(output.status.success());
    let asked = |arguments: &[&str]| -> Value {
        let output = Command::new(crate::support::house::DRIVER)
            .arg("--config")
            .arg(directory.path().join("pointsman.toml"))
            .arg("--state-directory")
            .arg(directory.path().join("state"))
            .args(arguments)
            .args(["--format", "json"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let history = asked(&["history"]);
    assert_eq!(history["found"], 6);
    let report = asked(&["report", "--by", "profile"]);
    let groups: Vec<(&str, u64)> = report["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|group| (group["group"].as_str().unwrap(), group["jobs"].as_u64().unwrap()))
        .collect();
    assert_eq!(groups, [("dev", 2), ("production", 2), ("staging", 2)]);
    assert_eq!(report["total"]["tasks_without_price"], 0);
    assert!(report["total"]["cost_usd"].as_f64().unwrap() > 0.0);
}

#[test]
fn a_history_larger_than_memory_is_read_one_by_one() {
    const FILES: u64 = 80;
    const MIB: usize = 4;
    let house = House::new();
    played(&house, "agent", "build", b"true\n");
    let mut large = house.records().remove(0);
    large["question"]["padding"] = "x".repeat(MIB << 20).into();
    let folder = house.state().join("records/3c");
    fs::create_dir_all(&folder).unwrap();
    let first = folder.join("60-1-00000000000000aa.json");
    fs::write(&first, large.to_string()).unwrap();
    for number in 2..=FILES {
        fs::hard_link(&first, folder.join(format!("60-{number}-00000000000000aa.json"))).unwrap();
    }
    // 256 MiB of addresses, which the program itself takes a part of, for 320 MiB of records.
    for (command, expected) in
        [("history --limit 1", "The newest 1 of 81 attempts"), ("report", "81 attempts of 1 job,")]
    {
        let output = Command::new("bash")
            .arg("-c")
            .arg(format!("ulimit -v 262144 && exec \"$0\" --config \"$1\" {command}"))
            .arg(crate::support::house::DRIVER)
            .arg(house.settings_file())
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(told.contains(expected), "{told}");
    }
    house.settled(1);
}

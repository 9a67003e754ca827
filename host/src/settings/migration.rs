//! The `pointsman.toml` that does what files of GitLab's Fargate driver did. Pure.
//!
//! The driver itself reads such a file by way of this text, so the two cannot differ. The same files give the same
//! text, byte for byte.

use std::fmt::Write as _;
use std::path::Path;

use super::fargate::{FargateFile, Flags};
use super::values;
use crate::placement::Arch;
use crate::placement::text::one_line;

/// One of the files.
#[derive(Debug, Clone)]
pub struct Source<'s> {
    /// The profile that it becomes.
    pub name: String,
    /// For the comments.
    pub path: &'s Path,
    /// What it says.
    pub file: &'s FargateFile,
    /// What the command line says in its place.
    pub flags: &'s Flags,
}

/// Characters of a name (see `values::name`).
const MAX_NAME: usize = 64;

/// The profile that the file at `path` becomes: its name without the extension.
pub fn profile_name(path: &Path) -> String {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy()).unwrap_or_default();
    name_of(&stem)
}

/// The profiles of several files, each with a name of its own.
pub fn profile_names(paths: &[&Path]) -> Vec<String> {
    let stems: Vec<String> = paths.iter().map(|path| profile_name(path)).collect();
    let mut names: Vec<String> = Vec::new();
    for (index, path) in paths.iter().enumerate() {
        let is_twice = stems.iter().filter(|stem| **stem == stems[index]).count() > 1;
        let parent = path.parent().and_then(Path::file_name).map(|name| name.to_string_lossy());
        let mut name = match parent.filter(|_| is_twice) {
            Some(parent) => name_of(&format!("{parent}-{}", stems[index])),
            None => stems[index].clone(),
        };
        for number in 2_u32.. {
            if !names.contains(&name) {
                break;
            }
            name = suffixed(&stems[index], &number.to_string());
        }
        names.push(name);
    }
    names
}

/// `text` as a name of a table of ours; of an ARN its last part.
fn name_of(text: &str) -> String {
    let last =
        if text.starts_with("arn:") { text.rsplit('/').next().unwrap_or(text) } else { text };
    let legal = |each: char| each.is_ascii_alphanumeric() || "-_.".contains(each);
    let name: String =
        last.chars().map(|each| if legal(each) { each } else { '-' }).take(MAX_NAME).collect();
    if values::name(&name).is_ok() { name } else { "fargate".to_owned() }
}

fn suffixed(name: &str, suffix: &str) -> String {
    let room = MAX_NAME.saturating_sub(suffix.len() + 1);
    let start: String = name.chars().take(room).collect();
    name_of(&format!("{start}-{suffix}"))
}

/// Tables of one kind, by name, in the order in which they came up.
#[derive(Default)]
struct Tables(Vec<(String, String)>);

impl Tables {
    /// The name of the table with `content`: `wanted`, unless that is another table's.
    fn add(&mut self, wanted: &str, owner: &str, content: String) -> String {
        let mut name = wanted.to_owned();
        for number in 1_u32.. {
            match self.0.iter().find(|(other, _)| *other == name) {
                Some((_, other)) if *other == content => return name,
                None => break,
                Some(_) if number == 1 => name = suffixed(wanted, owner),
                Some(_) => name = suffixed(wanted, &format!("{owner}-{number}")),
            }
        }
        self.0.push((name.clone(), content));
        name
    }

    fn write(&self, kind: &str, text: &mut String) {
        for (name, content) in &self.0 {
            let _ = write!(text, "\n[{kind}.{}]\n{content}", key(name));
        }
    }
}

/// The text of `pointsman.toml` for `sources`, of which there must be one at least.
pub fn write(sources: &[Source<'_>]) -> String {
    let mut text = String::new();
    let files: Vec<String> = sources.iter().map(|source| shown(source.path)).collect();
    let _ = writeln!(
        text,
        "# Written by `pointsman migrate` from {}.\n# It does what GitLab's Fargate driver did with them; the comments tell what is better now, and what can be had.",
        files.join(", ")
    );
    shared(sources, &mut text);
    let mut clusters = Tables::default();
    let mut definitions = Tables::default();
    let mut profiles = String::new();
    for source in sources {
        profile(source, &mut clusters, &mut definitions, &mut profiles);
    }
    clusters.write("clusters", &mut text);
    definitions.write("task_definitions", &mut text);
    text.push_str(&profiles);
    text
}

/// What a `pointsman.toml` has once: the first file's, with the others' in comments where they differ.
fn shared(sources: &[Source<'_>], text: &mut String) {
    let Some(first) = sources.first() else { return };
    text.push_str("\n[state]\n");
    text.push_str("# Attempts and their records. A job's key is its own, is never readable by others and goes with the job;\n");
    text.push_str("# `pointsman sweep` finds tasks that leaked by what lies here. It must belong to the user that GitLab Runner\n");
    text.push_str("# runs the driver as, and last from one stage to the next.\n");
    let directory =
        |source: &Source<'_>| quoted(&source.file.state_directory.display().to_string());
    let _ = writeln!(text, "directory = {}", directory(first));
    for other in sources.iter().filter(|source| directory(source) != directory(first)) {
        let _ = writeln!(text, "# {} had {}", shown(other.path), directory(other));
    }
    text.push_str("\n[log]\n");
    text.push_str("# For operators. What a job's author has to know is in the job log whatever stands here.\n");
    let log = |source: &Source<'_>| {
        let log = &source.file.log;
        // What that driver takes when the file says nothing.
        let level = log.level.map_or("info", super::LogLevel::name);
        let mut lines =
            format!("level = {}\nformat = {}\n", quoted(level), quoted(log.format.name()));
        if let Some(file) = &log.file {
            let _ = writeln!(lines, "file = {}", quoted(&file.display().to_string()));
        }
        lines
    };
    text.push_str(&log(first));
    for other in sources.iter().filter(|source| log(source) != log(first)) {
        let lines = log(other).trim_end().replace('\n', ", ");
        let _ = writeln!(text, "# {} had {lines}", shown(other.path));
    }
    text.push_str(
        "\n# With this, policies see a job's own tags, and not only those of its runner.\n",
    );
    text.push_str("# [gitlab]\n# url = \"https://gitlab.example.com\"\n");
}

fn profile(
    source: &Source<'_>,
    clusters: &mut Tables,
    definitions: &mut Tables,
    profiles: &mut String,
) {
    let Source { name, path, file, flags } = source;
    let owner = name.as_str();
    let wanted = name_of(&file.cluster);
    let version = flags.platform_version.as_ref().or(file.platform_version.as_ref());
    let cluster = clusters.add(&wanted, owner, cluster_table(file, version));
    // The name is the file's, whatever a stage's arguments say: stages find each other by it.
    let definition = definitions.add(
        &name_of(&file.task_definition),
        owner,
        definition_table(file, flags.task_definition.as_ref().unwrap_or(&file.task_definition)),
    );
    let allowed_definitions = file.allowed_task_definitions.as_ref().map(|listed| {
        let add = |one: &String| {
            let started = flags.task_definition.as_ref().unwrap_or(one);
            definitions.add(&name_of(one), owner, definition_table(file, started))
        };
        unique(listed.iter().map(add))
    });
    let allowed_clusters = file.allowed_platform_versions.as_ref().map(|listed| {
        let add = |one: &String| {
            let version = flags.platform_version.as_ref().unwrap_or(one);
            clusters.add(&suffixed(&wanted, one), owner, cluster_table(file, Some(version)))
        };
        unique(listed.iter().map(add))
    });
    let with = |own: &String, others: &Option<Vec<String>>| {
        unique(std::iter::once(own.clone()).chain(others.iter().flatten().cloned()))
    };
    let capacity = file.capacity.to_string();
    let _ = writeln!(profiles, "\n# {}", shown(path));
    let _ = writeln!(profiles, "[profiles.{}]", key(name));
    profiles.push_str("# The tags of the runner in GitLab that uses this profile, for policies to go by.\ntags = []\n");
    profiles.push_str("# Nobody is asked where a job runs: the default below says it. `pointsman policy new` begins a policy.\npolicies = []\n");
    let _ = writeln!(profiles, "\n[profiles.{}.bounds]", key(name));
    profiles
        .push_str("# Nothing else can be had in this profile, by whatever policy or variable.\n");
    let _ = writeln!(profiles, "clusters = {}", array(&with(&cluster, &allowed_clusters)));
    let _ = writeln!(
        profiles,
        "task_definitions = {}",
        array(&with(&definition, &allowed_definitions))
    );
    let _ = writeln!(profiles, "capacities = {}", array(std::slice::from_ref(&capacity)));
    profiles
        .push_str("# For policies that choose sizes.\nmax_cpu = \"4\"\nmax_memory = \"16GiB\"\n");
    let _ = writeln!(profiles, "\n[profiles.{}.default]", key(name));
    let _ = writeln!(profiles, "cluster = {}", quoted(&cluster));
    let _ = writeln!(profiles, "task_definition = {}", quoted(&definition));
    let _ = writeln!(profiles, "arch = {}", quoted(&file.arch.to_string()));
    let _ = writeln!(profiles, "capacity = {}", quoted(&capacity));
    // As that driver has it, an argument counts and the variable does not.
    let lists = [
        ("task_definitions", allowed_definitions.filter(|_| flags.task_definition.is_none())),
        ("clusters", allowed_clusters.filter(|_| flags.platform_version.is_none())),
    ];
    if lists.iter().any(|(_, list)| list.is_some()) {
        let _ = writeln!(profiles, "\n[profiles.{}.fargate_variables]", key(name));
        profiles.push_str(
            "# What FARGATE_TASK_DEFINITION and FARGATE_PLATFORM_VERSION of a job may choose.\n",
        );
    } else {
        let _ = writeln!(
            profiles,
            "\n# FARGATE_TASK_DEFINITION and FARGATE_PLATFORM_VERSION of a job are ignored, and its log says so: whoever edits a\n# pipeline could choose any task definition, with its role. This lists what they may choose:\n# [profiles.{}.fargate_variables]\n# task_definitions = [{}]",
            key(name),
            quoted(&definition)
        );
    }
    for (key, list) in lists {
        if let Some(list) = list {
            let _ = writeln!(profiles, "{key} = {}", array(&list));
        }
    }
}

fn cluster_table(file: &FargateFile, platform_version: Option<&String>) -> String {
    let mut text = String::from("backend = \"ecs\"\n");
    let _ = writeln!(text, "region = {}", quoted(&file.region));
    text.push_str(
        "# Fargate is asked for by name, so the cluster needs no default capacity provider.\n",
    );
    let _ = writeln!(text, "cluster = {}", quoted(&file.cluster));
    text.push_str(
        "# Several can be listed, best in several zones: a full one is left alone for a while.\n",
    );
    let _ = writeln!(text, "subnets = [{}]", quoted(&file.subnet));
    let _ = writeln!(text, "security_groups = [{}]", quoted(&file.security_group));
    if file.enable_public_ip {
        text.push_str("assign_public_ip = true\n");
        if file.use_public_ip {
            text.push_str("address = \"public\"\n");
        } else {
            text.push_str("# Before version 0.3 of GitLab's driver, the public address was the one to connect to; that is `address = \"public\"`.\n");
        }
    }
    if let Some(version) = platform_version {
        let _ = writeln!(text, "platform_version = {}", quoted(version));
    }
    if file.enable_execute_command {
        text.push_str("enable_execute_command = true\n");
    }
    text
}

fn definition_table(file: &FargateFile, task_definition: &str) -> String {
    let mut text = String::new();
    let (arch, other) = match file.arch {
        Arch::X86_64 => ("x86_64", "arm64"),
        Arch::Arm64 => ("arm64", "x86_64"),
    };
    let _ = writeln!(text, "{arch} = {}", quoted(task_definition));
    let _ = writeln!(
        text,
        "# With a task definition for {other} beside it, a policy can choose between the two."
    );
    text.push_str("container = \"ci-coordinator\"\n");
    text.push_str("# The size of the ECS task definition is not overridden. With `cpu` and `memory` instead, policies know the size.\n");
    text.push_str("size = \"task-definition\"\n");
    text.push_str("# As GitLab Runner's config.toml says; a path here would count instead.\n");
    text.push_str("builds_dir = \"runner\"\ncache_dir = \"runner\"\n");
    text.push_str("# Scripts come over stdin, of any size, and not on a command line of at most 128 KiB that `ps` shows.\n");
    text.push_str("shell = \"login\"\n");
    text.push_str("# The host key that is seen first counts for the rest of the job. `host_key = \"injected\"` verifies it from the\n# first packet, with an image that takes it; `server = \"agent\"` also lets scripts survive a lost connection.\n");
    let _ = writeln!(
        text,
        "ssh = {{ server = \"openssh\", user = {}, port = {} }}",
        quoted(&file.username),
        file.port
    );
    text
}

fn unique(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut all = Vec::new();
    for name in names {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    all
}

/// A path for a comment.
fn shown(path: &Path) -> String {
    one_line(&path.display().to_string(), 4096)
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn array(texts: &[String]) -> String {
    let texts: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
    format!("[{}]", texts.join(", "))
}

/// A name as a key, which dots would cut apart.
fn key(name: &str) -> String {
    if name.contains('.') { quoted(name) } else { name.to_owned() }
}

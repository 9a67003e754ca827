//! `pointsman policy test` on the command line.

use std::path::{Path, PathBuf};

use clap::Args;

use super::Cache;
use crate::authoring::fixture::{self, Fixture};
use crate::authoring::trial::{Bench, Played};
use crate::authoring::{AuthoringError, junit, name_of, update};
use crate::failure::{Failure, Report};
use crate::output;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Fixtures, or directories of them
    #[arg(default_value = "fixtures")]
    fixtures: Vec<PathBuf>,
    /// The component
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// Writes what came out into the fixtures' expectations
    #[arg(long)]
    update: bool,
    /// Writes a JUnit report here
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    #[command(flatten)]
    cache: Cache,
}

/// Answers whether every fixture got what it expects.
pub(super) fn run(arguments: &Arguments) -> Result<bool, Failure> {
    let store = arguments.cache.store()?;
    let bench = Bench::new(&arguments.policy, &store)?;
    let mut played = Vec::new();
    for path in fixture::files(&arguments.fixtures)? {
        let fixture = Fixture::read(&path)?;
        let mut one = bench.play(&fixture)?;
        if arguments.update && !one.differences.is_empty() {
            write(&path, &fixture, &one)?;
            one = bench.play(&Fixture::read(&path)?)?;
            output::result(&format!("updated  {}\n", path.display()));
        }
        tell(&path, &one);
        played.push(one);
    }
    let failed = played.iter().filter(|one| !one.differences.is_empty()).count();
    let variants: usize = played.iter().map(|one| one.variants).sum();
    output::result(&format!(
        "{} passed, {failed} failed; {variants} variants played\n",
        played.len() - failed
    ));
    if let Some(path) = &arguments.junit {
        let report = junit::report(&name_of(&arguments.policy), &played);
        std::fs::write(path, report).map_err(io("write", path))?;
    }
    Ok(failed == 0)
}

fn tell(path: &Path, played: &Played) {
    let name = output::printable(&played.name);
    if played.differences.is_empty() {
        let fuel = played.observed.as_ref().map_or(0, |observed| observed.fuel);
        output::result(&format!("ok       {name} ({fuel} fuel)\n"));
        return;
    }
    output::result(&format!("FAILED   {name}\n         {}\n", path.display()));
    for difference in &played.differences {
        output::result(&format!("         {}\n", output::printable(difference)));
    }
}

fn write(path: &Path, fixture: &Fixture, played: &Played) -> Result<(), Failure> {
    let Some(observed) = &played.observed else { return Ok(()) };
    let text = std::fs::read_to_string(path).map_err(io("read", path))?;
    let expect = update::updated(&fixture.expect, observed);
    let is_toml = path.extension().is_some_and(|extension| extension == "toml");
    let updated = if is_toml { update::toml(&text, &expect) } else { update::yaml(&text, &expect) };
    let updated = updated.map_err(|reason| {
        Failure::System(Report::new(format!("{} cannot be updated: {reason}", path.display())))
    })?;
    std::fs::write(path, updated).map_err(io("write", path))
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Failure {
    let path = path.to_owned();
    move |source| AuthoringError::Io { action, path, source }.into()
}

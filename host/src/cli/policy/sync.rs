//! `pointsman policy sync` on the command line.

use clap::Args;

use crate::cli::{Global, load};
use crate::failure::Failure;
use crate::output;
use crate::policy::Store;

#[derive(Debug, Args)]
pub(super) struct Arguments {}

/// Answers whether every policy is installed.
pub(super) fn run(global: &Global, _: &Arguments) -> Result<bool, Failure> {
    let settings = load(global)?;
    let store = Store::open(&settings.state_directory.join("policies"))?;
    let mut all = true;
    for (name, policy) in &settings.policies {
        match store.describe(name, policy) {
            Ok(description) => output::result(&format!(
                "{name}: {} {}\n",
                output::printable(&description.name),
                output::printable(&description.version)
            )),
            Err(error) => {
                all = false;
                if let Failure::System(report) | Failure::Build(report) = Failure::from(error) {
                    report.print();
                }
            }
        }
    }
    Ok(all)
}

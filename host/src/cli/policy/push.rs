//! `pointsman policy push`: puts a component into a registry and says what to pin.

use std::path::PathBuf;

use clap::Args;
use sha2::{Digest, Sha256};

use crate::failure::{Failure, Report};
use crate::output;
use crate::policy::Store;
use crate::registry::{self, About, Credentials};
use crate::settings::{Component, Policy};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The component
    #[arg(value_name = "FILE")]
    component: PathBuf,
    /// Where it goes
    #[arg(value_name = "oci://HOST/NAME:TAG")]
    place: String,
    /// User and password for the registry, in the format of Docker's config.json
    #[arg(long, value_name = "FILE")]
    auth_file: Option<PathBuf>,
    /// The component needs WASI, as those of Python and JavaScript may
    #[arg(long)]
    wasi: bool,
}

/// Pushes, and prints the lines for the settings file.
pub(super) fn run(arguments: &Arguments) -> Result<bool, Failure> {
    let credentials = match &arguments.auth_file {
        Some(path) => {
            Credentials::read(path).map_err(|error| Failure::System(Report::of(&error)))?
        }
        None => Credentials::default(),
    };
    let bytes = std::fs::read(&arguments.component).map_err(|error| {
        let mut report = Report::new("cannot read the component");
        report.causes = vec![format!("{}: {error}", arguments.component.display())];
        Failure::System(report)
    })?;
    let sha256: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    // What no driver would run is not worth a place in a registry.
    let own = tempfile::Builder::new()
        .prefix("pointsman-policy")
        .tempdir()
        .map_err(|error| Failure::System(Report::of(&error)))?;
    let store = Store::open(&own.path().join("policies"))?;
    let mut policy = Policy::new(Component::File(arguments.component.clone()), sha256.clone());
    policy.wasi = arguments.wasi;
    policy.deadline = std::time::Duration::from_secs(10);
    let name = arguments.component.file_stem().unwrap_or_default().to_string_lossy();
    let description = store.inspect(&name, &policy)?;
    let about = About {
        imports: description.imports.into_iter().collect(),
        exports: description.exports.into_iter().collect(),
        title: description.name,
        version: description.version,
    };
    let reference = registry::push(&arguments.place, bytes, &sha256, &about, &credentials)
        .map_err(|error| Failure::System(Report::of(&error)))?;
    output::result(&format!("component = \"oci://{reference}\"\nsha256 = \"{sha256}\"\n"));
    Ok(true)
}

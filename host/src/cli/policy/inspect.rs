//! `pointsman policy inspect` on the command line.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::Cache;
use crate::authoring::inspect::{Inspection, inspect};
use crate::failure::{Failure, Report};
use crate::output;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The component
    file: PathBuf,
    /// Prints only the JSON Schema of the settings
    #[arg(long)]
    schema: bool,
    /// How it is written
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    #[command(flatten)]
    cache: Cache,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Text,
    /// One JSON value
    Json,
}

/// Answers whether the driver would run the component.
pub(super) fn run(arguments: &Arguments) -> Result<bool, Failure> {
    let inspection = inspect(&arguments.file, &arguments.cache.store()?)?;
    if arguments.schema {
        let schema = inspection.says.as_ref().and_then(|says| says.settings_schema.as_ref());
        let schema = schema.ok_or_else(|| {
            Failure::system(format!("{} gives no schema of its settings", arguments.file.display()))
        })?;
        output::result(&format!("{}\n", pretty(schema)?));
    } else if arguments.format == Format::Json {
        output::result(&format!("{}\n", pretty(&inspection)?));
    } else {
        output::result(&text(&inspection));
    }
    Ok(inspection.refused.is_none())
}

pub(crate) fn pretty(value: &impl serde::Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(value).map_err(|error| Failure::System(Report::of(&error)))
}

fn text(inspection: &Inspection) -> String {
    let mut rows: Vec<(&str, String)> = Vec::new();
    if let Some(says) = &inspection.says {
        rows.push(("name", format!("{} {}", says.name, says.version)));
        rows.push(("description", says.description.clone()));
    }
    rows.push(("world", inspection.world.unwrap_or("none of a policy's").to_owned()));
    let version = inspection.interface_version.as_deref().unwrap_or("unknown");
    rows.push(("interface", format!("pointsman:policy@{version}")));
    rows.push(("sha256", inspection.sha256.clone()));
    rows.push(("size", format!("{} KiB", inspection.bytes.div_ceil(1024))));
    for (name, interfaces) in [("imports", &inspection.imports), ("exports", &inspection.exports)] {
        for (index, (interface, functions)) in interfaces.iter().enumerate() {
            let functions = if functions.is_empty() {
                String::new()
            } else {
                format!(": {}", functions.join(", "))
            };
            rows.push((if index == 0 { name } else { "" }, format!("{interface}{functions}")));
        }
    }
    let none = || "none".to_owned();
    rows.push((
        "WASI",
        if inspection.wasi.is_empty() { none() } else { inspection.wasi.join(", ") },
    ));
    rows.push(("needs", inspection.needs.first().cloned().unwrap_or_else(none)));
    rows.extend(inspection.needs.iter().skip(1).map(|need| ("", need.clone())));
    let schema = inspection.says.as_ref().is_some_and(|says| says.settings_schema.is_some());
    rows.push((
        "settings",
        if schema { "--schema prints their schema".to_owned() } else { "no schema".to_owned() },
    ));
    if let Some(refused) = &inspection.refused {
        rows.push(("REFUSED", refused.clone()));
    }
    rows.iter().map(|(key, value)| format!("{key:<12} {}\n", output::printable(value))).collect()
}

//! `docs/configuration.md`: every table and key, in Markdown.

use std::fmt::Write as _;

use super::{Need, ROOT, Table, Value};

const HEAD: &str = "\
# Configuration

<!-- Written by `pointsman schema --format markdown`: change host/src/settings/description/tables.rs instead. -->

Everything that `pointsman.toml` can say.
The driver reads `/etc/pointsman/pointsman.toml`, or the file that `--config FILE` names.
All mistakes of a file are reported at once, each with its line; unknown keys are mistakes, and the nearest known key is named.
`pointsman check` finds what else is wrong with it: [check.md](check.md).

For editors, `pointsman schema > pointsman.schema.json` prints a JSON Schema; editors for TOML take it by a first line

```toml
#:schema ./pointsman.schema.json
```

## How values are written

| what | how | examples |
|---|---|---|
| a duration | a text of numbers with units, above zero and at most 7 days | `\"90s\"`, `\"5m\"`, `\"1h 30m\"` |
| memory and disk | a text with `GiB` or `MiB` | `\"4GiB\"`, `\"512MiB\"` |
| vCPUs | a text: vCPUs, or thousandths of one with `m` | `\"2\"`, `\"0.5\"`, `\"500m\"` |
| a name | 1 to 64 of letters, digits, `-`, `_` and `.`; it appears in tags and log lines | `node-22` |
| a path | relative paths are of the settings file's directory | `\"by-tag.wasm\"` |
";

/// The page.
pub fn markdown() -> String {
    let mut page = HEAD.to_owned();
    write_keys(&mut page, "The file", &ROOT);
    for key in ROOT.keys {
        write_value(&mut page, key.name, &key.value);
    }
    page
}

/// The sections of the tables that `value`, at `path`, has.
fn write_value(page: &mut String, path: &str, value: &Value) {
    match value {
        Value::Table(of) => write_table(page, path, of, ""),
        Value::Named(of) => write_table(page, &format!("{path}.NAME"), of, ""),
        Value::NamedBy { key, tables } => {
            for (name, of) in *tables {
                let with = format!(" with `{key} = \"{name}\"`");
                write_table(page, &format!("{path}.NAME"), of, &with);
            }
        }
        _ => {}
    }
}

fn write_table(page: &mut String, path: &str, of: &Table, with: &str) {
    write_keys(page, &format!("`[{path}]`{with}"), of);
    for key in of.keys {
        write_value(page, &format!("{path}.{}", key.name), &key.value);
    }
}

fn write_keys(page: &mut String, title: &str, of: &Table) {
    let _ = write!(page, "\n## {title}\n\n{}\n\n", sentences(of.about));
    page.push_str("| key | value | without it | meaning |\n|---|---|---|---|\n");
    for key in of.keys {
        let without = match key.need {
            Need::Required => "**required**".to_owned(),
            Need::OneOf(names) => {
                let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
                format!("one of {} is required", names.join(" and "))
            }
            Need::Default(text) => format!("`{text}`"),
            Need::Optional(words) => words.to_owned(),
        };
        let mut about = key.about.to_owned();
        if let Value::Choice(choices) | Value::Choices(choices) = key.value {
            let each: Vec<String> =
                choices.iter().map(|(name, about)| format!("`\"{name}\"`: {about}")).collect();
            let _ = write!(about, " {}.", each.join("; "));
        }
        let value = kind(&key.value);
        let _ = writeln!(page, "| `{}` | {value} | {without} | {about} |", key.name);
    }
}

/// A sentence a line, with links to the other pages.
fn sentences(text: &str) -> String {
    let page = |word: &str| {
        let name = word.strip_prefix("docs/")?;
        name.ends_with(".md").then(|| format!("[{name}]({name})"))
    };
    let words: Vec<String> =
        text.split(' ').map(|word| page(word).unwrap_or_else(|| word.to_owned())).collect();
    words.join(" ").replace(". ", ".\n")
}

fn kind(value: &Value) -> String {
    match value {
        Value::Number(least, most) => return format!("{least} to {}", grouped(*most)),
        Value::Text => "text",
        Value::RoleArn => "ARN of an IAM role",
        Value::Url => "address",
        Value::Sha256 => "64 hex digits",
        Value::TaskPath => "absolute path",
        Value::Name => "name",
        Value::Flag => "`true` or `false`",
        Value::Duration => "duration",
        Value::Memory => "memory",
        Value::Storage => "disk",
        Value::Cpu => "vCPUs",
        Value::Choice(_) => "one of a few",
        Value::Choices(_) => "list of a few",
        Value::Texts(..) => "list of texts",
        Value::Labels => "table of texts",
        Value::Anything | Value::Table(_) => "table",
        Value::Named(_) | Value::NamedBy { .. } => "tables by name",
    }
    .to_owned()
}

/// `100,000,000,000`; ports stay as they are.
fn grouped(number: u64) -> String {
    match number / 1000 {
        0..100 => number.to_string(),
        thousands => format!("{},{:03}", thousands_of(thousands), number % 1000),
    }
}

fn thousands_of(number: u64) -> String {
    match number / 1000 {
        0 => number.to_string(),
        thousands => format!("{},{:03}", thousands_of(thousands), number % 1000),
    }
}

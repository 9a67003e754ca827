//! JSON Schema of the file, for editors: draft 7, which those for TOML understand.
//!
//! It says what each key may be. What must fit together, and names that another table must have, only the reader
//! knows: a file that the schema accepts can still have mistakes, one that it refuses always has.

use serde_json::{Map, Value as Json, json};

use super::{Choice, Need, ROOT, Table, Value};

/// The schema.
pub fn schema() -> Json {
    let mut schema = table(&ROOT);
    if let Json::Object(fields) = &mut schema {
        fields.insert("$schema".to_owned(), json!("http://json-schema.org/draft-07/schema#"));
        fields.insert("title".to_owned(), json!("pointsman.toml"));
    }
    schema
}

fn table(of: &Table) -> Json {
    let mut properties = Map::new();
    let mut required = Vec::new();
    let mut one_of: &[&str] = &[];
    for key in of.keys {
        let mut field = value(&key.value);
        if let Json::Object(fields) = &mut field {
            fields.insert("description".to_owned(), json!(plain(key.about)));
            if let Need::Default(text) = key.need
                && let Some(default) = default(text)
            {
                fields.insert("default".to_owned(), default);
            }
        }
        match key.need {
            Need::Required => required.push(key.name),
            Need::OneOf(names) => one_of = names,
            Need::Default(_) | Need::Optional(_) => {}
        }
        properties.insert(key.name.to_owned(), field);
    }
    let mut schema = json!({
        "type": "object",
        "description": plain(of.about),
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    });
    if !one_of.is_empty() {
        let each: Vec<Json> = one_of.iter().map(|name| json!({ "required": [name] })).collect();
        schema["anyOf"] = json!(each);
    }
    schema
}

/// Without Markdown's marks, which editors show as they are.
fn plain(text: &str) -> String {
    text.replace('`', "")
}

/// The JSON of a default in TOML.
fn default(text: &str) -> Option<Json> {
    let document: toml::Table = format!("value = {text}").parse().ok()?;
    serde_json::to_value(document.get("value")?).ok()
}

fn text(pattern: &str) -> Json {
    json!({ "type": "string", "pattern": pattern })
}

/// As the reader does, texts may have white space around an amount.
fn value(of: &Value) -> Json {
    match of {
        Value::Text => text("\\S"),
        Value::Name => text(NAME),
        Value::TaskPath => text("^(/[A-Za-z0-9/_.-]*|runner)$"),
        Value::Flag => json!({ "type": "boolean" }),
        Value::Number(least, most) => {
            json!({ "type": "integer", "minimum": least, "maximum": most })
        }
        Value::Duration => text("^(\\s*[0-9]+(\\.[0-9]+)?\\s*[a-zA-Zµ]+)+\\s*$"),
        Value::Memory | Value::Storage => text("^\\s*\\+?[0-9]+\\s*(GiB|MiB)$"),
        Value::Cpu => text("^\\+?([0-9]+\\.?[0-9]*|\\.[0-9]+)([eE][+-]?[0-9]+)?m?$"),
        Value::Sha256 => text("^(sha256:)?[0-9a-fA-F]{64}$"),
        Value::RoleArn => text("^arn:aws[^:]*:iam::[0-9]{12}:role/.+$"),
        Value::Url => text("^https?://[^\\s?#\\\\]+$"),
        Value::Choice(choices) => one(choices),
        Value::Choices(choices) => json!({ "type": "array", "items": one(choices) }),
        Value::Texts(least, most) => {
            let mut list = json!({ "type": "array", "items": text("\\S") });
            if *least > 0 {
                list["minItems"] = json!(least);
            }
            if *most < usize::MAX {
                list["maxItems"] = json!(most);
            }
            list
        }
        Value::Labels => json!({ "type": "object", "additionalProperties": text("\\S") }),
        Value::Anything => json!({ "type": "object" }),
        Value::Table(of) => table(of),
        Value::Named(of) => named(&table(of)),
        Value::NamedBy { key, tables } => {
            let names: Vec<&str> = tables.iter().map(|(name, _)| *name).collect();
            // One after the other, so that an editor tells what is wrong with the table that it is.
            let each: Vec<Json> = tables
                .iter()
                .map(|(name, of)| {
                    json!({
                        "if": { "required": [key], "properties": { *key: { "const": name } } },
                        "then": table(of),
                    })
                })
                .collect();
            named(&json!({
                "type": "object",
                "required": [key],
                "properties": { *key: { "enum": names } },
                "allOf": each,
            }))
        }
    }
}

const NAME: &str = "^[A-Za-z0-9._-]{1,64}$";

fn named(of: &Json) -> Json {
    json!({
        "type": "object",
        "propertyNames": { "pattern": NAME },
        "additionalProperties": of,
    })
}

fn one(choices: &[Choice]) -> Json {
    let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
    json!({ "enum": names })
}

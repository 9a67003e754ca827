//! JSON Schema of a policy's settings, for `pointsman policy inspect --schema` and for editors.
//!
//! [`settings!`](crate::settings!) makes one of a declaration; tables within tables are put together by hand. A derive
//! macro's schema machinery would be a third of a small component.

use serde_json::{Map, Value, json};

/// A piece of JSON Schema (draft 2020-12).
#[derive(Debug, Clone, PartialEq)]
pub struct Schema(Value);

/// A table; add its keys. Keys that are not added are refused.
pub fn table() -> Schema {
    Schema(json!({ "type": "object", "additionalProperties": false, "properties": {} }))
}

/// A text that is not empty.
pub fn text(description: &str) -> Schema {
    Schema(json!({ "type": "string", "minLength": 1, "description": description }))
}

/// `true` or `false`.
pub fn flag(description: &str) -> Schema {
    Schema(json!({ "type": "boolean", "description": description }))
}

/// A whole number from `least` to `most`.
pub fn whole(description: &str, least: u64, most: u64) -> Schema {
    Schema(json!({
        "type": "integer", "minimum": least, "maximum": most, "description": description,
    }))
}

/// A number from `least` to `most`, parts of one allowed.
pub fn number(description: &str, least: u64, most: u64) -> Schema {
    Schema(json!({
        "type": "number", "minimum": least, "maximum": most, "description": description,
    }))
}

/// One of `choices`.
pub fn choice(description: &str, choices: &[&str]) -> Schema {
    Schema(json!({ "enum": choices, "description": description }))
}

/// A list of `item`.
pub fn list(description: &str, item: Schema) -> Schema {
    Schema(json!({ "type": "array", "items": item.0, "description": description }))
}

/// A table from names of the operator's choice to `item`.
pub fn map(description: &str, item: Schema) -> Schema {
    Schema(json!({
        "type": "object", "additionalProperties": item.0, "description": description,
    }))
}

impl Schema {
    /// Adds a key that must be there.
    #[must_use]
    pub fn required(mut self, name: &str, value: Self) -> Self {
        self.property(name, value);
        if let Some(table) = self.0.as_object_mut() {
            let required = table.entry("required").or_insert_with(|| json!([]));
            if let Some(required) = required.as_array_mut() {
                required.push(name.into());
            }
        }
        self
    }

    /// Adds a key that may be there.
    #[must_use]
    pub fn optional(mut self, name: &str, value: Self) -> Self {
        self.property(name, value);
        self
    }

    fn property(&mut self, name: &str, value: Self) {
        if let Some(properties) = self.0.get_mut("properties").and_then(Value::as_object_mut) {
            properties.insert(name.to_owned(), value.0);
        }
    }

    /// The whole document.
    pub fn document(&self, title: &str) -> String {
        let mut document = Map::new();
        document.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
        document.insert("title".into(), title.into());
        if let Value::Object(own) = &self.0 {
            document.extend(own.clone());
        }
        Value::Object(document).to_string()
    }

    /// The keys of a table, for tests that hold a schema against its policy.
    pub fn keys(&self) -> Vec<&str> {
        self.0
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flat_map(|properties| properties.keys().map(String::as_str))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_lists_its_keys() {
        let schema = table()
            .required("cluster", text("where"))
            .optional("tags", list("of the job", text("a tag")))
            .optional("share", whole("per cent", 0, 100));
        assert_eq!(schema.keys(), ["cluster", "share", "tags"]);
        let document: Value = serde_json::from_str(&schema.document("x")).unwrap();
        assert_eq!(document["required"], json!(["cluster"]));
        assert_eq!(document["properties"]["tags"]["items"]["type"], "string");
        assert_eq!(document["additionalProperties"], false);
    }
}

//! Tables of a TOML file, read strictly: whatever is wrong is noted with its line, and reading goes on.

use std::cell::RefCell;

use serde_json::Value;
use toml::de::{DeTable, DeValue};

use super::Mistake;

/// The text, and its mistakes so far.
#[derive(Debug)]
pub(super) struct Reader<'t> {
    text: &'t str,
    mistakes: RefCell<Vec<Mistake>>,
}

impl<'t> Reader<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, mistakes: RefCell::default() }
    }

    fn line(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().get(..offset).unwrap_or_default();
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    }

    /// Notes a mistake.
    pub(super) fn report(&self, offset: usize, path: &str, message: &str) {
        let (line, path) = (self.line(offset), path.to_owned());
        self.mistakes.borrow_mut().push(Mistake { line, path, message: message.to_owned() });
    }

    /// What was read, unless there are mistakes.
    pub(super) fn end<T>(self, read: T) -> Result<T, Vec<Mistake>> {
        let mut mistakes = self.mistakes.into_inner();
        mistakes.sort_by_key(|mistake| mistake.line);
        if mistakes.is_empty() { Ok(read) } else { Err(mistakes) }
    }
}

/// One table.
#[derive(Debug)]
pub(super) struct Table<'t> {
    reader: &'t Reader<'t>,
    path: String,
    offset: usize,
    entries: &'t DeTable<'t>,
    known: RefCell<Vec<String>>,
}

impl<'t> Table<'t> {
    pub(super) fn root(reader: &'t Reader<'t>, entries: &'t DeTable<'t>) -> Self {
        Self { reader, path: String::new(), offset: 0, entries, known: RefCell::default() }
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn find(&self, key: &str) -> Option<(usize, &'t DeValue<'t>)> {
        self.known.borrow_mut().push(key.to_owned());
        let (key, value) = self.entries.get_key_value(key)?;
        Some((key.span().start, value.get_ref()))
    }

    pub(super) fn line(&self) -> usize {
        self.reader.line(self.offset)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &'t str> {
        self.entries.keys().map(|key| key.get_ref().as_ref())
    }

    /// Notes a mistake at `key`.
    pub(super) fn report(&self, key: &str, message: &str) {
        let offset = self.find(key).map_or(self.offset, |(offset, _)| offset);
        self.reader.report(offset, &self.path_of(key), message);
    }

    /// Notes a mistake of the table as a whole; whether there was none.
    pub(super) fn check(&self, checked: Result<(), String>) -> bool {
        match checked {
            Ok(()) => true,
            Err(message) => {
                self.reader.report(self.offset, &self.path, &message);
                false
            }
        }
    }

    /// The value of `key` as `parse` reads it; `None` when it is absent or wrong.
    pub(super) fn get<T>(
        &self,
        key: &str,
        parse: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<T> {
        let (offset, value) = self.find(key)?;
        parse(value)
            .map_err(|message| self.reader.report(offset, &self.path_of(key), &message))
            .ok()
    }

    /// As [`Self::get`], but its absence is a mistake.
    pub(super) fn required<T>(
        &self,
        key: &str,
        parse: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<T> {
        if self.find(key).is_none() {
            self.check(Err(format!("has no `{key}`")));
        }
        self.get(key, parse)
    }

    /// The table at `key`.
    pub(super) fn table(&self, key: &str) -> Option<Self> {
        let (offset, value) = self.find(key)?;
        match value {
            DeValue::Table(entries) => Some(self.child(self.path_of(key), offset, entries)),
            other => {
                self.reader.report(offset, &self.path_of(key), &wrong("a table", other));
                None
            }
        }
    }

    /// The tables of `[[key]]`.
    pub(super) fn list(&self, key: &str) -> Vec<Self> {
        let Some((offset, value)) = self.find(key) else { return Vec::new() };
        let path = self.path_of(key);
        let DeValue::Array(items) = value else {
            self.reader.report(offset, &path, &wrong("a list of tables", value));
            return Vec::new();
        };
        let item = |(index, item): (usize, &'t toml::Spanned<DeValue<'t>>)| {
            let path = format!("{path}[{}]", index + 1);
            match item.get_ref() {
                DeValue::Table(entries) => Some(self.child(path, item.span().start, entries)),
                other => {
                    self.reader.report(item.span().start, &path, &wrong("a table", other));
                    None
                }
            }
        };
        items.iter().enumerate().filter_map(item).collect()
    }

    fn child(&self, path: String, offset: usize, entries: &'t DeTable<'t>) -> Self {
        Self { reader: self.reader, path, offset, entries, known: RefCell::default() }
    }

    /// Notes every key that nobody asked for.
    pub(super) fn finish(&self) {
        let known = self.known.borrow();
        for (key, _) in self.entries {
            if !known.iter().any(|one| one == key.get_ref().as_ref()) {
                let list: Vec<String> = known.iter().map(|one| format!("`{one}`")).collect();
                let message = format!("is no key of this table, which has {}", list.join(", "));
                self.reader.report(key.span().start, &self.path_of(key.get_ref()), &message);
            }
        }
    }
}

fn wrong(expected: &str, value: &DeValue<'_>) -> String {
    format!("is a {}, expected {expected}", value.type_str())
}

pub(super) fn text(value: &DeValue<'_>) -> Result<String, String> {
    value.as_str().map(str::to_owned).ok_or_else(|| wrong("a text in quotes", value))
}

pub(super) fn flag(value: &DeValue<'_>) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| wrong("true or false", value))
}

/// A whole number, 0 or more.
pub(super) fn whole(value: &DeValue<'_>) -> Result<u64, String> {
    let Some(integer) = value.as_integer() else { return Err(wrong("a whole number", value)) };
    u64::from_str_radix(integer.as_str(), integer.radix())
        .map_err(|_| format!("is {}, expected a whole number, 0 or more", integer.as_str()))
}

/// A number with or without a fraction.
pub(super) fn number(value: &DeValue<'_>) -> Result<f64, String> {
    let text = match value {
        DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str(),
        DeValue::Float(float) => float.as_str(),
        other => return Err(wrong("a number", other)),
    };
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        _ => Err(format!("is {text}, expected a number")),
    }
}

/// A duration such as `"90s"`, in milliseconds.
pub(super) fn millis(value: &DeValue<'_>) -> Result<u64, String> {
    let text = text(value)?;
    let expected =
        || format!("is `{text}`, expected a duration such as `300ms`, `12.9s`, `5m` or `1h`");
    let split = text.find(|character: char| character.is_ascii_alphabetic());
    let (digits, unit) = split.and_then(|at| text.split_at_checked(at)).ok_or_else(expected)?;
    let factor = match unit {
        "ms" => 1.0,
        "s" => 1000.0,
        "m" => 60_000.0,
        "h" => 3_600_000.0,
        _ => return Err(expected()),
    };
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    match digits.parse::<f64>() {
        // A year: more would only be a slip.
        Ok(number) if plain && number * factor <= 3.2e10 => Ok((number * factor).round() as u64),
        _ => Err(expected()),
    }
}

/// As JSON.
pub(super) fn json(value: &DeValue<'_>) -> Result<Value, String> {
    Ok(match value {
        DeValue::String(text) => Value::from(text.as_ref()),
        DeValue::Boolean(flag) => Value::from(*flag),
        DeValue::Integer(_) => Value::from(whole(value)?),
        DeValue::Float(_) => Value::from(number(value)?),
        DeValue::Datetime(_) => return Err(wrong("a text in quotes", value)),
        DeValue::Array(items) => {
            items.iter().map(|item| json(item.get_ref())).collect::<Result<_, _>>()?
        }
        DeValue::Table(entries) => {
            let entry = |(key, value): (&toml::Spanned<_>, &toml::Spanned<DeValue<'_>>)| {
                let key: &std::borrow::Cow<'_, str> = key.get_ref();
                Ok((key.to_string(), json(value.get_ref())?))
            };
            Value::Object(entries.iter().map(entry).collect::<Result<_, String>>()?)
        }
    })
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use toml::de::DeValue;

    use super::millis;

    #[test]
    fn durations() {
        for (text, expected) in [
            ("300ms", Some(300)),
            ("12.9s", Some(12_900)),
            ("5m", Some(300_000)),
            ("1h", Some(3_600_000)),
            ("0s", Some(0)),
            ("5", None),
            ("-5s", None),
            ("5 s", None),
            ("1e3s", None),
            ("s", None),
            ("9999999999h", None),
            ("é5s", None),
        ] {
            assert_eq!(millis(&DeValue::String(Cow::from(text))).ok(), expected, "{text}");
        }
    }
}

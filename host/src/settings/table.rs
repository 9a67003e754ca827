//! Walks the parsed TOML and collects mistakes instead of stopping at the first.
//!
//! `serde` would stop at the first mistake of a file; an operator who fixes one only to meet the next is
//! badly served. So the raw file is read key by key, and [`Table::finish`] reports what the description of the table
//! lacks, with the nearest known key.

use std::cell::RefCell;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::{Problem, description};
use crate::spelling::{list, nearest};

/// The file's text and the mistakes found so far.
#[derive(Debug)]
pub(super) struct Source<'t> {
    text: &'t str,
    problems: RefCell<Vec<(usize, Problem)>>,
}

impl<'t> Source<'t> {
    pub(super) const fn new(text: &'t str) -> Self {
        Self { text, problems: RefCell::new(Vec::new()) }
    }

    pub(super) fn report(&self, offset: usize, path: &str, message: String) {
        let before = self.text.get(..offset.min(self.text.len())).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let problem = Problem { line, path: path.to_owned(), message };
        self.problems.borrow_mut().push((offset, problem));
    }

    /// The mistakes in the file's order.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|(offset, _)| *offset);
        problems.into_iter().map(|(_, problem)| problem).collect()
    }
}

/// One table of the file.
#[derive(Debug)]
pub(super) struct Table<'t> {
    source: &'t Source<'t>,
    path: String,
    offset: usize,
    entries: Option<&'t DeTable<'t>>,
    /// Whether keys are the same in any letter case, as GitLab's Fargate driver reads them.
    any_case: bool,
    known: RefCell<Vec<&'static str>>,
}

impl<'t> Table<'t> {
    pub(super) fn root(source: &'t Source<'t>, entries: &'t DeTable<'t>) -> Self {
        Self {
            source,
            path: String::new(),
            offset: 0,
            entries: Some(entries),
            any_case: false,
            known: RefCell::default(),
        }
    }

    /// The same table, with keys in any letter case; those of tables in it as well.
    pub(super) fn in_any_case(&self) -> Self {
        Self {
            source: self.source,
            path: self.path.clone(),
            offset: self.offset,
            entries: self.entries,
            any_case: true,
            known: RefCell::default(),
        }
    }

    /// The keys as they are written.
    pub(super) fn keys(&self) -> impl Iterator<Item = &'t str> {
        self.entries.into_iter().flatten().map(|(key, _)| key.get_ref().as_ref())
    }

    /// The dotted path of `key` in this table.
    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Reports a mistake at `key`, or at the table itself when it has no such key.
    pub(super) fn report(&self, key: &str, message: impl Into<String>) {
        let offset = self.get(key).map_or(self.offset, |(offset, _)| offset);
        self.source.report(offset, &self.path_of(key), message.into());
    }

    fn get(&self, key: &str) -> Option<(usize, &'t DeValue<'t>)> {
        let entries = self.entries?;
        let is_same =
            |(other, _): &(&Spanned<DeString<'_>>, _)| key.eq_ignore_ascii_case(other.get_ref());
        let (key, value) = entries
            .get_key_value(key)
            .or_else(|| entries.iter().find(is_same).filter(|_| self.any_case))?;
        Some((key.span().start, value.get_ref()))
    }

    /// Whether the table has `key`.
    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// The value of `key` as `parse` reads it; `None` when it is absent or wrong (then reported).
    pub(super) fn optional<T>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<T> {
        self.known.borrow_mut().push(key);
        let (offset, value) = self.get(key)?;
        parse(value).map_err(|message| self.source.report(offset, &self.path_of(key), message)).ok()
    }

    /// As [`Self::optional`], but its absence is a mistake; `expected` completes "is missing: ".
    pub(super) fn required<T>(
        &self,
        key: &'static str,
        expected: &str,
        parse: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<T> {
        if !self.has(key) {
            self.known.borrow_mut().push(key);
            self.report(key, format!("is missing: {expected}"));
            return None;
        }
        self.optional(key, parse)
    }

    /// The table at `key`; an empty one when it is absent or no table (then reported).
    pub(super) fn table(&self, key: &'static str) -> Self {
        self.known.borrow_mut().push(key);
        let path = self.path_of(key);
        match self.get(key) {
            Some((offset, DeValue::Table(entries))) => self.child(path, offset, Some(entries)),
            Some((offset, value)) => {
                let message = format!("is a {}, expected a table", value.type_str());
                self.source.report(offset, &path, message);
                self.child(path, offset, None)
            }
            None => self.child(path, self.offset, None),
        }
    }

    /// The tables in the table at `key`, by name: `[clusters.dev]`, `[clusters.production]`.
    pub(super) fn named_tables(&self, key: &'static str) -> Vec<(String, Self)> {
        let parent = self.table(key);
        let Some(entries) = parent.entries else { return Vec::new() };
        let mut tables = Vec::new();
        for (name, value) in entries {
            let path = parent.path_of(name.get_ref());
            let offset = name.span().start;
            if let Err(message) = super::values::name(name.get_ref()) {
                self.source.report(offset, &path, message);
            }
            if let DeValue::Table(entries) = value.get_ref() {
                let child = self.child(path, offset, Some(entries));
                tables.push((name.get_ref().to_string(), child));
            } else {
                let message = format!("is a {}, expected a table", value.get_ref().type_str());
                self.source.report(offset, &path, message);
            }
        }
        tables
    }

    fn child(&self, path: String, offset: usize, entries: Option<&'t DeTable<'t>>) -> Self {
        let known = RefCell::default();
        Self { source: self.source, path, offset, entries, any_case: self.any_case, known }
    }

    /// Reports every key that is none of `described`.
    pub(super) fn finish(&self, described: &description::Table) {
        let known: Vec<&'static str> = described.keys.iter().map(|key| key.name).collect();
        for key in self.known.borrow().iter() {
            debug_assert!(
                known.contains(key),
                "`{}` is read, but settings/description/tables.rs lacks it",
                self.path_of(key)
            );
        }
        self.report_others(&known);
    }

    /// Reports every key that nobody asked for, of a table that is in no description: GitLab's format is closed.
    pub(super) fn finish_as_read(&self) {
        self.report_others(&self.known.borrow());
    }

    fn report_others(&self, known: &[&'static str]) {
        for (key, _) in self.entries.into_iter().flatten() {
            let written = key.get_ref().as_ref();
            if known.contains(&written) {
                continue;
            }
            let same = known.iter().find(|known| known.eq_ignore_ascii_case(written));
            let message = match same.filter(|_| self.any_case) {
                // The one that is read begins where `get` says.
                Some(same)
                    if self.get(same).is_some_and(|(offset, _)| offset == key.span().start) =>
                {
                    continue;
                }
                Some(same) => format!("is `{same}` a second time, in other letters"),
                None => self.unknown(written, known),
            };
            self.source.report(key.span().start, &self.path_of(written), message);
        }
    }

    fn unknown(&self, key: &str, known: &[&'static str]) -> String {
        match nearest(key, known.iter().copied()) {
            Some(nearest) => format!("is no key of this table: did you mean `{nearest}`?"),
            None => format!("is no key of this table, which has {}", list(known.iter())),
        }
    }
}

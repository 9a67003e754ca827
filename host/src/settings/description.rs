//! What `pointsman.toml` may say: one description of all keys, from which the reader takes the keys that it knows,
//! [`schema`] makes the JSON Schema and [`reference`] the documentation.
//!
//! Whoever adds a key to the reader adds it to [`tables`]. A key that is not there is reported as unknown, and in debug
//! builds stops the reader; tests hold defaults, kinds of values and required keys against the reader.

pub mod reference;
pub mod schema;
mod tables;
#[cfg(test)]
mod tests;

pub(super) use tables::{
    ASSUME_ROLE, BOUNDS, CLUSTER_ECS, CLUSTER_LOCAL, DEFAULT, FARGATE_VARIABLES, GITLAB, LOG,
    MANAGER, POLICY, PROFILE, ROLE, ROOT, SSH, STATE, SWEEP, TASK_DEFINITION, TASK_SSH,
};

/// One table of the file.
#[derive(Debug)]
pub struct Table {
    /// What it is for, in sentences.
    pub about: &'static str,
    /// In the order of the documentation.
    pub keys: &'static [Key],
}

/// One key of a table.
#[derive(Debug)]
pub struct Key {
    /// As the file spells it.
    pub name: &'static str,
    /// What happens without it.
    pub need: Need,
    /// What it may be.
    pub value: Value,
    /// What it means, in sentences.
    pub about: &'static str,
}

/// What happens without a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The file has a mistake.
    Required,
    /// Each of these does, and one must be there.
    OneOf(&'static [&'static str]),
    /// It is as if this stood there, in TOML.
    Default(&'static str),
    /// What that means, in words, such as `none`.
    Optional(&'static str),
}

/// What a key may be.
#[derive(Debug)]
pub enum Value {
    /// A text that is not empty.
    Text,
    /// One of ours: 1 to 64 of letters, digits, `-`, `_` and `.`.
    Name,
    /// An absolute path in the task, or `runner`.
    TaskPath,
    /// `true` or `false`.
    Flag,
    /// A whole number.
    Number(u64, u64),
    /// Such as `"90s"`.
    Duration,
    /// Such as `"4GiB"`.
    Memory,
    /// Such as `"50GiB"`.
    Storage,
    /// Such as `"2"` or `"500m"`.
    Cpu,
    /// 64 hex digits.
    Sha256,
    /// An IAM role's ARN.
    RoleArn,
    /// A server's address.
    Url,
    /// One of these, each with its meaning.
    Choice(&'static [Choice]),
    /// A list of such.
    Choices(&'static [Choice]),
    /// A list of texts, so many of them at least and at most.
    Texts(usize, usize),
    /// A table of texts.
    Labels,
    /// A table that is not ours to understand.
    Anything,
    /// A table.
    Table(&'static Table),
    /// Tables by names that the file chooses: `[roles.NAME]`.
    Named(&'static Table),
    /// The same, where a key says which table it is.
    NamedBy {
        /// That key.
        key: &'static str,
        /// By its values.
        tables: &'static [(&'static str, &'static Table)],
    },
}

/// A text that is allowed, and what it means.
pub type Choice = (&'static str, &'static str);

//! What a value is worth: [`Fact`] or [`Claim`].
//!
//! Two types, so that what an author wrote cannot be mistaken for what the server says: a claim compares with
//! nothing and gives its value out by one method only, whose name is there to be found in a review.

use std::fmt;
use std::ops::Deref;

/// Vouched for by the server or the operator. Reads like the value itself.
///
/// True does not mean out of an author's reach: [`Context`](crate::Context) says which facts an author chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fact<T>(T);

impl<T> Fact<T> {
    /// Only who can vouch for `value` should: the host, or a test.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> Deref for Fact<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: PartialEq> PartialEq<T> for Fact<T> {
    fn eq(&self, other: &T) -> bool {
        self.0 == *other
    }
}

impl<T: fmt::Display> fmt::Display for Fact<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Written by whoever edits the pipeline: a wish, never proof of anything.
#[derive(Clone)]
#[must_use = "reading a claim is recorded, and may cost the job a privileged role"]
pub struct Claim<T>(T);

impl<T> Claim<T> {
    /// What an author wrote.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value, for a purpose that its author may decide.
    pub fn untrusted(self) -> T {
        self.0
    }
}

impl<T: fmt::Debug> fmt::Debug for Claim<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "claimed {:?}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_read_like_values_and_claims_do_not() {
        let fact = Fact::new("main".to_owned());
        assert!(fact == "main".to_owned() && fact.starts_with('m'));
        assert_eq!(fact.to_string(), "main");
        let claim = Claim::new(Some("main"));
        assert_eq!(format!("{claim:?}"), "claimed Some(\"main\")");
        assert_eq!(claim.untrusted(), Some("main"));
    }
}

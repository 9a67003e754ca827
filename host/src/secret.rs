//! Values that must not reach a log, a command line or an error text.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A value that prints as `***`, whatever formats it.
///
/// It serialises in clear: the only things serialised are state files of mode 0600 and the requests
/// that carry the secret to where it belongs.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Wraps `value`.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// Gives the value out. Each call is a place to look at in a review.
    pub const fn reveal(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_hides_the_value() {
        assert_eq!(format!("{:?}", Some(Secret::new("token"))), "Some(***)");
    }
}

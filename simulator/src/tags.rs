//! The rules for tags: pure.
//!
//! API reference, "Tag".

use crate::model::Tag;
use crate::protocol::ApiError;

/// Refuses tags that the API refuses.
pub(crate) fn check(tags: &[Tag]) -> Result<(), ApiError> {
    if tags.len() > 50 {
        return Err(ApiError::invalid_parameter(
            "The maximum number of tags (50) has been exceeded.",
        ));
    }
    for (index, tag) in tags.iter().enumerate() {
        if tag.key.is_empty() || tag.key.chars().count() > 128 {
            return Err(ApiError::invalid_parameter(
                "Tag keys must be between 1 and 128 characters long.",
            ));
        }
        if tag.value.chars().count() > 256 {
            return Err(ApiError::invalid_parameter(
                "Tag values must be at most 256 characters long.",
            ));
        }
        let reserved = |text: &str| text.to_ascii_lowercase().starts_with("aws:");
        if reserved(&tag.key) || reserved(&tag.value) {
            return Err(ApiError::invalid_parameter(
                "Tag keys and values must not begin with 'aws:'.",
            ));
        }
        if !tag.key.chars().chain(tag.value.chars()).all(legal) {
            return Err(ApiError::invalid_parameter(
                "Some tags contain invalid characters. Valid characters: UTF-8 letters, spaces, numbers and _ . / = + - : @.",
            ));
        }
        if tags.iter().take(index).any(|other| other.key == tag.key) {
            return Err(ApiError::invalid_parameter(format!(
                "Duplicate tag key found: {}.",
                tag.key
            )));
        }
    }
    Ok(())
}

fn legal(character: char) -> bool {
    character.is_alphabetic() || character.is_numeric() || " _./=+-:@".contains(character)
}

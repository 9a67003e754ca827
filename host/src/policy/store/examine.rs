//! What a component says of itself, its settings schema included, whatever its settings are.

use std::sync::{Arc, PoisonError};

use super::{Description, Store};
use crate::policy::call::Caller;
use crate::policy::{PolicyError, inputs};
use crate::settings;

/// Bytes of a schema that are passed on.
const MAX_SCHEMA: usize = 256 * 1024;

/// See the module.
#[derive(Debug, Clone)]
pub struct Examined {
    /// Without running it.
    pub description: Description,
    /// JSON Schema of the settings, as the component gives it.
    pub settings_schema: Option<String>,
    /// What is wrong with the settings that it was examined with.
    pub problems: Vec<String>,
}

impl Store {
    /// Asks the component of `policy` about itself.
    ///
    /// # Errors
    ///
    /// As [`Store::ensure`], but for the settings.
    pub fn examine(&self, name: &str, policy: &settings::Policy) -> Result<Examined, PolicyError> {
        let problems = match self.load(name, policy) {
            Ok(_) => Vec::new(),
            Err(PolicyError::Settings { problems, .. }) => problems,
            Err(error) => return Err(error),
        };
        let loaded = self.load_unvalidated(name, policy)?;
        let caller = Caller { name, policy, inputs: Arc::new(inputs::blank()) };
        let metadata = loaded
            .linked
            .describe(&self.runtime, &caller)
            .result
            .map_err(|what| PolicyError::Broken { policy: name.to_owned(), what })?;
        let description = loaded.description.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let settings_schema = metadata.settings_schema.filter(|text| text.len() <= MAX_SCHEMA);
        Ok(Examined { description, settings_schema, problems })
    }
}

//! `pointsman rehearse`

pub mod pipeline;
mod script;
mod variables;

//! The verbs on objects and collections.

pub mod delete;
pub mod list_body;
pub mod part;
pub mod patch;
pub mod read;
pub mod write;

//! The versions of a resource. Each manager's field set refers to the version in which it wrote.

use std::borrow::Cow;

use serde_json::Value;

use super::topology::Node;

/// The versions of a resource.
pub trait Versions {
    /// The schema of a version; None: there is none of this name.
    fn node(&self, api_version: &str) -> Option<Node<'_>>;

    /// An object in another version.
    ///
    /// # Errors
    /// Why it cannot be converted.
    fn convert<'v>(&self, object: &'v Value, api_version: &str) -> Result<Cow<'v, Value>, String>;
}

//! What a document describes.

use std::sync::Arc;

use crate::gvk::GroupVersion;
use crate::resource::Published;
use crate::resources::Resource;

/// A resource that is served, with its schema if the tables have none.
#[derive(Clone, Debug)]
pub struct Served {
    /// Names, versions and verbs.
    pub resource: Arc<Resource>,
    /// The schema.
    pub published: Option<Published>,
}

impl Served {
    /// Whether the resource is served in a group and version.
    pub fn is_in(&self, group_version: &GroupVersion) -> bool {
        self.resource.group == group_version.group && self.resource.serves(&group_version.version)
    }
}

/// Name of a group version in paths: `api/v1`, `apis/apps/v1`.
pub fn path_of(group_version: &GroupVersion) -> String {
    if group_version.group.is_empty() {
        format!("api/{}", group_version.version)
    } else {
        format!("apis/{}/{}", group_version.group, group_version.version)
    }
}

/// All built-in resources.
#[cfg(test)]
pub(super) fn builtin() -> impl Iterator<Item = Served> {
    crate::resources::builtin().iter().map(|resource| Served { resource: Arc::new(resource.clone()), published: None })
}

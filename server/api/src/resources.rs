//! Rows of resources: what the generic pipeline knows of each.
//!
//! A row is a *stored* resource in one API group with all versions in which it is served. Built-in rows come from a
//! generated table that equals what a v1.36 API server serves by default; a CRD makes the same kind of row at run time,
//! hence the owned-or-static names. Nothing here may depend on which of the two a row is.

use std::borrow::Cow;

use crate::gvk::{GroupKind, GroupResource, GroupVersion, GroupVersionKind, Name};

mod generated;

/// A resource and how it is named, served and stored.
#[derive(Clone, Debug)]
pub struct Resource {
    /// API group, empty for core.
    pub group: Name,
    /// Served versions, the preferred one first.
    pub versions: Cow<'static, [Name]>,
    /// Which objects these are.
    pub storage: Storage,
    /// Name in URLs.
    pub plural: Name,
    /// Name for people.
    pub singular: Name,
    /// Kind of one object.
    pub kind: Name,
    /// Kind of a list; empty where nothing can be listed.
    pub list_kind: Name,
    /// Abbreviations that kubectl accepts.
    pub short_names: Cow<'static, [Name]>,
    /// Groups of resources like `all`.
    pub categories: Cow<'static, [Name]>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Sorted.
    pub verbs: Cow<'static, [Name]>,
    /// Sorted by name.
    pub subresources: Cow<'static, [Subresource]>,
}

/// Where the objects of a resource are stored. Two rows with the same storage (Events in two groups) are two views of the
/// same objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// Group whose folder of keys holds them.
    pub group: Name,
    /// Version in which they are written.
    pub version: Name,
    /// Version that discovery's storageVersionHash announces; empty where nothing is stored.
    pub hash_version: Name,
}

/// A part or an action of a resource: `status`, `scale`, `exec`.
#[derive(Clone, Debug)]
pub struct Subresource {
    /// Last segment of the URL.
    pub name: Name,
    /// Group of its kind; empty together with `version` where it is the resource's own.
    pub group: Name,
    /// Version of its kind.
    pub version: Name,
    /// Kind of the body.
    pub kind: Name,
    /// Sorted.
    pub verbs: Cow<'static, [Name]>,
}

/// All built-in rows, in the order of discovery.
pub fn builtin() -> &'static [Resource] {
    generated::BUILTIN
}

/// The built-in row of a group and plural.
pub fn find(group: &str, plural: &str) -> Option<&'static Resource> {
    builtin().iter().find(|r| r.group == group && r.plural == plural)
}

/// The built-in row of a group and kind.
pub fn find_kind(group: &str, kind: &str) -> Option<&'static Resource> {
    builtin().iter().find(|r| r.group == group && r.kind == kind)
}

// === impl Resource ===

impl Resource {
    /// Group and plural.
    pub fn group_resource(&self) -> GroupResource {
        GroupResource { group: self.group.clone(), resource: self.plural.clone() }
    }

    /// Group and kind.
    pub fn group_kind(&self) -> GroupKind {
        GroupKind { group: self.group.clone(), kind: self.kind.clone() }
    }

    /// The kind in one of the served versions.
    pub fn gvk(&self, version: &str) -> Option<GroupVersionKind> {
        let version = self.versions.iter().find(|v| *v == version)?;
        Some(GroupVersionKind { group: self.group.clone(), version: version.clone(), kind: self.kind.clone() })
    }

    /// The kind in which objects are stored.
    pub fn storage_gvk(&self) -> GroupVersionKind {
        GroupVersionKind { group: self.storage.group.clone(), version: self.storage.version.clone(), kind: self.kind.clone() }
    }

    /// The preferred served version.
    pub fn preferred_version(&self) -> GroupVersion {
        let version = self.versions.first().cloned().unwrap_or_default();
        GroupVersion { group: self.group.clone(), version }
    }

    /// Whether a version is served.
    pub fn serves(&self, version: &str) -> bool {
        self.versions.iter().any(|v| v == version)
    }

    /// Whether a verb is allowed on the resource itself.
    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }

    /// Whether objects of this resource are kept; the others are requests that are answered at once.
    pub fn is_stored(&self) -> bool {
        !self.storage.hash_version.is_empty()
    }

    /// A subresource by its name.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }
}

// === impl Subresource ===

impl Subresource {
    /// The kind of the body, when the resource is asked for in `parent`.
    pub fn gvk(&self, parent: &GroupVersion) -> GroupVersionKind {
        let (group, version) = if self.version.is_empty() {
            (parent.group.clone(), parent.version.clone())
        } else {
            (self.group.clone(), self.version.clone())
        };
        GroupVersionKind { group, version, kind: self.kind.clone() }
    }

    /// Whether a verb is allowed.
    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sound() {
        for (i, row) in builtin().iter().enumerate() {
            let id = row.group_resource().to_string();
            assert!(builtin()[..i].iter().all(|r| r.group_resource() != row.group_resource()), "{id} twice");
            assert!(!row.versions.is_empty() && !row.singular.is_empty() && !row.verbs.is_empty(), "{id}");
            assert!(row.verbs.is_sorted() && row.short_names.len() < 3, "{id}");
            assert_eq!(row.has_verb("list"), !row.list_kind.is_empty(), "{id}");
        }
    }

    #[test]
    fn some_facts() {
        let hpa = find("autoscaling", "horizontalpodautoscalers").expect("row");
        assert_eq!((hpa.versions.as_ref(), hpa.storage.version.as_ref()), (&["v2".into(), "v1".into()][..], "v2"));
        let events = find("events.k8s.io", "events").expect("row");
        assert_eq!(events.storage_gvk(), GroupVersionKind::new("", "v1", "Event"));
        let deployments = find("apps", "deployments").expect("row");
        let scale = deployments.subresource("scale").expect("scale");
        assert_eq!(scale.gvk(&GroupVersion::new("apps", "v1")), GroupVersionKind::new("autoscaling", "v1", "Scale"));
        assert!(find("", "pods").is_some_and(|r| r.is_stored()) && find("", "bindings").is_some_and(|r| !r.is_stored()));
    }
}

//! Names of API types and resources: group, version, kind, resource.
//!
//! Their `Display` forms are part of error messages that clients read ("deployments.apps", "Deployment.apps",
//! "apps/v1, Kind=Deployment"), as in upstream's `k8s.io/apimachinery/pkg/runtime/schema`.

use std::borrow::Cow;
use std::fmt;

/// A name that is usually static (built-in types) and sometimes owned (CRDs).
pub type Name = Cow<'static, str>;

/// An API group and one of its versions. The core group is the empty string.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupVersion {
    /// API group, empty for core.
    pub group: Name,
    /// Version within the group.
    pub version: Name,
}

/// A kind in a group and version.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupVersionKind {
    /// API group, empty for core.
    pub group: Name,
    /// Version within the group.
    pub version: Name,
    /// The kind, like `Deployment`.
    pub kind: Name,
}

/// A resource (plural) in a group and version.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupVersionResource {
    /// API group, empty for core.
    pub group: Name,
    /// Version within the group.
    pub version: Name,
    /// The plural resource name, like `deployments`.
    pub resource: Name,
}

/// A resource whatever its version.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupResource {
    /// API group, empty for core.
    pub group: Name,
    /// The plural resource name, like `deployments`.
    pub resource: Name,
}

/// A kind whatever its version.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupKind {
    /// API group, empty for core.
    pub group: Name,
    /// The kind, like `Deployment`.
    pub kind: Name,
}

// === impl GroupVersion ===

impl GroupVersion {
    /// A group and version from their two names.
    pub fn new(group: impl Into<Name>, version: impl Into<Name>) -> Self {
        Self { group: group.into(), version: version.into() }
    }

    /// Parses an `apiVersion` ("v1", "apps/v1"). Returns None where upstream's `ParseGroupVersion` fails (more than one slash).
    pub fn parse(api_version: &str) -> Option<Self> {
        match api_version.split_once('/') {
            None => Some(Self::new("", api_version.to_owned())),
            Some((group, version)) if !version.contains('/') => Some(Self::new(group.to_owned(), version.to_owned())),
            Some(_) => None,
        }
    }

    /// The kind of that name in this group and version.
    pub fn with_kind(&self, kind: impl Into<Name>) -> GroupVersionKind {
        GroupVersionKind { group: self.group.clone(), version: self.version.clone(), kind: kind.into() }
    }
}

impl fmt::Display for GroupVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_group_version(f, &self.group, &self.version)
    }
}

// === impl GroupVersionKind ===

impl GroupVersionKind {
    /// A kind from its three names.
    pub fn new(group: impl Into<Name>, version: impl Into<Name>, kind: impl Into<Name>) -> Self {
        Self { group: group.into(), version: version.into(), kind: kind.into() }
    }

    /// The kind that an object's `apiVersion` and `kind` name.
    pub fn from_api_version(api_version: &str, kind: &str) -> Option<Self> {
        GroupVersion::parse(api_version).map(|gv| gv.with_kind(kind.to_owned()))
    }

    /// "v1" or "apps/v1".
    pub fn api_version(&self) -> String {
        self.group_version().to_string()
    }

    /// Group and version alone.
    pub fn group_version(&self) -> GroupVersion {
        GroupVersion { group: self.group.clone(), version: self.version.clone() }
    }

    /// Group and kind alone.
    pub fn group_kind(&self) -> GroupKind {
        GroupKind { group: self.group.clone(), kind: self.kind.clone() }
    }
}

impl fmt::Display for GroupVersionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}, Kind={}", self.group, self.version, self.kind)
    }
}

// === impl GroupVersionResource ===

impl GroupVersionResource {
    /// A resource from its three names.
    pub fn new(group: impl Into<Name>, version: impl Into<Name>, resource: impl Into<Name>) -> Self {
        Self { group: group.into(), version: version.into(), resource: resource.into() }
    }

    /// "v1" or "apps/v1".
    pub fn api_version(&self) -> String {
        self.group_version().to_string()
    }

    /// Group and version alone.
    pub fn group_version(&self) -> GroupVersion {
        GroupVersion { group: self.group.clone(), version: self.version.clone() }
    }

    /// Group and resource alone.
    pub fn group_resource(&self) -> GroupResource {
        GroupResource { group: self.group.clone(), resource: self.resource.clone() }
    }
}

impl fmt::Display for GroupVersionResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}, Resource={}", self.group, self.version, self.resource)
    }
}

// === impl GroupResource ===

impl GroupResource {
    /// A resource from its two names.
    pub fn new(group: impl Into<Name>, resource: impl Into<Name>) -> Self {
        Self { group: group.into(), resource: resource.into() }
    }
}

impl fmt::Display for GroupResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_qualified(f, &self.resource, &self.group)
    }
}

// === impl GroupKind ===

impl GroupKind {
    /// A kind from its two names.
    pub fn new(group: impl Into<Name>, kind: impl Into<Name>) -> Self {
        Self { group: group.into(), kind: kind.into() }
    }
}

impl fmt::Display for GroupKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_qualified(f, &self.kind, &self.group)
    }
}

fn write_group_version(f: &mut fmt::Formatter<'_>, group: &str, version: &str) -> fmt::Result {
    if group.is_empty() { f.write_str(version) } else { write!(f, "{group}/{version}") }
}

fn write_qualified(f: &mut fmt::Formatter<'_>, name: &str, group: &str) -> fmt::Result {
    if group.is_empty() { f.write_str(name) } else { write!(f, "{name}.{group}") }
}

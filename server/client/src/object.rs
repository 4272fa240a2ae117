//! What the client needs to know about an object and about its resource.

use std::any::TypeId;
use std::borrow::Cow;
use std::fmt;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Anything with `metadata` that can be read from and written as JSON. Every `k8s_openapi` resource is one, and so
/// is [`PartialMeta`].
pub trait Object: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The object's metadata.
    fn meta(&self) -> &ObjectMeta;
    /// The object's metadata, to change.
    fn meta_mut(&mut self) -> &mut ObjectMeta;

    /// `metadata.name`, or the empty string.
    fn name(&self) -> &str {
        self.meta().name.as_deref().unwrap_or_default()
    }
    /// `metadata.namespace`, or the empty string.
    fn namespace(&self) -> &str {
        self.meta().namespace.as_deref().unwrap_or_default()
    }
    /// `metadata.uid`, or the empty string.
    fn uid(&self) -> &str {
        self.meta().uid.as_deref().unwrap_or_default()
    }
}

impl<T> Object for T
where
    T: k8s_openapi::Metadata<Ty = ObjectMeta> + Serialize + DeserializeOwned + Send + Sync + 'static,
{
    fn meta(&self) -> &ObjectMeta {
        k8s_openapi::Metadata::metadata(self)
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        k8s_openapi::Metadata::metadata_mut(self)
    }
}

/// Any object, reduced to its metadata: what the garbage collector and namespace deletion look at.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PartialMeta {
    /// As the server sent it; `PartialObjectMetadata` when it was asked for metadata only.
    #[serde(default)]
    pub kind: String,
    /// As the server sent it.
    #[serde(default)]
    pub api_version: String,
    /// The metadata.
    pub metadata: ObjectMeta,
}

impl Object for PartialMeta {
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// Where a resource lives in the API.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceType {
    /// API group, empty for core.
    pub group: Cow<'static, str>,
    /// API version.
    pub version: Cow<'static, str>,
    /// The resource's name in paths.
    pub plural: Cow<'static, str>,
    /// The kind of its objects.
    pub kind: Cow<'static, str>,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
}

impl ResourceType {
    /// The resource of a `k8s_openapi` type.
    #[must_use]
    pub fn of<T: k8s_openapi::Resource>() -> Self
    where
        T::Scope: 'static,
    {
        Self {
            group: Cow::Borrowed(T::GROUP),
            version: Cow::Borrowed(T::VERSION),
            plural: Cow::Borrowed(T::URL_PATH_SEGMENT),
            kind: Cow::Borrowed(T::KIND),
            namespaced: TypeId::of::<T::Scope>() == TypeId::of::<NamespaceResourceScope>(),
        }
    }

    /// `v1` or `apps/v1`.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone().into_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The path of a collection, an object, or one of its subresources.
    #[must_use]
    pub fn path(&self, namespace: Option<&str>, name: Option<&str>, subresource: Option<&str>) -> String {
        let mut path = String::with_capacity(96);
        if self.group.is_empty() {
            path.push_str("/api/");
        } else {
            path.push_str("/apis/");
            path.push_str(&self.group);
            path.push('/');
        }
        path.push_str(&self.version);
        if let (true, Some(namespace)) = (self.namespaced, namespace.filter(|ns| !ns.is_empty())) {
            path.push_str("/namespaces/");
            push_escaped(&mut path, namespace);
        }
        path.push('/');
        path.push_str(&self.plural);
        for segment in [name, subresource].into_iter().flatten() {
            path.push('/');
            push_escaped(&mut path, segment);
        }
        path
    }
}

impl fmt::Display for ResourceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() {
            write!(f, "{}.{}", self.plural, self.version)
        } else {
            write!(f, "{}.{}.{}", self.plural, self.version, self.group)
        }
    }
}

/// Appends with everything escaped that is not unreserved in RFC 3986.
pub(crate) fn push_escaped(out: &mut String, text: &str) {
    use std::fmt::Write;
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b':') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

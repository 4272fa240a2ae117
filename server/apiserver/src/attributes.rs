//! The attributes of a request on which authorizers decide.
//!
//! Answers to upstream's `authorizer.Attributes`.

use crate::http::request_info::RequestInfo;
use crate::user::UserInfo;

/// One request as authorization sees it.
#[derive(Clone, Debug, Default)]
pub struct Attributes {
    /// The user of the request.
    pub user: UserInfo,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; for non-resource requests the
    /// lower-case HTTP method.
    pub verb: String,
    /// Whether the request names an API resource; if not, only `verb` and `path` count.
    pub resource_request: bool,
    /// API group, empty for the core group.
    pub group: String,
    /// API version.
    pub version: String,
    /// Plural name of the resource.
    pub resource: String,
    /// Subresource, or empty.
    pub subresource: String,
    /// Namespace, or empty.
    pub namespace: String,
    /// Object name, or empty. Filled from a `metadata.name=` field selector for list and watch.
    pub name: String,
    /// The URL path.
    pub path: String,
    /// The field selector as sent (list, watch, deletecollection).
    pub field_selector: Option<String>,
    /// The label selector as sent (list, watch, deletecollection).
    pub label_selector: Option<String>,
}

impl Attributes {
    /// A request of `user`.
    pub fn of(user: &UserInfo, info: &RequestInfo) -> Attributes {
        Attributes {
            user: user.clone(),
            verb: info.verb.clone(),
            resource_request: info.resource_request,
            group: info.group.clone(),
            version: info.version.clone(),
            resource: info.resource.clone(),
            subresource: info.subresource.clone(),
            namespace: info.namespace.clone(),
            name: info.name.clone(),
            path: info.path.clone(),
            field_selector: info.field_selector.clone(),
            label_selector: info.label_selector.clone(),
        }
    }

    /// Whether the verb changes nothing.
    pub fn is_read_only(&self) -> bool {
        matches!(self.verb.as_str(), "get" | "list" | "watch")
    }
}

//! What a URL asks for: verb, resource, subresource, namespace, name, and the parameters.
//!
//! Owns the one parse of a request's path and query: filters and handlers read [`RequestInfo`] and never the URI (D15). Knows no
//! resource table. Answers to upstream's `apiserver/pkg/endpoints/request.RequestInfo`.
//!
//! Pure, and total over every input: a target of fuzzing.

#![deny(clippy::arithmetic_side_effects, clippy::cast_possible_truncation, clippy::indexing_slicing)]

use http::Method;
use trireme_api::selector::FieldSelector;

use crate::http::parameters::{Parameters, unescape};

/// The parsed target of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// Whether the path names an API resource (`/api/v1/...`, `/apis/<group>/<version>/...`).
    pub resource_request: bool,
    /// The Kubernetes verb; for other paths the lower-case HTTP method.
    pub verb: String,
    /// API group, empty for core.
    pub group: String,
    /// API version.
    pub version: String,
    /// Plural resource name.
    pub resource: String,
    /// Subresource name, or empty.
    pub subresource: String,
    /// Namespace, or empty.
    pub namespace: String,
    /// Object name, or empty. For a list or watch, the name that the field selector requires.
    pub name: String,
    /// Whether the name is a part of the path.
    pub name_in_path: bool,
    /// Whether the resource is addressed below `/namespaces/<namespace>/`.
    pub below_namespace: bool,
    /// How the path names the verb itself (`/watch/`, `/proxy/`), if it does.
    pub verb_in_path: bool,
    /// The decoded path.
    pub path: String,
    /// What follows the subresource in the path, with a leading slash and its escapes as they were sent; empty if nothing does.
    pub remainder: String,
    /// Whether a part of the path (up to the remainder) is empty. Such a path names nothing, but it is authorized as what it
    /// resembles.
    pub has_empty_part: bool,
    /// The field selector that authorization and the handler see (list, watch, deletecollection).
    pub field_selector: Option<String>,
    /// The label selector that authorization and the handler see (list, watch, deletecollection).
    pub label_selector: Option<String>,
    /// The parameters.
    pub query: Parameters,
}

/// A path that cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid URL escape in the path of the request")]
pub struct InvalidPath;

/// Subresources of namespaces; every other part after `/namespaces/<name>/` is a resource in the namespace.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

impl RequestInfo {
    /// Parses method, path and query as they were sent.
    pub fn parse(method: &Method, raw_path: &str, raw_query: &str) -> Result<RequestInfo, InvalidPath> {
        // Decoded before it is split, as Go's URL.Path: `%2F` separates parts, and authorization and endpoints see the same path.
        let path = unescape(raw_path, false).ok_or(InvalidPath)?;
        let mut info = RequestInfo {
            verb: method.as_str().to_ascii_lowercase(),
            query: Parameters::parse(raw_query),
            has_empty_part: path.starts_with("//"),
            ..RequestInfo::default()
        };
        let trimmed = path.trim_matches('/');
        let parts: Vec<&str> = if trimmed.is_empty() { Vec::new() } else { trimmed.split('/').collect() };
        let consumed = info.parse_parts(method, &parts);
        info.has_empty_part |=
            parts.iter().take(consumed).any(|part| part.is_empty()) || (info.subresource.is_empty() && path.ends_with("//"));
        if consumed < parts.len() || (!info.subresource.is_empty() && path.ends_with('/')) {
            info.remainder = remainder(raw_path, consumed);
        }
        info.path = path;
        Ok(info)
    }

    /// Reads the parts of the path and returns how many of them name the target.
    fn parse_parts(&mut self, method: &Method, parts: &[&str]) -> usize {
        let mut rest = match parts {
            ["api", rest @ ..] if rest.len() >= 2 => rest,
            ["apis", group, rest @ ..] if rest.len() >= 2 => {
                self.group = (*group).to_owned();
                rest
            }
            _ => return parts.len(),
        };
        self.resource_request = true;
        if let [version, more @ ..] = rest {
            self.version = (*version).to_owned();
            rest = more;
        }
        self.verb = match *method {
            Method::POST => "create",
            Method::GET | Method::HEAD => "get",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "",
        }
        .to_owned();
        // The old form: /watch/<resource>, /proxy/<resource>.
        if let [verb @ ("watch" | "proxy"), more @ ..] = rest {
            if more.is_empty() {
                return parts.len();
            }
            self.verb = (*verb).to_owned();
            self.verb_in_path = true;
            rest = more;
        }
        if let ["namespaces", namespace, more @ ..] = rest {
            self.namespace = (*namespace).to_owned();
            if more.first().is_some_and(|part| !NAMESPACE_SUBRESOURCES.contains(part)) {
                self.below_namespace = true;
                rest = more;
            }
        }
        let text = |at: usize| rest.get(at).map(|part| (*part).to_owned()).unwrap_or_default();
        (self.resource, self.name, self.subresource) = (text(0), text(1), text(2));
        self.name_in_path = !self.name.is_empty();
        self.settle_verb();
        parts.len().saturating_sub(rest.len().saturating_sub(3))
    }

    /// A get or delete without a name is about a collection; selectors count for collections only.
    fn settle_verb(&mut self) {
        match self.verb.as_str() {
            "get" if self.name.is_empty() => {
                self.verb = if self.query.flag("watch") { "watch" } else { "list" }.to_owned();
                let required = self.query.get("fieldSelector").and_then(|text| FieldSelector::parse(text).ok());
                if let Some(name) = required.as_ref().and_then(|selector| selector.required_value("metadata.name"))
                    && is_path_segment(name)
                {
                    self.name = name.to_owned();
                }
            }
            "delete" if self.name.is_empty() => self.verb = "deletecollection".to_owned(),
            _ => {}
        }
        // The old form does not support selectors consistently: none is shown to the authorizer.
        if !self.verb_in_path && matches!(self.verb.as_str(), "list" | "watch" | "deletecollection") {
            self.field_selector = self.query.get("fieldSelector").map(str::to_owned);
            self.label_selector = self.query.get("labelSelector").map(str::to_owned);
        }
    }

    /// The parts of the path of a request that names no resource. `None` if one of them is empty.
    pub fn parts(&self) -> Option<Vec<&str>> {
        let inner = self.path.strip_prefix('/')?;
        let inner = inner.strip_suffix('/').unwrap_or(inner);
        if inner.is_empty() {
            return (self.path == "/").then(Vec::new);
        }
        let parts: Vec<&str> = inner.split('/').collect();
        (!parts.iter().any(|part| part.is_empty())).then_some(parts)
    }
}

/// Whether a text can be a name in a path.
fn is_path_segment(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '%'])
}

/// The rest of a raw path after `parts` parts, with a leading slash.
fn remainder(raw: &str, parts: usize) -> String {
    let mut rest = raw;
    for done in 0..parts {
        // Only before the first part: later parts may be empty.
        while done == 0
            && let Some(tail) = after_separator(rest)
        {
            rest = tail;
        }
        while !rest.is_empty() && after_separator(rest).is_none() {
            rest = rest.char_indices().nth(1).and_then(|(at, _)| rest.get(at..)).unwrap_or_default();
        }
        if done.saturating_add(1) < parts {
            rest = after_separator(rest).unwrap_or_default();
        }
    }
    after_separator(rest).map(|tail| format!("/{tail}")).unwrap_or_default()
}

/// The path after its leading separator, a slash or an escaped one.
fn after_separator(path: &str) -> Option<&str> {
    path.strip_prefix('/').or_else(|| path.strip_prefix("%2F")).or_else(|| path.strip_prefix("%2f"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: Method, target: &str) -> RequestInfo {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        RequestInfo::parse(&method, path, query).unwrap()
    }

    fn check(method: Method, target: &str, want: &str) {
        let i = parse(method, target);
        let got =
            format!("{} {}/{} {} {} {}/{} {}", i.verb, i.group, i.version, i.resource, i.subresource, i.namespace, i.name, i.remainder);
        assert_eq!(got, want, "{target}");
    }

    #[test]
    fn paths_become_requests() {
        check(Method::GET, "/api/v1/namespaces", "list /v1 namespaces  / ");
        check(Method::GET, "/api/v1/namespaces/a", "get /v1 namespaces  a/a ");
        check(Method::PUT, "/api/v1/namespaces/a/finalize", "update /v1 namespaces finalize a/a ");
        check(Method::GET, "/api/v1/namespaces/a/pods?watch=1", "watch /v1 pods  a/ ");
        check(Method::GET, "/api/v1/pods?watch=true&fieldSelector=metadata.name%3Dx", "watch /v1 pods  /x ");
        check(Method::DELETE, "/apis/apps/v1/namespaces/a/deployments", "deletecollection apps/v1 deployments  a/ ");
        check(Method::PATCH, "/apis/apps/v1/namespaces/a/deployments/d/scale", "patch apps/v1 deployments scale a/d ");
        check(Method::GET, "/api/v1/namespaces/a/services/http:s:80/proxy/x/y", "get /v1 services proxy a/http:s:80 /x/y");
        check(Method::GET, "/api/v1/watch/namespaces/a/pods/p", "watch /v1 pods  a/p ");
        check(Method::POST, "/apis/apps/v1", "post /   / ");
        check(Method::GET, "/api/v1/namespaces/a%2Fpods/p%2Fexec", "get /v1 pods exec a/p ");
        check(Method::GET, "/api/v1/namespaces/a/pods/p?watch=1", "get /v1 pods  a/p ");
        check(Method::OPTIONS, "/api/v1/namespaces/a/pods", " /v1 pods  a/ ");
        check(Method::GET, "/api/v1/watch", "get /v1   / ");
        assert_eq!(parse(Method::GET, "/%6detrics").path, "/metrics");
        assert_eq!(RequestInfo::parse(&Method::GET, "/api/v1/%zz", ""), Err(InvalidPath));
    }

    #[test]
    fn security_02_authorization_and_handlers_see_the_first_selector() {
        let info = parse(Method::GET, "/api/v1/namespaces/a/secrets?fieldSelector=metadata.name%3Dx&fieldSelector=");
        assert_eq!((info.name.as_str(), info.field_selector.as_deref()), ("x", Some("metadata.name=x")));
        let info = parse(Method::GET, "/api/v1/namespaces/a/secrets?fieldSelector=&fieldSelector=metadata.name%3Dx");
        assert_eq!((info.name.as_str(), info.field_selector.as_deref()), ("", Some("")));
        // An escaped comma belongs to the value: the text after it is no term that requires a name.
        let info = parse(Method::GET, "/api/v1/secrets?fieldSelector=a%3Db%5C,metadata.name%3Dx");
        assert_eq!(info.name, "");
        assert_eq!(parse(Method::GET, "/api/v1/watch/secrets?fieldSelector=metadata.name%3Dx").field_selector, None);
    }

    #[test]
    fn security_24_the_remainder_keeps_its_escapes() {
        let rest = |path: &str| parse(Method::GET, path).remainder;
        assert_eq!(rest("/api/v1/namespaces/a/pods/p:80/proxy/a%20b/c%3Fd%2Fe"), "/a%20b/c%3Fd%2Fe");
        assert_eq!(rest("/api/v1/namespaces/a/pods/p/proxy"), "");
        assert_eq!(rest("/api/v1/namespaces/a/pods/p/proxy/"), "/");
        assert_eq!(rest("/api/v1/namespaces%2Fa/pods/p/proxy//x/"), "//x/");
        assert_eq!(rest("/api/v1/nodes/n/proxy/%2e%2e/x"), "/%2e%2e/x");
    }

    #[test]
    fn case_54_empty_parts_name_nothing() {
        for path in [
            "//version",
            "//api/v1/namespaces/a/configmaps/b",
            "/api/v1//namespaces/a",
            "/api//v1/pods",
            "/api/v1/pods//",
            "/%2Fapi/v1/pods",
        ] {
            assert!(parse(Method::GET, path).has_empty_part, "{path}");
        }
        for path in ["/version", "/version/", "/api/v1/pods/", "/api/v1/nodes/n/proxy//x"] {
            assert!(!parse(Method::GET, path).has_empty_part, "{path}");
        }
        assert_eq!(parse(Method::GET, "/version/").parts(), Some(vec!["version"]));
        assert_eq!(parse(Method::GET, "//version").parts(), None);
        assert_eq!(parse(Method::GET, "/").parts(), Some(vec![]));
    }
}

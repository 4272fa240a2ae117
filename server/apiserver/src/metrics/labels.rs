//! The labels of a request in metrics.
//!
//! Owns that clients cannot create label values: group, version, resource and subresource come from a resource that is served, verbs from
//! a fixed list. Answers to upstream's `CleanScope` and `cleanVerb` (`apiserver/pkg/endpoints/metrics`).

use http::Method;
use trireme_api::resources::Resource;

use crate::http::request_info::RequestInfo;

/// Subresources whose requests are connections, whatever their method.
const CONNECTING: [&str; 5] = ["log", "exec", "portforward", "attach", "proxy"];

/// The labels of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestLabels {
    verb: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
}

impl RequestLabels {
    /// The labels of a request for `resource`, if it is one that is served.
    pub fn of(method: &Method, info: &RequestInfo, resource: Option<&Resource>) -> RequestLabels {
        let known = resource.filter(|resource| info.subresource.is_empty() || resource.subresource(&info.subresource).is_some());
        let Some(resource) = known else {
            return RequestLabels { verb: verb(method, info, "resource"), ..RequestLabels::default() };
        };
        let scope = if !info.name.is_empty() || info.verb == "create" {
            "resource"
        } else if info.namespace.is_empty() {
            "cluster"
        } else {
            "namespace"
        };
        RequestLabels {
            verb: verb(method, info, scope),
            group: resource.group.to_string(),
            version: info.version.clone(),
            resource: resource.plural.to_string(),
            subresource: info.subresource.clone(),
            scope,
        }
    }

    /// `verb`, `group`, `version`, `resource`, `subresource`, `scope`, `component`.
    pub fn values(&self) -> [&str; 7] {
        [self.verb, &self.group, &self.version, &self.resource, &self.subresource, self.scope, "apiserver"]
    }

    /// `component`, `code`, `group`, `resource`, `scope`, `subresource`, `verb`, `version`.
    pub fn termination<'a>(&'a self, code: &'a str) -> [&'a str; 8] {
        ["apiserver", code, &self.group, &self.resource, self.scope, &self.subresource, self.verb, &self.version]
    }

    /// Whether a resource is named.
    pub fn names_resource(&self) -> bool {
        !self.resource.is_empty()
    }
}

fn verb(method: &Method, info: &RequestInfo, scope: &str) -> &'static str {
    if info.resource_request {
        if CONNECTING.contains(&info.subresource.as_str()) {
            return "CONNECT";
        }
        if info.verb == "watch" {
            return "WATCH";
        }
    }
    match *method {
        Method::GET | Method::HEAD if scope == "resource" => "GET",
        Method::GET | Method::HEAD => "LIST",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(method: &str, target: &str, served: bool) -> [String; 6] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let info = RequestInfo::parse(&method, target, "").unwrap();
        let resource = trireme_api::resources::find("", "pods").filter(|_| served);
        let labels = RequestLabels::of(&method, &info, resource);
        let [verb, group, version, resource, subresource, scope, _] = labels.values().map(str::to_owned);
        [verb, group, version, resource, subresource, scope]
    }

    #[test]
    fn security_04_strangers_choose_no_label() {
        assert_eq!(labels("GET", "/apis/g1.x/v1/r1", false), ["GET", "", "", "", "", ""]);
        assert_eq!(labels("FROB", "/apis/g1.x/v1/r1", false), ["other", "", "", "", "", ""]);
        assert_eq!(labels("GET", "/api/v1/namespaces/a/pods/p/nonsense", true), ["GET", "", "", "", "", ""]);
        assert_eq!(labels("FROB", "/", false), ["other", "", "", "", "", ""]);
        assert_eq!(labels("GET", "/api/v1/namespaces/a/pods", true), ["LIST", "", "v1", "pods", "", "namespace"]);
        assert_eq!(labels("POST", "/api/v1/namespaces/a/pods", true), ["POST", "", "v1", "pods", "", "resource"]);
        assert_eq!(labels("GET", "/api/v1/namespaces/a/pods/p/log", true), ["CONNECT", "", "v1", "pods", "log", "resource"]);
    }
}

//! What a URL asks for: verb, resource, subresource, namespace and name.
//!
//! Answers to upstream's `apiserver/pkg/endpoints/request.RequestInfo`. Pure parsing; knows no resource table.

use http::Method;

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
    /// Object name, or empty.
    pub name: String,
    /// Path parts after the subresource (proxy paths).
    pub trailing: Vec<String>,
    /// The whole path.
    pub path: String,
}

/// Subresources of namespaces; every other part after `/namespaces/<name>/` is a resource in the namespace.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

impl RequestInfo {
    /// Parses method, path and query.
    pub fn parse(method: &Method, path: &str, query: &str) -> RequestInfo {
        // Decoded before it is split, as Go's URL.Path is: `%2F` separates, and what is authorized is what is answered.
        let path = percent_decode(path);
        let mut info = RequestInfo { path: path.clone(), verb: method.as_str().to_ascii_lowercase(), ..RequestInfo::default() };
        let parts: Vec<String> = path.split('/').filter(|p| !p.is_empty()).map(str::to_owned).collect();
        let mut parts = parts.as_slice();
        match parts.first().map(String::as_str) {
            Some("api") => parts = &parts[1..],
            Some("apis") => {
                if parts.len() < 4 {
                    return info;
                }
                info.group.clone_from(&parts[1]);
                parts = &parts[2..];
            }
            _ => return info,
        }
        if parts.len() < 2 {
            info.group.clear();
            return info;
        }
        info.resource_request = true;
        info.version.clone_from(&parts[0]);
        parts = &parts[1..];

        info.verb = match *method {
            Method::POST => "create",
            Method::GET | Method::HEAD => "get",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "",
        }
        .to_owned();
        // The old form /watch/<resource>, /proxy/<resource>.
        if matches!(parts[0].as_str(), "watch" | "proxy") {
            if parts.len() < 2 {
                return info;
            }
            if parts[0] == "watch" {
                info.verb = "watch".to_owned();
            } else {
                info.verb = "proxy".to_owned();
            }
            parts = &parts[1..];
        }
        if parts[0] == "namespaces" && parts.len() > 1 {
            info.namespace.clone_from(&parts[1]);
            if parts.len() > 2 && !NAMESPACE_SUBRESOURCES.contains(&parts[2].as_str()) {
                parts = &parts[2..];
            }
        }
        info.resource.clone_from(&parts[0]);
        if let Some(name) = parts.get(1) {
            info.name.clone_from(name);
        }
        if let Some(sub) = parts.get(2) {
            info.subresource.clone_from(sub);
            info.trailing = parts[3..].to_vec();
        }
        if info.name.is_empty() {
            match info.verb.as_str() {
                "get" => info.verb = if query_flag(query, "watch") { "watch" } else { "list" }.to_owned(),
                "delete" => info.verb = "deletecollection".to_owned(),
                _ => {}
            }
        } else if info.verb == "get" && info.subresource.is_empty() && query_flag(query, "watch") {
            info.verb = "watch".to_owned();
        }
        if matches!(info.verb.as_str(), "list" | "watch")
            && info.name.is_empty()
            && let Some(selector) = query_value(query, "fieldSelector")
            && let Some(name) =
                selector.split(',').find_map(|term| term.strip_prefix("metadata.name==").or_else(|| term.strip_prefix("metadata.name=")))
            && !name.is_empty()
            && !name.contains('/')
        {
            info.name = name.to_owned();
        }
        info
    }

    /// Whether the request has no bounded duration (watch, log following, exec and the like).
    pub fn is_long_running(&self, query: &str) -> bool {
        if !self.resource_request {
            return false;
        }
        self.verb == "watch"
            || self.verb == "proxy"
            || matches!(self.subresource.as_str(), "exec" | "attach" | "portforward" | "proxy")
            || (self.subresource == "log" && query_flag(query, "follow"))
    }
}

/// Decodes `%41`; bytes that are no valid escape or no UTF-8 stay as they are.
pub fn percent_decode(text: impl AsRef<str>) -> String {
    let text = text.as_ref();
    if !text.contains('%') {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%')
            .then(|| bytes.get(at + 1..at + 3))
            .flatten()
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match escaped {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

/// The decoded pairs of a query string, in order.
pub fn query_pairs(query: &str) -> impl Iterator<Item = (String, String)> + '_ {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (percent_decode(key.replace('+', " ")), percent_decode(value.replace('+', " ")))
    })
}

/// The first value of `name`.
pub fn query_value(query: &str, name: &str) -> Option<String> {
    query_pairs(query).find(|(key, _)| key == name).map(|(_, value)| value)
}

/// Whether a boolean parameter is on: upstream takes `1`, `true` and an empty value as true, `0` and `false` as false.
pub fn query_flag(query: &str, name: &str) -> bool {
    query_value(query, name).is_some_and(|v| !matches!(v.to_ascii_lowercase().as_str(), "0" | "false" | "f"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: Method, target: &str, want: &str) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let i = RequestInfo::parse(&method, path, query);
        let got = format!(
            "{} {}/{} {} {} {}/{} {}",
            i.verb,
            i.group,
            i.version,
            i.resource,
            i.subresource,
            i.namespace,
            i.name,
            i.trailing.join(",")
        );
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
        check(Method::GET, "/api/v1/namespaces/a/services/http:s:80/proxy/x/y", "get /v1 services proxy a/http:s:80 x,y");
        check(Method::GET, "/api/v1/watch/namespaces/a/pods/p", "watch /v1 pods  a/p ");
        check(Method::POST, "/apis/apps/v1", "post /   / ");
        check(Method::GET, "/api/v1/namespaces/a%2Fpods/p%2Fexec", "get /v1 pods exec a/p ");
        assert_eq!(RequestInfo::parse(&Method::GET, "/%6detrics", "").path, "/metrics");
    }
}

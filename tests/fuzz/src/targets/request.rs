//! Path and query of a request.

use http::Method;
use trireme_api::time::go_duration;
use trireme_apiserver::http::parameters::{Parameters, unescape};
use trireme_apiserver::http::query::{DeleteOptions, IncludeObject, ListOptions, WriteOptions, resource_version};
use trireme_apiserver::http::request_info::RequestInfo;

use super::{Target, texts};

pub fn targets() -> Vec<Target> {
    vec![Target { name: "request", what: "path and query of a request", corpus, run }]
}

fn corpus() -> Vec<Vec<u8>> {
    texts(&[
        "GET /api/v1/namespaces/default/pods?labelSelector=app%3Dweb&limit=500",
        "GET /api/v1/watch/namespaces/default/pods/web?resourceVersion=12",
        "GET /apis/apps/v1/deployments?watch=true&timeoutSeconds=300&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan",
        "PATCH /apis/apps/v1/namespaces/a/deployments/b/scale?fieldManager=kubectl&fieldValidation=Strict&dryRun=All&force=true",
        "DELETE /api/v1/namespaces/a/pods/b?gracePeriodSeconds=0&propagationPolicy=Background&orphanDependents=false",
        "GET /api/v1/namespaces/a/pods/b/proxy/some/path/?x=%2F..%2f",
        "GET /api/v1/namespaces/a/pods?continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MTIsInN0YXJ0IjoiYSJ9&limit=1",
        "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        "GET /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n?fieldSelector=metadata.name%3Dn",
        "GET /healthz/poststarthook/x?verbose&exclude=etcd",
    ])
}

fn run(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (method, target) = text.split_once(' ').unwrap_or(("GET", &text));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let method = Method::from_bytes(method.as_bytes()).unwrap_or(Method::GET);
    let parameters = Parameters::parse(query);
    if let Ok(info) = RequestInfo::parse(&method, path, query) {
        // The parsed request has the parameters that were sent, and decoding does not multiply the path.
        assert_eq!(info.query, parameters);
        assert!(info.path.len() <= path.len().saturating_mul(3));
        let _ = info.parts();
    }
    let _ = unescape(path, false);
    for name in ["resourceVersion", "timeout", "limit"] {
        let _ = resource_version(parameters.text(name));
        let _ = go_duration(parameters.text(name));
        let _ = parameters.integer(name);
    }
    for watch in [false, true] {
        let _ = ListOptions::parse(&parameters, watch);
    }
    let _ = WriteOptions::parse(&parameters, "CreateOptions");
    let _ = DeleteOptions::parse(&parameters, None);
    let _ = IncludeObject::parse(&parameters);
}

//! The route, asked as the controller asks it.
#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, Ipv4Addr};

use axum::{Extension, body::Body};
use http::{Method, Request};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::*;
use crate::{
    api_double as api,
    cgroup::Cgroups,
    clock::Clock,
    core::{Core, Seams},
    metrics::Operations,
    options::KubeletOptions,
    pods::Pods,
    runtime::double::Double,
    server::{
        auth::{Auth, Peer},
        removals::Removals,
        routes,
    },
};

#[tokio::test]
async fn only_folders_of_volumes_are_removed_and_only_for_those_who_may() {
    let dir = tempfile::tempdir().unwrap();
    let options = KubeletOptions::new("n1", IpAddr::V4(Ipv4Addr::LOCALHOST), dir.path().join("agent"), api::Api::new().client());
    let base = options.local_volumes_dir.clone();
    assert_eq!(base, dir.path().join("storage"));
    let clock = Clock::simulated("2026-01-01T00:00:00Z".parse().unwrap());
    let runtime = Arc::new(Double::new(clock.clone()));
    let seams = Seams { runtime, operations: Operations::new(), clock, cgroups: Cgroups::below("/", dir.path()) };
    let cancel = CancellationToken::new();
    let core = Core::new(options, seams, Arc::new(|_| {}), &cancel);
    let pods = Pods::new(core.clone(), Arc::default(), cancel.clone());
    let removals = Removals::default();
    let api = Arc::new(Api { auth: Auth::new(core.client.clone(), "n1"), core, pods, removals: removals.clone() });
    let router = routes::all(api).layer(Extension(Peer(None)));
    let ask = |path: &str, token: &str| {
        let request = Request::builder().method(Method::DELETE).uri(format!("/trireme/local-volumes/{path}"));
        let request = request.header("authorization", format!("Bearer {token}")).body(Body::empty()).unwrap();
        let router = router.clone();
        async move { router.oneshot(request).await.unwrap().status().as_u16() }
    };
    std::fs::create_dir_all(base.join("pvc-1/sub")).unwrap();
    std::fs::create_dir_all(dir.path().join("agent/pods")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("agent"), base.join("link")).unwrap();
    assert_eq!(ask("pvc-1", "bad").await, 401);
    for outside in ["..%2Fagent", "%2E%2E", "pvc-1%2Fsub", "link", "%2Fetc", "a%00b"] {
        assert_eq!(ask(outside, "good").await, 400, "{outside}");
    }
    for no_name in ["", "pvc-1/sub", "../agent"] {
        assert_eq!(ask(no_name, "good").await, 404, "{no_name}");
    }
    assert!(base.join("pvc-1/sub").is_dir() && dir.path().join("agent/pods").is_dir());
    let busy = removals.begin("pvc-1").unwrap();
    assert_eq!(ask("pvc-1", "good").await, 409, "it is being removed");
    drop(busy);
    assert_eq!((ask("pvc-1", "good").await, base.join("pvc-1").exists()), (200, false));
    assert_eq!(ask("pvc-1", "good").await, 200, "what is gone is removed");
}

//! Static pods against a runtime and an API server in memory.
#![allow(clippy::unwrap_used)]

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    api_double::Api,
    cgroup::Cgroups,
    clock::Clock,
    core::{Core, Seams},
    metrics::Operations,
    options::KubeletOptions,
    pods::{Handles, Pods},
    runtime::double::Double,
};

const MIRROR: &str = "/api/v1/namespaces/default/pods/web-n1";

/// A node without anything but its folder of manifests.
struct Bench {
    api: Api,
    runtime: Double,
    core: Arc<Core>,
    cancel: CancellationToken,
    dir: tempfile::TempDir,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Bench {
    fn start() -> Bench {
        Bench::start_on(Api::new())
    }

    fn start_on(api: Api) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let runtime = Double::new(Clock::Wall);
        let mut options = KubeletOptions::new("n1", IpAddr::V4(Ipv4Addr::LOCALHOST), dir.path().join("kubelet"), api.client());
        options.pod_logs_dir = dir.path().join("logs");
        options.reserved.clear();
        std::fs::create_dir_all(&options.data_dir).unwrap();
        let cgroups = dir.path().join("cgroup");
        std::fs::create_dir_all(&cgroups).unwrap();
        std::fs::write(cgroups.join("cgroup.controllers"), "cpu memory").unwrap();
        let cancel = CancellationToken::new();
        let seams = Seams {
            runtime: Arc::new(runtime.clone()),
            operations: Operations::new(),
            clock: Clock::Wall,
            cgroups: Cgroups::below("/", &cgroups),
        };
        let core = Core::new(options, seams, Arc::new(|_: &str| {}), &cancel);
        let node: Node = serde_json::from_value(json!({"metadata": {"name": "n1", "uid": "node-uid"}})).unwrap();
        *core.node.write() = Some(Arc::new(node));
        let pods = Pods::new(core.clone(), Arc::<Handles>::default(), cancel.clone());
        tokio::spawn(pods.clone().run());
        let (follow, mirrors) = (super::follow(core.clone(), pods), super::keep_mirrors(core.clone(), core.pods.mirrors_changed.clone()));
        let stop = cancel.clone();
        tokio::spawn(async move { stop.run_until_cancelled(futures::future::join(follow, mirrors)).await });
        Bench { api, runtime, core, cancel, dir }
    }

    fn manifest(&self) -> PathBuf {
        self.dir.path().join("kubelet/pod-manifests/web.yaml")
    }

    /// Puts a manifest into the folder as an operator does: written elsewhere, then moved.
    async fn write(&self, container: &str) {
        self.until("the folder is there", |b| b.manifest().parent().unwrap().exists()).await;
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
            "spec": {"containers": [{"name": container, "image": "i", "imagePullPolicy": "IfNotPresent"}]}});
        let aside = self.dir.path().join("aside");
        std::fs::write(&aside, pod.to_string()).unwrap();
        std::fs::rename(aside, self.manifest()).unwrap();
    }

    async fn until(&self, what: &str, condition: impl Fn(&Bench) -> bool) {
        for _ in 0..600 {
            if condition(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{what}: {:#?}\n{:?}", self.mirror(), self.runtime.calls());
    }

    fn mirror(&self) -> Value {
        self.api.get(MIRROR).unwrap_or_default()
    }

    fn has_called(&self, call: &str) -> bool {
        self.runtime.calls().iter().any(|made| made.starts_with(call))
    }
}

fn runs(bench: &Bench) -> bool {
    !bench.mirror()["status"]["containerStatuses"][0]["state"]["running"].is_null()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_static_pod_runs_is_shown_and_goes_with_its_manifest() {
    let bench = Bench::start();
    bench.write("a").await;
    bench.until("it runs and is shown", runs).await;
    let mirror = bench.mirror();
    let notes = &mirror["metadata"]["annotations"];
    assert_eq!(notes["kubernetes.io/config.mirror"], notes["kubernetes.io/config.hash"]);
    assert_eq!(notes["kubernetes.io/config.source"], "file");
    assert_eq!(
        mirror["metadata"]["ownerReferences"],
        json!([{"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "node-uid", "controller": true}])
    );
    let uid = notes["kubernetes.io/config.hash"].as_str().unwrap();
    let found = bench.core.pods.get("default", "web-n1").unwrap();
    assert_eq!(found.metadata.uid.as_deref(), Some(uid), "logs and exec find the containers by this UID");
    assert_eq!(bench.core.pods.list().len(), 1, "the mirror is no second pod");

    bench.api.delete_gracefully(MIRROR, 30);
    let first = mirror["metadata"]["uid"].clone();
    bench.until("it is shown again", |b| runs(b) && b.mirror()["metadata"]["uid"] != first).await;
    assert!(!bench.has_called("stop"), "deleting the mirror ends nothing: {:?}", bench.runtime.calls());

    std::fs::remove_file(bench.manifest()).unwrap();
    bench.until("the containers are stopped", |b| b.has_called("stop a.0")).await;
    bench.until("it is shown no more", |b| b.mirror().is_null()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_content_is_another_pod_that_starts_after_the_one_before() {
    let bench = Bench::start();
    bench.write("a").await;
    bench.until("it runs", runs).await;
    bench.write("b").await;
    bench.until("the other one runs", |b| runs(b) && b.mirror()["status"]["containerStatuses"][0]["name"] == "b").await;
    let calls = bench.runtime.calls();
    let at = |call: &str| calls.iter().position(|made| made.starts_with(call)).unwrap();
    assert!(at("stop a.0") < at("create b.0"), "{calls:?}");
    assert_eq!(bench.api.find("/pods/web-n1").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_static_pod_runs_without_an_api_server() {
    let api = Api::new();
    api.down.store(true, Ordering::Relaxed);
    let bench = Bench::start_on(api);
    bench.write("a").await;
    bench.until("it runs", |b| b.has_called("start a.0")).await;
    bench.api.down.store(false, Ordering::Relaxed);
    bench.until("it is shown once that can be", runs).await;
}

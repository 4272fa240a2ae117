//! Real pods in a real containerd, told by a small API server in memory: the kubelet's way from a Pod object to a process and back.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "lab/api.rs"]
mod api;
#[path = "lab/containerd.rs"]
mod containerd;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use api::Api;
use containerd::{Containerd, IMAGE};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use trireme_kubelet::{Kubelet, KubeletOptions};

const PODS: &str = "/api/v1/namespaces/default/pods";

struct Lab {
    api: Api,
    containerd: Containerd,
    kubelet: Option<Kubelet>,
}

impl Lab {
    async fn start() -> Lab {
        let _ = tracing_subscriber::fmt().with_env_filter(std::env::var("RUST_LOG").unwrap_or_else(|_| "info".into())).with_test_writer().try_init();
        let api = Api::new();
        let ports = json!([{"name": "https", "port": 443}]);
        api.put("/api/v1/namespaces/default/services/kubernetes", json!({"metadata": {"name": "kubernetes"}, "spec": {"clusterIP": "10.43.0.1", "ports": ports}}));
        let mut lab = Lab { api, containerd: Containerd::start(), kubelet: None };
        lab.start_kubelet().await;
        lab
    }

    fn options(&self) -> KubeletOptions {
        let mut options = KubeletOptions::new("n1", IpAddr::V4(Ipv4Addr::LOCALHOST), self.containerd.path("kubelet"), self.api.client());
        options.runtime_endpoint = format!("unix://{}", self.containerd.socket().display());
        options.cgroup_root = self.containerd.cgroup_root.clone();
        options.pod_logs_dir = self.containerd.path("logs");
        options.cluster_dns = vec!["10.43.0.10".parse().unwrap()];
        options.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        options.healthz_listen = None;
        options
    }

    async fn start_kubelet(&mut self) {
        self.kubelet = Some(Kubelet::start(self.options(), CancellationToken::new()).await.unwrap());
    }

    async fn stop_kubelet(&mut self) {
        self.kubelet.take().unwrap().shutdown().await;
    }

    fn create(&self, name: &str, spec: Value) -> String {
        let mut spec = spec;
        spec["nodeName"] = "n1".into();
        let path = format!("{PODS}/{name}");
        self.api.put(&path, json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec}));
        path
    }

    fn status(&self, path: &str) -> Value {
        self.api.get(path).map(|pod| pod["status"].clone()).unwrap_or_default()
    }

    /// The tasks that containerd has, the sandboxes included.
    fn tasks(&self) -> usize {
        String::from_utf8_lossy(&self.containerd.ctr(&["tasks", "ls", "-q"]).stdout).lines().count()
    }

    fn log(&self, path: &str, container: &str, attempt: u32) -> String {
        let uid = self.api.get(path).unwrap()["metadata"]["uid"].as_str().unwrap().to_string();
        let name = path.rsplit('/').next().unwrap();
        let file = self.containerd.path(&format!("logs/default_{name}_{uid}/{container}/{attempt}.log"));
        let text = std::fs::read_to_string(file).unwrap_or_default();
        text.lines().filter_map(|l| l.splitn(4, ' ').nth(3)).map(|l| format!("{l}\n")).collect()
    }

    fn events(&self) -> Vec<String> {
        self.api.find("/events/").iter().map(|e| format!("{}: {}", e["reason"].as_str().unwrap_or_default(), e["message"].as_str().unwrap_or_default())).collect()
    }

    async fn until<F: Fn() -> bool>(&self, what: &str, condition: F) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        while !condition() {
            if tokio::time::Instant::now() > deadline {
                let statuses: Vec<Value> = self.api.find(PODS).iter().map(|p| p["status"].clone()).collect();
                panic!("{what}: {}\n{:#?}", serde_json::to_string_pretty(&statuses).unwrap(), self.events());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn condition<'a>(status: &'a Value, type_: &str) -> &'a str {
    status["conditions"].as_array().and_then(|all| all.iter().find(|c| c["type"] == type_)).and_then(|c| c["status"].as_str()).unwrap_or("")
}

fn shell(script: &str) -> Value {
    json!(["/bin/sh", "-c", script])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_runs_is_adopted_and_is_deleted_gracefully() {
    let mut lab = Lab::start().await;
    lab.until("the node is ready", || lab.api.get("/api/v1/nodes/n1").is_some_and(|n| condition(&n["status"], "Ready") == "True")).await;
    let script = "echo hello $GREETING $POD_NAME; trap 'echo bye; exit 0' TERM; while true; do sleep 0.1; done";
    let path = lab.create(
        "web",
        json!({"restartPolicy": "Always", "terminationGracePeriodSeconds": 10, "containers": [{
            "name": "a", "image": IMAGE, "imagePullPolicy": "IfNotPresent", "command": shell(script),
            "env": [{"name": "GREETING", "value": "dear"}, {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "resources": {"requests": {"cpu": "100m", "memory": "16Mi"}, "limits": {"memory": "32Mi"}}}]}),
    );
    lab.until("the pod is ready", || condition(&lab.status(&path), "Ready") == "True").await;
    let status = lab.status(&path);
    assert_eq!(status["phase"], "Running");
    assert!(status["podIP"].as_str().unwrap().starts_with("10.99."));
    assert_eq!(status["qosClass"], "Burstable");
    lab.until("its output is in the log", || lab.log(&path, "a", 0).starts_with("hello dear web")).await;
    let uid = lab.api.get(&path).unwrap()["metadata"]["uid"].as_str().unwrap().to_string();
    let cgroup = format!("/sys/fs/cgroup/memory{}/kubepods/burstable/pod{uid}", lab.containerd.cgroup_root);
    assert_eq!(std::fs::read_to_string(format!("{cgroup}/memory.limit_in_bytes")).unwrap().trim(), (32 << 20).to_string());

    let container_id = status["containerStatuses"][0]["containerID"].clone();
    lab.stop_kubelet().await;
    lab.containerd.restart();
    lab.start_kubelet().await;
    let second = lab.create("second", json!({"restartPolicy": "Never", "containers": [{"name": "b", "image": IMAGE, "command": shell("exit 0")}]}));
    lab.until("the restarted kubelet works", || lab.status(&second)["phase"] == "Succeeded").await;
    let status = lab.status(&path);
    assert_eq!((&status["containerStatuses"][0]["containerID"], &status["containerStatuses"][0]["restartCount"]), (&container_id, &json!(0)), "it was left alone");

    lab.api.delete_gracefully(&path, 10);
    lab.api.delete_gracefully(&second, 10);
    lab.until("the objects are gone", || lab.api.get(&path).is_none() && lab.api.get(&second).is_none()).await;
    lab.until("nothing runs", || lab.tasks() == 0).await;
    assert!(!std::path::Path::new(&cgroup).exists());
    lab.until("no directory is left", || std::fs::read_dir(lab.containerd.path("kubelet/pods")).unwrap().count() == 0).await;
    lab.stop_kubelet().await;
}

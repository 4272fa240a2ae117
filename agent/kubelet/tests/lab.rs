//! Real pods in a real containerd, told by a small API server in memory: the kubelet's way from a Pod object to a process and back.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "lab/api.rs"]
mod api;
#[path = "lab/client.rs"]
mod client;
#[path = "lab/containerd.rs"]
mod containerd;
#[path = "lab/features.rs"]
mod features;

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
    // Dropped in this order, also when a test fails: a kubelet that lives on starts again what is being removed.
    kubelet: Option<Kubelet>,
    containerd: Containerd,
}

impl Lab {
    async fn start() -> Lab {
        let _ = tracing_subscriber::fmt()
            .with_env_filter(std::env::var("RUST_LOG").unwrap_or_else(|_| "info".into()))
            .with_test_writer()
            .try_init();
        let api = Api::new();
        let ports = json!([{"name": "https", "port": 443}]);
        api.put(
            "/api/v1/namespaces/default/services/kubernetes",
            json!({"metadata": {"name": "kubernetes"}, "spec": {"clusterIP": "10.43.0.1", "ports": ports}}),
        );
        let mut lab = Lab { api, kubelet: None, containerd: Containerd::start() };
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
        options.serving_tls = Some(client::serving_tls());
        options
    }

    async fn start_kubelet(&mut self) {
        self.start_kubelet_with(self.options()).await;
    }

    async fn start_kubelet_with(&mut self, options: KubeletOptions) {
        self.kubelet = Some(Kubelet::start(options, CancellationToken::new()).await.unwrap());
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
        self.api
            .find("/events/")
            .iter()
            .map(|e| format!("{}: {}", e["reason"].as_str().unwrap_or_default(), e["message"].as_str().unwrap_or_default()))
            .collect()
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
    let second =
        lab.create("second", json!({"restartPolicy": "Never", "containers": [{"name": "b", "image": IMAGE, "command": shell("exit 0")}]}));
    lab.until("the restarted kubelet works", || lab.status(&second)["phase"] == "Succeeded").await;
    let status = lab.status(&path);
    assert_eq!(
        (&status["containerStatuses"][0]["containerID"], &status["containerStatuses"][0]["restartCount"]),
        (&container_id, &json!(0)),
        "it was left alone"
    );

    lab.api.delete_gracefully(&path, 10);
    lab.api.delete_gracefully(&second, 10);
    lab.until("the objects are gone", || lab.api.get(&path).is_none() && lab.api.get(&second).is_none()).await;
    lab.until("nothing runs", || lab.tasks() == 0).await;
    assert!(!std::path::Path::new(&cgroup).exists());
    lab.until("no directory is left", || std::fs::read_dir(lab.containerd.path("kubelet/pods")).unwrap().count() == 0).await;
    lab.stop_kubelet().await;
}

/// Images that are being imported into the runtime delay the pods that lack one, and no others.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_waits_for_images_only_if_it_lacks_one() {
    let mut lab = Lab::start().await;
    let forever = json!({"terminationGracePeriodSeconds": 0, "containers": [{"name": "a", "image": IMAGE, "command": shell("while true; do sleep 1; done")}]});
    let first = lab.create("first", forever.clone());
    lab.until("the first pod runs", || lab.status(&first)["phase"] == "Running").await;
    lab.stop_kubelet().await;

    let (imported, images_imported) = tokio::sync::watch::channel(false);
    lab.start_kubelet_with(KubeletOptions { images_imported: Some(images_imported), ..lab.options() }).await;
    let lacking =
        lab.create("lacking", json!({"containers": [{"name": "a", "image": "docker.io/library/absent:1", "imagePullPolicy": "Never"}]}));
    let second = lab.create("second", forever);
    lab.until("a pod that lacks nothing runs", || lab.status(&second)["phase"] == "Running").await;
    let sandboxes = || lab.containerd.ctr(&["tasks", "ls", "-q"]).stdout;
    lab.until("what lacks an image is told of", || lab.status(&lacking)["phase"] == "Pending").await;
    assert_eq!(String::from_utf8_lossy(&sandboxes()).lines().count(), 4, "two pods, and no sandbox of the third");
    assert!(!lab.events().iter().any(|e| e.starts_with("ErrImageNeverPull")), "{:?}", lab.events());
    imported.send_replace(true);
    lab.until("it is missing after all", || {
        lab.status(&lacking)["containerStatuses"][0]["state"]["waiting"]["reason"] == "ErrImageNeverPull"
    })
    .await;
    for path in [&first, &second, &lacking] {
        lab.api.delete_gracefully(path, 0);
    }
    lab.until("nothing runs", || lab.api.find(PODS).is_empty() && lab.tasks() == 0).await;
    lab.stop_kubelet().await;
}

/// The object that a volume is made of may appear a moment after its pod.
#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_cannot_be_made_yet_is_made_soon_after() {
    let mut lab = Lab::start().await;
    let spec = json!({"terminationGracePeriodSeconds": 0,
        "volumes": [{"name": "ca", "projected": {"sources": [{"configMap": {"name": "kube-root-ca.crt"}}]}}],
        "containers": [{"name": "a", "image": IMAGE, "command": shell("cat /ca/ca.crt; echo; while true; do sleep 1; done"),
            "volumeMounts": [{"name": "ca", "mountPath": "/ca"}]}]});
    let path = lab.create("early", spec);
    lab.until("the failure is told", || lab.events().iter().any(|e| e.contains("configmap \"kube-root-ca.crt\" not found"))).await;
    lab.api.put(
        "/api/v1/namespaces/default/configmaps/kube-root-ca.crt",
        json!({"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": "here"}}),
    );
    lab.until("it runs with what has come", || lab.log(&path, "a", 0).starts_with("here")).await;
    lab.api.delete_gracefully(&path, 0);
    lab.until("nothing runs", || lab.api.find(PODS).is_empty() && lab.tasks() == 0).await;
    lab.stop_kubelet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_init_containers_probes_and_restarts() {
    let mut lab = Lab::start().await;
    lab.api.put("/api/v1/namespaces/default/configmaps/cm", json!({"metadata": {"name": "cm"}, "data": {"a": "one", "b": "two"}}));
    lab.api.put("/api/v1/namespaces/default/secrets/s", json!({"metadata": {"name": "s"}, "data": {"password": "c2VjcmV0"}}));
    let path = lab.create(
        "rich",
        json!({"restartPolicy": "Always", "terminationGracePeriodSeconds": 1, "hostname": "box", "securityContext": {"fsGroup": 1234},
        "volumes": [
            {"name": "shared", "emptyDir": {}}, {"name": "mem", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {"name": "cm", "configMap": {"name": "cm"}}, {"name": "sec", "secret": {"secretName": "s", "defaultMode": 256}},
            {"name": "proj", "projected": {"sources": [
                {"serviceAccountToken": {"path": "token"}}, {"configMap": {"name": "cm", "items": [{"key": "a", "path": "deep/a"}]}},
                {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]}}],
        "initContainers": [
            {"name": "first", "image": IMAGE, "command": shell("echo from-init > /shared/x; mkdir -p /shared/sub; echo deep > /shared/sub/y"), "volumeMounts": [{"name": "shared", "mountPath": "/shared"}]},
            {"name": "side", "image": IMAGE, "restartPolicy": "Always", "command": shell("while true; do sleep 1; done")}],
        "containers": [{"name": "a", "image": IMAGE,
            "command": shell("cat /shared/x /cm/a /sec/password; echo; cat /proj/token; echo; cat /proj/deep/a; echo; cat /proj/labels; echo; cat /sub/y; stat -c %g /mem; hostname; while [ ! -f /shared/die ]; do sleep 0.1; done; echo last words > /dev/termination-log; exit 3"),
            "volumeMounts": [{"name": "shared", "mountPath": "/shared"}, {"name": "mem", "mountPath": "/mem"}, {"name": "cm", "mountPath": "/cm"},
                {"name": "sec", "mountPath": "/sec"}, {"name": "proj", "mountPath": "/proj"}, {"name": "shared", "mountPath": "/sub", "subPath": "sub"}],
            "readinessProbe": {"exec": {"command": ["/bin/test", "-f", "/shared/ready"]}, "periodSeconds": 1},
            "livenessProbe": {"exec": {"command": ["/bin/test", "!", "-f", "/shared/sick"]}, "periodSeconds": 1, "failureThreshold": 1}}]}),
    );
    lab.until("the container runs", || !lab.status(&path)["containerStatuses"][0]["state"]["running"].is_null()).await;
    assert_ne!(condition(&lab.status(&path), "Ready"), "True", "the readiness probe fails");
    let expected = "from-init\nonesecret\nthe-token\none\napp=\"rich\"\ndeep\n1234\nbox\n";
    lab.until("all volumes are there", || lab.log(&path, "a", 0) == expected).await;
    let uid = lab.api.get(&path).unwrap()["metadata"]["uid"].as_str().unwrap().to_string();
    let volumes = lab.containerd.path(&format!("kubelet/pods/{uid}/volumes"));
    let shared = volumes.join("kubernetes.io~empty-dir/shared");
    std::fs::write(shared.join("ready"), "").unwrap();
    lab.until("the pod is ready", || condition(&lab.status(&path), "Ready") == "True").await;

    lab.api.put("/api/v1/namespaces/default/configmaps/cm", json!({"metadata": {"name": "cm"}, "data": {"a": "changed"}}));
    lab.until("the files follow the ConfigMap", || {
        std::fs::read_to_string(volumes.join("kubernetes.io~configmap/cm/a")).is_ok_and(|t| t == "changed")
    })
    .await;
    assert!(!volumes.join("kubernetes.io~configmap/cm/b").exists());

    std::fs::write(shared.join("die"), "").unwrap();
    lab.until("it ended and was started again", || lab.status(&path)["containerStatuses"][0]["restartCount"] == 1).await;
    std::fs::remove_file(shared.join("die")).unwrap();
    lab.until("the last end is told", || lab.status(&path)["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] == 3).await;
    assert_eq!(lab.status(&path)["containerStatuses"][0]["lastState"]["terminated"]["message"], "last words\n");
    std::fs::write(shared.join("die"), "").unwrap();
    lab.until("the second failure is held back", || {
        lab.status(&path)["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    })
    .await;
    let message = lab.status(&path)["containerStatuses"][0]["state"]["waiting"]["message"].clone();
    assert_eq!(message, format!("back-off 10s restarting failed container=a pod=rich_default({uid})"));
    std::fs::remove_file(shared.join("die")).unwrap();
    lab.until("it runs again", || !lab.status(&path)["containerStatuses"][0]["state"]["running"].is_null()).await;
    std::fs::write(shared.join("sick"), "").unwrap();
    lab.until("the liveness probe ends it", || {
        lab.events().iter().any(|e| e == "Killing: Container a failed liveness probe, will be restarted")
    })
    .await;
    assert_eq!(lab.status(&path)["initContainerStatuses"][1]["restartCount"], 0, "the sidecar stayed");

    for (name, container, reason) in [
        ("bad-name", json!({"image": "Not An Image"}), "InvalidImageName"),
        ("never", json!({"image": "docker.io/library/absent:1", "imagePullPolicy": "Never"}), "ErrImageNeverPull"),
        (
            "no-key",
            json!({"image": IMAGE, "env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "nope"}}}]}),
            "CreateContainerConfigError",
        ),
        ("no-file", json!({"image": IMAGE, "command": ["/nope"]}), "RunContainerError"),
    ] {
        let mut container = container;
        container["name"] = "c".into();
        let path = lab.create(name, json!({"restartPolicy": "Always", "containers": [container]}));
        lab.until(reason, || {
            let waiting = lab.status(&path)["containerStatuses"][0]["state"]["waiting"]["reason"].clone();
            waiting == reason || (reason == "RunContainerError" && waiting == "CrashLoopBackOff")
        })
        .await;
        lab.api.delete_gracefully(&path, 0);
    }
    let too_big = lab.create("too-big", json!({"containers": [{"name": "c", "image": IMAGE, "resources": {"requests": {"cpu": "1000"}}}]}));
    lab.until("a pod that does not fit fails", || lab.status(&too_big)["reason"] == "OutOfcpu").await;
    lab.api.delete_gracefully(&too_big, 0);
    lab.api.delete_gracefully(&path, 1);
    lab.until("all is gone", || lab.api.find(PODS).is_empty() && lab.tasks() == 0).await;
    lab.stop_kubelet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_and_exec_over_the_kubelet_api() {
    let mut lab = Lab::start().await;
    let spec = json!({"terminationGracePeriodSeconds": 0, "containers": [{"name": "a", "image": IMAGE, "command": shell("echo one; echo two; echo three; while true; do sleep 1; done")}]});
    let path = lab.create("p", spec);
    lab.until("the pod runs", || lab.log(&path, "a", 0) == "one\ntwo\nthree\n").await;
    let address = lab.kubelet.as_ref().unwrap().address().unwrap();
    let get = |path: &'static str, token: &'static str| client::get(address, path, token);
    assert_eq!(get("/containerLogs/default/p/a?tailLines=2", "good").await, (200, "two\nthree\n".into()));
    assert_eq!(get("/containerLogs/default/p/a", "").await.0, 401);
    assert_eq!(get("/containerLogs/default/p/nope", "good").await.0, 404);
    let (code, pods) = get("/pods", "good").await;
    assert!(code == 200 && pods.contains("\"PodList\""));
    let (code, metrics) = get("/metrics/resource", "good").await;
    assert!(
        code == 200 && metrics.contains("container_memory_working_set_bytes{container=\"a\",namespace=\"default\",pod=\"p\"}"),
        "{metrics}"
    );

    let exec = |query: &str| format!("/exec/default/p/a?output=1&error=1&{query}");
    for protocol in ["v4.channel.k8s.io", "v5.channel.k8s.io"] {
        let run =
            client::exec(address, &exec("command=/bin/sh&command=-c&command=echo+out%3B+echo+err+%3E%262%3B+exit+7"), protocol, None).await;
        assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("out\n", "err\n"), "{protocol}");
        assert_eq!(run.status["details"]["causes"][0]["message"], "7", "{protocol}: {}", run.status);
    }
    // cat only ends when its input does.
    let run = client::exec(address, &exec("input=1&command=/bin/cat"), "v5.channel.k8s.io", Some("hello")).await;
    assert_eq!((run.stdout.as_str(), run.status["status"].as_str()), ("hello", Some("Success")));
    let run =
        client::exec(address, "/exec/default/p/a?output=1&input=1&tty=1&command=/bin/stty&command=size", "v5.channel.k8s.io", None).await;
    assert_eq!(run.status["status"], "Success", "{}", run.stdout);
    lab.api.delete_gracefully(&path, 0);
    lab.until("all is gone", || lab.api.find(PODS).is_empty() && lab.tasks() == 0).await;
    lab.stop_kubelet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_that_dies_takes_no_pod_with_it() {
    let mut lab = Lab::start().await;
    let path = lab.create("p", json!({"terminationGracePeriodSeconds": 0, "containers": [{"name": "a", "image": IMAGE, "command": shell("while true; do sleep 1; done")}]}));
    lab.until("the pod is ready", || condition(&lab.status(&path), "Ready") == "True").await;
    let before = lab.status(&path)["containerStatuses"][0]["containerID"].clone();
    let node = |lab: &Lab| lab.api.get("/api/v1/nodes/n1").unwrap()["status"].clone();
    lab.containerd.kill();
    lab.until("the node says so", || condition(&node(&lab), "Ready") == "False").await;
    let ready = node(&lab)["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Ready").unwrap().clone();
    assert_eq!((ready["reason"].as_str(), ready["message"].as_str()), (Some("KubeletNotReady"), Some("container runtime is down")));
    lab.containerd.restart();
    lab.until("the node is ready again", || condition(&node(&lab), "Ready") == "True").await;
    assert_eq!((&lab.status(&path)["containerStatuses"][0]["containerID"], lab.tasks()), (&before, 2));
    lab.api.delete_gracefully(&path, 0);
    lab.until("all is gone", || lab.api.find(PODS).is_empty() && lab.tasks() == 0).await;
    lab.stop_kubelet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_killed_at_any_moment_starts_no_pod_twice() {
    let mut lab = Lab::start().await;
    let mut paths = Vec::new();
    for round in 0..12_u64 {
        let spec = json!({"terminationGracePeriodSeconds": 0, "containers": [
            {"name": "a", "image": IMAGE, "command": shell("while true; do sleep 1; done")},
            {"name": "b", "image": IMAGE, "command": shell("while true; do sleep 1; done")}]});
        paths.push(lab.create(&format!("p{round}"), spec));
        // Cut in the middle of whatever it is doing: dropping its tasks drops the calls in flight.
        tokio::time::sleep(Duration::from_millis(40 * round)).await;
        lab.stop_kubelet().await;
        lab.start_kubelet().await;
    }
    lab.until("all pods are ready", || paths.iter().all(|p| condition(&lab.status(p), "Ready") == "True")).await;
    for path in &paths {
        for container in lab.status(path)["containerStatuses"].as_array().unwrap() {
            // A start that was cut in the middle may have failed; what never ran may be started again, and only that.
            let never_ran = container["lastState"]["terminated"]["reason"] == "StartError";
            assert!(container["restartCount"] == 0 || never_ran, "{path}: {container}");
        }
    }
    // What a cut left behind may be on its way out; a pod that ran twice would stay.
    lab.until("one sandbox and two containers for each pod", || lab.tasks() == paths.len() * 3).await;
    for path in &paths {
        lab.api.delete_gracefully(path, 0);
    }
    lab.until("all is gone", || lab.api.find(PODS).is_empty() && lab.tasks() == 0).await;
    lab.stop_kubelet().await;
}

//! The worker against a runtime in memory and an API server in memory, on paused time.
#![allow(clippy::unwrap_used)]

mod claims;
mod devices;

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tonic::Code;
use trireme_proto::cri;

use super::{Desired, Signals, Verdict, Worker};
use crate::{
    api_double as api,
    cgroup::Cgroups,
    clock::Clock,
    core::{Core, Seams},
    host_ports::{HostPortMapping, HostPorts},
    metrics::Operations,
    options::KubeletOptions,
    runtime::double::Double,
};

const PODS: &str = "/api/v1/namespaces/default/pods";

/// One pod, its worker, and everything around it.
struct Bench {
    api: api::Api,
    runtime: Double,
    core: Arc<Core>,
    desired: watch::Sender<Desired>,
    wake: Arc<Notify>,
    sentence: Arc<Mutex<Option<Verdict>>>,
    path: String,
    cancel: CancellationToken,
    dir: tempfile::TempDir,
    /// Does not run yet.
    worker: Mutex<Option<Worker>>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Bench {
    /// Starts a worker for a pod of this specification.
    async fn start(spec: Value) -> Bench {
        Bench::start_with(json!({"metadata": {"name": "p"}, "spec": spec}), |_, _, _| {}).await
    }

    async fn start_with(object: Value, prepare: impl FnOnce(&api::Api, &Double, &mut KubeletOptions)) -> Bench {
        let bench = Bench::prepared(object, prepare).await;
        bench.begin();
        bench
    }

    /// The worker runs from [`Bench::begin`] on.
    async fn start_later(object: Value) -> Bench {
        Bench::prepared(object, |_, _, _| {}).await
    }

    fn begin(&self) {
        if let Some(worker) = self.worker.lock().take() {
            tokio::spawn(worker.run(self.cancel.clone()));
        }
    }

    async fn prepared(object: Value, prepare: impl FnOnce(&api::Api, &Double, &mut KubeletOptions)) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let api = api::Api::new();
        api.put("/api/v1/namespaces/default/services/kubernetes", json!({"metadata": {"name": "kubernetes"}, "spec": {}}));
        let clock = Clock::simulated("2026-01-01T00:00:00Z".parse().unwrap());
        let runtime = Double::new(clock.clone());
        let mut options = KubeletOptions::new("n1", IpAddr::V4(Ipv4Addr::LOCALHOST), dir.path().join("kubelet"), api.client());
        options.pod_logs_dir = dir.path().join("logs");
        options.reserved.clear();
        prepare(&api, &runtime, &mut options);
        std::fs::create_dir_all(&options.data_dir).unwrap();
        let cgroups = dir.path().join("cgroup");
        std::fs::create_dir_all(&cgroups).unwrap();
        std::fs::write(cgroups.join("cgroup.controllers"), "cpu memory").unwrap();
        let cancel = CancellationToken::new();
        let wake = Arc::new(Notify::new());
        let stale = Arc::new(AtomicBool::new(true));
        let on_change = {
            let (wake, stale) = (wake.clone(), stale.clone());
            Arc::new(move |_: &str| {
                stale.store(true, std::sync::atomic::Ordering::Release);
                wake.notify_one();
            })
        };
        let seams =
            Seams { runtime: Arc::new(runtime.clone()), operations: Operations::new(), clock, cgroups: Cgroups::below("/", &cgroups) };
        let core = Core::new(options, seams, on_change, &cancel);
        core.services.wait_synced().await;
        let mut object = object;
        object["spec"]["nodeName"] = "n1".into();
        let path = format!("{PODS}/p");
        let pod: Pod = serde_json::from_value(api.put(&path, object)).unwrap();
        let uid = pod.metadata.uid.clone().unwrap();
        let (desired, receiver) = watch::channel(Desired { pod: Arc::new(pod), gone: false });
        let sentence: Arc<Mutex<Option<Verdict>>> = Arc::default();
        let signals = Signals { wake: wake.clone(), stale_content: stale, sentence: sentence.clone() };
        let worker = Worker::new(core.clone(), uid, receiver, signals);
        Bench { api, runtime, core, desired, wake, sentence, path, cancel, dir, worker: Mutex::new(Some(worker)) }
    }

    fn status(&self) -> Value {
        self.api.get(&self.path).map(|pod| pod["status"].clone()).unwrap_or_default()
    }

    fn container(&self, index: usize) -> Value {
        self.status()["containerStatuses"][index].clone()
    }

    /// Waits, on paused time, until a condition holds; what is slow is time that was slept.
    async fn until(&self, what: &str, condition: impl Fn(&Bench) -> bool) {
        for _ in 0..20_000 {
            if condition(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{what}: {:#}\n{:?}\n{:?}", self.status(), self.runtime.calls(), self.events());
    }

    /// The API server has another version of the pod.
    fn change(&self, change: impl FnOnce(&mut Value)) {
        let mut object = self.api.get(&self.path).unwrap();
        change(&mut object);
        self.tell(object);
    }

    fn tell(&self, object: Value) {
        let pod: Pod = serde_json::from_value(self.api.put(&self.path, object)).unwrap();
        self.desired.send_replace(Desired { pod: Arc::new(pod), gone: false });
    }

    fn events(&self) -> Vec<String> {
        let shown = |e: &Value| format!("{}: {}", e["reason"].as_str().unwrap_or_default(), e["message"].as_str().unwrap_or_default());
        self.api.find("/events/").iter().map(shown).collect()
    }

    fn has_event(&self, part: &str) -> bool {
        self.events().iter().any(|e| e.contains(part))
    }
}

fn one_container() -> Value {
    json!({"restartPolicy": "Always", "containers": [{"name": "a", "image": "i", "imagePullPolicy": "IfNotPresent"}]})
}

#[tokio::test(start_paused = true)]
async fn an_evicted_pod_ends_soon_as_failed_and_says_why() {
    let bench = Bench::start(one_container()).await;
    bench.until("it runs", |b| !b.container(0)["state"]["running"].is_null()).await;
    *bench.sentence.lock() = Some(Verdict::evicted("The node was low on resource: memory. ".into(), 1));
    bench.wake.notify_one();
    bench.until("it has failed", |b| b.status()["phase"] == "Failed").await;
    let status = bench.status();
    assert_eq!((&status["reason"], &status["message"]), (&json!("Evicted"), &json!("The node was low on resource: memory. ")));
    assert!(!bench.container(0)["state"]["terminated"].is_null(), "{status:#}");
    let conditions = status["conditions"].as_array().unwrap();
    let target = conditions.iter().find(|c| c["type"] == "DisruptionTarget").unwrap();
    assert_eq!((&target["status"], &target["reason"]), (&json!("True"), &json!("TerminationByKubelet")));
    assert!(bench.has_event("Evicted: The node was low on resource: memory."));
    assert!(bench.runtime.calls().iter().any(|call| call.starts_with("stop a.0")), "{:?}", bench.runtime.calls());
}

#[tokio::test(start_paused = true)]
async fn a_pod_runs_is_restarted_with_growing_delays_and_ends_with_its_object() {
    let bench = Bench::start(one_container()).await;
    bench.until("it runs", |b| !b.container(0)["state"]["running"].is_null()).await;
    assert_eq!(bench.runtime.calls(), ["sandbox 0", "create a.0", "start a.0"]);
    assert_eq!((bench.status()["phase"].as_str(), bench.status()["podIP"].as_str()), (Some("Running"), Some("10.0.0.1")));
    let mut delays = Vec::new();
    for attempt in 1..=4 {
        let ended = tokio::time::Instant::now();
        bench.runtime.exit("a", 1);
        bench.wake.notify_one();
        bench.until("it runs again", |b| b.container(0)["restartCount"] == attempt && !b.container(0)["state"]["running"].is_null()).await;
        delays.push(ended.elapsed().as_secs());
    }
    // The first repetition is immediate; a look at the runtime may come up to a second of the paused clock after the container ran.
    let near = |(got, want): (&u64, u64)| (want..=want + 1).contains(got);
    assert!(delays.iter().zip([0, 10, 20, 40]).all(near), "{delays:?}");
    bench.change(|pod| {
        pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:10:00Z".into();
        pod["metadata"]["deletionGracePeriodSeconds"] = 7.into();
    });
    bench.until("the object is deleted", |b| b.api.get(&b.path).is_none()).await;
    assert!(bench.runtime.calls().contains(&"stop a.4 within 7".to_string()), "{:?}", bench.runtime.calls());
    assert!(!bench.dir.path().join("cgroup/kubepods/besteffort/poduid-2").exists());
}

#[tokio::test(start_paused = true)]
async fn f4_containers_named_like_steps_keep_their_waiting_times() {
    let containers: Vec<Value> = ["status", "images", "volumes"]
        .iter()
        .map(|name| json!({"name": name, "image": "docker.io/library/absent:1", "imagePullPolicy": "Never"}))
        .collect();
    let bench = Bench::start(json!({"restartPolicy": "Always", "containers": containers})).await;
    let waits = |b: &Bench| (0..3).all(|i| b.container(i)["state"]["waiting"]["reason"] == "ErrImageNeverPull");
    bench.until("all three wait", waits).await;
    // Each is looked for again every ten seconds: had one lost its waiting time, it would be tried at every round, or never.
    let tries = |b: &Bench| b.events().iter().filter(|e| e.starts_with("ErrImageNeverPull")).count();
    let before = bench.api.find("/events/").len();
    tokio::time::sleep(Duration::from_secs(25)).await;
    assert!(tries(&bench) >= 1 && bench.api.find("/events/").len() <= before + 3, "{:?}", bench.events());
    assert!(bench.runtime.calls().iter().all(|c| !c.starts_with("create")), "{:?}", bench.runtime.calls());
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_that_cannot_be_made_is_tried_again_after_ten_seconds() {
    let bench = Bench::start_with(json!({"metadata": {"name": "p"}, "spec": one_container()}), |_, runtime, _| {
        runtime.fail("RunPodSandbox", Code::Unknown, "no such handler");
    })
    .await;
    let began = tokio::time::Instant::now();
    bench.until("it runs", |b| b.status()["phase"] == "Running").await;
    assert!((10..12).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    assert!(bench.has_event("FailedCreatePodSandBox: Failed to create pod sandbox: no such handler"), "{:?}", bench.events());
}

#[tokio::test(start_paused = true)]
async fn d01_the_runtime_class_decides_the_handler_and_an_unknown_one_fails_visibly() {
    let mut spec = one_container();
    spec["runtimeClassName"] = "gvisor".into();
    let bench = Bench::start(spec).await;
    let text = "FailedCreatePodSandBox: Failed to create pod sandbox: runtimeclass.node.k8s.io \"gvisor\" not found";
    bench.until("it is told", |b| b.has_event(text)).await;
    assert_eq!(bench.runtime.calls(), Vec::<String>::new(), "nothing runs under another handler");
    bench.api.put("/apis/node.k8s.io/v1/runtimeclasses/gvisor", json!({"metadata": {"name": "gvisor"}, "handler": "runsc"}));
    bench.until("it runs", |b| b.status()["phase"] == "Running").await;
    assert_eq!(bench.runtime.handler().as_deref(), Some("runsc"));
}

#[tokio::test(start_paused = true)]
async fn conformance_an_app_container_that_initialization_never_reached_stays_waiting() {
    let bench =
        Bench::start(json!({"restartPolicy": "Never", "initContainers": [{"name": "i1", "image": "i"}, {"name": "i2", "image": "i"}],
        "containers": [{"name": "a", "image": "i"}]}))
        .await;
    let init = |b: &Bench, index: usize| b.status()["initContainerStatuses"][index]["state"].clone();
    bench.until("the first one runs", |b| !init(b, 0)["running"].is_null()).await;
    bench.runtime.exit("i1", 1);
    bench.wake.notify_one();
    bench.until("the pod fails", |b| b.status()["phase"] == "Failed").await;
    assert_eq!(init(&bench, 0)["terminated"]["exitCode"], 1);
    assert_eq!(init(&bench, 1)["waiting"]["reason"], "PodInitializing");
    assert_eq!(bench.container(0)["state"]["waiting"]["reason"], "PodInitializing", "{:#}", bench.status());
}

#[tokio::test(start_paused = true)]
async fn security_22_strict_groups_are_refused_where_the_runtime_cannot_do_them() {
    for supported in [false, true] {
        let mut spec = one_container();
        spec["securityContext"] = json!({"supplementalGroupsPolicy": "Strict"});
        let bench = Bench::start_with(json!({"metadata": {"name": "p"}, "spec": spec}), |_, runtime, _| {
            let features = cri::RuntimeFeatures { supplemental_groups_policy: supported, ..Default::default() };
            runtime.set_features(features);
        })
        .await;
        if supported {
            bench.until("it runs", |b| b.status()["phase"] == "Running").await;
            let context = bench.runtime.config("a").unwrap().linux.unwrap().security_context.unwrap();
            assert_eq!(context.supplemental_groups_policy, cri::SupplementalGroupsPolicy::Strict as i32);
        } else {
            bench.until("it fails", |b| b.status()["phase"] == "Failed").await;
            assert_eq!(bench.status()["reason"], "SupplementalGroupsPolicyNotSupported");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn d11_an_ephemeral_container_joins_a_running_pod() {
    let bench = Bench::start(one_container()).await;
    bench.until("it runs", |b| b.status()["phase"] == "Running").await;
    bench.change(|pod| {
        pod["spec"]["ephemeralContainers"] = json!([{"name": "debug", "image": "i", "targetContainerName": "a", "stdin": true}]);
    });
    let ephemeral = |b: &Bench| b.status()["ephemeralContainerStatuses"][0].clone();
    bench.until("it runs too", |b| !ephemeral(b)["state"]["running"].is_null()).await;
    let namespaces = bench.runtime.config("debug").unwrap().linux.unwrap().security_context.unwrap().namespace_options.unwrap();
    assert_eq!((namespaces.pid, namespaces.target_id.as_str()), (cri::NamespaceMode::Target as i32, "c2"));
    bench.runtime.exit("debug", 3);
    bench.wake.notify_one();
    bench.until("its end is told", |b| ephemeral(b)["state"]["terminated"]["exitCode"] == 3).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((ephemeral(&bench)["restartCount"].as_i64(), bench.status()["phase"].as_str()), (Some(0), Some("Running")));
    assert!(bench.has_event("Started: Started container debug"), "{:?}", bench.events());
}

#[tokio::test(start_paused = true)]
async fn d11_a_container_is_resized_in_place() {
    let sized = |cpu: &str| json!({"requests": {"cpu": cpu, "memory": "64Mi"}, "limits": {"cpu": cpu, "memory": "64Mi"}});
    let mut spec = one_container();
    spec["containers"][0]["resources"] = sized("100m");
    let bench = Bench::start(spec).await;
    bench.until("it runs", |b| b.status()["phase"] == "Running").await;
    assert_eq!(bench.container(0)["resources"]["limits"]["cpu"], "100m");
    bench.change(|pod| pod["spec"]["containers"][0]["resources"] = sized("200m"));
    bench.until("the status says so", |b| b.container(0)["resources"]["limits"]["cpu"] == "200m").await;
    let update = bench.runtime.update_of("a").unwrap();
    assert_eq!((update.cpu_quota, update.cpu_shares, update.memory_limit_in_bytes), (20_000, 204, 64 << 20));
    assert_eq!(
        (bench.container(0)["allocatedResources"]["cpu"].as_str(), bench.container(0)["restartCount"].as_i64()),
        (Some("200m"), Some(0))
    );
    let conditions = |b: &Bench| b.status()["conditions"].to_string();
    bench.until("nothing is in progress", |b| !conditions(b).contains("PodResize")).await;
    bench.change(|pod| pod["spec"]["containers"][0]["resources"] = sized("1000"));
    bench.until("what never fits is told", |b| conditions(b).contains("\"Infeasible\"")).await;
    assert_eq!(bench.container(0)["resources"]["limits"]["cpu"], "200m");
    bench.change(|pod| pod["spec"]["containers"][0]["resources"] = sized("200m"));
    bench.until("the condition goes", |b| !conditions(b).contains("PodResizePending")).await;
}

#[derive(Default)]
struct Ports {
    calls: Mutex<Vec<String>>,
    refuse: AtomicBool,
}

impl HostPorts for Ports {
    fn set<'a>(&'a self, _: &'a str, ips: &'a [IpAddr], mappings: &'a [HostPortMapping]) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            if self.refuse.swap(false, std::sync::atomic::Ordering::AcqRel) {
                return Err("port 8080 is taken".into());
            }
            self.calls.lock().push(format!("set {}:{} to {:?}", mappings[0].host_port, mappings[0].container_port, ips));
            Ok(())
        })
    }

    fn clear<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async {
            self.calls.lock().push("clear".into());
            Ok(())
        })
    }
}

#[tokio::test(start_paused = true)]
async fn d04_host_ports_are_mapped_before_the_first_container_and_after_a_reboot() {
    let ports = Arc::new(Ports { refuse: AtomicBool::new(true), ..Ports::default() });
    let mut spec = one_container();
    spec["containers"][0]["ports"] = json!([{"containerPort": 80, "hostPort": 8080}]);
    let given = ports.clone();
    let bench = Bench::start_with(json!({"metadata": {"name": "p"}, "spec": spec}), |_, _, options| options.host_ports = given).await;
    bench.until("a refusal is told", |b| b.has_event("Failed to map the host ports of the pod: port 8080 is taken")).await;
    assert_eq!(bench.runtime.calls(), ["sandbox 0"], "no container starts without its port");
    bench.until("it runs", |b| b.status()["phase"] == "Running").await;
    assert_eq!(*ports.calls.lock(), ["set 8080:80 to [10.0.0.1]"]);
    bench.runtime.reboot();
    bench.wake.notify_one();
    bench.until("it runs again", |b| b.container(0)["restartCount"] == 1 && !b.container(0)["state"]["running"].is_null()).await;
    assert_eq!(ports.calls.lock().last().map(String::as_str), Some("set 8080:80 to [10.0.0.3]"));
    bench.change(|pod| {
        pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:10:00Z".into();
        pod["metadata"]["deletionGracePeriodSeconds"] = 1.into();
    });
    bench.until("the object is deleted", |b| b.api.get(&b.path).is_none()).await;
    assert_eq!(ports.calls.lock().last().map(String::as_str), Some("clear"));
}

#[tokio::test(start_paused = true)]
async fn what_a_pod_held_is_dropped_with_it() {
    let mut spec = one_container();
    spec["volumes"] = json!([{"name": "cm", "configMap": {"name": "cm"}}]);
    spec["containers"][0]["volumeMounts"] = json!([{"name": "cm", "mountPath": "/cm"}]);
    let bench = Bench::start_with(json!({"metadata": {"name": "p"}, "spec": spec}), |api, _, _| {
        api.put("/api/v1/namespaces/default/configmaps/cm", json!({"metadata": {"name": "cm"}, "data": {"a": "1"}}));
    })
    .await;
    bench.until("it runs", |b| b.status()["phase"] == "Running").await;
    assert_eq!(bench.core.objects.watched(), 1);
    bench.change(|pod| {
        pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:10:00Z".into();
        pod["metadata"]["deletionGracePeriodSeconds"] = 1.into();
    });
    bench.until("the object is deleted", |b| b.api.get(&b.path).is_none()).await;
    assert_eq!(bench.core.objects.watched(), 0);
}

#[tokio::test(start_paused = true)]
async fn vm_06_a_shutdown_gives_hooks_and_grace_within_its_bound() {
    let mut spec = one_container();
    spec["terminationGracePeriodSeconds"] = 3600.into();
    spec["containers"][0]["lifecycle"] = json!({"preStop": {"exec": {"command": ["say", "goodbye"]}}});
    let bench = Bench::start(spec).await;
    bench.until("it runs", |b| b.status()["phase"] == "Running").await;
    let listed = || bench.core.pods.list().len() == 1;
    bench.until("the informer has it", |_| listed()).await;
    bench.cancel.cancel();
    crate::pod::kill::end_pods(&bench.core, Duration::from_secs(20)).await;
    let calls = bench.runtime.calls();
    assert_eq!(calls[calls.len() - 3..], ["exec say goodbye in a.0", "stop a.0 within 17", "stop sandbox s1"], "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn vm_06_what_a_shutdown_could_not_end_in_time_is_killed() {
    let bench = Bench::start(one_container()).await;
    bench.until("it runs", |b| b.status()["phase"] == "Running").await;
    let listed = || bench.core.pods.list().len() == 1;
    bench.until("the informer has it", |_| listed()).await;
    bench.cancel.cancel();
    bench.runtime.stop_slowly();
    crate::pod::kill::end_pods(&bench.core, Duration::from_secs(20)).await;
    let calls = bench.runtime.calls();
    assert_eq!(calls[calls.len() - 3..], ["stop a.0 within 17", "stop a.0 within 0", "stop sandbox s1"], "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn a_container_that_is_ready_a_moment_after_its_first_probe_waits_for_no_period() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut spec = one_container();
    spec["containers"][0]["readinessProbe"] = json!({"tcpSocket": {"host": "127.0.0.1", "port": port}, "periodSeconds": 100});
    let bench = Bench::start(spec).await;
    bench.until("it was not ready", |b| b.has_event("Unhealthy: Readiness probe failed")).await;
    assert_eq!(bench.container(0)["ready"], false);
    let _listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let began = tokio::time::Instant::now();
    bench.until("it is ready", |b| b.container(0)["ready"] == true).await;
    assert!(began.elapsed().as_secs() < 5, "{:?} on the paused clock", began.elapsed());
    let failures = bench.events().iter().filter(|event| event.starts_with("Unhealthy")).count();
    assert_eq!(failures, 1, "the early tries are told once");
}

#[tokio::test(start_paused = true)]
async fn a_recursive_read_only_mount_is_made_where_the_runtime_can_and_refused_elsewhere() {
    let mut spec = one_container();
    spec["volumes"] = json!([{"name": "v", "emptyDir": {}}]);
    spec["containers"][0]["volumeMounts"] = json!([{"name": "v", "mountPath": "/v", "readOnly": true, "recursiveReadOnly": "Enabled"}]);
    let bench = Bench::start(spec).await;
    bench.until("it is refused", |b| b.container(0)["state"]["waiting"]["reason"] == "CreateContainerConfigError").await;
    let said = bench.container(0)["state"]["waiting"]["message"].clone();
    assert!(said.as_str().unwrap().contains("does not support recursive read-only mounts"), "{said}");
    bench.runtime.mount_recursively_read_only();
    bench.until("it runs", |b| !b.container(0)["state"]["running"].is_null()).await;
    assert!(bench.runtime.config("a").unwrap().mounts.iter().any(|m| m.container_path == "/v" && m.recursive_read_only));
}

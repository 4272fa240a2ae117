//! The controllers together, on a small API server in memory with a node that runs every pod it is given.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

#[path = "cluster/fake_api.rs"]
mod fake_api;
#[path = "cluster/namespaces.rs"]
mod namespaces;

use std::sync::Arc;
use std::time::Duration;

use fake_api::FakeApi;
use k8s_openapi::api::core::v1::ServiceAccount;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use trireme_client::{Client, Fence};
use trireme_controllers::{ControllerOptions, Controllers, TokenSigner};

struct Cluster {
    api: FakeApi,
    controllers: Arc<Controllers>,
    cancel: CancellationToken,
}

/// A signer whose tokens can be told apart.
struct PlainTokens;

impl TokenSigner for PlainTokens {
    fn sign(&self, account: &ServiceAccount, secret_name: &str) -> Result<String, String> {
        Ok(format!("{}/{secret_name}", account.metadata.uid.as_deref().unwrap_or_default()))
    }
}

impl Cluster {
    fn start() -> Self {
        Self::on(FakeApi::new())
    }

    fn on(api: FakeApi) -> Self {
        let cancel = CancellationToken::new();
        let transport = api.clone();
        let options = ControllerOptions {
            root_ca_pem: "CA".to_owned(),
            token_signer: Some(Arc::new(PlainTokens)),
            cluster_cidrs: vec!["10.42.0.0/16".parse().unwrap()],
            are_policies_ignored: true,
            ..ControllerOptions::default()
        };
        let client_for = move |name: &str| Client::new(Arc::new(transport.clone())).with_user_agent(name);
        let controllers = Controllers::start(client_for, options, &cancel);
        api.create(
            "namespaces",
            json!({"metadata": {"name": "ns"}, "spec": {"finalizers": ["kubernetes"]},
            "status": {"phase": "Active"}}),
        );
        tokio::spawn(run_pods(api.clone()));
        Self { api, controllers, cancel }
    }

    fn lead(&self, term: u64) -> (CancellationToken, tokio::task::JoinHandle<()>) {
        let stop = self.cancel.child_token();
        let (controllers, cancel) = (Arc::clone(&self.controllers), stop.clone());
        let revision = self.api.revision();
        let work = tokio::spawn(async move { controllers.lead(Fence { term, node_id: 1 }, revision, cancel).await });
        (stop, work)
    }

    fn images(&self) -> Vec<String> {
        let pods = self.api.list("pods");
        pods.iter().map(|pod| pod["spec"]["containers"][0]["image"].as_str().unwrap().to_owned()).collect()
    }
}

/// Scheduler and kubelet in one: every new pod gets the node, an address and becomes ready. One whose image is `exit:N` ends
/// with that code, and one that is deleted while something holds it fails.
async fn run_pods(api: FakeApi) {
    let mut changes = api.changes();
    let mut addresses = 0;
    loop {
        for pod in api.list("pods") {
            if pod["spec"]["nodeName"].is_null() && pod["metadata"]["deletionTimestamp"].is_null() {
                addresses += 1;
                let (name, namespace) = (pod["metadata"]["name"].as_str().unwrap(), pod["metadata"]["namespace"].as_str().unwrap());
                if api.get("pods", namespace, name).is_none() {
                    continue;
                }
                api.edit("pods", namespace, name, |pod| {
                    pod["spec"]["nodeName"] = json!("n1");
                    if let Some(code) = pod["spec"]["containers"][0]["image"].as_str().and_then(|image| image.strip_prefix("exit:")) {
                        let code: i32 = code.parse().unwrap();
                        let phase = if code == 0 { "Succeeded" } else { "Failed" };
                        pod["status"] = json!({"phase": phase, "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false,
                            "restartCount": 0, "state": {"terminated": {"exitCode": code, "finishedAt": jiff::Timestamp::now().to_string()}}}]});
                        return;
                    }
                    pod["status"] = json!({"phase": "Running", "podIP": format!("10.42.0.{addresses}"),
                        "conditions": [{"type": "Ready", "status": "True"}]});
                });
            }
        }
        for pod in api.list("pods") {
            let (meta, phase) = (&pod["metadata"], pod["status"]["phase"].as_str().unwrap_or("Pending"));
            if !meta["deletionTimestamp"].is_null() && !matches!(phase, "Succeeded" | "Failed") {
                api.edit("pods", meta["namespace"].as_str().unwrap(), meta["name"].as_str().unwrap(), |pod| {
                    pod["status"]["phase"] = json!("Failed");
                });
            }
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

fn deployment(image: &str, replicas: i32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "ns"},
        "spec": {
            "replicas": replicas, "progressDeadlineSeconds": 600, "revisionHistoryLimit": 10,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": image, "ports": [{"name": "http", "containerPort": 80}]}]}},
        },
    })
}

fn ready_addresses(api: &FakeApi) -> usize {
    let slices = api.list("endpointslices");
    let endpoints = slices.iter().flat_map(|slice| slice["endpoints"].as_array().cloned().unwrap_or_default());
    endpoints.filter(|endpoint| endpoint["conditions"]["ready"] == json!(true)).count()
}

fn is_rolled_out(api: &FakeApi, replicas: i32) -> bool {
    let Some(deployment) = api.get("deployments", "ns", "web") else { return false };
    let status = &deployment["status"];
    let progressed = status["conditions"]
        .as_array()
        .is_some_and(|conditions| conditions.iter().any(|one| one["type"] == "Progressing" && one["reason"] == "NewReplicaSetAvailable"));
    progressed
        && status["availableReplicas"] == json!(replicas)
        && status["updatedReplicas"] == json!(replicas)
        && status["replicas"] == json!(replicas)
        && status["observedGeneration"] == deployment["metadata"]["generation"]
}

#[tokio::test(start_paused = true)]
async fn a_deployment_lives_rolls_loses_its_leader_and_is_collected() {
    let cluster = Cluster::start();
    let api = &cluster.api;
    let (stop, work) = cluster.lead(1);
    api.until("the namespace is furnished", |api| {
        api.get("serviceaccounts", "ns", "default").is_some()
            && api.get("configmaps", "ns", "kube-root-ca.crt").is_some_and(|map| map["data"]["ca.crt"] == "CA")
    })
    .await;

    api.create(
        "services",
        json!({"metadata": {"name": "web", "namespace": "ns"}, "spec": {
        "clusterIP": "10.43.0.5", "ipFamilies": ["IPv4"], "selector": {"app": "web"},
        "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}}),
    );
    api.create("deployments", deployment("i:1", 3));
    api.until("three pods run", |api| is_rolled_out(api, 3)).await;
    api.until("three endpoints", |api| ready_addresses(api) == 3).await;
    assert_eq!(cluster.images(), ["i:1"; 3]);

    // The leader is deposed in the middle of a rollout; its successor ends it.
    api.edit("deployments", "ns", "web", |web| web["spec"]["template"]["spec"]["containers"][0]["image"] = json!("i:2"));
    api.until("the rollout begins", |api| api.list("replicasets").len() == 2).await;
    api.set_term(2);
    stop.cancel();
    work.await.unwrap();
    let (_stop, _work) = cluster.lead(2);
    api.until("all pods are new", |api| is_rolled_out(api, 3)).await;
    assert_eq!(cluster.images(), ["i:2"; 3]);
    let revision = &api.get("deployments", "ns", "web").unwrap()["metadata"]["annotations"];
    assert_eq!(revision["deployment.kubernetes.io/revision"], json!("2"));

    // A pod is killed; one takes its place.
    let victim = api.list("pods")[0]["metadata"]["name"].as_str().unwrap().to_owned();
    api.delete("pods", "ns", &victim, "Background");
    api.until("it is replaced", |api| api.list("pods").len() == 3 && ready_addresses(api) == 3).await;
    api.until("and the status knows", |api| is_rolled_out(api, 3)).await;

    // Deleting the Deployment takes everything below it; the Service's slices go with the Service.
    api.delete("deployments", "ns", "web", "Foreground");
    api.until("the Deployment is gone", |api| api.get("deployments", "ns", "web").is_none()).await;
    assert!(api.list("replicasets").is_empty() && api.list("pods").is_empty(), "foreground: they go first");
    api.delete("services", "ns", "web", "Background");
    api.until("the endpoints are gone", |api| api.list("endpointslices").is_empty() && api.list("endpoints").is_empty()).await;

    api.create("deployments", deployment("i:3", 2));
    api.until("two pods run", |api| is_rolled_out(api, 2)).await;
    api.delete("namespaces", "", "ns", "Background");
    api.until("the namespace is gone", |api| api.list("namespaces").is_empty()).await;
    for plural in ["deployments", "replicasets", "pods", "serviceaccounts", "configmaps"] {
        assert!(api.list(plural).is_empty(), "{plural} are left");
    }
    cluster.cancel.cancel();
}

#[tokio::test(start_paused = true)]
async fn orphans_are_released_and_adopted_again() {
    let cluster = Cluster::start();
    let api = &cluster.api;
    let (_stop, _work) = cluster.lead(1);
    api.create("deployments", deployment("i:1", 2));
    api.until("two pods run", |api| is_rolled_out(api, 2)).await;
    let set = api.list("replicasets")[0]["metadata"]["name"].as_str().unwrap().to_owned();
    api.delete("replicasets", "ns", &set, "Orphan");
    let uid_of_owner = |pod: &Value| pod["metadata"]["ownerReferences"][0]["uid"].clone();
    api.until("a new ReplicaSet owns the pods of the old one", |api| {
        let sets = api.list("replicasets");
        sets.len() == 1
            && sets[0]["metadata"]["deletionTimestamp"].is_null()
            && api.list("pods").len() == 2
            && api.list("pods").iter().all(|pod| uid_of_owner(pod) == sets[0]["metadata"]["uid"])
    })
    .await;
    cluster.cancel.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_is_tainted_and_its_pods_move() {
    let cluster = Cluster::start();
    let api = &cluster.api;
    let (_stop, _work) = cluster.lead(1);
    for name in ["n1", "n2"] {
        api.create(
            "nodes",
            json!({"metadata": {"name": name}, "spec": {},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
        );
        api.create(
            "leases",
            json!({"metadata": {"name": name, "namespace": "kube-node-lease"},
            "spec": {"renewTime": "2026-01-01T00:00:00.000000Z"}}),
        );
    }
    api.until("both have a pod network", |api| {
        let mut cidrs: Vec<Value> = api.list("nodes").iter().map(|node| node["spec"]["podCIDR"].clone()).collect();
        cidrs.sort_by_key(ToString::to_string);
        cidrs == [json!("10.42.0.0/24"), json!("10.42.1.0/24")]
    })
    .await;
    api.create("deployments", deployment("i:1", 2));
    api.until("two pods run", |api| is_rolled_out(api, 2)).await;
    let before: Vec<Value> = api.list("pods").iter().map(|pod| pod["metadata"]["uid"].clone()).collect();

    // n2 goes on renewing, n1 does not.
    let beating = api.clone();
    let heart = tokio::spawn(async move {
        for beat in 0.. {
            tokio::time::sleep(Duration::from_secs(10)).await;
            let time = format!("2026-01-01T{:02}:{:02}:{:02}.000000Z", beat / 360, beat / 6 % 60, beat % 6 * 10);
            beating.edit("leases", "kube-node-lease", "n2", |lease| lease["spec"]["renewTime"] = json!(time));
        }
    });
    let started = tokio::time::Instant::now();
    api.until("n1 is unreachable", |api| {
        let taints = api.get("nodes", "", "n1").unwrap()["spec"]["taints"].to_string();
        taints.contains("unreachable") && taints.contains("NoExecute")
    })
    .await;
    assert!((35..60).contains(&started.elapsed().as_secs()), "after {:?}", started.elapsed());
    api.until("its pods are replaced", |api| {
        let pods = api.list("pods");
        pods.len() == 2 && pods.iter().all(|pod| !before.contains(&pod["metadata"]["uid"]))
    })
    .await;
    assert!(api.get("nodes", "", "n2").unwrap()["spec"]["taints"].as_array().is_none_or(Vec::is_empty));
    heart.abort();
    cluster.cancel.cancel();
}

#[tokio::test(start_paused = true)]
async fn arch_f8_a_controller_waits_for_exactly_what_it_reads() {
    let api = FakeApi::new();
    api.hold("replicasets");
    let cluster = Cluster::on(api);
    let api = &cluster.api;
    let (_stop, _work) = cluster.lead(1);
    api.create("deployments", deployment("i:1", 1));
    api.until("what does not read ReplicaSets works", |api| api.get("serviceaccounts", "ns", "default").is_some()).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(api.list("replicasets").is_empty(), "the Deployment controller must not act on a list that it does not have");
    api.release("replicasets");
    api.until("the rest works too", |api| is_rolled_out(api, 1)).await;
    cluster.cancel.cancel();
}

#[tokio::test(start_paused = true)]
async fn security_19_pods_of_other_namespaces_do_not_count() {
    let cluster = Cluster::start();
    let api = &cluster.api;
    let (_stop, _work) = cluster.lead(1);
    api.create("namespaces", json!({"metadata": {"name": "other"}, "status": {"phase": "Active"}}));
    let keep = api.create("configmaps", json!({"metadata": {"name": "keep", "namespace": "other"}}));
    api.create("deployments", deployment("i:1", 2));
    api.until("two pods run", |api| is_rolled_out(api, 2)).await;
    let own: Vec<Value> = api.list("pods").iter().map(|pod| pod["metadata"]["uid"].clone()).collect();
    let set = api.list("replicasets")[0]["metadata"].clone();
    let owners = json!([
        {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": set["name"], "uid": set["uid"], "controller": true},
        {"apiVersion": "v1", "kind": "ConfigMap", "name": "keep", "uid": keep["metadata"]["uid"]},
    ]);
    for name in ["p1", "p2"] {
        api.create(
            "pods",
            json!({"metadata": {"name": name, "namespace": "other", "labels": set["labels"], "ownerReferences": owners},
            "spec": {"containers": [{"name": "c", "image": "i:1"}]}}),
        );
    }
    api.until("the strangers lose the reference that means nothing", |api| {
        let strangers = ["p1", "p2"].map(|name| api.get("pods", "other", name).unwrap());
        strangers.iter().all(|pod| pod["metadata"]["ownerReferences"].as_array().is_some_and(|owners| owners.len() == 1))
    })
    .await;
    let told = cluster.api.told.lock().iter().any(|event| event["reason"] == "OwnerRefInvalidNamespace");
    assert!(told, "whoever looks at the pod is told");
    let left: Vec<Value> =
        api.list("pods").iter().filter(|pod| pod["metadata"]["namespace"] == "ns").map(|pod| pod["metadata"]["uid"].clone()).collect();
    assert_eq!(left, own, "nobody was deleted for them");
    cluster.cancel.cancel();
}

#[tokio::test(start_paused = true)]
async fn d06_a_budget_says_how_many_pods_may_be_evicted() {
    let cluster = Cluster::start();
    let api = &cluster.api;
    let (_stop, _work) = cluster.lead(1);
    api.create("deployments", deployment("i:1", 3));
    api.create(
        "poddisruptionbudgets",
        json!({"metadata": {"name": "web", "namespace": "ns"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "maxUnavailable": "34%"}}),
    );
    let status_is = |api: &FakeApi, wanted: Value| {
        let status = api.get("poddisruptionbudgets", "ns", "web").unwrap()["status"].clone();
        ["currentHealthy", "desiredHealthy", "expectedPods", "disruptionsAllowed", "observedGeneration"].map(|key| status[key].clone())
            == wanted.as_array().unwrap()[..]
    };
    api.until("two of three may go", |api| status_is(api, json!([3, 1, 3, 2, 1]))).await;
    // What an eviction does in its transaction: the pod is still there.
    let victim = api.list("pods")[0]["metadata"]["name"].as_str().unwrap().to_owned();
    let now = jiff::Timestamp::now().to_string();
    api.edit("poddisruptionbudgets", "ns", "web", |budget| {
        budget["status"]["disruptionsAllowed"] = json!(1);
        budget["status"]["disruptedPods"] = json!({ &victim: now });
    });
    api.until("it counts as gone", |api| status_is(api, json!([2, 1, 3, 1, 1]))).await;
    api.delete("pods", "ns", &victim, "Background");
    api.until("and is forgotten when it is", |api| {
        status_is(api, json!([3, 1, 3, 2, 1])) && api.get("poddisruptionbudgets", "ns", "web").unwrap()["status"]["disruptedPods"].is_null()
    })
    .await;
    api.edit("poddisruptionbudgets", "ns", "web", |budget| {
        budget["spec"] = json!({"selector": budget["spec"]["selector"], "minAvailable": 3})
    });
    api.until("nobody may go", |api| status_is(api, json!([3, 3, 3, 0, 2]))).await;
    let conditions = api.get("poddisruptionbudgets", "ns", "web").unwrap()["status"]["conditions"].clone();
    assert_eq!((&conditions[0]["type"], &conditions[0]["status"]), (&json!("DisruptionAllowed"), &json!("False")));
    cluster.cancel.cancel();
}

#[tokio::test(start_paused = true)]
async fn case_20_endpoints_without_a_selector_are_mirrored() {
    let cluster = Cluster::start();
    let api = &cluster.api;
    let (_stop, _work) = cluster.lead(1);
    api.create("services", json!({"metadata": {"name": "db", "namespace": "ns"}, "spec": {"ports": [{"name": "sql", "port": 5432}]}}));
    api.create(
        "endpoints",
        json!({"metadata": {"name": "db", "namespace": "ns"},
        "subsets": [{"addresses": [{"ip": "192.0.2.10"}, {"ip": "192.0.2.11"}], "ports": [{"name": "sql", "port": 5432}]}]}),
    );
    let addresses = |api: &FakeApi| -> Vec<Value> {
        let slices = api.list("endpointslices");
        let mirrored = slices.iter().filter(|slice| {
            slice["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] == "endpointslicemirroring-controller.k8s.io"
        });
        mirrored
            .flat_map(|slice| slice["endpoints"].as_array().cloned().unwrap())
            .map(|endpoint| endpoint["addresses"][0].clone())
            .collect()
    };
    api.until("both are mirrored", |api| addresses(api) == ["192.0.2.10", "192.0.2.11"]).await;
    api.edit("endpoints", "ns", "db", |db| db["subsets"][0]["addresses"] = json!([{"ip": "192.0.2.11"}]));
    api.until("a change follows", |api| addresses(api) == ["192.0.2.11"]).await;
    api.edit("services", "ns", "db", |db| db["spec"]["selector"] = json!({"app": "db"}));
    api.until("a selector ends it", |api| addresses(api).is_empty()).await;
    cluster.cancel.cancel();
}

#[tokio::test(start_paused = true)]
async fn pods_of_a_deleted_node_are_collected() {
    let cluster = Cluster::start();
    let api = &cluster.api;
    let (_stop, _work) = cluster.lead(1);
    api.create("nodes", json!({"metadata": {"name": "n1"}, "spec": {}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}));
    api.create("pods", json!({"metadata": {"name": "lost", "namespace": "ns"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}));
    api.until("it runs on n1", |api| api.get("pods", "ns", "lost").unwrap()["spec"]["nodeName"] == "n1").await;
    let started = tokio::time::Instant::now();
    api.delete("nodes", "", "n1", "Background");
    api.until("it is gone", |api| api.get("pods", "ns", "lost").is_none()).await;
    assert!((40..45).contains(&started.elapsed().as_secs()), "after {:?}", started.elapsed());
    cluster.cancel.cancel();
}

/// Under any delay and order of events, there are never more pods than wanted, and in the end exactly as many.
#[tokio::test(start_paused = true)]
async fn ownership_holds_under_any_interleaving() {
    for seed in 0..24_u64 {
        let cluster = Cluster::on(FakeApi::slow(seed));
        let api = &cluster.api;
        let (_stop, _work) = cluster.lead(1);
        let controller = |name: &str, replicas: i32| {
            json!({"metadata": {"name": name, "namespace": "ns"}, "spec": {"replicas": replicas, "selector": {"app": name},
                "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
        };
        let active = |api: &FakeApi, app: &str| {
            let pods = api.list("pods");
            pods.iter().filter(|pod| pod["metadata"]["labels"]["app"] == app && pod["metadata"]["deletionTimestamp"].is_null()).count()
        };
        let exactly = |api: &FakeApi, app: &str, count: usize| {
            assert!(active(api, app) <= 7, "seed {seed}: {} pods", active(api, app));
            let status = &api.get("replicationcontrollers", "ns", app).unwrap()["status"];
            active(api, app) == count && status["replicas"] == json!(count)
        };
        api.create("replicationcontrollers", controller("a", 5));
        api.create("replicationcontrollers", controller("b", 2));
        api.until("all run", |api| exactly(api, "a", 5) && exactly(api, "b", 2)).await;
        // One is killed, one leaves its owner, and the number changes, all at once.
        let names: Vec<String> = api
            .list("pods")
            .iter()
            .filter(|pod| pod["metadata"]["labels"]["app"] == "a")
            .map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned())
            .collect();
        api.delete("pods", "ns", &names[0], "Background");
        api.edit("pods", "ns", &names[1], |pod| pod["metadata"]["labels"]["app"] = json!("freed"));
        api.edit("replicationcontrollers", "ns", "a", |a| a["spec"]["replicas"] = json!(7));
        api.until("seven run", |api| exactly(api, "a", 7)).await;
        api.until("the freed one has no owner", |api| {
            api.get("pods", "ns", &names[1]).unwrap()["metadata"]["ownerReferences"].as_array().is_none_or(Vec::is_empty)
        })
        .await;
        api.edit("replicationcontrollers", "ns", "a", |a| a["spec"]["replicas"] = json!(1));
        api.until("one is left", |api| exactly(api, "a", 1)).await;
        assert_eq!(active(api, "b"), 2, "seed {seed}: the neighbour is untouched");
        cluster.cancel.cancel();
    }
}

fn job(name: &str, image: &str, spec: Value) -> Value {
    let mut job = json!({"metadata": {"name": name, "namespace": "ns"}, "spec": {
        "parallelism": 2, "completions": 3, "backoffLimit": 1, "selector": {"matchLabels": {"job": name}},
        "template": {"metadata": {"labels": {"job": name}},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": image}]}}}});
    for (key, value) in spec.as_object().unwrap() {
        job["spec"][key] = value.clone();
    }
    job
}

fn has_condition(api: &FakeApi, plural: &str, name: &str, kind: &str) -> bool {
    let object = api.get(plural, "ns", name).unwrap();
    object["status"]["conditions"].as_array().is_some_and(|all| all.iter().any(|one| one["type"] == kind && one["status"] == "True"))
}

fn tracked_pods(api: &FakeApi) -> usize {
    api.list("pods").iter().filter(|pod| pod["metadata"]["finalizers"].as_array().is_some_and(|all| !all.is_empty())).count()
}

#[tokio::test(start_paused = true)]
async fn a_job_counts_each_pod_once_and_ends() {
    for seed in 0..8 {
        let cluster = Cluster::on(FakeApi::slow(seed));
        let api = &cluster.api;
        let (_stop, _work) = cluster.lead(1);
        api.create("jobs", job("good", "exit:0", json!({})));
        api.until("it completes", |api| has_condition(api, "jobs", "good", "Complete")).await;
        let status = api.get("jobs", "ns", "good").unwrap()["status"].clone();
        assert_eq!((&status["succeeded"], &status["failed"]), (&json!(3), &Value::Null), "seed {seed}: {status}");
        assert!(!status["completionTime"].is_null() && status["active"].is_null(), "{status}");
        api.create("jobs", job("indexed", "exit:0", json!({"completionMode": "Indexed", "completions": 4})));
        api.until("all indexes complete", |api| has_condition(api, "jobs", "indexed", "Complete")).await;
        assert_eq!(api.get("jobs", "ns", "indexed").unwrap()["status"]["completedIndexes"], "0-3");
        api.create(
            "jobs",
            job(
                "bad",
                "exit:7",
                json!({"parallelism": 1, "podFailurePolicy": {"rules": [
            {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [7]}}]}}),
            ),
        );
        api.until("one failure is enough", |api| has_condition(api, "jobs", "bad", "Failed")).await;
        assert_eq!(api.get("jobs", "ns", "bad").unwrap()["status"]["failed"], 1);
        api.until("no pod is held", |api| tracked_pods(api) == 0).await;
        cluster.cancel.cancel();
    }
}

#[tokio::test(start_paused = true)]
async fn a_suspended_job_waits_and_a_deleted_one_leaves_nothing() {
    let cluster = Cluster::start();
    let api = &cluster.api;
    let (_stop, _work) = cluster.lead(1);
    api.create("jobs", job("later", "run", json!({"suspend": true})));
    api.until("it says so", |api| has_condition(api, "jobs", "later", "Suspended")).await;
    assert!(api.list("pods").is_empty());
    api.edit("jobs", "ns", "later", |job| job["spec"]["suspend"] = json!(false));
    api.until("two run", |api| api.get("jobs", "ns", "later").unwrap()["status"]["ready"] == json!(2)).await;
    api.delete("jobs", "ns", "later", "Background");
    api.until("its pods go although nobody counts them", |api| api.list("pods").is_empty()).await;
    cluster.cancel.cancel();
}

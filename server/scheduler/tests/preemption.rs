//! The scheduler on a small API server in memory: important pods push others out, and no more than they have to.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

#[path = "../../controllers/tests/cluster/fake_api.rs"]
mod fake_api;
#[path = "cluster/scheduler.rs"]
mod scheduler;

use fake_api::FakeApi;
use scheduler::{condition, lead, node, node_of, pod, start};
use serde_json::{Value, json};
use trireme_scheduler::SchedulerOptions;

const FOO: &str = "scheduling.k8s.io/foo";

/// A node with so many of an extended resource.
fn foo_node(name: &str, amount: &str) -> Value {
    let mut node = node(name, "64");
    node["status"]["allocatable"][FOO] = json!(amount);
    node
}

fn foo_pod(name: &str, amount: &str, priority: i32) -> Value {
    let mut pod = pod(name, "0");
    pod["spec"]["priority"] = json!(priority);
    pod["spec"]["containers"][0]["resources"]["requests"][FOO] = json!(amount);
    pod
}

/// Holds a pod's deletion up, as the time that its containers take to stop does.
fn slow_to_stop(mut pod: Value) -> Value {
    pod["metadata"]["finalizers"] = json!(["example.com/stopping"]);
    pod
}

fn stop(api: &FakeApi, name: &str) {
    api.edit("pods", "ns", name, |pod| pod["metadata"]["finalizers"] = json!([]));
}

fn is_leaving(api: &FakeApi, name: &str) -> bool {
    api.get("pods", "ns", name).is_none_or(|pod| !pod["metadata"]["deletionTimestamp"].is_null())
}

fn in_view(api: &FakeApi, name: &str) -> Value {
    api.get("pods", "ns", name).map(|pod| pod["status"]["nominatedNodeName"].clone()).unwrap_or_default()
}

fn message(api: &FakeApi, name: &str) -> String {
    let pod = api.get("pods", "ns", name).unwrap();
    condition(&pod, "PodScheduled")["message"].as_str().unwrap_or_default().to_owned()
}

async fn run(api: &FakeApi, pods: Vec<Value>) {
    for pod in pods {
        let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
        api.create("pods", pod);
        api.until("it is placed", |api| !node_of(api, &name).is_null()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_more_important_pod_takes_the_place_of_the_least_important_one() {
    let api = FakeApi::new();
    api.create("nodes", foo_node("n1", "5"));
    let (scheduler, cancel) = start(&api);
    let _work = lead(&scheduler, &api, 1, &cancel);
    run(&api, vec![slow_to_stop(foo_pod("low", "2", 1)), foo_pod("medium", "2", 100)]).await;
    api.create("pods", foo_pod("high", "2", 1000));
    api.until("the victim is to go", |api| is_leaving(api, "low")).await;
    let victim = api.get("pods", "ns", "low").unwrap();
    let target = condition(&victim, "DisruptionTarget");
    assert_eq!((&target["status"], &target["reason"]), (&json!("True"), &json!("PreemptionByScheduler")));
    assert_eq!(target["message"], "default-scheduler: preempting to accommodate a higher priority pod");
    assert_eq!(in_view(&api, "high"), "n1", "who looks at the victim's deletion finds out for whom");

    // While the victim stops, no other pod is preempted; and the pod says what it waits for.
    api.create("nodes", foo_node("n2", "0"));
    api.until("it says that it waits", |api| {
        message(api, "high").ends_with("preemption: not eligible due to a terminating pod on the nominated node.")
    })
    .await;
    assert!(!is_leaving(&api, "medium") && node_of(&api, "high").is_null());
    assert_eq!(in_view(&api, "high"), "n1");
    stop(&api, "low");
    api.until("the freed place is taken", |api| node_of(api, "high") == "n1").await;
    assert!(!is_leaving(&api, "medium"));
    let uid = api.get("pods", "ns", "high").unwrap()["metadata"]["uid"].as_str().unwrap().to_owned();
    api.until("an event tells", |api| {
        let text = format!("Preempted by pod {uid} on node n1");
        api.told
            .lock()
            .iter()
            .any(|event| event["reason"] == "Preempted" && event["message"] == text && event["involvedObject"]["name"] == "low")
    })
    .await;
    cancel.cancel();
}

#[tokio::test(start_paused = true)]
async fn who_was_promised_a_place_keeps_it_until_a_more_important_pod_comes() {
    let api = FakeApi::new();
    api.create("nodes", foo_node("n1", "1"));
    let (scheduler, cancel) = start(&api);
    let _work = lead(&scheduler, &api, 1, &cancel);
    run(&api, vec![slow_to_stop(foo_pod("low", "1", 1))]).await;
    api.create("pods", foo_pod("medium", "1", 100));
    api.until("medium waits for the place", |api| in_view(api, "medium") == "n1" && is_leaving(api, "low")).await;
    api.create("pods", foo_pod("high", "1", 1000));
    api.until("high takes over", |api| in_view(api, "high") == "n1" && in_view(api, "medium").is_null()).await;
    stop(&api, "low");
    api.until("high gets it", |api| node_of(api, "high") == "n1").await;
    api.until("medium says why not", |api| message(api, "medium").contains("1 Insufficient scheduling.k8s.io/foo")).await;
    assert!(node_of(&api, "medium").is_null());

    // When the nomination ends, the pods that it kept out are tried again.
    api.create("pods", foo_pod("equal", "1", 1000));
    api.delete("pods", "ns", "high", "Background");
    api.until("the more important of the two is next", |api| node_of(api, "equal") == "n1").await;
    cancel.cancel();
}

#[tokio::test(start_paused = true)]
async fn budgets_are_spared_where_possible_and_broken_where_not() {
    let api = FakeApi::new();
    api.create("nodes", foo_node("n1", "1"));
    api.create("nodes", foo_node("n2", "1"));
    let (scheduler, cancel) = start(&api);
    let _work = lead(&scheduler, &api, 1, &cancel);
    let on = |node: &str, mut pod: Value, app: &str| {
        pod["metadata"]["labels"] = json!({"app": app});
        pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] =
            json!({"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]});
        pod
    };
    run(&api, vec![on("n1", foo_pod("kept", "1", 1), "kept"), on("n2", foo_pod("free", "1", 50), "free")]).await;
    api.create(
        "poddisruptionbudgets",
        json!({"metadata": {"name": "b", "namespace": "ns"}, "spec": {"selector": {"matchLabels": {"app": "kept"}}},
            "status": {"disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1}}),
    );
    // Time is paused: it goes on when the scheduler has read the budget and has nothing to do.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    api.create("pods", foo_pod("first", "1", 100));
    api.until("the unprotected pod's place is taken", |api| node_of(api, "first") == "n2").await;
    assert!(!is_leaving(&api, "kept"));
    api.create("pods", foo_pod("second", "1", 100));
    api.until("no other way is left", |api| node_of(api, "second") == "n1").await;
    cancel.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_must_not_preempt_waits() {
    let api = FakeApi::new();
    api.create("nodes", foo_node("n1", "1"));
    let (scheduler, cancel) = start(&api);
    let _work = lead(&scheduler, &api, 1, &cancel);
    run(&api, vec![foo_pod("low", "1", 1)]).await;
    let mut polite = foo_pod("polite", "1", 1000);
    polite["spec"]["preemptionPolicy"] = json!("Never");
    api.create("pods", polite);
    let said = "0/1 nodes are available: 1 Insufficient scheduling.k8s.io/foo. preemption: not eligible due to preemptionPolicy=Never.";
    api.until("it says why", |api| message(api, "polite") == said).await;
    assert!(!is_leaving(&api, "low") && in_view(&api, "polite").is_null());
    api.delete("pods", "ns", "low", "Background");
    api.until("it takes a place that is free", |api| node_of(api, "polite") == "n1").await;
    cancel.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_deposed_scheduler_pushes_nobody_out_and_its_successor_goes_on() {
    let api = FakeApi::new();
    api.create("nodes", foo_node("n1", "1"));
    let (scheduler, cancel) = start(&api);
    let old = cancel.child_token();
    let work = lead(&scheduler, &api, 1, &old);
    run(&api, vec![slow_to_stop(foo_pod("low", "1", 1))]).await;
    api.set_term(2);
    api.create("pods", foo_pod("high", "1", 1000));
    tokio::time::sleep(std::time::Duration::from_secs(30)).await;
    assert!(!is_leaving(&api, "low") && in_view(&api, "high").is_null(), "fenced writes must not count");
    assert!(condition(&api.get("pods", "ns", "low").unwrap(), "DisruptionTarget").is_null());
    old.cancel();
    work.await.unwrap();

    let second = cancel.child_token();
    let work = lead(&scheduler, &api, 2, &second);
    api.until("the successor preempts", |api| in_view(api, "high") == "n1" && is_leaving(api, "low")).await;
    second.cancel();
    work.await.unwrap();

    // A third one finds the promise in the API, and keeps it.
    api.set_term(3);
    let _work = lead(&scheduler, &api, 3, &cancel);
    api.create("pods", foo_pod("medium", "1", 100));
    api.until("medium is looked at", |api| !message(api, "medium").is_empty()).await;
    stop(&api, "low");
    api.until("high gets its place", |api| node_of(api, "high") == "n1").await;
    assert!(node_of(&api, "medium").is_null());
    cancel.cancel();
}

/// Upstream's conformance test "runs ReplicaSets to verify preemption running path": three sets fill a node; a pod that needs
/// the place of two pushes out these two, once each, although their pods are made again at once.
#[tokio::test(start_paused = true)]
async fn pods_that_are_made_again_are_not_pushed_out_again() {
    for seed in 0..20 {
        let api = FakeApi::slow(seed);
        api.create("nodes", foo_node("n1", "1000"));
        let (scheduler, cancel) = start(&api);
        let _work = lead(&scheduler, &api, 1, &cancel);
        let set = |nth: usize, made: usize| {
            let (foo, priority) = [("200", 1), ("300", 2), ("450", 3)][nth];
            foo_pod(&format!("rs-{nth}-{made}"), foo, priority)
        };
        run(&api, (0..3).map(|nth| set(nth, 0)).collect()).await;
        let mut made = [1_usize; 3];
        api.create("pods", foo_pod("pod4", "500", 4));
        let mut changes = api.changes();
        // The sets' controller.
        let controller = async {
            loop {
                for (nth, made) in made.iter_mut().enumerate() {
                    if is_leaving(&api, &format!("rs-{nth}-{}", *made - 1)) {
                        api.create("pods", set(nth, *made));
                        *made += 1;
                    }
                }
                changes.changed().await.unwrap();
            }
        };
        let settled = async {
            api.until("the preemptor is placed", |api| node_of(api, "pod4") == "n1").await;
            tokio::time::sleep(std::time::Duration::from_secs(20)).await;
        };
        tokio::select! {
            () = controller => {}
            () = settled => {}
        }
        assert_eq!(made, [2, 2, 1], "seed {seed}");
        cancel.cancel();
    }
}

/// Upstream's test "validates various priority Pods preempt expectedly": many preempt at the same time, and the more important
/// ones that come later take over.
#[tokio::test(start_paused = true)]
async fn many_preempt_at_once_and_no_place_is_given_twice() {
    for seed in 0..5 {
        let api = FakeApi::slow(seed);
        for node in ["n1", "n2"] {
            api.create("nodes", foo_node(node, "10"));
        }
        let (scheduler, cancel) = scheduler::start_with(&api, SchedulerOptions::default());
        let _work = lead(&scheduler, &api, 1, &cancel);
        run(&api, (0..20).map(|nth| slow_to_stop(foo_pod(&format!("low-{nth}"), "1", 1))).collect()).await;
        for nth in 0..20 {
            api.create("pods", foo_pod(&format!("medium-{nth}"), "1", 100));
        }
        api.until("all low pods are to go", |api| (0..20).all(|nth| is_leaving(api, &format!("low-{nth}")))).await;
        for nth in 0..10 {
            api.create("pods", foo_pod(&format!("high-{nth}"), "1", 1000));
        }
        api.until("all high pods have a node in view", |api| (0..10).all(|nth| !in_view(api, &format!("high-{nth}")).is_null())).await;
        for nth in 0..20 {
            stop(&api, &format!("low-{nth}"));
        }
        let count =
            |api: &FakeApi, kind: &str, all: usize| (0..all).filter(|nth| !node_of(api, &format!("{kind}-{nth}")).is_null()).count();
        api.until("all high pods are placed", |api| count(api, "high", 10) == 10).await;
        api.until("medium pods take the rest", |api| count(api, "medium", 20) == 10).await;
        tokio::time::sleep(std::time::Duration::from_secs(10)).await;
        assert_eq!(count(&api, "medium", 20), 10, "seed {seed}");
        assert!((0..20).all(|nth| !is_leaving(&api, &format!("medium-{nth}"))), "seed {seed}: nobody else is pushed out");
        cancel.cancel();
    }
}

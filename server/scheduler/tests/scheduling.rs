//! The scheduler on a small API server in memory: pods are bound, wait with a reason, and are woken by what helps them.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

#[path = "../../controllers/tests/cluster/fake_api.rs"]
mod fake_api;

#[path = "cluster/scheduler.rs"]
mod scheduler;

use fake_api::FakeApi;
use scheduler::{condition, lead, node, node_of, pod, start, start_with};
use serde_json::json;
use trireme_scheduler::SchedulerOptions;

/// The message for pods that fit nowhere, when no pod has a lower priority.
const NO_CPU: &str =
    "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.";
const TOO_LARGE: &str =
    "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.";

#[tokio::test(start_paused = true)]
async fn pods_are_bound_or_say_why_not_and_are_woken_by_what_helps() {
    let api = FakeApi::new();
    let (scheduler, cancel) = start(&api);
    let _work = lead(&scheduler, &api, 1, &cancel);
    api.create("pods", pod("first", "1"));
    let message = |api: &FakeApi, name: &str| {
        let pod = api.get("pods", "ns", name).unwrap();
        pod["status"]["conditions"][0]["message"].as_str().unwrap_or_default().to_owned()
    };
    api.until("it says that there is no node", |api| message(api, "first") == "no nodes available to schedule pods").await;
    api.create("nodes", node("n1", "2"));
    api.until("the first node takes it", |api| node_of(api, "first") == "n1").await;

    api.create("pods", pod("second", "2"));
    api.until("it says what is missing", |api| message(api, "second") == NO_CPU).await;
    let scheduled = condition(&api.get("pods", "ns", "second").unwrap(), "PodScheduled");
    assert_eq!((&scheduled["status"], &scheduled["reason"]), (&json!("False"), &json!("Unschedulable")));
    assert_eq!(scheduled["observedGeneration"], json!(1));
    api.delete("pods", "ns", "first", "Background");
    api.until("the freed place is taken", |api| node_of(api, "second") == "n1").await;

    let mut foreign = pod("foreign", "0");
    foreign["spec"]["schedulerName"] = json!("other");
    api.create("pods", foreign);
    let mut gated = pod("gated", "0");
    gated["spec"]["schedulingGates"] = json!([{"name": "wait"}]);
    api.create("pods", gated);
    api.create("pods", pod("third", "0"));
    api.until("the third is bound", |api| node_of(api, "third") == "n1").await;
    assert!(node_of(&api, "foreign").is_null() && node_of(&api, "gated").is_null());
    api.edit("pods", "ns", "gated", |pod| pod["spec"]["schedulingGates"] = json!([]));
    api.until("the open gate lets it through", |api| node_of(api, "gated") == "n1").await;

    api.until("events tell", |api| {
        let told = api.told.lock();
        let says = |reason: &str, text: &str| told.iter().any(|event| event["reason"] == reason && event["message"] == text);
        says("Scheduled", "Successfully assigned ns/first to n1") && says("FailedScheduling", NO_CPU)
    })
    .await;
    cancel.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_deposed_scheduler_binds_nothing_and_its_successor_does() {
    let api = FakeApi::new();
    api.create("nodes", node("n1", "64"));
    let (scheduler, cancel) = start(&api);
    let old = cancel.child_token();
    let work = lead(&scheduler, &api, 1, &old);
    api.create("pods", pod("before", "1"));
    api.until("it works", |api| node_of(api, "before") == "n1").await;
    api.set_term(2);
    for nth in 0..50 {
        api.create("pods", pod(&format!("p{nth}"), "1"));
    }
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    assert!((0..50).all(|nth| node_of(&api, &format!("p{nth}")).is_null()), "a fenced binding must not count");
    old.cancel();
    work.await.unwrap();
    let _work = lead(&scheduler, &api, 2, &cancel);
    api.until("the successor binds all", |api| (0..50).all(|nth| node_of(api, &format!("p{nth}")) == "n1")).await;
    cancel.cancel();
}

#[tokio::test(start_paused = true)]
async fn what_it_does_and_what_waits_is_counted() {
    let api = FakeApi::new();
    api.create("nodes", node("n1", "2"));
    let metrics = trireme_client::metrics::ComponentMetrics::new();
    let (scheduler, cancel) = start_with(&api, SchedulerOptions { metrics: metrics.clone(), ..SchedulerOptions::default() });
    let shows = |line: &str| {
        let text = String::from_utf8(metrics.render()).unwrap();
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    };
    shows("leader_election_master_status{name=\"kube-scheduler\"} 0");
    let stop = cancel.child_token();
    let work = lead(&scheduler, &api, 1, &stop);
    api.create("pods", pod("fits", "1"));
    api.create("pods", pod("large", "64"));
    let mut gated = pod("gated", "0");
    gated["spec"]["schedulingGates"] = json!([{"name": "wait"}]);
    api.create("pods", gated);
    api.until("one is placed", |api| node_of(api, "fits") == "n1").await;
    api.until("one is refused", |api| condition(&api.get("pods", "ns", "large").unwrap(), "PodScheduled")["message"] == TOO_LARGE).await;
    tokio::time::sleep(std::time::Duration::from_secs(30)).await;
    shows("leader_election_master_status{name=\"kube-scheduler\"} 1");
    shows("scheduler_schedule_attempts_total{profile=\"default-scheduler\",result=\"scheduled\"} 1");
    shows("scheduler_pod_scheduling_attempts_count 1");
    shows("scheduler_pending_pods{queue=\"unschedulable\"} 1");
    shows("scheduler_pending_pods{queue=\"gated\"} 1");
    shows("scheduler_pending_pods{queue=\"active\"} 0");
    shows("scheduler_unschedulable_pods{plugin=\"NodeResourcesFit\",profile=\"default-scheduler\"} 1");
    shows("scheduler_queue_incoming_pods_total{event=\"PodAdd\",queue=\"active\"} 2");
    shows("scheduler_cache_size{type=\"nodes\"} 1");
    shows("scheduler_preemption_attempts_total 1");
    stop.cancel();
    work.await.unwrap();
    shows("leader_election_master_status{name=\"kube-scheduler\"} 0");
    shows("scheduler_pending_pods{queue=\"unschedulable\"} 0");
}

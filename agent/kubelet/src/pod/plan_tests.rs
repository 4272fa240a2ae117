//! The planner as a table: a pod, what runs of it, what must happen.

use serde_json::json;

use super::*;
use crate::pod::observed::Sandbox;

fn pod(policy: &str, init: serde_json::Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "n", "uid": "u"},
        "spec": {"restartPolicy": policy, "initContainers": init, "containers": [{"name": "a", "image": "i"}]}
    }))
    .unwrap()
}

fn run(pod: &Pod, name: &str, attempt: u32, state: State, exit_code: i32) -> ContainerRun {
    let (_, container) = spec::container(pod, name).unwrap();
    ContainerRun {
        attempt,
        exit_code,
        hash: spec::container_hash(&container),
        ..ContainerRun::sample(&format!("{name}{attempt}"), name, state, Timestamp::UNIX_EPOCH)
    }
}

fn sandbox(attempt: u32, ready: bool) -> Sandbox {
    Sandbox { id: format!("s{attempt}"), attempt, ready, ips: vec![] }
}

fn planned(pod: &Pod, sandboxes: Vec<Sandbox>, containers: Vec<ContainerRun>) -> Plan {
    let observed = Observed { sandboxes, containers };
    let (health, backoffs, stopped, holds) = Default::default();
    let now = Timestamp::UNIX_EPOCH;
    plan(&Situation { pod, observed: &observed, health: &health, backoffs: &backoffs, stopped: &stopped, holds: &holds, now })
}

fn starts(plan: &Plan) -> Vec<(&str, u32)> {
    plan.start.iter().map(|s| (s.name.as_str(), s.attempt)).collect()
}

#[test]
fn a_new_pod_gets_its_first_sandbox_then_its_container() {
    let pod = pod("Always", json!([]));
    assert_eq!(planned(&pod, vec![], vec![]).new_sandbox, Some(0));
    assert_eq!(starts(&planned(&pod, vec![sandbox(0, true)], vec![])), [("a", 0)]);
    assert_eq!(planned(&pod, vec![sandbox(0, true)], vec![run(&pod, "a", 0, State::Running, 0)]), Plan::default());
}

#[test]
fn a_container_created_before_we_died_is_started_not_made_again() {
    let pod = pod("Never", json!([]));
    let plan = planned(&pod, vec![sandbox(0, true)], vec![run(&pod, "a", 0, State::Created, 0)]);
    assert_eq!(plan.start, [Start { name: "a".into(), attempt: 0, existing: Some("a0".into()), failed_at: None }]);
}

#[test]
fn an_ended_container_follows_the_restart_policy() {
    for (policy, exit_code, restarts) in [
        ("Always", 0, true),
        ("Always", 1, true),
        ("OnFailure", 0, false),
        ("OnFailure", 1, true),
        ("Never", 0, false),
        ("Never", 1, false),
    ] {
        let pod = pod(policy, json!([]));
        let plan = planned(&pod, vec![sandbox(0, true)], vec![run(&pod, "a", 3, State::Exited, exit_code)]);
        if restarts {
            assert_eq!(starts(&plan), [("a", 4)], "{policy} {exit_code}");
        } else {
            assert!(plan.finished && plan.kill_pod && plan.start.is_empty(), "{policy} {exit_code}");
        }
    }
}

#[test]
fn after_a_reboot_the_pod_gets_the_next_sandbox_unless_it_never_restarts() {
    for (policy, next) in [("Always", Some(3)), ("OnFailure", Some(3)), ("Never", None)] {
        let pod = pod(policy, json!([]));
        let plan = planned(&pod, vec![sandbox(2, false), sandbox(1, false)], vec![run(&pod, "a", 0, State::Exited, 255)]);
        assert_eq!((plan.new_sandbox, plan.finished), (next, next.is_none()), "{policy}");
    }
}

#[test]
fn init_containers_run_in_order_and_sidecars_stay() {
    let pod = pod("Never", json!([{"name": "i1"}, {"name": "side", "restartPolicy": "Always"}, {"name": "i2"}]));
    let up = || vec![sandbox(0, true)];
    let done = |name: &str| run(&pod, name, 0, State::Exited, 0);
    let runs = |name: &str| run(&pod, name, 0, State::Running, 0);
    assert_eq!(starts(&planned(&pod, up(), vec![])), [("i1", 0)]);
    assert_eq!(planned(&pod, up(), vec![runs("i1")]), Plan::default());
    assert_eq!(starts(&planned(&pod, up(), vec![done("i1")])), [("side", 0)]);
    assert_eq!(starts(&planned(&pod, up(), vec![done("i1"), runs("side")])), [("i2", 0)]);
    assert_eq!(starts(&planned(&pod, up(), vec![done("i1"), runs("side"), done("i2")])), [("a", 0)]);
    let side_died = vec![done("i1"), done("side"), done("i2"), runs("a")];
    assert_eq!(starts(&planned(&pod, up(), side_died)), [("side", 1)]);
    let main_done = vec![done("i1"), runs("side"), done("i2"), done("a")];
    assert!(planned(&pod, up(), main_done).finished);
    assert!(planned(&pod, up(), vec![run(&pod, "i1", 0, State::Exited, 7)]).finished);
}

#[test]
fn a_failing_container_is_held_back() {
    let pod = pod("Always", json!([]));
    let observed = Observed { sandboxes: vec![sandbox(0, true)], containers: vec![run(&pod, "a", 1, State::Exited, 1)] };
    let mut backoff = Backoff::default();
    backoff.retried(Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH);
    let (health, stopped, holds) = Default::default();
    let backoffs = BTreeMap::from([("a".to_string(), backoff)]);
    let at = |secs| {
        plan(&Situation {
            pod: &pod,
            observed: &observed,
            health: &health,
            backoffs: &backoffs,
            stopped: &stopped,
            holds: &holds,
            now: Timestamp::from_second(secs).unwrap(),
        })
    };
    assert_eq!(at(3).back_off, [Wait { name: "a".into(), delay: SignedDuration::from_secs(10) }]);
    assert_eq!(at(3).again_at, Some(Timestamp::from_second(10).unwrap()));
    assert_eq!(starts(&at(10)), [("a", 2)]);
}

#[test]
fn a_container_that_the_kubelet_stopped_waits_for_the_run_before_it() {
    let pod = pod("Always", json!([]));
    let mut stopped_run = run(&pod, "a", 1, State::Exited, 137);
    stopped_run.finished_at = Timestamp::from_second(20).ok();
    let observed = Observed { sandboxes: vec![sandbox(0, true)], containers: vec![stopped_run] };
    let mut backoff = Backoff::default();
    backoff.retried(Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH);
    let (health, holds) = Default::default();
    let after = |backoff: Option<Backoff>, earlier: Option<i64>| {
        let backoffs = backoff.into_iter().map(|b| ("a".to_string(), b)).collect();
        let stopped = BTreeMap::from([("a1".to_string(), earlier.and_then(|at| Timestamp::from_second(at).ok()))]);
        let now = Timestamp::from_second(21).unwrap();
        let situation =
            Situation { pod: &pod, observed: &observed, health: &health, backoffs: &backoffs, stopped: &stopped, holds: &holds, now };
        let plan = plan(&situation);
        (plan.start.first().map(|s| s.failed_at.map(Timestamp::as_second)), plan.again_at.map(Timestamp::as_second))
    };
    // Its first run: that is no repetition yet.
    assert_eq!(after(None, None), (Some(None), None));
    // The run before ended longer ago than the delay of 10 s.
    assert_eq!(after(Some(backoff), Some(5)), (Some(Some(5)), None));
    // It ended just now: the delay is counted from the end of the stopped run.
    assert_eq!(after(Some(backoff), Some(12)), (None, Some(30)));
}

#[test]
fn an_unhealthy_or_changed_container_is_killed_first() {
    let pod = pod("Always", json!([]));
    let mut observed = Observed { sandboxes: vec![sandbox(0, true)], containers: vec![run(&pod, "a", 0, State::Running, 0)] };
    let (backoffs, stopped, holds) = Default::default();
    let unhealthy = Unhealthy { message: "Container a failed liveness probe, will be restarted".into(), grace_secs: Some(3) };
    let health = Health { unhealthy: HashMap::from([("a0".to_string(), unhealthy)]), ..Health::default() };
    let now = Timestamp::UNIX_EPOCH;
    let killed =
        plan(&Situation { pod: &pod, observed: &observed, health: &health, backoffs: &backoffs, stopped: &stopped, holds: &holds, now });
    assert_eq!((killed.kill[0].id.as_str(), killed.kill[0].grace_secs, killed.start.len()), ("a0", Some(3), 0));
    observed.containers[0].hash = "other".into();
    let health = Health::default();
    let killed =
        plan(&Situation { pod: &pod, observed: &observed, health: &health, backoffs: &backoffs, stopped: &stopped, holds: &holds, now });
    assert!(killed.kill[0].message.contains("definition changed"));
}

#[test]
fn d11_an_ephemeral_container_is_started_once_and_counts_for_nothing() {
    let mut pod = pod("Never", json!([{"name": "i"}]));
    let ephemeral = json!([{"name": "debug", "image": "i", "targetContainerName": "a"}]);
    pod.spec.as_mut().unwrap().ephemeral_containers = serde_json::from_value(ephemeral).unwrap();
    let up = || vec![sandbox(0, true)];
    assert_eq!(starts(&planned(&pod, up(), vec![])), [("debug", 0), ("i", 0)], "even before initialization");
    let ended = || run(&pod, "debug", 0, State::Exited, 1);
    assert_eq!(starts(&planned(&pod, up(), vec![ended(), run(&pod, "i", 0, State::Running, 0)])), []);
    let done = vec![run(&pod, "debug", 0, State::Running, 0), run(&pod, "i", 0, State::Exited, 0), run(&pod, "a", 0, State::Exited, 0)];
    assert!(planned(&pod, up(), done).finished, "a running ephemeral container keeps no pod alive");
    assert_eq!(spec::ephemeral_target(&pod, "debug"), Some("a"));
}

//! Who has to leave, against a model that tries everything.
#![allow(clippy::unwrap_used)]

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use trireme_client::Object;

use crate::cycle::Cycle;
use crate::decide::Decision;
use crate::fixtures::{Cluster, merge, node, object, pod, priority};
use crate::node_info::PodInfo;

fn victims(node: &str, names: &[&str]) -> Result<(String, Vec<String>), String> {
    Ok((node.to_owned(), names.iter().map(|name| (*name).to_owned()).collect()))
}

fn budget(name: &str, app: &str, allowed: i32) -> Arc<PodDisruptionBudget> {
    object(json!({"metadata": {"name": name, "namespace": "ns"}, "spec": {"selector": {"matchLabels": {"app": app}}},
        "status": {"disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1}}))
}

fn with(mut first: Value, second: Value) -> Value {
    merge(&mut first, second);
    first
}

fn app(app: &str) -> Value {
    json!({"metadata": {"labels": {"app": app}}})
}

fn began(minute: u32) -> Value {
    json!({"status": {"startTime": format!("2026-01-01T00:{minute:02}:00Z")}})
}

#[test]
fn least_harm_is_done_in_upstreams_order() {
    // Each row: pods of nodes a and b, and the victims for a pod of priority 100 that needs a whole node.
    let one = |name: &str, cpu: &str, extra: Value| pod(name, cpu, extra);
    type Row = (&'static str, Vec<Arc<Pod>>, Vec<Arc<Pod>>, Vec<Arc<PodDisruptionBudget>>, &'static str, &'static [&'static str]);
    let rows: Vec<Row> = vec![
        (
            "fewest broken budgets, however important the victim",
            vec![one("a1", "2", with(priority(1), app("kept")))],
            vec![one("b1", "2", priority(50))],
            vec![budget("kept", "kept", 0)],
            "b",
            &["b1"],
        ),
        (
            "the least important most important victim",
            vec![one("a1", "1", priority(1)), one("a2", "1", priority(10))],
            vec![one("b1", "1", priority(9)), one("b2", "1", priority(9))],
            vec![],
            "b",
            &["b1", "b2"],
        ),
        (
            "the smallest sum",
            vec![one("a1", "1", priority(9)), one("a2", "1", priority(9))],
            vec![one("b1", "1", priority(9)), one("b2", "1", priority(-20))],
            vec![],
            "b",
            &["b1", "b2"],
        ),
        (
            "the fewest, also if all are negative",
            vec![one("a1", "1", priority(-5)), one("a2", "1", priority(-5))],
            vec![one("b1", "2", priority(-5))],
            vec![],
            "b",
            &["b1"],
        ),
        (
            "who began last",
            vec![one("a1", "2", with(priority(5), began(1)))],
            vec![one("b1", "2", with(priority(5), began(2)))],
            vec![],
            "b",
            &["b1"],
        ),
    ];
    for (what, on_a, on_b, budgets, node_name, names) in rows {
        let mut cluster = Cluster::new(vec![node("a", "2", json!({})), node("b", "2", json!({}))]);
        cluster.world.budgets = budgets;
        on_a.iter().for_each(|pod| cluster.run(pod, "a"));
        on_b.iter().for_each(|pod| cluster.run(pod, "b"));
        assert_eq!(cluster.preempt(&pod("p", "2", priority(100))), victims(node_name, names), "{what}");
    }
}

#[test]
fn only_who_stands_in_the_way_leaves() {
    let mut cluster = Cluster::new(vec![node("a", "4", json!({"status": {"allocatable": {"example.com/foo": "5"}}}))]);
    let foo = |amount: &str| json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"example.com/foo": amount}}}]}});
    cluster.run(&pod("low", "0", with(foo("2"), priority(1))), "a");
    cluster.run(&pod("medium", "0", with(foo("2"), priority(50))), "a");
    cluster.run(&pod("beside", "1", priority(0)), "a");
    let high = pod("high", "0", with(foo("2"), priority(100)));
    assert_eq!(cluster.preempt(&high), victims("a", &["low"]), "the one that uses the resource, and the less important of two");

    // Ports are given up too.
    let port = |name: &str, level: i32| {
        let ports = json!({"spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]}});
        pod(name, "0", with(ports, priority(level)))
    };
    let mut cluster = Cluster::new(vec![node("a", "4", json!({}))]);
    cluster.run(&port("holder", 1), "a");
    cluster.run(&pod("other", "1", priority(1)), "a");
    assert_eq!(cluster.preempt(&port("high", 2)), victims("a", &["holder"]));
}

#[test]
fn nobody_leaves_for_an_equal_or_for_who_may_not_or_in_vain() {
    let mut cluster = Cluster::new(vec![node("a", "2", json!({})), node("b", "1", json!({}))]);
    cluster.run(&pod("on-a", "2", priority(10)), "a");
    cluster.run(&pod("on-b", "1", priority(1)), "b");
    let said = |text: &str| Err(format!("0/2 nodes are available: 2 Insufficient cpu. preemption: {text}"));
    assert_eq!(
        cluster.preempt(&pod("equal", "2", priority(10))),
        said("0/2 nodes are available: 1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling.")
    );
    let never = json!({"spec": {"priority": 100, "preemptionPolicy": "Never"}});
    assert_eq!(cluster.preempt(&pod("never", "2", never)), said("not eligible due to preemptionPolicy=Never."));
    // Each remaining victim is in the way.
    let mut cluster = Cluster::new(vec![node("a", "2", json!({}))]);
    cluster.run(&pod("high", "1", priority(100)), "a");
    cluster.run(&pod("low", "1", priority(1)), "a");
    assert_eq!(
        cluster.preempt(&pod("p", "2", priority(50))),
        Err("0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 Insufficient cpu.".to_owned())
    );
}

#[test]
fn the_preemptor_waits_for_its_victims_and_less_important_pods_respect_its_place() {
    let mut cluster = Cluster::new(vec![node("a", "2", json!({}))]);
    cluster.run(&pod("victim", "2", priority(1)), "a");
    let high = pod("high", "2", priority(100));
    assert_eq!(cluster.preempt(&high), victims("a", &["victim"]));
    let waits = "0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due to a terminating pod on the nominated node.";
    assert_eq!(cluster.preempt(&high), Err(waits.to_owned()), "its deletion was asked for");

    // The victim is gone. Less important ones, and equal ones, see the node as full; a more important one does not.
    cluster.cache.remove("victim");
    assert!(cluster.place(&pod("low", "1", priority(1))).is_err());
    assert!(cluster.place(&pod("equal", "1", priority(100))).is_err());
    assert!(matches!(cluster.decide(&pod("higher", "2", priority(101))), Decision::Bind(..)));
    assert_eq!(cluster.place(&high), Ok("a".to_owned()));

    // When it gives up its place, the others may have it.
    cluster.cache.remove("high");
    cluster.cache.nominate(Arc::new(PodInfo::new(Arc::clone(&high))), "a");
    assert!(cluster.place(&pod("low", "1", priority(1))).is_err());
    assert!(cluster.cache.withdraw("high"));
    assert_eq!(cluster.place(&pod("low", "1", priority(1))), Ok("a".to_owned()));
}

#[test]
fn a_victim_that_terminates_is_waited_for_after_a_change_of_leadership_too() {
    let mut cluster = Cluster::new(vec![node("a", "2", json!({})), node("b", "2", json!({}))]);
    let leaving = json!({
        "metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"priority": 1},
        "status": {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]},
    });
    cluster.run(&pod("victim", "2", leaving), "a");
    cluster.run(&pod("other", "2", priority(1)), "b");
    let high = pod("high", "2", priority(100));
    cluster.cache.nominate(Arc::new(PodInfo::new(Arc::clone(&high))), "a");
    let message = cluster.preempt(&high).unwrap_err();
    assert!(message.ends_with("preemption: not eligible due to a terminating pod on the nominated node."), "{message}");
    // A node that cannot do at all any more is not waited for.
    cluster.cache.set_node(node("a", "2", json!({"spec": {"unschedulable": true}})));
    assert_eq!(cluster.preempt(&high), victims("b", &["other"]));
}

#[test]
fn spreading_and_anti_affinity_choose_victims_too() {
    let mut cluster = Cluster::new(vec![node("a", "10", json!({})), node("b", "10", json!({}))]);
    cluster.run(&pod("high", "9", priority(1000)), "a");
    for nth in 1..=3 {
        cluster.run(&pod(&format!("low-{nth}"), "3", with(priority(1), began(nth))), "b");
    }
    let spread = json!({"spec": {"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "web"}}}]}});
    let medium = pod("medium", "3", with(spread, priority(100)));
    assert_eq!(cluster.preempt(&medium), victims("b", &["low-2", "low-3"]), "one for its room, one for the skew");

    let apart = json!({"spec": {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "web"}}}]}}}});
    let mut cluster = Cluster::new(vec![node("a", "10", json!({}))]);
    cluster.run(&pod("hermit", "1", with(apart.clone(), priority(1))), "a");
    cluster.run(&pod("guest", "1", with(app("db"), priority(1))), "a");
    assert_eq!(cluster.preempt(&pod("p", "1", priority(2))), victims("a", &["hermit"]), "it does not want the pod near");
    assert_eq!(cluster.preempt(&pod("q", "1", with(apart, priority(3)))), victims("a", &["hermit"]));
}

/// Pods of the model: priority, cpu, minute of the start, app.
#[derive(Clone, Debug)]
struct Simple {
    name: String,
    priority: i32,
    cpu: i64,
    minute: u32,
    app: usize,
}

impl Simple {
    fn random(name: String, rng: &mut StdRng, most: i64) -> Self {
        Self {
            name,
            priority: rng.random_range(-2..6),
            cpu: rng.random_range(1..=most),
            minute: rng.random_range(0..4),
            app: rng.random_range(0..3),
        }
    }

    fn pod(&self) -> Arc<Pod> {
        let labels = app(&format!("app-{}", self.app));
        pod(&self.name, &self.cpu.to_string(), with(with(priority(self.priority), began(self.minute)), labels))
    }
}

/// Tries every set of pods that could stay on a node.
fn model_on(room: i64, there: &[Simple], p: &Simple, allowed: &[i32]) -> Option<(usize, Vec<Simple>)> {
    let mut lower: Vec<Simple> = there.iter().filter(|other| other.priority < p.priority).cloned().collect();
    lower.sort_by_key(|one| (Reverse(one.priority), one.minute, one.name.clone()));
    let mut seen = vec![0; allowed.len()];
    let mut breaks: BTreeMap<String, bool> = BTreeMap::new();
    for one in &lower {
        let budget = one.app;
        let broken = budget < allowed.len() && {
            seen[budget] += 1;
            seen[budget] > allowed[budget]
        };
        breaks.insert(one.name.clone(), broken);
    }
    // A pod of this list is kept before any number of later ones.
    lower.sort_by_key(|one| !breaks[&one.name]);
    let fixed: i64 = there.iter().filter(|other| other.priority >= p.priority).map(|other| other.cpu).sum();
    let count = lower.len();
    let stays = |set: u32, nth: usize| set & (1 << (count - 1 - nth)) != 0;
    let best = (0..1_u32 << count).rev().find(|set| {
        let kept: i64 = (0..count).filter(|nth| stays(*set, *nth)).map(|nth| lower[nth].cpu).sum();
        fixed + kept + p.cpu <= room
    })?;
    let mut gone: Vec<Simple> = (0..count).filter(|nth| !stays(best, *nth)).map(|nth| lower[nth].clone()).collect();
    gone.sort_by_key(|one| (Reverse(one.priority), one.minute, one.name.clone()));
    let broken = gone.iter().filter(|one| breaks[&one.name]).count();
    (!gone.is_empty()).then_some((broken, gone))
}

/// Whether the first of two candidates does less harm.
fn less_harm(one: &(usize, Vec<Simple>), other: &(usize, Vec<Simple>)) -> bool {
    if one.0 != other.0 {
        return one.0 < other.0;
    }
    let (a, b) = (&one.1, &other.1);
    let highest = |pods: &[Simple]| pods.iter().map(|pod| pod.priority).max().unwrap();
    if highest(a) != highest(b) {
        return highest(a) < highest(b);
    }
    let sum = |pods: &[Simple]| pods.iter().map(|pod| i128::from(pod.priority) + (1 << 31)).sum::<i128>();
    if sum(a) != sum(b) {
        return sum(a) < sum(b);
    }
    if a.len() != b.len() {
        return a.len() < b.len();
    }
    let first = |pods: &[Simple]| pods.iter().filter(|pod| pod.priority == highest(pods)).map(|pod| pod.minute).min().unwrap();
    first(a) > first(b)
}

#[test]
fn victims_are_those_of_a_model_that_tries_everything() {
    for seed in 0..400_u64 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut cluster = Cluster::new(Vec::new());
        let mut rooms: BTreeMap<String, (i64, Vec<Simple>)> = BTreeMap::new();
        for nth in 0..rng.random_range(1..5) {
            let name = format!("n{nth}");
            let room: i64 = rng.random_range(4..12);
            cluster.cache.set_node(node(&name, &room.to_string(), json!({})));
            let mut there: Vec<Simple> = Vec::new();
            for pod_nth in 0..rng.random_range(0..7) {
                let one = Simple::random(format!("{name}-{pod_nth}"), &mut rng, 4);
                if there.iter().map(|pod| pod.cpu).sum::<i64>() + one.cpu <= room {
                    cluster.run(&one.pod(), &name);
                    there.push(one);
                }
            }
            rooms.insert(name, (room, there));
        }
        let allowed: Vec<i32> = (0..rng.random_range(0..3)).map(|_| rng.random_range(0..3)).collect();
        cluster.world.budgets =
            allowed.iter().enumerate().map(|(nth, allowed)| budget(&format!("b{nth}"), &format!("app-{nth}"), *allowed)).collect();
        let p = Simple::random("p".to_owned(), &mut rng, 12);

        let fits = rooms.values().any(|(room, there)| there.iter().map(|pod| pod.cpu).sum::<i64>() + p.cpu <= *room);
        if fits {
            assert!(matches!(cluster.decide(&p.pod()), Decision::Bind(..)), "seed {seed}: it fits");
            continue;
        }
        let mut expected: Option<(String, (usize, Vec<Simple>))> = None;
        for (name, (room, there)) in &rooms {
            let Some(candidate) = model_on(*room, there, &p, &allowed) else { continue };
            if expected.as_ref().is_none_or(|(_, best)| less_harm(&candidate, best)) {
                expected = Some((name.clone(), candidate));
            }
        }
        let names = |pods: &[Simple]| pods.iter().map(|pod| pod.name.clone()).collect::<Vec<_>>();
        let expected = expected.map(|(node, (_, gone))| (node, names(&gone)));
        let found = cluster.preempt(&p.pod());
        assert_eq!(found.clone().ok(), expected, "seed {seed}: {p:?} among {rooms:#?} with budgets {allowed:?}: {found:?}");
        let Ok((_, gone)) = found else { continue };
        let all: Vec<&Simple> = rooms.values().flat_map(|(_, there)| there).collect();
        assert!(gone.iter().all(|name| all.iter().any(|one| one.name == *name && one.priority < p.priority)), "seed {seed}");
        gone.iter().for_each(|name| {
            cluster.cache.remove(name);
        });
        assert!(matches!(cluster.decide(&p.pod()), Decision::Bind(..)), "seed {seed}: there is room when they have left");
    }
}

#[test]
fn what_is_imagined_is_undone() {
    let apart = json!({"spec": {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "app-0"}}}]}}}});
    let near = json!({"spec": {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "app-1"}}}]}}}});
    let spread = json!({"spec": {"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone",
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "app-2"}}}]}});
    for seed in 0..200_u64 {
        let mut rng = StdRng::seed_from_u64(seed);
        let extra = |rng: &mut StdRng| match rng.random_range(0..5) {
            0 => apart.clone(),
            1 => near.clone(),
            2 => spread.clone(),
            _ => json!({}),
        };
        let mut cluster = Cluster::new(Vec::new());
        for nth in 0..4 {
            let zone = json!({"metadata": {"labels": {"zone": format!("z{}", rng.random_range(0..2))}}});
            cluster.cache.set_node(node(&format!("n{nth}"), "6", zone));
            for pod_nth in 0..rng.random_range(0..5) {
                let one = Simple::random(format!("n{nth}-{pod_nth}"), &mut rng, 3);
                let value = with(serde_json::to_value(&*one.pod()).unwrap(), extra(&mut rng));
                cluster.run(&object(value), &format!("n{nth}"));
            }
        }
        for nth in 0..rng.random_range(0..3) {
            let one = Simple::random(format!("nominated-{nth}"), &mut rng, 3);
            cluster.cache.nominate(Arc::new(PodInfo::new(one.pod())), &format!("n{}", rng.random_range(0..4)));
        }
        let one = Simple { priority: 5, ..Simple::random("p".to_owned(), &mut rng, 7) };
        let info = PodInfo::new(object(with(serde_json::to_value(&*one.pod()).unwrap(), extra(&mut rng))));
        let snapshot = cluster.cache.snapshot(&cluster.world);
        let mut cycle = Cycle::new(&cluster.plugins, &info, &snapshot);
        let Err(unfit) = cycle.place(0) else { continue };
        let refusals = |cycle: &mut Cycle<'_>| snapshot.nodes.iter().map(|node| cycle.refusal(node)).collect::<Vec<_>>();
        let before = refusals(&mut cycle);
        let first = format!("{:?}", super::preempt(&mut cycle, &unfit, 0));
        assert_eq!(refusals(&mut cycle), before, "seed {seed}: after {first}");
        assert_eq!(format!("{:?}", super::preempt(&mut cycle, &unfit, 0)), first, "seed {seed}");
    }
}

#[test]
fn a_nominated_pod_gets_its_place_whatever_less_important_pods_come() {
    for seed in 0..200_u64 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut cluster = Cluster::new((0..3).map(|nth| node(&format!("n{nth}"), "6", json!({}))).collect());
        for nth in 0..12 {
            let _ = cluster.place(&Simple { priority: 0, ..Simple::random(format!("old-{nth}"), &mut rng, 3) }.pod());
        }
        let high = Simple { priority: 10, cpu: rng.random_range(4..=6), ..Simple::random("high".to_owned(), &mut rng, 3) }.pod();
        if matches!(cluster.decide(&high), Decision::Bind(..)) {
            continue;
        }
        let (node, mut gone) = cluster.preempt(&high).unwrap();
        let mut came = 0;
        while let Some(victim) = gone.pop() {
            for _ in 0..rng.random_range(0..4) {
                came += 1;
                let _ = cluster.place(&Simple::random(format!("new-{came}"), &mut rng, 3).pod());
            }
            cluster.cache.remove(&victim);
        }
        assert_eq!(cluster.place(&high), Ok(node), "seed {seed}");
        assert_eq!(high.name(), "high");
    }
}

//! Slices of a Service as its pods come and go.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::json;
use trireme_client::Object;

use super::{Plan, plan};

fn service() -> Service {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "ns", "uid": "svc", "labels": {"team": "a"}},
        "spec": {"clusterIP": "10.43.0.9", "ipFamilies": ["IPv4"], "selector": {"app": "web"},
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}]},
    }))
    .unwrap()
}

fn pod(nth: usize, port: i32) -> Arc<Pod> {
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {"name": format!("p{nth}"), "namespace": "ns", "uid": format!("uid-{nth:04}"), "labels": {"app": "web"}},
            "spec": {"nodeName": "n1", "containers": [{"name": "c",
                "ports": [{"name": "http", "containerPort": port, "protocol": "TCP"}]}]},
            "status": {"phase": "Running", "podIP": format!("10.42.{}.{}", nth / 200, nth % 200 + 1),
                "conditions": [{"type": "Ready", "status": "True"}]},
        }))
        .unwrap(),
    )
}

fn changed(pod: &Arc<Pod>, change: impl FnOnce(&mut Pod)) -> Arc<Pod> {
    let mut copy = (**pod).clone();
    change(&mut copy);
    Arc::new(copy)
}

#[derive(Default)]
struct Store {
    slices: Vec<Arc<EndpointSlice>>,
    made: usize,
}

impl Store {
    /// Plans and stores; returns (created, updated, deleted).
    fn apply(&mut self, pods: &[Arc<Pod>]) -> (usize, usize, usize) {
        let Plan { create, update, delete } = plan(&service(), pods, &self.slices, |_| None);
        let counts = (create.len(), update.len(), delete.len());
        for mut slice in create {
            self.made += 1;
            slice.metadata.name = Some(format!("web-{}", self.made));
            self.slices.push(Arc::new(slice));
        }
        for slice in update {
            self.slices.retain(|known| known.name() != slice.name());
            self.slices.push(Arc::new(slice));
        }
        for slice in delete {
            self.slices.retain(|known| known.name() != slice.name());
        }
        counts
    }

    fn sizes(&self) -> Vec<usize> {
        let mut sizes: Vec<usize> = self.slices.iter().map(|slice| slice.endpoints.as_ref().map_or(0, Vec::len)).collect();
        sizes.sort_unstable();
        sizes
    }
}

#[test]
fn slices_fill_to_a_hundred_and_change_one_at_a_time() {
    let mut store = Store::default();
    assert_eq!(store.apply(&[]), (1, 0, 0), "no pods: one empty slice");
    let mut pods: Vec<Arc<Pod>> = (0..250).map(|nth| pod(nth, 8080)).collect();
    store.apply(&pods);
    assert_eq!(store.sizes(), [50, 100, 100]);
    assert_eq!(store.apply(&pods), (0, 0, 0), "nothing changed, nothing is written");

    pods[7] = changed(&pods[7], |pod| {
        pod.status.as_mut().unwrap().conditions.as_mut().unwrap()[0].status = "False".to_owned();
    });
    assert_eq!(store.apply(&pods), (0, 1, 0), "one pod, one write");
    pods.push(pod(250, 8080));
    assert_eq!(store.apply(&pods), (0, 1, 0), "a new one goes where there is room");
    assert_eq!(store.sizes(), [51, 100, 100]);

    pods.truncate(1);
    store.apply(&pods);
    assert_eq!(store.sizes(), [1]);
    assert_eq!(store.apply(&[]), (0, 1, 0), "the last slice stays, empty");
}

#[test]
fn named_ports_split_slices_and_conditions_tell_the_pods_state() {
    let mut store = Store::default();
    let terminating = changed(&pod(2, 8080), |pod| {
        pod.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).ok();
    });
    store.apply(&[pod(1, 8080), terminating, pod(3, 9090)]);
    let mut seen: Vec<(i32, Vec<_>)> = store
        .slices
        .iter()
        .map(|slice| {
            let conditions = slice.endpoints.iter().flatten().map(|endpoint| {
                let conditions = endpoint.conditions.as_ref().unwrap();
                (conditions.ready.unwrap(), conditions.serving.unwrap(), conditions.terminating.unwrap())
            });
            (slice.ports.as_ref().unwrap()[0].port.unwrap(), conditions.collect::<Vec<_>>())
        })
        .collect();
    seen.sort();
    assert_eq!(seen, [(8080, vec![(true, true, false), (false, true, true)]), (9090, vec![(true, true, false)])]);
    let labels = store.slices[0].metadata.labels.as_ref().unwrap();
    assert_eq!(labels["kubernetes.io/service-name"], "web");
    assert_eq!(labels["team"], "a");
}

#[test]
fn ready_endpoints_have_the_hints_that_the_service_asks_for() {
    let hints = |distribution: Option<&str>, pod: Arc<Pod>| {
        let mut service = service();
        service.spec.as_mut().unwrap().traffic_distribution = distribution.map(str::to_owned);
        let plan = plan(&service, &[pod], &[], |_| Some("zone-a".to_owned()));
        serde_json::to_value(&plan.create[0].endpoints.as_ref().unwrap()[0].hints).unwrap()
    };
    let zone = json!({"forZones": [{"name": "zone-a"}]});
    assert_eq!(hints(None, pod(1, 80)), json!(null));
    assert_eq!(hints(Some("PreferClose"), pod(1, 80)), zone);
    assert_eq!(hints(Some("PreferSameZone"), pod(1, 80)), zone);
    assert_eq!(hints(Some("PreferSameNode"), pod(1, 80)), json!({"forZones": [{"name": "zone-a"}], "forNodes": [{"name": "n1"}]}));
    let unready = changed(&pod(1, 80), |pod| pod.status.as_mut().unwrap().conditions = None);
    assert_eq!(hints(Some("PreferSameZone"), unready), json!(null));
}

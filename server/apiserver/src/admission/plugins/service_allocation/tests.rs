use std::collections::HashSet;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::json;
use trireme_proto::etcd::{RequestOp, request_op::Request};

use super::*;
use crate::storage::lookup::LookedUp;

/// The allocation keys, and nothing else.
#[derive(Default)]
struct Keys(Mutex<HashSet<String>>);

impl StoreAccess for Keys {
    fn newest(&self, _: &str, _: &str, _: &str, _: &str) -> Answer<Option<LookedUp>> {
        Ok(None)
    }

    fn write_ahead(&self, _: Effects) -> BoxFuture<'_, Answer<Option<i64>>> {
        Box::pin(async { Ok(None) })
    }

    fn put_operation(&self, _group: &str, _plural: &str, _object: &Value) -> Answer<RequestOp> {
        unreachable!("Services write no other object")
    }

    fn exists(&self, key: &str) -> bool {
        self.0.lock().contains(key)
    }
}

struct World {
    plugin: ServiceAllocation,
    keys: Arc<Keys>,
}

fn world() -> World {
    let keys = Arc::new(Keys::default());
    let ranges = Ranges { service_cidr: "10.0.0.0/24".parse().unwrap(), node_ports: (30000, 30100) };
    World { plugin: ServiceAllocation { ranges, store: keys.clone() }, keys }
}

impl World {
    /// Carries the operations out, if the conditions hold.
    fn commit(&self, effects: &Effects) {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let mut keys = self.keys.0.lock();
        for compare in effects.compares() {
            assert!(!keys.contains(&text(&compare.key)), "{} is taken", text(&compare.key));
        }
        for operation in effects.operations() {
            match operation.request.as_ref().unwrap() {
                Request::RequestPut(put) => assert!(keys.insert(text(&put.key))),
                Request::RequestDeleteRange(delete) => assert!(keys.remove(&text(&delete.key))),
                other => panic!("{other:?}"),
            }
        }
    }

    fn write(&self, mut service: Value, existing: Option<&Value>) -> Result<Value, Vec<String>> {
        let mut effects = Effects::default();
        let errors = self.plugin.settle(&mut service, existing, &mut effects);
        if errors.is_empty() {
            self.commit(&effects);
            Ok(service)
        } else {
            Err(errors.iter().map(ToString::to_string).collect())
        }
    }

    fn delete(&self, service: &Value) {
        let mut effects = Effects::default();
        self.plugin.release(Removed { group: "", plural: "services" }, service, &mut effects);
        self.commit(&effects);
    }

    fn held(&self) -> usize {
        self.keys.0.lock().len()
    }
}

fn service(name: &str, ports: Value) -> Value {
    json!({"metadata": {"namespace": "a", "name": name}, "spec": {"type": "NodePort", "selector": {"a": "b"}, "ports": ports}})
}

fn dns(target: u16) -> Value {
    service(
        "dns",
        json!([
            {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": target},
            {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": target},
        ]),
    )
}

fn node_ports(service: &Value) -> Vec<u64> {
    meta::list_at(service, &["spec", "ports"]).iter().map(|port| port["nodePort"].as_u64().unwrap()).collect()
}

#[test]
fn case_03_one_port_of_two_protocols_has_one_node_port() {
    let world = world();
    let first = world.write(dns(1053), None).unwrap();
    let [udp, tcp] = node_ports(&first)[..] else { panic!("two ports") };
    assert_eq!(udp, tcp);
    let other = service("other", json!([{"port": 99, "protocol": "SCTP", "nodePort": udp}]));
    let errors = world.write(other.clone(), None).unwrap_err();
    assert!(errors[0].contains("provided port is already allocated"), "{errors:?}");
    // A PUT without node ports keeps both.
    let second = world.write(dns(2053), Some(&first)).unwrap();
    assert_eq!(node_ports(&second), [udp, udp]);
    // One protocol goes: the number stays this Service's.
    let udp_only = service("dns", json!([{"name": "dns", "port": 53, "protocol": "UDP"}]));
    let third = world.write(udp_only, Some(&second)).unwrap();
    assert_eq!(node_ports(&third), [udp]);
    assert!(world.write(other.clone(), None).is_err());
    world.delete(&third);
    assert_eq!(world.held(), 0);
    world.write(other, None).unwrap();
}

#[test]
fn a_named_number_counts_for_all_protocols_of_its_port() {
    let world = world();
    let named = service(
        "a",
        json!([
            {"name": "u", "port": 53, "protocol": "UDP"},
            {"name": "t", "port": 53, "protocol": "TCP", "nodePort": 30053},
            {"name": "w", "port": 80, "protocol": "TCP"},
        ]),
    );
    let written = world.write(named, None).unwrap();
    let ports = node_ports(&written);
    assert_eq!(ports[..2], [30053, 30053]);
    assert_ne!(ports[2], 30053);
    let twice =
        service("b", json!([{"name": "x", "port": 1, "nodePort": 30001}, {"name": "y", "port": 2, "nodePort": 30001, "protocol": "UDP"}]));
    assert!(world.write(twice, None).is_err());
    let outside = service("c", json!([{"port": 1, "nodePort": 29999}]));
    assert!(world.write(outside, None).unwrap_err()[0].contains("not in the valid range"));
}

#[test]
fn a_change_of_type_frees_what_is_no_longer_needed() {
    let world = world();
    let first = world.write(dns(53), None).unwrap();
    assert_eq!(world.held(), 3);
    let mut cluster_ip = first.clone();
    cluster_ip["spec"]["type"] = json!("ClusterIP");
    let second = world.write(cluster_ip, Some(&first)).unwrap();
    assert_eq!((world.held(), second["spec"]["clusterIP"].clone()), (1, first["spec"]["clusterIP"].clone()));
    let mut external = second.clone();
    external["spec"]["type"] = json!("ExternalName");
    let third = world.write(external, Some(&second)).unwrap();
    assert_eq!((world.held(), third["spec"].get("clusterIP")), (0, None));
}

#[test]
fn a_load_balancer_may_go_without_node_ports_but_not_without_a_health_check() {
    let world = world();
    let mut wanted = service("lb", json!([{"port": 80}]));
    wanted["spec"]["type"] = json!("LoadBalancer");
    wanted["spec"]["allocateLoadBalancerNodePorts"] = json!(false);
    wanted["spec"]["externalTrafficPolicy"] = json!("Local");
    let written = world.write(wanted.clone(), None).unwrap();
    assert!(written["spec"]["ports"][0].get("nodePort").is_none());
    let health = written["spec"]["healthCheckNodePort"].as_u64().unwrap();
    let again = world.write(wanted, Some(&written)).unwrap();
    assert_eq!(again["spec"]["healthCheckNodePort"], health);
    assert_eq!(again["spec"]["clusterIP"], written["spec"]["clusterIP"]);
    world.delete(&again);
    assert_eq!(world.held(), 0);
}

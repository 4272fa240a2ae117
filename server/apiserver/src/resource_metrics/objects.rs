//! NodeMetrics and PodMetrics.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use trireme_api::{meta, time};

use crate::resource_metrics::samples::Usage;

/// The APIResourceList of a version.
pub fn resource_list(version: &str) -> Value {
    let resource = |name: &str, kind: &str, namespaced: bool| json!({"name": name, "singularName": "", "namespaced": namespaced, "kind": kind, "verbs": ["get", "list"]});
    json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": format!("{}/{version}", super::GROUP),
        "resources": [resource("nodes", "NodeMetrics", false), resource("pods", "PodMetrics", true)],
    })
}

/// What a node uses.
pub fn node(version: &str, node: &Value, at: Timestamp, window: Duration, usage: Usage) -> Value {
    let mut object = json!({
        "kind": "NodeMetrics", "apiVersion": format!("{}/{version}", super::GROUP),
        "metadata": {"name": meta::name(node), "creationTimestamp": time::format(at)},
        "timestamp": time::format(at), "window": go_duration(window), "usage": usage_value(usage),
    });
    copy_labels(&mut object, node);
    object
}

/// What the containers of a pod use.
pub fn pod(version: &str, pod: &Value, at: Timestamp, window: Duration, containers: &[(String, Usage)]) -> Value {
    let containers: Vec<Value> = containers.iter().map(|(name, usage)| json!({"name": name, "usage": usage_value(*usage)})).collect();
    let mut object = json!({
        "kind": "PodMetrics", "apiVersion": format!("{}/{version}", super::GROUP),
        "metadata": {"name": meta::name(pod), "namespace": meta::namespace(pod), "creationTimestamp": time::format(at)},
        "timestamp": time::format(at), "window": go_duration(window), "containers": containers,
    });
    copy_labels(&mut object, pod);
    object
}

/// A list of them.
pub fn list(version: &str, kind: &str, items: &[Value]) -> Value {
    json!({"kind": format!("{kind}List"), "apiVersion": format!("{}/{version}", super::GROUP), "metadata": {}, "items": items})
}

fn copy_labels(object: &mut Value, source: &Value) {
    if let Some(labels) = meta::get(source, &["metadata", "labels"]).filter(|labels| labels.as_object().is_some_and(|map| !map.is_empty()))
    {
        object["metadata"]["labels"] = labels.clone();
    }
}

fn usage_value(usage: Usage) -> Value {
    json!({"cpu": format!("{}n", usage.nano_cores), "memory": format!("{}Ki", usage.memory_bytes / 1024)})
}

/// As Go writes it: `10.062s`, `1m5.5s`.
fn go_duration(window: Duration) -> String {
    let (minutes, millis) = (window.as_secs() / 60, window.as_millis() % 60_000);
    let fraction = format!("{:03}", millis % 1000);
    let fraction = fraction.trim_end_matches('0');
    let seconds = if fraction.is_empty() { format!("{}s", millis / 1000) } else { format!("{}.{fraction}s", millis / 1000) };
    if minutes == 0 { seconds } else { format!("{minutes}m{seconds}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_go_writes_them() {
        let shown = |millis| go_duration(Duration::from_millis(millis));
        assert_eq!([1000, 10_062, 65_500, 120_000, 1].map(shown), ["1s", "10.062s", "1m5.5s", "2m0s", "0.001s"]);
    }

    #[test]
    fn objects_have_the_shape_that_clients_read() {
        let usage = Usage { nano_cores: 1_500_000, memory_bytes: 5 << 20 };
        let source = json!({"metadata": {"name": "p", "namespace": "a", "labels": {"x": "y"}}});
        let made = pod("v1beta1", &source, Timestamp::UNIX_EPOCH, Duration::from_secs(10), &[("c".to_owned(), usage)]);
        assert_eq!(made["containers"], json!([{"name": "c", "usage": {"cpu": "1500000n", "memory": "5120Ki"}}]));
        assert_eq!(
            (&made["apiVersion"], &made["metadata"]["labels"], &made["window"]),
            (&json!("metrics.k8s.io/v1beta1"), &json!({"x": "y"}), &json!("10s"))
        );
    }
}

//! The objects that are written.

use std::net::IpAddr;

use bytes::Bytes;
use serde_json::{Value, json};

fn body(object: &Value) -> Bytes {
    object.to_string().into()
}

/// A Namespace.
pub fn namespace(name: &str) -> Bytes {
    body(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))
}

/// A Service with one port, whose endpoints are given.
pub fn service(name: &str) -> Bytes {
    body(&json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}}))
}

/// The endpoint of the Service of the same name.
pub fn endpoint_slice(name: &str, address: IpAddr, port: u16) -> Bytes {
    body(&json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4", "ports": [{"port": port, "protocol": "TCP"}],
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
    }))
}

/// A ConfigMap that takes about half a kilobyte when it is read.
pub fn config_map(name: &str, round: u64) -> Bytes {
    let value = format!("{round:08}").repeat(15);
    body(
        &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"app": "bench"}}, "data": {"value": value}}),
    )
}

/// The patch of a ConfigMap.
pub fn config_map_patch(round: u64) -> Bytes {
    body(&json!({"data": {"patched": format!("{round:08}")}}))
}

/// A pod as a Deployment makes it. With the name of a scheduler that does not run, it stays pending.
pub fn pod(name: &str, scheduler: &str) -> Bytes {
    let mut pod = pod_template(scheduler);
    pod["apiVersion"] = "v1".into();
    pod["kind"] = "Pod".into();
    pod["metadata"]["name"] = name.into();
    body(&pod)
}

fn pod_template(scheduler: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": "bench", "tier": "backend"}, "annotations": {"example.com/owner": "bench"}},
        "spec": {
            "schedulerName": scheduler,
            "containers": [{
                "name": "main",
                "image": "registry.example.com/bench/main:1.0",
                "args": ["--verbose", "--listen=:8080"],
                "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}, {"name": "MODE", "value": "bench"}],
                "ports": [{"name": "http", "containerPort": 8080}],
                "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
                "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}},
            }],
        },
    })
}

/// A Deployment of such pods.
pub fn deployment(name: &str, replicas: usize) -> Bytes {
    body(&json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "bench"}},
            "template": pod_template("default-scheduler"),
        },
    }))
}

/// A node that says that it is ready, as a kubelet registers it.
pub fn node(name: &str, now: &str) -> Bytes {
    let condition = |kind: &str, status: &str| json!({"type": kind, "status": status, "reason": "Bench", "message": "bench", "lastHeartbeatTime": now, "lastTransitionTime": now});
    let capacity = json!({"cpu": "32", "memory": "256Gi", "pods": "110", "ephemeral-storage": "100Gi"});
    body(&json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}},
        "status": {
            "capacity": capacity, "allocatable": capacity,
            "conditions": [
                condition("Ready", "True"), condition("MemoryPressure", "False"), condition("DiskPressure", "False"),
                condition("PIDPressure", "False"),
            ],
            "addresses": [{"type": "Hostname", "address": name}],
            "nodeInfo": {
                "machineID": "", "systemUUID": "", "bootID": "", "kernelVersion": "6.1", "osImage": "bench", "containerRuntimeVersion": "bench://1",
                "kubeletVersion": "v1.36.0", "kubeProxyVersion": "", "operatingSystem": "linux", "architecture": "amd64",
            },
        },
    }))
}

//! Names of things in the store.
//!
//! Objects: `/registry/<group or "core">/<plural>/[<namespace>/]<name>`. Allocations of addresses and ports:
//! `/registry-alloc/...`. Other modules get keys from here and do not split them themselves.

use bytes::Bytes;
use trireme_proto::etcd;

/// All keys of Kubernetes, from the first to, exclusively, the second: objects and what lies beside them.
pub const KUBERNETES_KEYS: (&str, &str) = ("/registry-", "/registry0");

/// Where all objects live.
pub const OBJECTS: &str = "/registry/";

/// Where the allocations of addresses and ports live.
pub const ALLOCATIONS: &str = "/registry-alloc/";

/// The folder of a resource, with a trailing slash.
pub fn resource_prefix(group: &str, plural: &str) -> String {
    let group = if group.is_empty() { "core" } else { group };
    format!("{OBJECTS}{group}/{plural}/")
}

/// The key of one object; `namespace` is empty for cluster-scoped resources.
pub fn object_key(group: &str, plural: &str, namespace: &str, name: &str) -> String {
    let mut key = resource_prefix(group, plural);
    if !namespace.is_empty() {
        key.push_str(namespace);
        key.push('/');
    }
    key.push_str(name);
    key
}

/// The key that holds a Service address.
pub fn service_ip(ip: std::net::IpAddr) -> String {
    format!("/registry-alloc/ip/{ip}")
}

/// The key that holds a node port.
pub fn node_port(protocol: &str, port: u16) -> String {
    format!("/registry-alloc/nodeport/{}/{port}", protocol.to_ascii_lowercase())
}

/// The first key after all keys that begin with `prefix`.
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Bytes::from(end);
        }
    }
    Bytes::from_static(b"\0")
}

/// Holds when the key's last change is `mod_revision` (0: the key does not exist).
pub fn unchanged(key: &str, mod_revision: i64) -> etcd::Compare {
    etcd::Compare {
        result: etcd::compare::CompareResult::Equal as i32,
        target: etcd::compare::CompareTarget::Mod as i32,
        key: Bytes::copy_from_slice(key.as_bytes()),
        range_end: Bytes::new(),
        target_union: Some(etcd::compare::TargetUnion::ModRevision(mod_revision)),
    }
}

/// Writes a key under a lease (0: none).
pub fn put(key: &str, value: impl Into<Bytes>, lease: i64) -> etcd::RequestOp {
    etcd::RequestOp {
        request: Some(etcd::request_op::Request::RequestPut(etcd::PutRequest {
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: value.into(),
            lease,
            ..Default::default()
        })),
    }
}

/// Deletes one key.
pub fn delete(key: &str) -> etcd::RequestOp {
    etcd::RequestOp {
        request: Some(etcd::request_op::Request::RequestDeleteRange(etcd::DeleteRangeRequest {
            key: Bytes::copy_from_slice(key.as_bytes()),
            ..Default::default()
        })),
    }
}

/// Reads one key inside a transaction.
pub fn read(key: &str) -> etcd::RequestOp {
    etcd::RequestOp { request: Some(etcd::request_op::Request::RequestRange(get(key))) }
}

/// A read of one key.
pub fn get(key: &str) -> etcd::RangeRequest {
    etcd::RangeRequest { key: Bytes::copy_from_slice(key.as_bytes()), ..Default::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubernetes_keys_are_all_keys_made_here() {
        let keys = [object_key("", "pods", "a", "b"), service_ip([10, 43, 0, 1].into()), node_port("TCP", 30000), OBJECTS.to_owned()];
        for key in keys {
            assert!(key.as_str() >= KUBERNETES_KEYS.0 && key.as_str() < KUBERNETES_KEYS.1, "{key}");
        }
    }
}

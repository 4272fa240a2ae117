//! Whether a pod uses more local storage than its own limits allow. Pure.

use k8s_openapi::api::core::v1::{Pod, Volume};

use super::{shown, usage::PodUsage};
use crate::{amount, container::resources, node::signal::Resource, pod::spec};

/// Whether a pod's disk usage has to be measured.
pub(super) fn has_limits(pod: &Pod) -> bool {
    let of_volume = |volume: &Volume| size_limit(volume).is_some();
    spec::pod_spec(pod).volumes.iter().flatten().any(of_volume) || storage_limit(pod).is_some()
}

/// The limit of an emptyDir that lies on disk. One in memory cannot grow beyond its own.
fn size_limit(volume: &Volume) -> Option<i64> {
    let source = volume.empty_dir.as_ref().filter(|source| source.medium.as_deref().unwrap_or_default().is_empty())?;
    source.size_limit.as_ref().and_then(amount::of).map(amount::Amount::units).filter(|limit| *limit > 0)
}

/// What all containers together may use, if any has a limit.
fn storage_limit(pod: &Pod) -> Option<i64> {
    let resource = Resource::Disk.name();
    let any = spec::all_containers(pod).any(|(_, container)| resources::limit(container, resource).is_some());
    any.then(|| resources::pod_total(pod, |container| resources::limit(container, resource), resource).units())
}

/// The first limit that is exceeded: upstream's name of the signal, and its message.
pub(super) fn exceeded(pod: &Pod, usage: &PodUsage) -> Option<(&'static str, String)> {
    for volume in spec::pod_spec(pod).volumes.iter().flatten() {
        let used = usage.volumes.get(&volume.name).map_or(0, |files| files.bytes);
        if let Some(limit) = size_limit(volume).filter(|limit| used > *limit) {
            let message = format!("Usage of EmptyDir volume \"{}\" exceeds the limit \"{}\". ", volume.name, shown(limit));
            return Some(("emptydirfs.limit", message));
        }
    }
    if let Some(limit) = storage_limit(pod).filter(|limit| usage.of(Resource::Disk) > *limit) {
        let message = format!("Pod ephemeral local storage usage exceeds the total limit of containers {}. ", shown(limit));
        return Some(("ephemeralpodfs.limit", message));
    }
    for (_, container) in spec::all_containers(pod) {
        let used = usage.containers.get(&container.name).map_or(0, |usage| usage.disk);
        let limit = resources::limit(container, Resource::Disk.name()).map(amount::Amount::units);
        if let Some(limit) = limit.filter(|limit| used > *limit) {
            let message = format!("Container {} exceeded its local ephemeral storage limit \"{}\". ", container.name, shown(limit));
            return Some(("ephemeralcontainerfs.limit", message));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::super::usage::{ContainerUsage, Files};
    use super::*;

    fn pod() -> Pod {
        let limits = |size: &str| json!({"limits": {"ephemeral-storage": size}});
        serde_json::from_value(json!({"metadata": {}, "spec": {
            "containers": [{"name": "a", "resources": limits("10Mi")}, {"name": "b", "resources": limits("20Mi")}],
            "volumes": [
                {"name": "small", "emptyDir": {"sizeLimit": "1Mi"}},
                {"name": "free", "emptyDir": {}},
                {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            ],
        }}))
        .unwrap()
    }

    fn usage(a: i64, b: i64, small: i64, free: i64) -> PodUsage {
        let disk = |mebibytes: i64| ContainerUsage { disk: mebibytes << 20, ..ContainerUsage::default() };
        let files = |mebibytes: i64| Files { bytes: mebibytes << 20, inodes: 1 };
        PodUsage {
            containers: [("a".into(), disk(a)), ("b".into(), disk(b))].into(),
            volumes: [("small".into(), files(small)), ("free".into(), files(free))].into(),
            pids: 0,
        }
    }

    #[test]
    fn the_first_limit_that_is_exceeded_is_named() {
        let cases = [
            (usage(10, 19, 1, 0), None),
            (usage(0, 0, 2, 0), Some(("emptydirfs.limit", "Usage of EmptyDir volume \"small\" exceeds the limit \"1Mi\". "))),
            (
                usage(1, 1, 0, 29),
                Some(("ephemeralpodfs.limit", "Pod ephemeral local storage usage exceeds the total limit of containers 30Mi. ")),
            ),
            (usage(11, 1, 0, 0), Some(("ephemeralcontainerfs.limit", "Container a exceeded its local ephemeral storage limit \"10Mi\". "))),
        ];
        for (usage, expected) in cases {
            let found = exceeded(&pod(), &usage);
            assert_eq!(found.as_ref().map(|(signal, message)| (*signal, message.as_str())), expected, "{usage:?}");
        }
    }

    #[test]
    fn only_pods_with_limits_are_measured() {
        let of = |spec: serde_json::Value| has_limits(&serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap());
        assert!(has_limits(&pod()));
        assert!(!of(json!({"containers": [{"name": "a"}], "volumes": [{"name": "v", "emptyDir": {}}]})));
        assert!(!of(
            json!({"containers": [{"name": "a"}], "volumes": [{"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}]})
        ));
        assert!(of(json!({"containers": [{"name": "a", "resources": {"limits": {"ephemeral-storage": "1Gi"}}}]})));
    }
}

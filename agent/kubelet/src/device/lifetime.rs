//! Which containers of a pod may run at the same time. Pure.

use k8s_openapi::api::core::v1::Pod;

use crate::pod::spec::{self, Kind};

/// Whether two containers of a pod may run at the same time. An init container has ended before the next one of its list starts, unless it
/// is a sidecar, and before the regular ones start. When a pod begins anew, all of it has ended.
pub(super) fn may_overlap(pod: &Pod, one: &str, other: &str) -> bool {
    let find = |name: &str| spec::all_containers(pod).enumerate().find(|(_, (_, c))| c.name == name).map(|(at, (kind, _))| (at, kind));
    let (Some((one, one_kind)), Some((other, other_kind))) = (find(one), find(other)) else { return true };
    match (one_kind, other_kind) {
        (Kind::Init, Kind::Init) => one == other,
        (Kind::Init, Kind::Sidecar) => other < one,
        (Kind::Sidecar, Kind::Init) => one < other,
        (Kind::Init, _) | (_, Kind::Init) => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn init_containers_overlap_with_the_sidecars_before_them() {
        let sidecar = |name: &str| json!({"name": name, "restartPolicy": "Always"});
        let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": {
            "initContainers": [{"name": "i1"}, sidecar("s1"), {"name": "i2"}, sidecar("s2")],
            "containers": [{"name": "a"}, {"name": "b"}]}}))
        .unwrap();
        let names = ["i1", "s1", "i2", "s2", "a", "b"];
        let mut overlapping = Vec::new();
        for (at, one) in names.iter().enumerate() {
            for other in &names[at + 1..] {
                assert_eq!(may_overlap(&pod, one, other), may_overlap(&pod, other, one));
                if may_overlap(&pod, one, other) {
                    overlapping.push(format!("{one} {other}"));
                }
            }
        }
        assert_eq!(overlapping, ["s1 i2", "s1 s2", "s1 a", "s1 b", "s2 a", "s2 b", "a b"]);
        assert!(may_overlap(&pod, "a", "unknown") && may_overlap(&pod, "a", "a"));
    }
}

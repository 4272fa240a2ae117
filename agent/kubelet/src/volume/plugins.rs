//! All kinds of volumes that this node supports. A new one is one file and one line here.

use k8s_openapi::api::core::v1::Volume;

use super::{
    claim::Claim,
    content::{configmap::ConfigMap, downward::DownwardApi, projected::Projected, secret::Secret},
    csi::Csi,
    emptydir::EmptyDir,
    hostpath::HostPath,
    plugin::Plugin,
};

const ALL: &[&dyn Plugin] = &[&EmptyDir, &HostPath, &ConfigMap, &Secret, &DownwardApi, &Projected, &Claim, &Csi];

/// The plugin that makes a volume of a pod.
pub(crate) fn of(volume: &Volume) -> Option<&'static dyn Plugin> {
    ALL.iter().copied().find(|plugin| plugin.handles(volume))
}

/// The plugin that owns a directory below a pod's volumes.
pub(crate) fn of_directory(name: &str) -> Option<&'static dyn Plugin> {
    ALL.iter().copied().find(|plugin| plugin.directory() == name)
}

/// The name of a volume's source, for messages.
pub(crate) fn kind(volume: &Volume) -> String {
    let value = serde_json::to_value(volume).unwrap_or_default();
    let source = value.as_object().and_then(|map| map.keys().find(|k| *k != "name").cloned());
    source.unwrap_or_else(|| "no source".into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;
    use trireme_api::schema;

    use super::*;

    const PAGE: &str = include_str!("../../../../docs/node.md");

    /// The rows of a section's table: name and state.
    fn rows(section: &str) -> Vec<(&'static str, &'static str)> {
        let (_, text) = PAGE.split_once(&format!("## {section}\n")).unwrap();
        let table = text.split("\n## ").next().unwrap().lines().filter_map(|line| line.strip_prefix("| "));
        let cells = table.filter_map(|line| line.split_once(" | ")).map(|(name, rest)| (name, rest.split(" |").next().unwrap()));
        cells.skip(1).collect()
    }

    /// The fields of types, once each, in order.
    fn fields(types: &[&str]) -> Vec<&'static str> {
        let of = |name: &&str| schema::definition(name).unwrap().fields().map(|field| field.name());
        let mut all: Vec<&str> = types.iter().flat_map(of).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    #[test]
    fn the_page_has_every_field_with_a_state() {
        for (section, types) in [
            ("Fields of a pod's specification", &["io.k8s.api.core.v1.PodSpec"][..]),
            ("Fields of a container", &["io.k8s.api.core.v1.Container"]),
            ("Security contexts", &["io.k8s.api.core.v1.PodSecurityContext", "io.k8s.api.core.v1.SecurityContext"]),
            ("Probes and hooks", &["io.k8s.api.core.v1.Probe"]),
            ("Services", &["io.k8s.api.core.v1.ServiceSpec"]),
            ("NetworkPolicies", &["io.k8s.api.networking.v1.NetworkPolicySpec"]),
        ] {
            let rows = rows(section);
            let listed: Vec<&str> = rows.iter().map(|(name, _)| *name).collect();
            assert_eq!(listed, fields(types), "{section}");
            for (name, state) in rows {
                assert!(["works", "server", "refused", "not yet"].contains(&state), "{section}: {name}: {state}");
            }
        }
    }

    #[test]
    fn the_page_says_which_volumes_this_node_makes() {
        let rows = rows("Volumes");
        let listed: Vec<&str> = rows.iter().map(|(name, _)| *name).collect();
        let known: Vec<&str> = fields(&["io.k8s.api.core.v1.Volume"]).into_iter().filter(|name| *name != "name").collect();
        assert_eq!(listed, known);
        for (name, state) in rows {
            let volume = json!({"name": "v", name: {}});
            let is_made = serde_json::from_value(volume).is_ok_and(|volume: Volume| of(&volume).is_some());
            // Sources with required fields are decoded with them.
            let required = json!({"name": "v", name: {"path": "/", "claimName": "c"}});
            let is_made = is_made || serde_json::from_value(required).is_ok_and(|volume: Volume| of(&volume).is_some());
            assert_eq!(state, if is_made { "works" } else { "refused" }, "{name}");
        }
    }
}

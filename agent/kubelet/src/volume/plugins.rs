//! All kinds of volumes that this node supports. A new one is one file and one line here.

use k8s_openapi::api::core::v1::Volume;

use super::{
    claim::Claim,
    content::{configmap::ConfigMap, downward::DownwardApi, projected::Projected, secret::Secret},
    emptydir::EmptyDir,
    hostpath::HostPath,
    plugin::Plugin,
};

const ALL: &[&dyn Plugin] = &[&EmptyDir, &HostPath, &ConfigMap, &Secret, &DownwardApi, &Projected, &Claim];

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

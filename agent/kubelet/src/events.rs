//! Events about pods and this node, in the words and with the references that upstream's kubelet uses.

use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use trireme_client::{EventKind, EventRecorder, reference};

use crate::pod::spec::{self, Kind};

/// Tells the API server what happens.
#[derive(Clone)]
pub(crate) struct Events {
    recorder: EventRecorder,
    node_name: String,
}

impl Events {
    pub(crate) fn new(recorder: EventRecorder, node_name: &str) -> Events {
        Events { recorder, node_name: node_name.into() }
    }

    /// Something about a pod as a whole.
    pub(crate) fn pod(&self, pod: &Pod, kind: EventKind, reason: &str, message: &str) {
        self.recorder.record(pod, kind, reason, message);
    }

    /// Something about one container of a pod.
    pub(crate) fn container(&self, pod: &Pod, container: &str, kind: EventKind, reason: &str, message: &str) {
        let list = match spec::container(pod, container) {
            Some((Kind::Main, _)) => "containers",
            Some((Kind::Ephemeral, _)) => "ephemeralContainers",
            _ => "initContainers",
        };
        let about = ObjectReference { field_path: Some(format!("spec.{list}{{{container}}}")), ..reference(pod) };
        self.recorder.record_ref(about, kind, reason, message);
    }

    /// Something about this node. Its UID is its name, as upstream's kubelet has it, because the event outlives the Node object.
    pub(crate) fn node(&self, kind: EventKind, reason: &str, message: &str) {
        let about = ObjectReference {
            kind: Some("Node".into()),
            name: Some(self.node_name.clone()),
            uid: Some(self.node_name.clone()),
            ..Default::default()
        };
        self.recorder.record_ref(about, kind, reason, message);
    }
}

//! PodTopologyLabels: a pod gets the zone and the region of its node as labels, when it is bound to the node.
//!
//! Owns which labels these are. A binding carries them, and the endpoint writes them with the node's name; a pod that is created with
//! `nodeName` has them from its start. They are not followed afterwards. Answers to upstream's KEP 4742 and
//! <https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#podtopologylabels>.

use std::sync::Arc;

use futures::future::BoxFuture;
use trireme_api::meta;

use crate::admission::effects::Effects;
use crate::admission::find;
use crate::admission::plugin::{Environment, Phase, Plugin};
use crate::admission::request::{AdmissionRequest, Operation};
use crate::error::Answer;
use crate::storage::lookup::ObjectReader;

const LABELS: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

/// The plugin.
pub struct PodTopologyLabels {
    reader: Arc<dyn ObjectReader>,
}

impl PodTopologyLabels {
    /// Made from `environment`.
    pub fn new(environment: &Environment) -> PodTopologyLabels {
        PodTopologyLabels { reader: environment.reader.clone() }
    }

    async fn fill_in(&self, request: &mut AdmissionRequest) -> Answer<()> {
        let Some(name) = node_name(request).filter(|name| !name.is_empty()) else { return Ok(()) };
        // A node that does not exist refuses nothing here, as upstream.
        let Some(node) = find(&*self.reader, "", "nodes", "", name).await else { return Ok(()) };
        for key in LABELS {
            if let Some(value) = meta::label(&node.object, key)
                && let Some(object) = request.object_mut()
            {
                meta::set_label(object, key, value);
            }
        }
        Ok(())
    }
}

impl Plugin for PodTopologyLabels {
    fn name(&self) -> &'static str {
        "PodTopologyLabels"
    }

    fn phases(&self) -> &'static [Phase] {
        &[Phase::Admit]
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.operation == Operation::Create && (request.is_on("", "pods", "") || request.is_on("", "pods", "binding"))
    }

    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest, _effects: &'a mut Effects) -> BoxFuture<'a, Answer<()>> {
        Box::pin(self.fill_in(request))
    }
}

/// The node of a pod or of a binding.
fn node_name(request: &AdmissionRequest) -> Option<&str> {
    let object = request.object()?;
    if request.subresource.is_empty() {
        return Some(meta::str_at(object, &["spec", "nodeName"]));
    }
    (meta::str_at(object, &["target", "kind"]) == "Node").then(|| meta::str_at(object, &["target", "name"]))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::admission::tests::{on, pod, world};

    #[tokio::test]
    async fn zone_and_region_of_the_node_and_nothing_else() {
        let world = world();
        let labels = json!({"topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r", "topology.kubernetes.io/rack": "k",
            "sub.topology.kubernetes.io/zone": "s", "pool": "p"});
        world.reader.put("", "nodes", json!({"metadata": {"name": "labelled", "labels": labels}}));
        let of_node = json!({"topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r"});
        let binding = |kind: &str, node: &str, labels: Value| {
            let object = json!({"metadata": {"name": "p", "labels": labels}, "target": {"kind": kind, "name": node}});
            let mut request = on("", "pods", "a", Operation::Create, object);
            request.subresource = "binding".to_owned();
            request
        };
        let old_zone = json!({"topology.kubernetes.io/zone": "old", "own": "o"});
        let both = json!({"topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r", "own": "o"});
        for (mut request, wanted) in [
            (binding("Node", "labelled", Value::Null), of_node.clone()),
            (binding("Node", "labelled", old_zone.clone()), both),
            (binding("Node", "n1", old_zone.clone()), old_zone.clone()),
            (binding("Node", "absent", old_zone.clone()), old_zone.clone()),
            (binding("", "labelled", old_zone.clone()), old_zone),
            (pod("a", json!({"nodeName": "labelled"})), of_node),
            (pod("a", json!({})), Value::Null),
        ] {
            world.admit(&mut request).await.unwrap();
            assert_eq!(request.take_object()["metadata"]["labels"], wanted);
        }
        let mut update = pod("a", json!({"nodeName": "labelled"}));
        update.operation = Operation::Update;
        world.admit(&mut update).await.unwrap();
        assert_eq!(update.take_object()["metadata"].get("labels"), None, "a pod keeps the labels with which it was bound");
    }
}

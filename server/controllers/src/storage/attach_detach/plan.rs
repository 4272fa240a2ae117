//! What has to happen on one node: what to attach, what to report as attached, what to detach. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::VolumeAttachment;
use trireme_client::Object;
use trireme_client::storage::csi::{VolumeId, unique_prefix};

use super::desired::Attachable;

/// Upstream's time after which a volume of an unhealthy node is detached although its kubelet has not said that it may be.
const FORCE_AFTER: Duration = Duration::from_secs(360);
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// An attachment that exists.
pub(super) struct Attached {
    pub(super) object: Arc<VolumeAttachment>,
    /// None where its volume is gone.
    pub(super) id: Option<VolumeId>,
}

/// An attachment that nobody wants any more.
pub(super) struct Detach {
    pub(super) attachment: Arc<VolumeAttachment>,
    id: Option<VolumeId>,
    /// Whatever the kubelet says.
    pub(super) is_forced: bool,
}

/// The outcome.
#[derive(Default)]
pub(super) struct Plan {
    /// The names of the attachments to make.
    pub(super) create: Vec<String>,
    /// What the node is told to have.
    pub(super) report: BTreeSet<String>,
    pub(super) detach: Vec<Detach>,
    /// Something waits for time to pass.
    pub(super) look_again: bool,
}

impl Detach {
    /// Whether the node's kubelet says that it uses the volume.
    pub(super) fn is_in_use(&self, node: &Node) -> bool {
        is_in_use(node, self.id.as_ref(), &self.attachment.spec.attacher)
    }
}

/// Of an attachment without its volume it is not known which one it was: any of its driver's may be it.
fn is_in_use(node: &Node, id: Option<&VolumeId>, driver: &str) -> bool {
    let mut used = node.status.iter().flat_map(|status| status.volumes_in_use.iter().flatten());
    match id {
        Some(id) => used.any(|name| *name == id.unique_name()),
        None => used.any(|name| name.starts_with(&unique_prefix(driver))),
    }
}

/// What a node is told to have.
pub(super) fn reported(node: &Node) -> BTreeSet<String> {
    node.status.iter().flat_map(|status| status.volumes_attached.iter().flatten()).map(|volume| volume.name.clone()).collect()
}

fn is_out_of_service(node: &Node) -> bool {
    node.spec.iter().flat_map(|spec| spec.taints.iter().flatten()).any(|taint| taint.key == OUT_OF_SERVICE)
}

fn is_healthy(node: &Node) -> bool {
    let mut conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// What of a node has a say here.
pub(super) fn seen(node: &Node) -> impl PartialEq {
    let used = node.status.as_ref().and_then(|status| status.volumes_in_use.clone()).unwrap_or_default();
    (used, reported(node), is_out_of_service(node), is_healthy(node), node.uid().to_owned())
}

/// Plans for a node, which may be gone. `unwanted_for` tells how long nobody has wanted an attachment.
pub(super) fn plan(
    name: &str,
    node: Option<&Node>,
    wanted: &BTreeMap<String, Attachable>,
    attached: &BTreeMap<String, Attached>,
    unwanted_for: impl Fn(&str) -> Duration,
) -> Plan {
    let mut plan = Plan::default();
    if node.is_some() {
        plan.create = wanted.keys().filter(|attachment| !attached.contains_key(*attachment)).cloned().collect();
    }
    for (attachment, one) in attached {
        let is_attached = one.object.status.as_ref().is_some_and(|status| status.attached);
        let is_leaving = one.object.metadata.deletion_timestamp.is_some();
        if is_leaving {
            continue;
        }
        let unique = one.id.as_ref().map(VolumeId::unique_name);
        if wanted.contains_key(attachment) {
            plan.report.extend(unique.filter(|_| is_attached));
            continue;
        }
        let used = node.is_none_or(|node| is_in_use(node, one.id.as_ref(), &one.object.spec.attacher));
        let waited = unwanted_for(attachment);
        let is_forced = node.is_some_and(is_out_of_service) || (waited >= FORCE_AFTER && !node.is_some_and(is_healthy));
        if used && !is_forced {
            tracing::debug!(node = name, attachment, "the kubelet has not said that the volume may be detached");
            plan.report.extend(unique.filter(|_| is_attached));
            plan.look_again = true;
        } else {
            plan.detach.push(Detach { attachment: Arc::clone(&one.object), id: one.id.clone(), is_forced: used });
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn id() -> VolumeId {
        VolumeId { driver: "d".into(), handle: "h".into() }
    }

    fn attached(status: Value) -> BTreeMap<String, Attached> {
        let object = json!({"metadata": {"name": id().attachment("n")}, "spec": {"attacher": "d", "nodeName": "n",
            "source": {"persistentVolumeName": "pv"}}, "status": status});
        let object = Arc::new(serde_json::from_value(object).unwrap());
        BTreeMap::from([(id().attachment("n"), Attached { object, id: Some(id()) })])
    }

    fn wanted() -> BTreeMap<String, Attachable> {
        let one = Attachable { id: id(), driver: "d".into(), volume: "pv".into(), is_shared: false, pods: Vec::new() };
        BTreeMap::from([(id().attachment("n"), one)])
    }

    fn node(in_use: &[&str], ready: &str, taint: Option<&str>) -> Node {
        let taints: Vec<Value> = taint.iter().map(|key| json!({"key": key, "effect": "NoExecute"})).collect();
        serde_json::from_value(json!({"metadata": {"name": "n"}, "spec": {"taints": taints},
            "status": {"volumesInUse": in_use, "conditions": [{"type": "Ready", "status": ready}]}}))
        .unwrap()
    }

    /// What is made, reported, detached, and whether by force.
    fn outcome(plan: &Plan) -> (usize, usize, usize, bool) {
        (plan.create.len(), plan.report.len(), plan.detach.len(), plan.detach.iter().any(|detach| detach.is_forced))
    }

    #[test]
    fn a_volume_is_attached_reported_and_detached_when_the_kubelet_lets_go_of_it() {
        let used = id().unique_name();
        let idle = node(&[], "True", None);
        let busy = node(&[&used], "True", None);
        let sick = node(&[&used], "Unknown", None);
        let out = node(&[&used], "Unknown", Some(OUT_OF_SERVICE));
        let yes = || attached(json!({"attached": true}));
        let early = |_: &str| Duration::from_secs(359);
        let late = |_: &str| Duration::from_secs(361);
        let none = BTreeMap::new();
        let nothing = BTreeMap::new();
        let cases = [
            ("wanted", plan("n", Some(&idle), &wanted(), &none, early), (1, 0, 0, false)),
            ("not for a node that is gone", plan("n", None, &wanted(), &none, early), (0, 0, 0, false)),
            ("under way", plan("n", Some(&idle), &wanted(), &attached(json!({"attached": false})), early), (0, 0, 0, false)),
            ("there", plan("n", Some(&idle), &wanted(), &yes(), early), (0, 1, 0, false)),
            ("let go", plan("n", Some(&idle), &nothing, &yes(), early), (0, 0, 1, false)),
            ("in use", plan("n", Some(&busy), &nothing, &yes(), early), (0, 1, 0, false)),
            ("in use on a healthy node for ever", plan("n", Some(&busy), &nothing, &yes(), late), (0, 1, 0, false)),
            ("in use on a sick node", plan("n", Some(&sick), &nothing, &yes(), early), (0, 1, 0, false)),
            ("in use on a sick node for long", plan("n", Some(&sick), &nothing, &yes(), late), (0, 0, 1, true)),
            ("out of service", plan("n", Some(&out), &nothing, &yes(), early), (0, 0, 1, true)),
            ("its node gone for long", plan("n", None, &nothing, &yes(), late), (0, 0, 1, true)),
        ];
        for (what, plan, expected) in cases {
            assert_eq!(outcome(&plan), expected, "{what}");
        }
    }

    #[test]
    fn an_attachment_whose_volume_is_gone_waits_for_the_drivers_last_one() {
        let mut orphan = attached(json!({"attached": true}));
        orphan.values_mut().for_each(|one| one.id = None);
        let other = node(&["kubernetes.io/csi/other^h"], "True", None);
        let same = node(&["kubernetes.io/csi/d^x"], "True", None);
        let soon = |_: &str| Duration::ZERO;
        assert_eq!(plan("n", Some(&same), &BTreeMap::new(), &orphan, soon).detach.len(), 0);
        assert_eq!(plan("n", Some(&other), &BTreeMap::new(), &orphan, soon).detach.len(), 1);
    }
}

//! Pods. Upstream: `pkg/registry/core/pod/strategy.go`.

pub(crate) mod address;
pub(crate) mod container;
pub(crate) mod default;
mod difference;
pub(crate) mod handler;
pub(crate) mod path;
pub(crate) mod qos;
mod reference;
pub(crate) mod requirements;
pub(crate) mod scheduling;
mod security;
pub(crate) mod spec;
mod subresource;
mod table;
mod update;
pub(crate) mod volume;
pub(crate) mod warnings;

use serde_json::{Value, json};

use crate::apply::Untracked;
use crate::gvk::GroupVersionKind;
use crate::meta;
use crate::resource::{Cells, Column, Kind, RowCondition, SelectableField, carry_metadata};
use crate::time::Timestamp;
use crate::validate::At;

/// A pod.
pub(crate) struct Pod;

/// The parts of upstream's behaviour for pod specs that are missing in every kind with a pod template.
pub(crate) const MISSING: &str = "Windows options and host processes; seccomp and AppArmor annotations against fields; sizes of huge \
     pages; pod-level resources against container resources; details of legacy volume types (iscsi, rbd, quobyte, ...); \
     the difference shown when an immutable field changes has all unset fields of containers and projected volumes only";

impl Kind for Pod {
    fn unconditional_update(&self) -> bool {
        true
    }

    fn missing_behaviour(&self) -> &'static str {
        MISSING
    }

    fn default(&self, _version: &str, object: &mut Value) {
        default::pod(object);
    }

    fn prepare_for_create(&self, pod: &mut Value, _now: Timestamp) {
        let mut status = json!({"phase": "Pending", "qosClass": qos::class(pod)});
        if !meta::list_at(pod, &["spec", "schedulingGates"]).is_empty() {
            status["conditions"] = json!([{
                "type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "lastProbeTime": null,
                "lastTransitionTime": null, "message": "Scheduling is blocked due to non-empty scheduling gates",
            }]);
        }
        pod["status"] = status;
    }

    /// A kubelet that does not repeat the quality of service did not mean to change it.
    fn prepare_for_status_update(&self, pod: &mut Value, old: &Value, _now: Timestamp) {
        carry_metadata(pod, old, "ownerReferences");
        if meta::str_at(pod, &["status", "qosClass"]).is_empty()
            && let Some(class) = meta::get(old, &["status", "qosClass"])
        {
            meta::map_at(pod, "status").insert("qosClass".to_owned(), class.clone());
        }
    }

    fn prepare_for_subresource(&self, subresource: &str, object: &mut Value, old: &Value, _now: Timestamp) {
        subresource::prepare(subresource, object, old);
    }

    fn untracked(&self, subresource: &str) -> Untracked {
        match subresource {
            "status" => Untracked::Only(&["spec", "metadata.deletionTimestamp", "metadata.ownerReferences"]),
            other => subresource::untracked(other),
        }
    }

    fn validate_create(&self, object: &At<'_>) {
        spec::create(object);
    }

    fn validate_update(&self, object: &At<'_>, old: &At<'_>) {
        update::update(object, old);
    }

    fn validate_status(&self, object: &At<'_>, old: &At<'_>) {
        update::update_status(object, old);
    }

    fn validate_subresource(&self, subresource: &str, object: &At<'_>, old: &At<'_>) {
        match subresource {
            "ephemeralcontainers" => update::update_ephemeral(object, old),
            "resize" => update::update_resize(object, old),
            _ => self.validate_update(object, old),
        }
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let mut warnings = Vec::new();
        if old.is_none() {
            warnings::host_name(object, &mut warnings);
        }
        warnings::pod_spec(&object["spec"], "spec", &mut warnings);
        warnings
    }

    /// Zero for a pod that is on no node or has finished; otherwise the period of the request, or else that of the pod's spec.
    fn grace_period_secs(&self, pod: &Value, requested: Option<i64>) -> Option<i64> {
        let own = meta::i64_at(pod, &["spec", "terminationGracePeriodSeconds"]);
        let seconds = requested.or(own).unwrap_or(0);
        let finished = matches!(meta::str_at(pod, &["status", "phase"]), "Succeeded" | "Failed");
        Some(if meta::str_at(pod, &["spec", "nodeName"]).is_empty() || finished {
            0
        } else if seconds < 0 {
            1
        } else {
            seconds
        })
    }

    fn mark_evicted(&self, pod: &mut Value, now: Timestamp) {
        subresource::mark_evicted(pod, now);
    }

    fn returns_deleted(&self) -> bool {
        true
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|Ready|Status|Restarts|Age|+IP|+Node|+Nominated Node|+Readiness Gates")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        let mut row = vec![cells.name()];
        row.extend(table::pod(cells));
        row
    }

    /// A finished pod is marked, so that clients may hide it.
    fn row_conditions(&self, pod: &Value) -> Vec<RowCondition> {
        let completed = |reason, message| vec![RowCondition { type_: "Completed", reason, message }];
        match meta::str_at(pod, &["status", "phase"]) {
            "Succeeded" => completed("Succeeded", "The pod has completed successfully."),
            "Failed" => completed("Failed", "The pod failed."),
            _ => Vec::new(),
        }
    }

    fn convert(&self, object: Value, from: &GroupVersionKind, to: &GroupVersionKind) -> Result<Value, String> {
        match address::is_wanted(to) {
            true => Ok(address::of(&object)),
            false => Err(format!("{from} cannot be converted to {to}")),
        }
    }

    fn selectable_fields(&self) -> Vec<SelectableField> {
        [
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ]
        .map(SelectableField::new)
        .into_iter()
        .chain([SelectableField::new("spec.hostNetwork").or("false"), SelectableField::new("status.podIPs").at(&["status.podIPs[].ip"])])
        .collect()
    }
}

//! What the controller asks of a StatefulSet. No I/O.

use k8s_openapi::api::apps::v1::{RollingUpdateStatefulSetStrategy, StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use trireme_client::Object;

use crate::workloads::amount::scaled;

/// A StatefulSet with what its spec leaves out.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) set: &'a StatefulSet,
    pub(super) spec: &'a StatefulSetSpec,
}

/// Which claims go with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Retention {
    pub(super) delete_with_set: bool,
    pub(super) delete_with_pod: bool,
}

impl<'a> View<'a> {
    pub(super) fn of(set: &'a StatefulSet) -> Option<Self> {
        set.spec.as_ref().map(|spec| Self { set, spec })
    }

    pub(super) fn replicas(&self) -> i32 {
        self.spec.replicas.unwrap_or(1).max(0)
    }

    /// The first ordinal.
    pub(super) fn start(&self) -> i32 {
        self.spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0).max(0)
    }

    /// The ordinals that there should be, lowest first.
    pub(super) fn ordinals(&self) -> std::ops::Range<i32> {
        self.start()..self.start().saturating_add(self.replicas())
    }

    /// Whether pods come and go one after the other.
    pub(super) fn is_ordered(&self) -> bool {
        self.spec.pod_management_policy.as_deref() != Some("Parallel")
    }

    /// Whether outdated pods are replaced without someone deleting them.
    pub(super) fn updates_by_itself(&self) -> bool {
        let kind = self.spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref());
        !matches!(kind, Some("OnDelete"))
    }

    fn rolling(&self) -> Option<&'a RollingUpdateStatefulSetStrategy> {
        self.spec.update_strategy.as_ref()?.rolling_update.as_ref()
    }

    /// The first ordinal that an update touches.
    pub(super) fn first_updated(&self) -> i32 {
        let partition = self.rolling().and_then(|rolling| rolling.partition).unwrap_or(0).max(0);
        self.start().saturating_add(partition)
    }

    /// How many pods an update may make unavailable at once; `None` where the spec leaves it to the order of the ordinals.
    pub(super) fn max_unavailable(&self) -> Option<i32> {
        let value: &IntOrString = self.rolling()?.max_unavailable.as_ref()?;
        Some(scaled(value, self.replicas(), false).max(1))
    }

    /// Whether a pod that is missing is made from the current revision, not from the updated one.
    pub(super) fn is_made_from_current(&self, ordinal: i32) -> bool {
        self.updates_by_itself() && ordinal < self.first_updated()
    }

    pub(super) fn min_ready_secs(&self) -> i32 {
        self.spec.min_ready_seconds.unwrap_or(0)
    }

    /// How many revisions that nothing uses are kept; `None` is all.
    pub(super) fn history_limit(&self) -> Option<usize> {
        usize::try_from(self.spec.revision_history_limit.unwrap_or(10)).ok()
    }

    pub(super) fn claim_templates(&self) -> &'a [PersistentVolumeClaim] {
        self.spec.volume_claim_templates.as_deref().unwrap_or_default()
    }

    pub(super) fn retention(&self) -> Retention {
        let policy = self.spec.persistent_volume_claim_retention_policy.as_ref();
        let deletes = |field: Option<&String>| field.is_some_and(|value| value == "Delete");
        Retention {
            delete_with_set: deletes(policy.and_then(|policy| policy.when_deleted.as_ref())),
            delete_with_pod: deletes(policy.and_then(|policy| policy.when_scaled.as_ref())),
        }
    }

    pub(super) fn name(&self) -> &'a str {
        self.set.name()
    }
}

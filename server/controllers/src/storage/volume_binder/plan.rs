//! Decides the next action for a claim or a volume. No I/O.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use trireme_client::storage::{self, Place};
use trireme_client::{EventKind, Object};

/// An event to record.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Said {
    pub(super) kind: EventKind,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Said {
    fn normal(reason: &'static str, message: impl Into<String>) -> Option<Self> {
        Some(Self { kind: EventKind::Normal, reason, message: message.into() })
    }

    pub(super) fn warning(reason: &'static str, message: impl Into<String>) -> Option<Self> {
        Some(Self { kind: EventKind::Warning, reason, message: message.into() })
    }
}

/// The action for a claim.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Claim {
    /// It is bound to this volume, or its incomplete binding is completed.
    Bind(Arc<PersistentVolume>),
    /// It waits.
    Pend(Option<Said>),
    /// Its volume is lost to it.
    Lose(Option<Said>),
    /// A volume is made for it.
    Provision(Arc<StorageClass>),
    /// It gets the default class.
    Classify(String),
}

/// The objects beside a claim.
pub(super) struct Surroundings<'a> {
    pub(super) volumes: &'a [Arc<PersistentVolume>],
    pub(super) classes: &'a [Arc<StorageClass>],
    /// Pods without a node that use the claim.
    pub(super) waiting_pods: &'a [String],
}

impl Surroundings<'_> {
    fn volume(&self, name: &str) -> Option<&Arc<PersistentVolume>> {
        self.volumes.iter().find(|volume| volume.name() == name)
    }

    fn class(&self, name: &str) -> Option<&Arc<StorageClass>> {
        self.classes.iter().find(|class| class.name() == name)
    }

    /// The default class: the newest, then by name.
    fn default_class(&self) -> Option<&Arc<StorageClass>> {
        let defaults = self.classes.iter().filter(|class| storage::is_default(class));
        let made = |class: &StorageClass| class.metadata.creation_timestamp.as_ref().map(|time| time.0);
        defaults.min_by(|a, b| made(b).cmp(&made(a)).then_with(|| a.name().cmp(b.name())))
    }
}

/// Decides about a claim.
pub(super) fn claim(claim: &PersistentVolumeClaim, around: &Surroundings<'_>) -> Claim {
    if storage::annotation(claim, storage::BIND_COMPLETED).is_some() {
        return bound(claim, around);
    }
    match storage::volume_of(claim) {
        "" => unbound(claim, around),
        name => wants(claim, name, around),
    }
}

/// A claim whose binding was completed before.
fn bound(claim: &PersistentVolumeClaim, around: &Surroundings<'_>) -> Claim {
    let name = storage::volume_of(claim);
    if name.is_empty() {
        return Claim::Lose(Said::warning("ClaimLost", "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!"));
    }
    let Some(volume) = around.volume(name) else {
        return Claim::Lose(Said::warning("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!"));
    };
    let owner = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    if owner.is_none_or(|owner| owner.uid.as_deref() == Some(claim.uid())) || storage::is_meant_for(volume, claim) {
        return Claim::Bind(Arc::clone(volume));
    }
    Claim::Lose(Said::warning("ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly"))
}

/// One that names its volume.
fn wants(claim: &PersistentVolumeClaim, name: &str, around: &Surroundings<'_>) -> Claim {
    let Some(volume) = around.volume(name) else { return Claim::Pend(None) };
    if storage::is_meant_for(volume, claim) {
        return Claim::Bind(Arc::clone(volume));
    }
    if volume.spec.as_ref().is_some_and(|spec| spec.claim_ref.is_some()) {
        return Claim::Pend(Said::warning("FailedBinding", format!("volume {name:?} already bound to a different claim.")));
    }
    match storage::mismatch(volume, claim) {
        Some(why) => Claim::Pend(Said::warning("VolumeMismatch", format!("Cannot bind to requested volume {name:?}: {why}"))),
        None => Claim::Bind(Arc::clone(volume)),
    }
}

fn unbound(claim: &PersistentVolumeClaim, around: &Surroundings<'_>) -> Claim {
    if storage::names_no_class(claim)
        && let Some(class) = around.default_class()
    {
        return Claim::Classify(class.name().to_owned());
    }
    let name = storage::class_of_claim(claim);
    let class = around.class(name);
    let late = class.is_some_and(|class| storage::binds_late(class));
    let place = if late { Place::Open } else { Place::Anywhere };
    if let Some(volume) = storage::best(claim, around.volumes, place, |_| false) {
        return Claim::Bind(Arc::clone(volume));
    }
    if name.is_empty() {
        return Claim::Pend(Said::normal("FailedBinding", "no persistent volumes available for this claim and no storage class is set"));
    }
    let Some(class) = class else {
        return Claim::Pend(Said::warning("ProvisioningFailed", format!("storageclass.storage.k8s.io {name:?} not found")));
    };
    if claim.metadata.deletion_timestamp.is_some() {
        return Claim::Pend(None);
    }
    if late && storage::annotation(claim, storage::SELECTED_NODE).is_none() {
        return Claim::Pend(match around.waiting_pods {
            [] => Said::normal("WaitForFirstConsumer", "waiting for first consumer to be created before binding"),
            [pod] => Said::normal("WaitForPodScheduled", format!("waiting for pod {pod} to be scheduled")),
            pods => Said::normal("WaitForPodScheduled", format!("waiting for pods {} to be scheduled", pods.join(","))),
        });
    }
    Claim::Provision(Arc::clone(class))
}

/// The action for a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Volume {
    /// No claim is bound to it, or it is reserved for a claim that is not bound to it yet.
    Offer,
    /// A claim has it.
    Keep,
    /// Its claim gets the other end of the binding.
    Await,
    /// It cannot serve the claim that it names.
    Mismatch,
    /// Its claim is gone, or has another volume and this one was made for it alone.
    Reclaim,
    /// Its claim has another volume.
    Unbind,
}

/// Decides about a volume; `claim` is the one that it names, with the same uid.
pub(super) fn volume(volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>) -> Volume {
    let Some(reference) = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) else { return Volume::Offer };
    if reference.uid.as_deref().unwrap_or_default().is_empty() {
        return Volume::Offer;
    }
    let Some(claim) = claim else { return Volume::Reclaim };
    match storage::volume_of(claim) {
        "" if mode(volume.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref()))
            != mode(claim.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref())) =>
        {
            Volume::Mismatch
        }
        "" => Volume::Await,
        name if name == volume.name() => Volume::Keep,
        _ if storage::annotation(volume, storage::PROVISIONED_BY).is_some()
            && volume.spec.as_ref().is_some_and(|spec| spec.persistent_volume_reclaim_policy.as_deref() == Some("Delete")) =>
        {
            Volume::Reclaim
        }
        _ => Volume::Unbind,
    }
}

fn mode(given: Option<&str>) -> &str {
    given.unwrap_or("Filesystem")
}

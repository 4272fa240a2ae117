//! What a pod wants of a driver: from an inline volume, or from the PersistentVolume that its claim is bound to.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    CSIPersistentVolumeSource, CSIVolumeSource, PersistentVolume, PersistentVolumeClaim, Pod, SecretReference, Volume,
};
use trireme_client::Object;

use super::layout::{Form, VolumeId, ephemeral_handle};
use crate::pod::spec;

/// A Secret by namespace and name.
pub(super) type SecretName = (String, String);

/// Where a pod's volume comes from.
pub(crate) enum Source<'a> {
    /// The pod's specification names a driver.
    Inline(&'a CSIVolumeSource),
    /// The pod names a claim.
    Claim(Claimed<'a>),
}

/// A claim, and the volume that it is bound to.
pub(crate) struct Claimed<'a> {
    pub(crate) source: &'a CSIPersistentVolumeSource,
    pub(crate) volume: &'a PersistentVolume,
    pub(crate) claim: &'a PersistentVolumeClaim,
    pub(crate) read_only: bool,
}

/// A volume of a driver, and how a pod wants it.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// The pod's name for it.
    pub(super) volume: String,
    /// The name of the PersistentVolume; of an inline volume, the pod's name for it.
    pub(super) spec_name: String,
    pub(super) id: VolumeId,
    /// It is made for the pod, and goes with it.
    pub(super) ephemeral: bool,
    pub(super) form: Form,
    pub(super) fs_type: String,
    pub(super) attributes: BTreeMap<String, String>,
    pub(super) read_only: bool,
    pub(super) access_modes: Vec<String>,
    pub(super) mount_options: Vec<String>,
    pub(super) stage_secret: Option<SecretName>,
    pub(super) publish_secret: Option<SecretName>,
    pub(super) expand_secret: Option<SecretName>,
    /// Namespace and name of the claim.
    pub(super) claim: Option<(String, String)>,
    /// How large the volume is, and how large the claim is said to be, as quantities.
    pub(super) sizes: Option<(String, String)>,
}

impl Wanted {
    pub(crate) fn new(volume: &Volume, source: &Source<'_>, pod: &Pod) -> Wanted {
        match source {
            Source::Inline(source) => inline(volume, source, pod),
            Source::Claim(claimed) => claimed_volume(volume, claimed),
        }
    }

    /// Upstream's names of the two steps, for events.
    pub(super) fn steps(&self) -> (&'static str, &'static str) {
        match self.form {
            Form::FileSystem => ("MountVolume.MountDevice", "MountVolume.SetUp"),
            Form::Device => ("MapVolume.SetUpDevice", "MapVolume.MapPodDevice"),
        }
    }
}

fn inline(volume: &Volume, source: &CSIVolumeSource, pod: &Pod) -> Wanted {
    let secret = source.node_publish_secret_ref.as_ref();
    Wanted {
        volume: volume.name.clone(),
        spec_name: volume.name.clone(),
        id: VolumeId { driver: source.driver.clone(), handle: ephemeral_handle(spec::uid(pod), &volume.name) },
        ephemeral: true,
        form: Form::FileSystem,
        fs_type: source.fs_type.clone().unwrap_or_default(),
        attributes: source.volume_attributes.clone().unwrap_or_default(),
        read_only: source.read_only == Some(true),
        access_modes: Vec::new(),
        mount_options: Vec::new(),
        stage_secret: None,
        publish_secret: secret.map(|secret| (spec::namespace(pod).to_owned(), secret.name.clone())),
        expand_secret: None,
        claim: None,
        sizes: None,
    }
}

fn claimed_volume(volume: &Volume, claimed: &Claimed<'_>) -> Wanted {
    let Claimed { source, volume: bound, claim, read_only } = claimed;
    let spec = bound.spec.as_ref();
    let named = |reference: &Option<SecretReference>| {
        let reference = reference.as_ref()?;
        Some((reference.namespace.clone()?, reference.name.clone()?))
    };
    let is_block = spec.is_some_and(|spec| spec.volume_mode.as_deref() == Some("Block"));
    let capacity = spec.and_then(|spec| spec.capacity.as_ref()?.get("storage"));
    let told = claim.status.as_ref().and_then(|status| status.capacity.as_ref()?.get("storage"));
    Wanted {
        volume: volume.name.clone(),
        spec_name: bound.name().to_owned(),
        id: VolumeId { driver: source.driver.clone(), handle: source.volume_handle.clone() },
        ephemeral: false,
        form: if is_block { Form::Device } else { Form::FileSystem },
        fs_type: source.fs_type.clone().unwrap_or_default(),
        attributes: source.volume_attributes.clone().unwrap_or_default(),
        read_only: *read_only,
        access_modes: spec.and_then(|spec| spec.access_modes.clone()).unwrap_or_default(),
        mount_options: spec.and_then(|spec| spec.mount_options.clone()).unwrap_or_default(),
        stage_secret: named(&source.node_stage_secret_ref),
        publish_secret: named(&source.node_publish_secret_ref),
        expand_secret: named(&source.node_expand_secret_ref),
        claim: Some((claim.namespace().to_owned(), claim.name().to_owned())),
        sizes: capacity.zip(told).map(|(capacity, told)| (capacity.0.clone(), told.0.clone())),
    }
}

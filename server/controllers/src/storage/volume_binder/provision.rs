//! Has a volume made for a claim, by the provisioner that its class names.
//!
//! Must not make volumes: [`crate::storage::local_provisioner`] makes those of the cluster's own class, and programs of their own all others.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/storage/dynamic-provisioning/>.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::json;
use trireme_client::{ObjectKey, storage};

use super::binder::Binder;
use crate::Error;

/// Asks for a volume.
pub(super) async fn provision(binder: &Binder, key: &ObjectKey, claim: &PersistentVolumeClaim, class: &StorageClass) -> Result<(), Error> {
    let provisioner = class.provisioner.as_str();
    if provisioner.starts_with("kubernetes.io/") {
        binder.warn(claim, "ProvisioningFailed", format!("no volume plugin matched name: {provisioner}"));
        return Ok(());
    }
    let asked = |annotation: &str| storage::annotation(claim, annotation) == Some(provisioner);
    if !asked(storage::PROVISIONER) || !asked(storage::BETA_PROVISIONER) {
        let annotations = json!({storage::PROVISIONER: provisioner, storage::BETA_PROVISIONER: provisioner});
        binder.write_claim(key, claim, json!({"metadata": {"annotations": annotations}})).await?;
    }
    let message = format!(
        "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the system administrator. \
         If volume creation is delayed, please verify that the provisioner is running and correctly registered."
    );
    binder.tell(claim, "ExternalProvisioning", message);
    Ok(())
}

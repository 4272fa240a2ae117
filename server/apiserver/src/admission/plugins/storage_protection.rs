//! StorageObjectInUseProtection: new claims and volumes get the finalizers that keep them while they are in use.
//!
//! The controllers of the same names take them off again. Answers to
//! <https://kubernetes.io/docs/concepts/storage/persistent-volumes/#storage-object-in-use-protection>.

use futures::future::BoxFuture;
use trireme_api::meta;

use crate::admission::effects::Effects;
use crate::admission::plugin::{Phase, Plugin};
use crate::admission::request::{AdmissionRequest, Operation};
use crate::error::Answer;

const FINALIZERS: [(&str, &str); 2] =
    [("persistentvolumeclaims", "kubernetes.io/pvc-protection"), ("persistentvolumes", "kubernetes.io/pv-protection")];

/// The plugin.
pub struct StorageObjectInUseProtection;

fn finalizer_for(request: &AdmissionRequest) -> Option<&'static str> {
    FINALIZERS.iter().find(|(plural, _)| request.is_on("", plural, "")).map(|(_, finalizer)| *finalizer)
}

impl Plugin for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    fn phases(&self) -> &'static [Phase] {
        &[Phase::Admit]
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.operation == Operation::Create && finalizer_for(request).is_some()
    }

    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest, _effects: &'a mut Effects) -> BoxFuture<'a, Answer<()>> {
        if let Some(finalizer) = finalizer_for(request)
            && let Some(object) = request.object_mut()
        {
            let mut finalizers: Vec<String> = meta::finalizers(object).into_iter().map(str::to_owned).collect();
            if !finalizers.iter().any(|known| known == finalizer) {
                finalizers.push(finalizer.to_owned());
                let finalizers: Vec<&str> = finalizers.iter().map(String::as_str).collect();
                meta::set_finalizers(object, &finalizers);
            }
        }
        Box::pin(std::future::ready(Ok(())))
    }
}

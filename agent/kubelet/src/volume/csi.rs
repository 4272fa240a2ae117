//! csi: a volume that a driver makes for one pod. Answers to
//! <https://kubernetes.io/docs/concepts/storage/ephemeral-volumes/#csi-ephemeral-volumes>.
//!
//! Must not speak to drivers: the module `csi` of this crate does.

use std::path::PathBuf;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Volume;

use super::plugin::{Context, Plugin, Ready};
use crate::{
    csi::{Source, Wanted},
    error::{Error, Result},
};

pub(crate) struct Csi;

impl Plugin for Csi {
    fn directory(&self) -> &'static str {
        "kubernetes.io~csi"
    }

    fn handles(&self, volume: &Volume) -> bool {
        volume.csi.is_some()
    }

    fn set_up<'a>(&'a self, volume: &'a Volume, _: PathBuf, context: &'a Context<'_>) -> BoxFuture<'a, Result<Ready>> {
        Box::pin(async move {
            let source = volume.csi.as_ref().ok_or_else(|| Error::Config(format!("volume {:?} names no driver", volume.name)))?;
            let wanted = Wanted::new(volume, &Source::Inline(source), context.pod);
            context.csi.mount(&wanted, context).await
        })
    }

    /// Drivers are told again after a start of the agent.
    fn follows_objects(&self) -> bool {
        true
    }
}

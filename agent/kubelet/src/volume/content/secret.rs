//! secret: each key of a Secret is a file, in memory. Answers to <https://kubernetes.io/docs/concepts/storage/volumes/#secret>.

use std::path::PathBuf;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Volume;

use super::{
    atomic::{self, Payload},
    source::{Choice, Origin},
};
use crate::{
    clock::blocking,
    error::Result,
    volume::{
        mounts,
        plugin::{Context, Plugin, Ready},
    },
};

/// No file system of Secrets may take more of the host's memory.
pub(super) const TMPFS_OPTIONS: &str = "size=64m,mode=0755";

pub(crate) struct Secret;

impl Plugin for Secret {
    fn directory(&self) -> &'static str {
        "kubernetes.io~secret"
    }

    fn handles(&self, volume: &Volume) -> bool {
        volume.secret.is_some()
    }

    fn set_up<'a>(&'a self, volume: &'a Volume, path: PathBuf, context: &'a Context<'_>) -> BoxFuture<'a, Result<Ready>> {
        Box::pin(async move {
            let mut payload = Payload::new();
            if let Some(source) = &volume.secret {
                let choice = Choice { items: source.items.as_deref(), default_mode: source.default_mode, optional: source.optional };
                let name = source.secret_name.as_deref().unwrap_or_default();
                Origin::Secret(name).add(&choice, context, &mut payload).await?;
            }
            blocking(|| {
                mounts::ensure_tmpfs(&path, TMPFS_OPTIONS)?;
                atomic::write(&path, &payload, context.fs_group(), context.now)
            })?;
            Ok(Ready::new(path, true))
        })
    }

    fn follows_objects(&self) -> bool {
        true
    }
}

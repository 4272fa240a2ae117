//! configMap: each key of a ConfigMap is a file. Answers to <https://kubernetes.io/docs/concepts/storage/volumes/#configmap>.

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
    volume::plugin::{Context, Plugin, Ready},
};

pub(crate) struct ConfigMap;

impl Plugin for ConfigMap {
    fn directory(&self) -> &'static str {
        "kubernetes.io~configmap"
    }

    fn handles(&self, volume: &Volume) -> bool {
        volume.config_map.is_some()
    }

    fn set_up<'a>(&'a self, volume: &'a Volume, path: PathBuf, context: &'a Context<'_>) -> BoxFuture<'a, Result<Ready>> {
        Box::pin(async move {
            let mut payload = Payload::new();
            if let Some(source) = &volume.config_map {
                let choice = Choice { items: source.items.as_deref(), default_mode: source.default_mode, optional: source.optional };
                Origin::ConfigMap(&source.name).add(&choice, context, &mut payload).await?;
            }
            blocking(|| atomic::write(&path, &payload, context.fs_group(), context.now))?;
            Ok(Ready::new(path, true))
        })
    }

    fn follows_objects(&self) -> bool {
        true
    }
}

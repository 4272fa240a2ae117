//! downwardAPI: fields of the pod as files. Answers to <https://kubernetes.io/docs/concepts/storage/volumes/#downwardapi>.

use std::path::PathBuf;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, Volume};

use super::{
    atomic::{self, File, Payload},
    source::mode,
};
use crate::{
    clock::blocking,
    container::fields,
    error::Result,
    volume::plugin::{Context, Plugin, Ready},
};

pub(crate) struct DownwardApi;

impl Plugin for DownwardApi {
    fn directory(&self) -> &'static str {
        "kubernetes.io~downward-api"
    }

    fn handles(&self, volume: &Volume) -> bool {
        volume.downward_api.is_some()
    }

    fn set_up<'a>(&'a self, volume: &'a Volume, path: PathBuf, context: &'a Context<'_>) -> BoxFuture<'a, Result<Ready>> {
        Box::pin(async move {
            let mut payload = Payload::new();
            if let Some(source) = &volume.downward_api {
                payload = files(source.items.as_deref().unwrap_or_default(), source.default_mode, context)?;
            }
            blocking(|| atomic::write(&path, &payload, context.fs_group(), context.now))?;
            Ok(Ready::new(path, true))
        })
    }

    fn follows_objects(&self) -> bool {
        true
    }
}

/// The files of a list of fields.
pub(super) fn files(items: &[DownwardAPIVolumeFile], default_mode: Option<i32>, context: &Context<'_>) -> Result<Payload> {
    let mut payload = Payload::new();
    for item in items {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => fields::field(context.pod, context.place, &field.field_path)?,
            (None, Some(resource)) => fields::resource(context.pod, context.place, resource, None)?,
            (None, None) => continue,
        };
        payload.insert(item.path.clone(), File { data: text.into_bytes(), mode: mode(item.mode, default_mode) });
    }
    Ok(payload)
}

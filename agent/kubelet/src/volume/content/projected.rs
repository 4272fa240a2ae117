//! projected: ConfigMaps, Secrets, fields of the pod and tokens in one directory, in memory. Answers to
//! <https://kubernetes.io/docs/concepts/storage/projected-volumes/>.

use std::path::PathBuf;

use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ProjectedVolumeSource, Volume, VolumeProjection};

use super::{
    atomic::{self, File, Payload},
    downward,
    secret::TMPFS_OPTIONS,
    source::{Choice, Origin, mode},
};
use crate::{
    clock::blocking,
    error::{Error, Result},
    volume::{
        mounts,
        plugin::{Context, Plugin, Ready},
    },
};

pub(crate) struct Projected;

impl Plugin for Projected {
    fn directory(&self) -> &'static str {
        "kubernetes.io~projected"
    }

    fn handles(&self, volume: &Volume) -> bool {
        volume.projected.is_some()
    }

    fn set_up<'a>(&'a self, volume: &'a Volume, path: PathBuf, context: &'a Context<'_>) -> BoxFuture<'a, Result<Ready>> {
        Box::pin(async move {
            let mut gathered = Gathered::default();
            if let Some(source) = &volume.projected {
                gathered.add_all(source, context).await?;
            }
            blocking(|| {
                mounts::ensure_tmpfs(&path, TMPFS_OPTIONS)?;
                atomic::write(&path, &gathered.payload, context.fs_group(), context.now)
            })?;
            Ok(Ready { refresh_at: gathered.refresh_at, ..Ready::new(path, true) })
        })
    }

    fn follows_objects(&self) -> bool {
        true
    }
}

/// The files, and when the first token among them has to be renewed.
#[derive(Default)]
struct Gathered {
    payload: Payload,
    refresh_at: Option<Timestamp>,
}

impl Gathered {
    async fn add_all(&mut self, source: &ProjectedVolumeSource, context: &Context<'_>) -> Result<()> {
        for part in source.sources.iter().flatten() {
            self.add(part, source.default_mode, context).await?;
        }
        Ok(())
    }

    async fn add(&mut self, part: &VolumeProjection, default_mode: Option<i32>, context: &Context<'_>) -> Result<()> {
        if let Some(from) = &part.config_map {
            let choice = Choice { items: from.items.as_deref(), default_mode, optional: from.optional };
            Origin::ConfigMap(&from.name).add(&choice, context, &mut self.payload).await?;
        }
        if let Some(from) = &part.secret {
            let choice = Choice { items: from.items.as_deref(), default_mode, optional: from.optional };
            Origin::Secret(&from.name).add(&choice, context, &mut self.payload).await?;
        }
        if let Some(from) = &part.downward_api {
            self.payload.extend(downward::files(from.items.as_deref().unwrap_or_default(), default_mode, context)?);
        }
        if let Some(from) = &part.service_account_token {
            let (token, renew_at) = context.tokens.get(context.pod, from, context.now).await?;
            self.refresh_at = [self.refresh_at, Some(renew_at)].into_iter().flatten().min();
            // A token is only for its pod's user: 0600 when a group owns the volume, as upstream has it.
            let mode = if context.fs_group().is_some() { 0o600 } else { mode(None, default_mode) };
            self.payload.insert(from.path.clone(), File { data: token.into_bytes(), mode });
        }
        if part.cluster_trust_bundle.is_some() || part.pod_certificate.is_some() {
            return Err(Error::Config("clusterTrustBundle and podCertificate projections are not supported by this node yet".into()));
        }
        Ok(())
    }
}

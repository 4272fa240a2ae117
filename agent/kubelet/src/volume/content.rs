//! Volumes made of API objects: configMap, secret, downwardAPI, and projected, which mixes them with tokens.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMapVolumeSource, DownwardAPIVolumeFile, KeyToPath, Pod, ProjectedVolumeSource, SecretVolumeSource};

use super::{
    Context,
    atomic::{File, Payload},
};
use crate::{
    container::fields,
    error::{Error, Result},
    objects::Objects,
    pod::spec,
};

const DEFAULT_MODE: i32 = 0o644;

fn mode(own: Option<i32>, default: Option<i32>) -> u32 {
    own.or(default).unwrap_or(DEFAULT_MODE).unsigned_abs() & 0o777
}

/// An object of the pod's namespace that a volume takes files from.
#[derive(Clone, Copy)]
enum Origin<'a> {
    ConfigMap(&'a str),
    Secret(&'a str),
}

/// Which of its keys become files, and how.
struct Choice<'a> {
    items: Option<&'a [KeyToPath]>,
    default_mode: Option<i32>,
    optional: Option<bool>,
}

// === impl Origin ===

impl Origin<'_> {
    /// Its keys with their values; None if there is no such object.
    async fn read(self, namespace: &str, objects: &Objects) -> Result<Option<Vec<(String, Vec<u8>)>>> {
        Ok(match self {
            Origin::ConfigMap(name) => objects.config_map(namespace, name).await?.map(|map| {
                let text = map.data.iter().flatten().map(|(key, value)| (key.clone(), value.clone().into_bytes()));
                text.chain(map.binary_data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone()))).collect()
            }),
            Origin::Secret(name) => objects
                .secret(namespace, name)
                .await?
                .map(|secret| secret.data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone())).collect()),
        })
    }

    /// Puts what is chosen of it into the payload.
    async fn add(self, pod: &Pod, choice: &Choice<'_>, context: &Context<'_>, payload: &mut Payload) -> Result<()> {
        match self.read(spec::namespace(pod), context.objects).await? {
            Some(data) => choice.put(data, payload),
            None if choice.is_optional() => Ok(()),
            None => Err(Error::Config(format!("{self} not found"))),
        }
    }
}

impl std::fmt::Display for Origin<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::ConfigMap(name) => write!(f, "configmap {name:?}"),
            Origin::Secret(name) => write!(f, "secret {name:?}"),
        }
    }
}

// === impl Choice ===

impl Choice<'_> {
    fn is_optional(&self) -> bool {
        self.optional == Some(true)
    }

    /// All keys, or the chosen ones under their paths.
    fn put(&self, data: Vec<(String, Vec<u8>)>, payload: &mut Payload) -> Result<()> {
        let Some(items) = self.items.filter(|items| !items.is_empty()) else {
            let mode = mode(None, self.default_mode);
            payload.extend(data.into_iter().map(|(key, data)| (key, File { data, mode })));
            return Ok(());
        };
        for item in items {
            match data.iter().find(|(key, _)| *key == item.key) {
                Some((_, data)) => {
                    payload.insert(item.path.clone(), File { data: data.clone(), mode: mode(item.mode, self.default_mode) });
                }
                None if self.is_optional() => {}
                None => return Err(Error::Config(format!("references non-existent config key: {}", item.key))),
            }
        }
        Ok(())
    }
}

pub(crate) async fn config_map(pod: &Pod, source: &ConfigMapVolumeSource, context: &Context<'_>) -> Result<Payload> {
    let choice = Choice { items: source.items.as_deref(), default_mode: source.default_mode, optional: source.optional };
    let mut payload = Payload::new();
    Origin::ConfigMap(&source.name).add(pod, &choice, context, &mut payload).await?;
    Ok(payload)
}

pub(crate) async fn secret(pod: &Pod, source: &SecretVolumeSource, context: &Context<'_>) -> Result<Payload> {
    let choice = Choice { items: source.items.as_deref(), default_mode: source.default_mode, optional: source.optional };
    let mut payload = Payload::new();
    Origin::Secret(source.secret_name.as_deref().unwrap_or_default()).add(pod, &choice, context, &mut payload).await?;
    Ok(payload)
}

pub(crate) fn downward_api(
    pod: &Pod,
    items: &[DownwardAPIVolumeFile],
    default_mode: Option<i32>,
    context: &Context<'_>,
) -> Result<Payload> {
    let mut payload = Payload::new();
    for item in items {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => fields::field(pod, context.place, &field.field_path)?,
            (None, Some(resource)) => fields::resource(pod, context.place, resource, None)?,
            (None, None) => continue,
        };
        payload.insert(item.path.clone(), File { data: text.into_bytes(), mode: mode(item.mode, default_mode) });
    }
    Ok(payload)
}

pub(crate) async fn projected(
    pod: &Pod,
    source: &ProjectedVolumeSource,
    context: &Context<'_>,
    refresh_at: &mut Option<Timestamp>,
) -> Result<Payload> {
    let mut payload = Payload::new();
    let default_mode = source.default_mode;
    for part in source.sources.iter().flatten() {
        if let Some(from) = &part.config_map {
            let choice = Choice { items: from.items.as_deref(), default_mode, optional: from.optional };
            Origin::ConfigMap(&from.name).add(pod, &choice, context, &mut payload).await?;
        }
        if let Some(from) = &part.secret {
            let choice = Choice { items: from.items.as_deref(), default_mode, optional: from.optional };
            Origin::Secret(&from.name).add(pod, &choice, context, &mut payload).await?;
        }
        if let Some(from) = &part.downward_api {
            payload.extend(downward_api(pod, from.items.as_deref().unwrap_or_default(), default_mode, context)?);
        }
        if let Some(from) = &part.service_account_token {
            let (token, renew_at) = context.tokens.get(pod, from, context.now).await?;
            *refresh_at = Some(refresh_at.map_or(renew_at, |at| at.min(renew_at)));
            payload.insert(from.path.clone(), File { data: token.into_bytes(), mode: token_mode(pod, default_mode) });
        }
        if part.cluster_trust_bundle.is_some() || part.pod_certificate.is_some() {
            return Err(Error::Config("clusterTrustBundle and podCertificate projections are not supported by this node yet".into()));
        }
    }
    Ok(payload)
}

/// A token is only for its pod's user: 0600 when no group of the pod needs it, as upstream has it.
fn token_mode(pod: &Pod, default_mode: Option<i32>) -> u32 {
    let context = spec::pod_spec(pod).security_context.as_ref();
    if context.and_then(|c| c.fs_group).is_some() { 0o600 } else { mode(None, default_mode) }
}

//! Volumes made of API objects: configMap, secret, downwardAPI, and projected, which mixes them with tokens.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ConfigMap, ConfigMapVolumeSource, DownwardAPIVolumeFile, KeyToPath, Pod, ProjectedVolumeSource, Secret, SecretVolumeSource,
};

use super::{
    Context,
    atomic::{File, Payload},
};
use crate::{
    container::fields,
    error::{Error, Result},
    pod::spec,
};

const DEFAULT_MODE: i32 = 0o644;

fn mode(own: Option<i32>, default: Option<i32>) -> u32 {
    own.or(default).unwrap_or(DEFAULT_MODE).unsigned_abs() & 0o777
}

/// Puts all keys, or the chosen ones under their paths, into the payload.
fn choose(
    data: &[(&String, Vec<u8>)],
    items: Option<&[KeyToPath]>,
    default_mode: Option<i32>,
    optional: bool,
    payload: &mut Payload,
) -> Result<()> {
    let Some(items) = items.filter(|i| !i.is_empty()) else {
        payload.extend(data.iter().map(|(key, data)| ((*key).clone(), File { data: data.clone(), mode: mode(None, default_mode) })));
        return Ok(());
    };
    for item in items {
        match data.iter().find(|(key, _)| **key == item.key) {
            Some((_, data)) => payload.insert(item.path.clone(), File { data: data.clone(), mode: mode(item.mode, default_mode) }),
            None if optional => None,
            None => return Err(Error::Config(format!("references non-existent config key: {}", item.key))),
        };
    }
    Ok(())
}

fn config_data(map: &ConfigMap) -> Vec<(&String, Vec<u8>)> {
    let text = map.data.iter().flatten().map(|(k, v)| (k, v.clone().into_bytes()));
    text.chain(map.binary_data.iter().flatten().map(|(k, v)| (k, v.0.clone()))).collect()
}

fn secret_data(secret: &Secret) -> Vec<(&String, Vec<u8>)> {
    secret.data.iter().flatten().map(|(k, v)| (k, v.0.clone())).collect()
}

async fn add_config_map(
    pod: &Pod,
    name: &str,
    items: Option<&[KeyToPath]>,
    default_mode: Option<i32>,
    optional: Option<bool>,
    context: &Context<'_>,
    payload: &mut Payload,
) -> Result<()> {
    let optional = optional == Some(true);
    match context.objects.config_map(spec::namespace(pod), name).await? {
        Some(map) => choose(&config_data(&map), items, default_mode, optional, payload),
        None if optional => Ok(()),
        None => Err(Error::Config(format!("configmap {name:?} not found"))),
    }
}

async fn add_secret(
    pod: &Pod,
    name: &str,
    items: Option<&[KeyToPath]>,
    default_mode: Option<i32>,
    optional: Option<bool>,
    context: &Context<'_>,
    payload: &mut Payload,
) -> Result<()> {
    let optional = optional == Some(true);
    match context.objects.secret(spec::namespace(pod), name).await? {
        Some(secret) => choose(&secret_data(&secret), items, default_mode, optional, payload),
        None if optional => Ok(()),
        None => Err(Error::Config(format!("secret {name:?} not found"))),
    }
}

pub(crate) async fn config_map(pod: &Pod, source: &ConfigMapVolumeSource, context: &Context<'_>) -> Result<Payload> {
    let mut payload = Payload::new();
    add_config_map(pod, &source.name, source.items.as_deref(), source.default_mode, source.optional, context, &mut payload).await?;
    Ok(payload)
}

pub(crate) async fn secret(pod: &Pod, source: &SecretVolumeSource, context: &Context<'_>) -> Result<Payload> {
    let mut payload = Payload::new();
    let name = source.secret_name.as_deref().unwrap_or_default();
    add_secret(pod, name, source.items.as_deref(), source.default_mode, source.optional, context, &mut payload).await?;
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
            add_config_map(pod, &from.name, from.items.as_deref(), default_mode, from.optional, context, &mut payload).await?;
        }
        if let Some(from) = &part.secret {
            add_secret(pod, &from.name, from.items.as_deref(), default_mode, from.optional, context, &mut payload).await?;
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

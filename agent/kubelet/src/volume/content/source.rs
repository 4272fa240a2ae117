//! An API object that a volume takes files from, and which of its keys become which files.

use k8s_openapi::api::core::v1::KeyToPath;

use super::atomic::{File, Payload};
use crate::{
    error::{Error, Result},
    objects::Objects,
    pod::spec,
    volume::plugin::Context,
};

const DEFAULT_MODE: i32 = 0o644;

pub(super) fn mode(own: Option<i32>, default: Option<i32>) -> u32 {
    own.or(default).unwrap_or(DEFAULT_MODE).unsigned_abs() & 0o777
}

/// An object of the pod's namespace that a volume takes files from.
#[derive(Clone, Copy)]
pub(super) enum Origin<'a> {
    ConfigMap(&'a str),
    Secret(&'a str),
}

/// Which of its keys become files, and how.
pub(super) struct Choice<'a> {
    pub(super) items: Option<&'a [KeyToPath]>,
    pub(super) default_mode: Option<i32>,
    pub(super) optional: Option<bool>,
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
    pub(super) async fn add(self, choice: &Choice<'_>, context: &Context<'_>, payload: &mut Payload) -> Result<()> {
        match self.read(spec::namespace(context.pod), context.objects).await? {
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

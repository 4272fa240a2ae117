//! A volume's way into a pod: attached, staged once on the node, published once for each pod, handed to the pod's group.
//!
//! Invariant: a call to the driver is recorded on disk before it is made, so that a restarted agent can undo it.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::storage::v1::CSIDriver;
use serde_json::json;
use tokio::time::Instant;
use trireme_client::EventKind;
use trireme_proto::csi::{self, node_service_capability::rpc::Type};

use super::{
    attach, capability,
    driver::Driver,
    layout::{self, Form},
    record::{self, Record},
    state::{Csi, Key, Published},
    wanted::{SecretName, Wanted},
};
use crate::{
    clock::blocking,
    error::{Error, Result},
    files,
    pod::spec,
    volume::{
        ownership,
        plugin::{Context, Mounted, Ready},
    },
};

const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";
/// How often drivers that ask for it are told again, and sizes are looked at.
const AGAIN: SignedDuration = SignedDuration::from_secs(60);

/// All that the calls for one volume of one pod need.
pub(super) struct Step<'a> {
    pub(super) wanted: &'a Wanted,
    pub(super) context: &'a Context<'a>,
    pub(super) driver: Driver,
    pub(super) object: Option<CSIDriver>,
    pub(super) publish_context: BTreeMap<String, String>,
    /// Beside the pod's volume: its record.
    pub(super) folder: PathBuf,
}

impl Csi {
    /// Makes a volume available to a pod, or keeps it so. Repeated while the pod lives.
    pub(crate) async fn mount(self: &Arc<Self>, wanted: &Wanted, context: &Context<'_>) -> Result<Ready> {
        let uid = spec::uid(context.pod);
        let key: Key = (uid.to_owned(), wanted.spec_name.clone());
        let folder = self.layout.published(uid, &wanted.spec_name, wanted.form)?;
        let known = self.published.lock().get(&key).cloned();
        let target = layout::target(&folder, wanted.form);
        let refresh_at = match known {
            Some(known) => self.keep_up(wanted, context, &key, &known).await,
            None => self.mount_first(wanted, context, &key, folder).await?,
        };
        let mounted = Mounted { path: target, read_only: wanted.read_only, is_device: wanted.form == Form::Device };
        Ok(Ready { mounted, refresh_at })
    }

    async fn mount_first(
        self: &Arc<Self>,
        wanted: &Wanted,
        context: &Context<'_>,
        key: &Key,
        folder: PathBuf,
    ) -> Result<Option<Timestamp>> {
        let began = Instant::now();
        let object = self.driver_object(&wanted.id.driver).await?;
        lifecycle(wanted, object.as_ref())?;
        self.use_by(&wanted.id, &key.0);
        let is_attached = !wanted.ephemeral && attach::is_needed(object.as_ref());
        let publish_context = if is_attached { self.attached(&wanted.id).await? } else { BTreeMap::new() };
        let driver = self.drivers.find(&wanted.id.driver).await.map_err(|why| not_registered(wanted, &why))?;
        let step = Step { wanted, context, driver, object, publish_context, folder };
        let _guard = self.lock(&wanted.id).await;
        let attachment = if is_attached { wanted.id.attachment(&self.node_name) } else { String::new() };
        let staging = self.stage(&step, &attachment).await.map_err(failed(wanted.steps().0, wanted))?;
        self.publish(&step, staging.as_deref(), &attachment).await.map_err(failed(wanted.steps().1, wanted))?;
        self.expand(&step, staging.as_deref()).await;
        let published = Published {
            id: wanted.id.clone(),
            volume: wanted.volume.clone(),
            claim: wanted.claim.clone(),
            target: step.target(),
            staging,
            republish_at: republish_at(&step),
            usage: None,
        };
        let refresh_at = refresh_at(&step, &published);
        self.published.lock().insert(key.clone(), published);
        tracing::debug!(pod = spec::display(context.pod), volume = wanted.spec_name, took_ms = began.elapsed().as_millis(), "published");
        Ok(refresh_at)
    }

    /// A volume that the pod has: its driver is told again if it wants that, and its size is looked at. What fails is told and tried
    /// again: the pod keeps what it has.
    async fn keep_up(&self, wanted: &Wanted, context: &Context<'_>, key: &Key, known: &Published) -> Option<Timestamp> {
        let later = Some(context.now + AGAIN);
        let Some(driver) = self.drivers.get(&wanted.id.driver) else { return later };
        let Ok(object) = self.driver_object(&wanted.id.driver).await else { return later };
        let Ok(folder) = self.layout.published(&key.0, &key.1, wanted.form) else { return later };
        let step = Step { wanted, context, driver, object, publish_context: BTreeMap::new(), folder };
        let _guard = self.lock(&wanted.id).await;
        if known.republish_at.is_some_and(|at| at <= context.now) {
            if let Err(error) = self.call_publish(&step, known.staging.as_deref()).await.map_err(failed(wanted.steps().1, wanted)) {
                self.events.pod(context.pod, EventKind::Warning, "FailedMount", &error.to_string());
            }
            if let Some(known) = self.published.lock().get_mut(key) {
                known.republish_at = republish_at(&step);
            }
        }
        self.expand(&step, known.staging.as_deref()).await;
        refresh_at(&step, known)
    }

    /// Stages the volume, if its driver does that; returns where.
    async fn stage(&self, step: &Step<'_>, attachment: &str) -> Result<Option<PathBuf>> {
        let wanted = step.wanted;
        if wanted.ephemeral || !step.driver.abilities.has(Type::StageUnstageVolume) {
            return Ok(None);
        }
        let folder = self.layout.staging(&wanted.id)?;
        let path = layout::global_mount(&folder);
        let record = Record {
            driver_name: wanted.id.driver.clone(),
            volume_handle: wanted.id.handle.clone(),
            attachment: attachment.to_owned(),
            ..Record::default()
        };
        blocking(|| record.write(&folder).and_then(|()| files::make_directories(&path, 0o750)))?;
        let request = csi::NodeStageVolumeRequest {
            volume_id: wanted.id.handle.clone(),
            publish_context: hashed(&step.publish_context),
            staging_target_path: text(&path)?,
            volume_capability: Some(capability::of(wanted, &step.driver.abilities, step.delegated_group())),
            secrets: self.secrets("NodeStageSecretRef", wanted.stage_secret.as_ref(), step.context).await?,
            volume_context: hashed(&wanted.attributes),
        };
        step.driver.stage(request).await?;
        Ok(Some(path))
    }

    async fn publish(&self, step: &Step<'_>, staging: Option<&Path>, attachment: &str) -> Result<()> {
        let wanted = step.wanted;
        let record = Record {
            driver_name: wanted.id.driver.clone(),
            volume_handle: wanted.id.handle.clone(),
            spec_name: wanted.spec_name.clone(),
            node_name: self.node_name.clone(),
            attachment: attachment.to_owned(),
            lifecycle: if wanted.ephemeral { "Ephemeral" } else { "Persistent" }.to_owned(),
        };
        blocking(|| record.write(&step.folder))?;
        if let Err(error) = self.call_publish(step, staging).await {
            // A driver that has surely not published anything is not asked to unpublish it.
            if !matches!(error, Error::Waiting(_)) && !step.target().exists() {
                let removed = blocking(|| record::remove(&step.folder));
                tracing::debug!(?removed, folder = %step.folder.display(), "nothing was published");
            }
            return Err(match error {
                Error::Waiting(why) => Error::Config(why),
                other => other,
            });
        }
        let path = step.target();
        if !path.exists() {
            let driver = &wanted.id.driver;
            return Err(Error::Config(format!("driver {driver} says that the volume is published, but nothing is at {}", path.display())));
        }
        match step.own_group() {
            Some(group) => blocking(|| ownership::give(&path, group, step.only_if_root_differs())),
            None => Ok(()),
        }
    }

    /// An error that leaves open what the driver did is `Waiting`.
    async fn call_publish(&self, step: &Step<'_>, staging: Option<&Path>) -> Result<()> {
        let wanted = step.wanted;
        let mut secrets = self.secrets("NodePublishSecretRef", wanted.publish_secret.as_ref(), step.context).await?;
        let mut context = hashed(&wanted.attributes);
        step.describe_pod(&mut context);
        if let Some(tokens) = step.tokens().await? {
            let in_secrets = step.object.as_ref().is_some_and(|object| object.spec.service_account_token_in_secrets == Some(true));
            if in_secrets { &mut secrets } else { &mut context }.insert(TOKENS.to_owned(), tokens);
        }
        let request = csi::NodePublishVolumeRequest {
            volume_id: wanted.id.handle.clone(),
            publish_context: hashed(&step.publish_context),
            staging_target_path: staging.map(text).transpose()?.unwrap_or_default(),
            target_path: text(&step.target())?,
            volume_capability: Some(capability::of(wanted, &step.driver.abilities, step.delegated_group())),
            readonly: wanted.read_only,
            secrets,
            volume_context: context,
        };
        step.driver.publish(request).await.map_err(|refused| match refused.is_uncertain() {
            true => Error::Waiting(refused.to_string()),
            false => refused.into(),
        })
    }

    /// The content of a Secret that a driver gets with a call.
    pub(super) async fn secrets(&self, what: &str, name: Option<&SecretName>, context: &Context<'_>) -> Result<HashMap<String, String>> {
        let Some((namespace, name)) = name else { return Ok(HashMap::new()) };
        let failed = |why: String| Error::Config(format!("fetching {what} {namespace}/{name} failed: {why}"));
        let found = context.objects.secret(namespace, name).await.map_err(|e| failed(e.to_string()))?;
        let found = found.ok_or_else(|| failed(format!("secrets {name:?} not found")))?;
        let entries = found.data.iter().flatten().map(|(key, value)| match String::from_utf8(value.0.clone()) {
            Ok(value) => Ok((key.clone(), value)),
            Err(_) => Err(failed(format!("the value of {key:?} is no text"))),
        });
        entries.collect()
    }
}

impl Step<'_> {
    /// Where the pod gets the volume.
    pub(super) fn target(&self) -> PathBuf {
        layout::target(&self.folder, self.wanted.form)
    }

    /// The pod's group, if the driver gives the files to it.
    pub(super) fn delegated_group(&self) -> Option<i64> {
        self.context.fs_group().filter(|_| self.driver.abilities.has(Type::VolumeMountGroup))
    }

    /// The pod's group, if the kubelet gives the files to it.
    fn own_group(&self) -> Option<u32> {
        let group = self.context.fs_group()?;
        if self.delegated_group().is_some() || self.wanted.read_only || self.wanted.form == Form::Device {
            return None;
        }
        let policy = self.object.as_ref().and_then(|object| object.spec.fs_group_policy.as_deref()).unwrap_or("ReadWriteOnceWithFSType");
        let once = || self.wanted.access_modes.iter().any(|mode| matches!(mode.as_str(), "ReadWriteOnce" | "ReadWriteOncePod"));
        let applies = match policy {
            "None" => false,
            "File" => true,
            _ => !self.wanted.fs_type.is_empty() && (self.wanted.ephemeral || once()),
        };
        u32::try_from(group).ok().filter(|_| applies)
    }

    fn only_if_root_differs(&self) -> bool {
        let security = spec::pod_spec(self.context.pod).security_context.as_ref();
        security.and_then(|security| security.fs_group_change_policy.as_deref()) == Some("OnRootMismatch")
    }

    /// Tells the driver of the pod, if it wants to know.
    fn describe_pod(&self, context: &mut HashMap<String, String>) {
        if self.object.as_ref().is_none_or(|object| object.spec.pod_info_on_mount != Some(true)) {
            return;
        }
        let pod = self.context.pod;
        let account = spec::pod_spec(pod).service_account_name.clone().unwrap_or_default();
        for (key, value) in [
            ("pod.name", spec::name(pod).to_owned()),
            ("pod.namespace", spec::namespace(pod).to_owned()),
            ("pod.uid", spec::uid(pod).to_owned()),
            ("serviceAccount.name", account),
            ("ephemeral", self.wanted.ephemeral.to_string()),
        ] {
            context.insert(format!("csi.storage.k8s.io/{key}"), value);
        }
    }

    /// The pod's tokens for the audiences that the driver wants, as JSON.
    async fn tokens(&self) -> Result<Option<String>> {
        let asked = self.object.as_ref().and_then(|object| object.spec.token_requests.as_deref()).unwrap_or_default();
        let mut tokens = serde_json::Map::new();
        for request in asked {
            let token =
                self.context.tokens.issue(self.context.pod, &request.audience, request.expiration_seconds, self.context.now).await?;
            let shown = json!({"token": token.token, "expirationTimestamp": token.expires_at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()});
            tokens.insert(request.audience.clone(), shown);
        }
        Ok((!tokens.is_empty()).then(|| serde_json::Value::Object(tokens).to_string()))
    }
}

/// Whether the driver makes volumes of this kind.
fn lifecycle(wanted: &Wanted, object: Option<&CSIDriver>) -> Result<()> {
    let driver = &wanted.id.driver;
    let mode = if wanted.ephemeral { "Ephemeral" } else { "Persistent" };
    let wrong =
        |why: String| Err(failed(wanted.steps().1, wanted)(Error::Config(format!("kubernetes.io/csi: mounter.SetUpAt failed: {why}"))));
    match object {
        None if wanted.ephemeral => wrong(format!("volume mode {mode:?} not supported by driver {driver} (no CSIDriver object)")),
        None => Ok(()),
        Some(object) => {
            let modes = object.spec.volume_lifecycle_modes.as_deref().unwrap_or_default();
            let supported = modes.iter().any(|known| known == mode) || (modes.is_empty() && !wanted.ephemeral);
            if supported {
                Ok(())
            } else {
                wrong(format!("volume mode {mode:?} not supported by driver {driver} (only supports {modes:?})"))
            }
        }
    }
}

fn not_registered(wanted: &Wanted, why: &str) -> Error {
    let (stage, publish) = wanted.steps();
    let (operation, doing) = match wanted.ephemeral {
        true => (publish, "mounter.SetUpAt failed to get CSI client"),
        false => (stage, "attacher.MountDevice failed to create newCsiDriverClient"),
    };
    failed(operation, wanted)(Error::Config(format!("kubernetes.io/csi: {doing}: {why}")))
}

fn failed(operation: &'static str, wanted: &Wanted) -> impl FnOnce(Error) -> Error {
    let volume = wanted.spec_name.clone();
    move |error| Error::Mount { operation, volume, why: error.to_string() }
}

fn republish_at(step: &Step<'_>) -> Option<Timestamp> {
    step.object.as_ref().is_some_and(|object| object.spec.requires_republish == Some(true)).then(|| step.context.now + AGAIN)
}

/// When to look at the volume again although nothing changed.
fn refresh_at(step: &Step<'_>, published: &Published) -> Option<Timestamp> {
    let may_grow = !step.wanted.ephemeral && step.driver.abilities.has(Type::ExpandVolume);
    (published.republish_at.is_some() || may_grow).then(|| step.context.now + AGAIN)
}

fn hashed(map: &BTreeMap<String, String>) -> HashMap<String, String> {
    map.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

pub(super) fn text(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).ok_or_else(|| Error::Config(format!("{} is no UTF-8 path", path.display())))
}

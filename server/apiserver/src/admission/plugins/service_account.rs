//! ServiceAccount: every pod runs as one, and gets its token mounted.
//!
//! Answers to <https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#serviceaccount-admission-controller>.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::{Value, json};
use trireme_api::{meta, names};

use crate::admission::effects::Effects;
use crate::admission::find;
use crate::admission::forbid;
use crate::admission::plugin::{Environment, Phase, Plugin};
use crate::admission::request::{AdmissionRequest, Operation};
use crate::error::Answer;
use crate::storage::lookup::{LookedUp, ObjectReader};

const DEFAULT: &str = "default";
const VOLUME_PREFIX: &str = "kube-api-access-";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const TOKEN_SECS: i64 = 3607;
/// The default service account of a new namespace is made by a controller: it may be a moment late.
const WAIT_STEPS: u32 = 10;
const WAIT_STEP: Duration = Duration::from_millis(100);

/// The plugin.
pub struct ServiceAccount {
    reader: Arc<dyn ObjectReader>,
}

impl ServiceAccount {
    /// Made from `environment`.
    pub fn new(environment: &Environment) -> ServiceAccount {
        ServiceAccount { reader: environment.reader.clone() }
    }
}

impl Plugin for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn phases(&self) -> &'static [Phase] {
        &[Phase::Admit]
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.operation == Operation::Create && request.is_on("", "pods", "")
    }

    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest, _effects: &'a mut Effects) -> BoxFuture<'a, Answer<()>> {
        Box::pin(admit(&*self.reader, request))
    }
}

async fn admit(reader: &dyn ObjectReader, request: &mut AdmissionRequest) -> Answer<()> {
    if request.operation != Operation::Create || !request.is_on("", "pods", "") {
        return Ok(());
    }
    let Some(pod) = request.object() else {
        return Ok(());
    };
    let account_name = meta::str_at(pod, &["spec", "serviceAccountName"]).to_owned();
    if meta::annotation(pod, "kubernetes.io/config.mirror").is_some() {
        return mirror(request, &account_name);
    }
    let wanted = if account_name.is_empty() { DEFAULT.to_owned() } else { account_name };
    let namespace = request.namespace.clone();
    let Some(account) = account(reader, &namespace, &wanted).await else {
        let text = format!("error looking up service account {namespace}/{wanted}: serviceaccount {wanted:?} not found");
        return Err(forbid(request, &text));
    };
    if let Some(pod) = request.object_mut() {
        apply(pod, &wanted, &account.object, rand::random());
    }
    Ok(())
}

fn mirror(request: &AdmissionRequest, account_name: &str) -> Answer<()> {
    if account_name.is_empty() {
        return Ok(());
    }
    Err(forbid(request, "a mirror pod may not reference service accounts"))
}

async fn account(reader: &dyn ObjectReader, namespace: &str, name: &str) -> Option<LookedUp> {
    let steps = if name == DEFAULT { WAIT_STEPS } else { 1 };
    for step in 0..steps {
        if step > 0 {
            tokio::time::sleep(WAIT_STEP).await;
        }
        if let Some(found) = find(reader, "", "serviceaccounts", namespace, name).await {
            return Some(found);
        }
    }
    None
}

/// Fills a pod in from its service account.
pub fn apply(pod: &mut Value, account_name: &str, account: &Value, entropy: u64) {
    let Some(spec) = pod.get_mut("spec").filter(|spec| spec.is_object()) else {
        return;
    };
    spec["serviceAccountName"] = Value::from(account_name);
    spec["serviceAccount"] = Value::from(account_name);
    let automount =
        spec["automountServiceAccountToken"].as_bool().or_else(|| account["automountServiceAccountToken"].as_bool()).unwrap_or(true);
    if automount {
        mount_token(spec, entropy);
    }
    let has_own = spec["imagePullSecrets"].as_array().is_some_and(|list| !list.is_empty());
    let secrets = account["imagePullSecrets"].as_array().filter(|list| !list.is_empty());
    if let (false, Some(secrets)) = (has_own, secrets) {
        spec["imagePullSecrets"] = Value::from(secrets.clone());
    }
}

fn mount_token(spec: &mut Value, entropy: u64) {
    let volumes = spec["volumes"].as_array().cloned().unwrap_or_default();
    let existing =
        volumes.iter().find(|volume| meta::str_at(volume, &["name"]).starts_with(VOLUME_PREFIX) && volume.get("projected").is_some());
    let name = match existing {
        Some(volume) => meta::str_at(volume, &["name"]).to_owned(),
        None => names::generate_name(VOLUME_PREFIX, entropy),
    };
    let mut needed = false;
    for list in ["initContainers", "containers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(container) = container.as_object_mut() else {
                continue;
            };
            let mounts = container.entry("volumeMounts").or_insert_with(|| json!([]));
            if mounts.is_null() {
                *mounts = json!([]);
            }
            let Some(mounts) = mounts.as_array_mut() else {
                continue;
            };
            if mounts.iter().any(|mount| meta::str_at(mount, &["mountPath"]) == MOUNT_PATH) {
                continue;
            }
            mounts.push(json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH}));
            needed = true;
        }
    }
    if needed && existing.is_none() {
        let mut volumes = volumes;
        volumes.push(token_volume(&name));
        spec["volumes"] = Value::from(volumes);
    }
}

/// The projected volume: token, the cluster's CA, the namespace.
fn token_volume(name: &str) -> Value {
    json!({"name": name, "projected": {"defaultMode": 0o644, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [
            {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
        ]}},
    ]}})
}

//! The objects that every cluster has: namespaces, RBAC, priority classes, flow control, the `kubernetes` Service.
//!
//! Runs on the leader at the start of each leadership, through the API server of this process: every write walks the
//! pipeline. Objects that exist already are repaired, never reset: what an administrator added stays.
//!
//! Owns the reconciling. The facts are in `trireme_api::bootstrap` and `trireme_api::rbac_defaults`. Must not do: watch
//! members (the caller knows which ones are alive).

pub mod endpoints;
pub mod rbac;
pub mod writer;

use std::{net::IpAddr, sync::Arc};

use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use trireme_api::{bootstrap, meta, rbac_defaults};

use crate::pki::ClusterKeys;
use trireme_apiserver::storage::lookup::ObjectReader;

pub use endpoints::reconcile_endpoints;
pub use writer::{WriteError, Writer};

/// Writes under way at once: enough to fill a group commit.
const CONCURRENCY: usize = 32;
const RBAC: (&str, &str) = ("rbac.authorization.k8s.io", "/apis/rbac.authorization.k8s.io/v1");
const FLOW_CONTROL: (&str, &str) = ("flowcontrol.apiserver.k8s.io", "/apis/flowcontrol.apiserver.k8s.io/v1");
const SCHEDULING: (&str, &str) = ("scheduling.k8s.io", "/apis/scheduling.k8s.io/v1");
const CORE: (&str, &str) = ("", "/api/v1");
/// Flow control objects with this annotation follow the defaults.
const AUTOUPDATE_SPEC: &str = "apf.kubernetes.io/autoupdate-spec";

/// Creates the objects that every cluster has. Idempotent; on an error the caller runs it again.
pub struct Bootstrap {
    /// Where to write.
    pub writer: Writer,
    /// What there is.
    pub reader: Arc<dyn ObjectReader>,
    /// Address of the `kubernetes` Service.
    pub service_ip: IpAddr,
    /// Port on which the servers listen.
    pub https_port: u16,
    /// `--service-cidr`.
    pub service_cidr: String,
}

/// One object and how to repair it.
struct Task {
    api: (&'static str, &'static str),
    plural: &'static str,
    wanted: Value,
    repair: fn(&Value, &Value) -> Repair,
}

/// What is to be done with an object that exists.
#[derive(Clone, Debug, PartialEq)]
pub enum Repair {
    /// It needs no change.
    Nothing,
    /// Write this.
    Update(Value),
    /// Delete it and make it anew: a binding's role cannot be changed.
    Recreate,
}

fn keep(_wanted: &Value, _actual: &Value) -> Repair {
    Repair::Nothing
}

fn tasks(
    api: (&'static str, &'static str),
    plural: &'static str,
    objects: Vec<Value>,
    repair: fn(&Value, &Value) -> Repair,
) -> impl Iterator<Item = Task> {
    objects.into_iter().map(move |wanted| Task { api, plural, wanted, repair })
}

/// A flow control object follows its default while its annotation says so.
fn follow_spec(wanted: &Value, actual: &Value) -> Repair {
    let follows = meta::annotation(actual, AUTOUPDATE_SPEC) == Some("true");
    if !follows || wanted["spec"] == actual["spec"] {
        return Repair::Nothing;
    }
    let mut repaired = actual.clone();
    repaired["spec"] = wanted["spec"].clone();
    Repair::Update(repaired)
}

impl Bootstrap {
    /// Runs it all.
    pub async fn run(&self, keys: &ClusterKeys) -> Result<(), WriteError> {
        // Everything acknowledged before this leadership must be visible: what is missing here is then really missing.
        self.reader.refresh().await;
        self.all(tasks(CORE, "namespaces", bootstrap::namespaces(), keep)).await?;
        let cluster_roles = tasks(RBAC, "clusterroles", rbac_defaults::cluster_roles(), rbac::role);
        let roles = tasks(RBAC, "roles", rbac_defaults::roles(), rbac::role);
        self.all(cluster_roles.chain(roles)).await?;
        let bindings = tasks(RBAC, "clusterrolebindings", rbac_defaults::cluster_role_bindings(), rbac::binding).chain(tasks(
            RBAC,
            "rolebindings",
            rbac_defaults::role_bindings(),
            rbac::binding,
        ));
        let levels = tasks(FLOW_CONTROL, "prioritylevelconfigurations", bootstrap::priority_levels(), follow_spec);
        let flows = tasks(FLOW_CONTROL, "flowschemas", bootstrap::flow_schemas(), follow_spec);
        let classes = tasks(SCHEDULING, "priorityclasses", bootstrap::priority_classes(), keep);
        self.all(bindings.chain(levels).chain(flows).chain(classes)).await?;
        let authentication = tasks(CORE, "configmaps", vec![authentication(keys)], follow_data);
        let service = endpoints::service(self.service_ip, self.https_port);
        let service = tasks(CORE, "services", vec![service], endpoints::repair_service);
        let cidr = tasks(("networking.k8s.io", "/apis/networking.k8s.io/v1"), "servicecidrs", vec![service_cidr(&self.service_cidr)], keep);
        self.all(cidr.chain(authentication).chain(service)).await
    }

    async fn all(&self, tasks: impl Iterator<Item = Task>) -> Result<(), WriteError> {
        stream::iter(tasks).map(Ok).try_for_each_concurrent(CONCURRENCY, |task| self.one(task)).await
    }

    async fn one(&self, task: Task) -> Result<(), WriteError> {
        let (group, base) = task.api;
        let (namespace, name) = (meta::namespace(&task.wanted), meta::name(&task.wanted));
        let mut collection = base.to_owned();
        if !namespace.is_empty() {
            collection.push_str(&format!("/namespaces/{namespace}"));
        }
        collection.push_str(&format!("/{}", task.plural));
        let Some(found) = self.reader.get(group, task.plural, namespace, name) else {
            return self.writer.create(&collection, &task.wanted).await;
        };
        let item = format!("{collection}/{name}");
        match (task.repair)(&task.wanted, &found.object) {
            Repair::Nothing => Ok(()),
            Repair::Update(object) => self.writer.replace(&item, &object).await,
            Repair::Recreate => {
                self.writer.delete(&item).await?;
                self.writer.create(&collection, &task.wanted).await
            }
        }
    }
}

/// What extension API servers read to verify clients and the front proxy.
fn authentication(keys: &ClusterKeys) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"},
        "data": {
            "client-ca-file": keys.client_ca.certificate_pem,
            "requestheader-client-ca-file": keys.front_proxy_ca.certificate_pem,
            "requestheader-allowed-names": "[\"front-proxy-client\"]",
            "requestheader-username-headers": "[\"X-Remote-User\"]",
            "requestheader-uid-headers": "[\"X-Remote-Uid\"]",
            "requestheader-group-headers": "[\"X-Remote-Group\"]",
            "requestheader-extra-headers-prefix": "[\"X-Remote-Extra-\"]",
        },
    })
}

fn follow_data(wanted: &Value, actual: &Value) -> Repair {
    if wanted["data"] == actual["data"] {
        return Repair::Nothing;
    }
    let mut repaired = actual.clone();
    repaired["data"] = wanted["data"].clone();
    Repair::Update(repaired)
}

fn service_cidr(cidr: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
        "metadata": {"name": "kubernetes"},
        "spec": {"cidrs": [cidr]},
    })
}

#[cfg(test)]
mod tests;

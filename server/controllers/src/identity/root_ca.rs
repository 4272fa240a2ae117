//! Every active namespace has a ConfigMap `kube-root-ca.crt` with the authority that vouches for the API server.
//!
//! Answers to: <https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/>.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;
use trireme_client::{Client, Informer, InformerOptions, Object, Patch};

use super::service_account::is_open;
use crate::runtime::{Context, Controller, Next, Part, Scope, Watches};
use crate::{ControllerOptions, Error};

const MAP: &str = "kube-root-ca.crt";
const KEY: &str = "ca.crt";
const DESCRIPTION_ANNOTATION: &str = "kubernetes.io/description";
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
    endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across \
    distributions of Kubernetes clusters.";

/// The `kube-root-ca.crt` ConfigMaps.
pub(crate) struct RootCaMaps;

impl Scope for RootCaMaps {
    fn options() -> InformerOptions {
        InformerOptions { field_selector: Some(format!("metadata.name={MAP}")), ..InformerOptions::default() }
    }
}

/// The root CA publisher.
pub(crate) struct RootCaPublisher {
    client: Client,
    namespaces: Arc<Informer<Namespace>>,
    maps: Part<ConfigMap, RootCaMaps>,
    options: Arc<ControllerOptions>,
}

impl Controller for RootCaPublisher {
    const NAME: &'static str = "root-ca-cert-publisher";
    const QUEUE: &'static str = "root_ca_cert_publisher";
    type Key = String;
    type Reads = (Arc<Informer<Namespace>>, Part<ConfigMap, RootCaMaps>);

    fn new((namespaces, maps): Self::Reads, context: &Context) -> Option<Self> {
        if context.options.root_ca_pem.is_empty() {
            return None;
        }
        Some(Self { client: context.client.clone(), namespaces, maps, options: Arc::clone(&context.options) })
    }

    fn watch(self: &Arc<Self>, watches: &mut Watches<'_, String>) {
        watches.on(&self.namespaces, |event| [event.object().name().to_owned()]);
        watches.on(&self.maps, |event| [event.object().namespace().to_owned()]);
    }

    async fn reconcile(&self, key: &String) -> Result<Next, Error> {
        if !self.namespaces.get("", key).is_some_and(|namespace| is_open(&namespace)) {
            return Ok(Next::Wait);
        }
        let data = BTreeMap::from([(KEY.to_owned(), self.options.root_ca_pem.clone())]);
        let annotations = BTreeMap::from([(DESCRIPTION_ANNOTATION.to_owned(), DESCRIPTION.to_owned())]);
        let written = match self.maps.get(key, MAP) {
            Some(map) if map.data.as_ref() == Some(&data) => return Ok(Next::Wait),
            Some(map) => {
                let mut wanted = json!(data);
                for other in map.data.iter().flatten().map(|(name, _)| name).filter(|name| *name != KEY) {
                    wanted[other] = serde_json::Value::Null;
                }
                let patch = json!({"metadata": {"annotations": annotations}, "data": wanted});
                self.client.patch::<ConfigMap>(Some(key), MAP, &Patch::Merge(patch)).await
            }
            None => {
                let map = ConfigMap {
                    metadata: ObjectMeta {
                        name: Some(MAP.to_owned()),
                        namespace: Some(key.clone()),
                        annotations: Some(annotations),
                        ..ObjectMeta::default()
                    },
                    data: Some(data),
                    ..ConfigMap::default()
                };
                self.client.create(Some(key), &map).await
            }
        };
        match written {
            Ok(_) => Ok(Next::Wait),
            Err(error) if error.is_already_exists() || error.is_namespace_terminating() => Ok(Next::Wait),
            Err(error) => Err(error.into()),
        }
    }
}

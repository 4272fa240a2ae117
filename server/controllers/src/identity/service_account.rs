//! Every active namespace has a ServiceAccount named `default`.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/security/service-accounts/>.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use trireme_client::{Client, Informer, Object};

use crate::Error;
use crate::runtime::{Context, Controller, Next, Watches};

const DEFAULT: &str = "default";

/// The service account controller.
pub(crate) struct DefaultServiceAccounts {
    client: Client,
    namespaces: Arc<Informer<Namespace>>,
    accounts: Arc<Informer<ServiceAccount>>,
}

impl Controller for DefaultServiceAccounts {
    const NAME: &'static str = "service-account-controller";
    const QUEUE: &'static str = "serviceaccount";
    type Key = String;
    type Reads = (Arc<Informer<Namespace>>, Arc<Informer<ServiceAccount>>);

    fn new((namespaces, accounts): Self::Reads, context: &Context) -> Option<Self> {
        Some(Self { client: context.client.clone(), namespaces, accounts })
    }

    fn watch(self: &Arc<Self>, watches: &mut Watches<'_, String>) {
        watches.on(&self.namespaces, |event| [event.object().name().to_owned()]);
        watches.on(&self.accounts, |event| {
            let account = event.object();
            (event.is_deletion() && account.name() == DEFAULT).then(|| account.namespace().to_owned())
        });
    }

    async fn reconcile(&self, key: &String) -> Result<Next, Error> {
        let open = self.namespaces.get("", key).is_some_and(|namespace| is_open(&namespace));
        if !open || self.accounts.get(key, DEFAULT).is_some() {
            return Ok(Next::Wait);
        }
        let account = ServiceAccount {
            metadata: ObjectMeta { name: Some(DEFAULT.to_owned()), namespace: Some(key.clone()), ..ObjectMeta::default() },
            ..ServiceAccount::default()
        };
        match self.client.create(Some(key), &account).await {
            Ok(_) => Ok(Next::Wait),
            Err(error) if error.is_already_exists() || error.is_namespace_terminating() => Ok(Next::Wait),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether objects may be made in the namespace.
pub(crate) fn is_open(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_none()
        && namespace.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Terminating")
}

//! Every active namespace has a ServiceAccount named `default`.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/security/service-accounts/>.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use trireme_client::{Client, Event, Informer, Object};

use crate::Error;
use crate::runtime::{Lead, Next, Reconcile};

const NAME: &str = "service-account-controller";
const DEFAULT: &str = "default";

struct Controller {
    client: Client,
    namespaces: Arc<Informer<Namespace>>,
    accounts: Arc<Informer<ServiceAccount>>,
}

pub(crate) fn start(lead: &mut Lead) {
    let informers = Arc::clone(&lead.informers);
    let queue = lead.queue("serviceaccount");
    let controller = Arc::new(Controller {
        client: lead.client(NAME),
        namespaces: Arc::clone(&informers.namespaces),
        accounts: Arc::clone(&informers.service_accounts),
    });
    let keys = queue.clone();
    lead.keep(informers.namespaces.subscribe(move |event| keys.add(event.object().name().to_owned())));
    let keys = queue.clone();
    lead.keep(informers.service_accounts.subscribe(move |event| {
        if let Event::Deleted(account) = event {
            keys.add(account.namespace().to_owned());
        }
    }));
    lead.work(NAME, &queue, &controller);
}

/// Whether objects may be made in the namespace.
pub(crate) fn is_open(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_none()
        && namespace.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Terminating")
}

impl Reconcile<String> for Controller {
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

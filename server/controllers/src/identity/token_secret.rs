//! Secrets of type `kubernetes.io/service-account-token`: filled with a token that does not expire, the authority that vouches
//! for the API server, and the namespace; deleted with their ServiceAccount.
//!
//! Must not hold a key: a [`TokenSigner`] given by the server signs. Must not fill a Secret of a ServiceAccount with another uid
//! than the one it names.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/configuration/secret/#serviceaccount-token-secrets>.

use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use serde_json::{Value, json};
use trireme_client::{Client, DeleteOptions, Index, Informer, InformerOptions, Object, ObjectKey, ResourceType};

use crate::runtime::{Context, Controller, Next, Part, Scope, Watches};
use crate::{ControllerOptions, Error};

const TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

/// Signs tokens that do not expire.
pub trait TokenSigner: Send + Sync {
    /// A token for this ServiceAccount that is good as long as this Secret holds it.
    fn sign(&self, account: &ServiceAccount, secret_name: &str) -> Result<String, String>;
}

/// The Secrets that hold tokens.
pub(crate) struct TokenSecretsOnly;

impl Scope for TokenSecretsOnly {
    fn options() -> InformerOptions {
        InformerOptions { field_selector: Some(format!("type={TYPE}")), ..InformerOptions::default() }
    }
}

/// A Secret, and the ServiceAccount that it named when it was last seen.
type SecretOf = (ObjectKey, String);

/// The token controller.
pub(crate) struct TokenSecrets {
    client: Client,
    options: Arc<ControllerOptions>,
    signer: Arc<dyn TokenSigner>,
    accounts: Arc<Informer<ServiceAccount>>,
    secrets: Part<Secret, TokenSecretsOnly>,
    by_account: Index<Secret>,
}

impl Controller for TokenSecrets {
    const NAME: &'static str = "tokens-controller";
    const QUEUE: &'static str = "serviceaccount_tokens_secret";
    type Key = SecretOf;
    type Reads = (Arc<Informer<ServiceAccount>>, Part<Secret, TokenSecretsOnly>);

    fn new((accounts, secrets): Self::Reads, context: &Context) -> Option<Self> {
        let signer = context.options.token_signer.clone()?;
        let by_account = secrets.index("account", |secret| account_of(secret).map(|account| account.to_string()).into_iter().collect());
        Some(Self { client: context.client.clone(), options: Arc::clone(&context.options), signer, accounts, secrets, by_account })
    }

    fn watch(self: &Arc<Self>, watches: &mut Watches<'_, SecretOf>) {
        let by_account = self.by_account.clone();
        watches.on(&self.accounts, move |event| {
            let account = ObjectKey::of(&**event.object());
            let secrets = by_account.get(&account.to_string());
            secrets.iter().map(|secret| (ObjectKey::of(&**secret), account.name.clone())).collect::<Vec<_>>()
        });
        watches.on(&self.secrets, |event| {
            let secret = event.object();
            account_of(secret).map(|account| (ObjectKey::of(&**secret), account.name))
        });
    }

    async fn reconcile(&self, (key, account): &SecretOf) -> Result<Next, Error> {
        let Some(secret) = self.secrets.get_key(key) else {
            self.forget_secret(key, account).await?;
            return Ok(Next::Wait);
        };
        let Some(account) = account_of(&secret) else { return Ok(Next::Wait) };
        let wanted_uid = annotation(&secret, ACCOUNT_UID).unwrap_or_default();
        match self.account(&account, wanted_uid).await? {
            None => self.delete(&secret).await?,
            Some(found) if self.is_filled(&secret, &found) => {}
            Some(found) => self.fill(&secret, &found).await?,
        }
        Ok(Next::Wait)
    }
}

fn annotation<'a>(secret: &'a Secret, key: &str) -> Option<&'a str> {
    secret.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

fn account_of(secret: &Secret) -> Option<ObjectKey> {
    let name = annotation(secret, ACCOUNT_NAME).filter(|name| !name.is_empty())?;
    Some(ObjectKey::new(secret.namespace(), name))
}

impl TokenSecrets {
    /// The ServiceAccount with this uid, if one is wanted; asks the API about one that the cache does not know.
    async fn account(&self, key: &ObjectKey, uid: &str) -> Result<Option<Arc<ServiceAccount>>, Error> {
        let is = |account: &ServiceAccount| uid.is_empty() || account.uid() == uid;
        if let Some(known) = self.accounts.get_key(key).filter(|known| is(known)) {
            return Ok(Some(known));
        }
        match self.client.get::<ServiceAccount>(Some(&key.namespace), &key.name).await {
            Ok(found) => Ok(is(&found).then(|| Arc::new(found))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn is_filled(&self, secret: &Secret, account: &ServiceAccount) -> bool {
        let data = |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map(|value| value.0.as_slice()).unwrap_or_default();
        !data("token").is_empty()
            && !data("namespace").is_empty()
            && (self.options.root_ca_pem.is_empty() || data("ca.crt") == self.options.root_ca_pem.as_bytes())
            && annotation(secret, ACCOUNT_UID) == Some(account.uid())
    }

    /// Fills the missing keys. The object is written back undecoded, under its resourceVersion.
    async fn fill(&self, secret: &Secret, account: &ServiceAccount) -> Result<(), Error> {
        let resource = ResourceType::of::<Secret>();
        let namespace = Some(secret.namespace());
        let mut fresh: Value = match self.client.get_any(&resource, namespace, secret.name()).await {
            Ok(fresh) => fresh,
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if fresh["metadata"]["resourceVersion"].as_str() != secret.metadata.resource_version.as_deref() {
            return Err(Error::StaleCache);
        }
        if !fresh["data"].is_object() {
            fresh["data"] = json!({});
        }
        let text = |value: &str| json!(ByteString(value.as_bytes().to_vec()));
        if fresh["data"]["token"].as_str().unwrap_or_default().is_empty() {
            let token = self.signer.sign(account, secret.name()).map_err(Error::Invalid)?;
            fresh["data"]["token"] = text(&token);
        }
        if fresh["data"]["namespace"].as_str().unwrap_or_default().is_empty() {
            fresh["data"]["namespace"] = text(secret.namespace());
        }
        if !self.options.root_ca_pem.is_empty() {
            fresh["data"]["ca.crt"] = text(&self.options.root_ca_pem);
        }
        fresh["metadata"]["annotations"][ACCOUNT_NAME] = json!(account.name());
        fresh["metadata"]["annotations"][ACCOUNT_UID] = json!(account.uid());
        let written: Result<serde::de::IgnoredAny, _> = self.client.replace_any(&resource, namespace, secret.name(), None, &fresh).await;
        match written {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn delete(&self, secret: &Secret) -> Result<(), Error> {
        match self.client.delete::<Secret>(Some(secret.namespace()), secret.name(), &DeleteOptions::uid(secret.uid())).await {
            Ok(()) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// A ServiceAccount that lists a token Secret which is gone lists it no more.
    async fn forget_secret(&self, secret: &ObjectKey, account: &str) -> Result<(), Error> {
        let lists = |account: &ServiceAccount| account.secrets.iter().flatten().any(|one| one.name.as_deref() == Some(&secret.name));
        if !self.accounts.get(&secret.namespace, account).is_some_and(|account| lists(&account)) {
            return Ok(());
        }
        match self.client.get::<Secret>(Some(&secret.namespace), &secret.name).await {
            Ok(_) => return Ok(()),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
        let resource = ResourceType::of::<ServiceAccount>();
        let namespace = Some(secret.namespace.as_str());
        let mut fresh: Value = match self.client.get_any(&resource, namespace, account).await {
            Ok(fresh) => fresh,
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if let Some(secrets) = fresh["secrets"].as_array_mut() {
            secrets.retain(|one| one["name"].as_str() != Some(&secret.name));
        }
        self.client.replace_any::<_, serde::de::IgnoredAny>(&resource, namespace, account, None, &fresh).await?;
        Ok(())
    }
}

//! The join tokens of a running cluster: the server secret in force, and the tokens that administrators made.
//!
//! Owns the secrets that admit machines, and their changes. The replicated keys:
//!
//! ```text
//! sealed "cluster-keys"             the cluster's keys, sealed under the server secret: its salt says which one is in force
//! sealed "cluster-keys/<id>"        the same for a token that admits servers
//! /registry-join/server-token/<salt>   the secret of the bundle with that salt, sealed under the cluster's data key
//! /registry-join/token/<id>            a token, its secret hashed
//! ```
//!
//! A rotation writes the new secret first and then swaps the bundle, in one command that names the version it replaces: until the
//! swap the old secret is in force, after it the new one, on every server that has applied it.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use trireme_api::admin::{TokenInfo, TokenUsage};
use trireme_proto::{etcd, store::SealedKey};
use trireme_raft::{Store, StoreError};

use super::{JoinTokens, TokenRecord, TokenRole, TokenText, credentials};
use crate::pki::{ClusterKeys, PkiError, SealedBundle, seal::SEALED_NAME};
use trireme_apiserver::storage::keys;
use trireme_apiserver::storage::sealing::{Keyring, SealingError};

const SECRETS: &str = "/registry-join/server-token/";
const TOKENS: &str = "/registry-join/token/";
/// What the sealed secret is called in its envelope.
const KIND: &str = "trireme/server-token";
/// Administrators make tokens by hand.
const TOKENS_MAX: usize = 1000;

/// The salt of the cluster keys' seal, and the server secret in force, sealed.
type SaltAndSecret = (Bytes, Bytes);

/// Why a token could not be read, made or changed.
#[derive(Debug, thiserror::Error)]
pub enum LiveTokensError {
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Keys or randomness failed.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The stored secret does not open.
    #[error(transparent)]
    Sealing(#[from] SealingError),
    /// The stored value is no valid token.
    #[error("{key}: {reason}")]
    Malformed {
        /// Where.
        key: String,
        /// Why.
        reason: String,
    },
    /// It was changed concurrently.
    #[error("{0}")]
    Conflict(String),
    /// There is no such token.
    #[error("there is no token {0:?}")]
    NotFound(String),
}

type Result<T> = std::result::Result<T, LiveTokensError>;

/// The tokens. Cheap to clone.
#[derive(Clone)]
pub struct LiveTokens {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    keys: Arc<ClusterKeys>,
    keyring: Keyring,
    /// The salt of the bundle that the secret belongs to; empty before the store has one.
    salt: RwLock<Bytes>,
    secret: watch::Sender<String>,
    derived: Mutex<Option<JoinTokens>>,
}

/// Opens the server secret that a joining server was given with the cluster's keys.
pub fn open_server_secret(keys: &ClusterKeys, salt: &[u8], value: Bytes) -> Result<String> {
    let keyring = Keyring::new(keys.keyring_keys()?);
    open(&keyring, &secret_key(salt), value)
}

fn open(keyring: &Keyring, key: &str, value: Bytes) -> Result<String> {
    let secret = keyring.open(key, value)?;
    String::from_utf8(secret.to_vec()).map_err(|e| LiveTokensError::Malformed { key: key.to_owned(), reason: e.to_string() })
}

fn secret_key(salt: &[u8]) -> String {
    format!("{SECRETS}{}", hex::encode(salt))
}

fn token_key(id: &str) -> String {
    format!("{TOKENS}{id}")
}

fn bundle_name(id: &str) -> String {
    format!("{SEALED_NAME}/{id}")
}

// === impl LiveTokens ===

impl LiveTokens {
    /// Tokens over this store. `server_secret` is the one that this server was started with, and counts until the store names one.
    pub fn new(store: Store, keys: Arc<ClusterKeys>, server_secret: String) -> Result<LiveTokens> {
        let keyring = Keyring::new(keys.keyring_keys()?);
        let inner =
            Inner { store, keys, keyring, salt: RwLock::default(), secret: watch::Sender::new(server_secret), derived: Mutex::default() };
        Ok(LiveTokens { inner: Arc::new(inner) })
    }

    /// The two tokens of the servers' files. The nodes' is derived once for each server secret.
    pub fn current(&self) -> Result<JoinTokens> {
        let secret = self.inner.secret.borrow().clone();
        let mut derived = self.inner.derived.lock();
        match &*derived {
            Some(tokens) if tokens.server_secret() == secret => Ok(tokens.clone()),
            _ => {
                let tokens = JoinTokens::derive(secret, &self.inner.keys.server_ca.fingerprint()?)?;
                *derived = Some(tokens.clone());
                Ok(tokens)
            }
        }
    }

    /// Tells of another server secret.
    pub fn changes(&self) -> watch::Receiver<String> {
        self.inner.secret.subscribe()
    }

    /// Looks whether the store has another secret in force. Local.
    pub fn refresh(&self) -> Result<()> {
        let Some(bundle) = self.bundle(SEALED_NAME)?.map(|(key, _)| key) else { return Ok(()) };
        if *self.inner.salt.read() == bundle.salt {
            return Ok(());
        }
        let key = secret_key(&bundle.salt);
        if let Some(value) = self.get(&key)?.map(|kv| kv.value) {
            let secret = open(&self.inner.keyring, &key, value)?;
            *self.inner.salt.write() = bundle.salt;
            self.inner.secret.send_if_modified(|known| std::mem::replace(known, secret.clone()) != secret);
        }
        Ok(())
    }

    /// The role that an `Authorization: Basic` header grants, checked against the cluster's latest state.
    pub async fn verify_header(&self, header: &str, now: Timestamp) -> Result<Option<Admitted>> {
        let Some((user, password)) = credentials(header) else { return Ok(None) };
        self.inner.store.barrier().await?;
        self.refresh()?;
        if let Some(role) = self.current()?.verify(&user, &password) {
            return Ok(Some(Admitted { role, token_id: None }));
        }
        let text = if user.is_empty() { password } else { format!("{user}.{password}") };
        let Some(text) = TokenText::parse(&text) else { return Ok(None) };
        let record = self.record(&text.id)?.map(|(record, _)| record);
        let role = record.and_then(|record| record.admits(&text, now));
        Ok(role.map(|role| Admitted { role, token_id: Some(text.id) }))
    }

    /// The cluster's keys, sealed under what this holder holds, and the sealed server secret in force with its salt.
    pub fn sealed_for(&self, admitted: &Admitted) -> Result<Option<(SealedKey, Option<SaltAndSecret>)>> {
        let Some((main, _)) = self.bundle(SEALED_NAME)? else { return Ok(None) };
        let secret = self.get(&secret_key(&main.salt))?.map(|kv| (main.salt.clone(), kv.value));
        match &admitted.token_id {
            None => Ok(Some((main, secret))),
            Some(id) => Ok(self.bundle(&bundle_name(id))?.map(|(key, _)| (key, secret))),
        }
    }

    /// Puts the secret in force beside its bundle, where a cluster of an earlier release has none. For the leader.
    pub async fn record_secret(&self) -> Result<()> {
        let Some((bundle, _)) = self.bundle(SEALED_NAME)? else { return Ok(()) };
        let key = secret_key(&bundle.salt);
        if self.get(&key)?.is_some() {
            return Ok(());
        }
        let secret = self.inner.secret.borrow().clone();
        let sealed = SealedBundle::from_stored(&bundle)?;
        let opened = secret.clone();
        let fits = tokio::task::spawn_blocking(move || sealed.unseal(&opened).is_ok()).await.unwrap_or(false);
        if !fits {
            return Err(LiveTokensError::Conflict("this server does not hold the server token in force".into()));
        }
        self.put_secret(&key, secret).await?;
        self.refresh()
    }

    /// All tokens that were made and are not over.
    pub fn list(&self, now: Timestamp) -> Result<Vec<TokenInfo>> {
        let records = self.records()?;
        Ok(records.into_iter().filter(|(_, record, _)| !record.is_expired(now)).map(|(id, record, _)| record.info(&id)).collect())
    }

    /// Makes a token. Only a hash of its text is kept.
    pub async fn create(
        &self,
        usages: Vec<TokenUsage>,
        description: String,
        ttl_secs: i64,
        now: Timestamp,
    ) -> Result<(TokenText, TokenInfo)> {
        if self.records()?.len() >= TOKENS_MAX {
            return Err(LiveTokensError::Conflict(format!("there are {TOKENS_MAX} tokens already: delete some")));
        }
        let text = TokenText::generate()?;
        let expires = (ttl_secs > 0).then(|| now.as_second().saturating_add(ttl_secs));
        let record = TokenRecord { hash: text.hash(), usages, description, created: now.as_second(), expires };
        if record.usages.contains(&TokenUsage::Server) {
            // The bundle is written before the token: without it, a token for servers could not be used.
            let bundle = self.seal(text.secret.clone()).await?;
            self.inner.store.sealed_put(&bundle_name(&text.id), bundle, 0).await?;
        }
        let key = token_key(&text.id);
        let value = serde_json::to_vec(&record).map_err(|e| LiveTokensError::Malformed { key: key.clone(), reason: e.to_string() })?;
        self.write(&key, 0, keys::put(&key, Bytes::from(value), 0)).await?;
        let info = record.info(&text.id);
        Ok((text, info))
    }

    /// Ends a token.
    pub async fn delete(&self, id: &str) -> Result<()> {
        self.inner.store.barrier().await?;
        let (_, mod_revision) = self.record(id)?.ok_or_else(|| LiveTokensError::NotFound(id.to_owned()))?;
        let key = token_key(id);
        self.write(&key, mod_revision, keys::delete(&key)).await?;
        if let Some((_, version)) = self.bundle(&bundle_name(id))? {
            self.inner.store.sealed_delete(&bundle_name(id), version).await?;
        }
        Ok(())
    }

    /// Removes expired tokens. For the leader.
    pub async fn clean_up(&self, now: Timestamp) -> Result<()> {
        for (id, _, _) in self.records()?.into_iter().filter(|(_, record, _)| record.is_expired(now)) {
            match self.delete(&id).await {
                Ok(()) => tracing::info!(token = id, "an expired token was removed"),
                Err(LiveTokensError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Puts another server secret in force. Returns it with the nodes'.
    pub async fn rotate(&self, secret: String) -> Result<JoinTokens> {
        self.inner.store.barrier().await?;
        let (_, version) =
            self.bundle(SEALED_NAME)?.ok_or_else(|| LiveTokensError::Conflict("the cluster has not stored its keys yet".into()))?;
        let bundle = self.seal(secret.clone()).await?;
        let key = secret_key(&bundle.salt);
        self.put_secret(&key, secret.clone()).await?;
        self.inner.store.sealed_put(SEALED_NAME, bundle, version).await?;
        self.refresh()?;
        self.forget_secrets_but(&key).await?;
        Ok(JoinTokens::derive(secret, &self.inner.keys.server_ca.fingerprint()?)?)
    }

    async fn forget_secrets_but(&self, kept: &str) -> Result<()> {
        for kv in self.range(SECRETS)? {
            let key = String::from_utf8_lossy(&kv.key).into_owned();
            if key != kept {
                self.write(&key, kv.mod_revision, keys::delete(&key)).await?;
            }
        }
        Ok(())
    }

    /// Deriving the key takes memory and tens of milliseconds: not on a thread that serves.
    async fn seal(&self, secret: String) -> Result<SealedKey> {
        let keys = self.inner.keys.clone();
        let sealed = tokio::task::spawn_blocking(move || SealedBundle::seal(&keys, &secret)?.to_stored()).await;
        Ok(sealed.map_err(|_| PkiError::Crypto("sealing was interrupted"))??)
    }

    async fn put_secret(&self, key: &str, secret: String) -> Result<()> {
        let value = self.inner.keyring.seal(key, KIND, secret.into_bytes(), true)?;
        self.write(key, 0, keys::put(key, value, 0)).await
    }

    async fn write(&self, key: &str, mod_revision: i64, operation: etcd::RequestOp) -> Result<()> {
        let txn = etcd::TxnRequest { compare: vec![keys::unchanged(key, mod_revision)], success: vec![operation], ..Default::default() };
        match self.inner.store.txn(txn, None).await?.succeeded {
            true => Ok(()),
            false => Err(LiveTokensError::Conflict(format!("{key} was changed by another client: try again"))),
        }
    }

    fn bundle(&self, name: &str) -> Result<Option<(SealedKey, u64)>> {
        let record = self.inner.store.sealed(name)?;
        Ok(record.and_then(|record| record.key.map(|key| (key, record.version))))
    }

    fn get(&self, key: &str) -> Result<Option<etcd::KeyValue>> {
        Ok(self.inner.store.range(&keys::get(key))?.kvs.pop())
    }

    fn range(&self, prefix: &str) -> Result<Vec<etcd::KeyValue>> {
        let request = etcd::RangeRequest { range_end: keys::prefix_end(prefix.as_bytes()), ..keys::get(prefix) };
        Ok(self.inner.store.range(&request)?.kvs)
    }

    fn record(&self, id: &str) -> Result<Option<(TokenRecord, i64)>> {
        self.get(&token_key(id))?.map(|kv| Ok((parse(&kv)?, kv.mod_revision))).transpose()
    }

    fn records(&self) -> Result<Vec<(String, TokenRecord, i64)>> {
        let id = |kv: &etcd::KeyValue| String::from_utf8_lossy(kv.key.get(TOKENS.len()..).unwrap_or_default()).into_owned();
        self.range(TOKENS)?.iter().map(|kv| Ok((id(kv), parse(kv)?, kv.mod_revision))).collect()
    }
}

/// The role that was granted, and the token that granted it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The role.
    pub role: TokenRole,
    /// The token that an administrator made; none for the cluster's own.
    pub token_id: Option<String>,
}

fn parse(kv: &etcd::KeyValue) -> Result<TokenRecord> {
    let key = || String::from_utf8_lossy(&kv.key).into_owned();
    serde_json::from_slice(&kv.value).map_err(|e| LiveTokensError::Malformed { key: key(), reason: e.to_string() })
}

//! This node's two certificates while it runs: renewed when two thirds of their life are over, or when an operator asks, and taken
//! over without a restart by the client and the kubelet's port.
//!
//! A renewal is asked for with the certificate that is still good, so it needs no token. Owns the identity from the start of the node on:
//! all other code that changes it (the list of servers) does so through here.

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{Method, Request};
use http_body_util::BodyExt;
use parking_lot::{Mutex, RwLock};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio_util::sync::CancellationToken;
use trireme_api::{
    admin::{CertificateInfo, CertificateList},
    join::{NodeJoinAnswer, RENEW_PATH},
};
use trireme_client::{Credentials, HttpsTransport, Status, Transport};
use trireme_kubelet::NodeCertificates;

use crate::{
    error::Error,
    identity::{Asked, Identity, IdentityStore, Pair},
};

/// The longest sleep: the wall clock may jump under a timer that only counts.
const LOOK: Duration = Duration::from_secs(600);
/// After a renewal that failed.
const AGAIN: Duration = Duration::from_secs(60);

/// The identity, and what shows it.
pub struct Certificates {
    identity: Mutex<Identity>,
    store: IdentityStore,
    transport: HttpsTransport,
    serving: Arc<Serving>,
    node_ips: Vec<IpAddr>,
    /// One renewal at a time.
    renewing: tokio::sync::Mutex<()>,
}

/// The kubelet's serving certificate, whatever name the client asks for.
#[derive(Debug)]
pub struct Serving(RwLock<Arc<CertifiedKey>>);

impl rustls::server::ResolvesServerCert for Serving {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().clone())
    }
}

fn certified(pair: &Pair) -> Result<Arc<CertifiedKey>, Error> {
    let bad = |e: String| Error::Host(format!("serving certificate of this node: {e}"));
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(pair.certificate_pem.as_bytes()).collect::<Result<_, _>>().map_err(|e| bad(e.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes()).map_err(|e| bad(e.to_string()))?;
    let key = rustls::crypto::ring::sign::any_supported_type(&key).map_err(|e| bad(e.to_string()))?;
    Ok(Arc::new(CertifiedKey::new(chain, key)))
}

impl Certificates {
    /// Those of this identity, shown through `transport`.
    pub fn new(identity: Identity, store: IdentityStore, transport: HttpsTransport, node_ips: Vec<IpAddr>) -> Result<Arc<Self>, Error> {
        let serving = Arc::new(Serving(RwLock::new(certified(&identity.serving)?)));
        Ok(Arc::new(Self { identity: Mutex::new(identity), store, transport, serving, node_ips, renewing: tokio::sync::Mutex::default() }))
    }

    /// What the kubelet's port shows.
    pub fn serving(&self) -> Arc<Serving> {
        self.serving.clone()
    }

    /// The servers known last.
    pub fn servers(&self) -> Vec<String> {
        self.identity.lock().servers.clone()
    }

    /// Keeps another list of servers.
    pub fn keep_servers(&self, servers: Vec<String>) -> Result<(), Error> {
        let mut identity = self.identity.lock();
        identity.servers = servers;
        self.store.save(&identity)
    }

    /// Renews in time, until cancelled.
    pub async fn run(self: Arc<Self>, cancel: CancellationToken) {
        loop {
            let left = self.due_in_secs();
            let sleep = if left > 0 {
                LOOK.min(Duration::from_secs(left.unsigned_abs()))
            } else if let Err(error) = self.renew().await {
                tracing::warn!(%error, "this node's certificates are due and not renewed yet");
                AGAIN
            } else {
                continue;
            };
            tokio::select! {
                () = tokio::time::sleep(sleep) => {}
                () = cancel.cancelled() => return,
            }
        }
    }

    /// Seconds until the first renewal is due. A certificate that cannot be parsed counts as expired.
    fn due_in_secs(&self) -> i64 {
        let now = jiff::Timestamp::now().as_second();
        let list = self.list().unwrap_or_default();
        list.iter().map(|c| c.not_before + (c.not_after - c.not_before) / 3 * 2 - now).min().unwrap_or(0)
    }

    fn list(&self) -> Result<Vec<CertificateInfo>, Error> {
        let identity = self.identity.lock();
        Ok(vec![
            describe("kubelet-client", &identity.client.certificate_pem)?,
            describe("kubelet-serving", &identity.serving.certificate_pem)?,
        ])
    }

    /// Gets and shows new certificates.
    pub async fn renew(&self) -> Result<(), Error> {
        let _alone = self.renewing.lock().await;
        let (node_name, serving_pem) = {
            let identity = self.identity.lock();
            (identity.node_name.clone(), identity.serving.certificate_pem.clone())
        };
        let mut asked = Asked::new(&self.store, &node_name, &self.node_ips)?;
        asked.request.serving_certificate_pem = Some(serving_pem);
        let answer = self.ask(&asked).await?;
        let mut fresh = asked.certified(answer);
        let serving = certified(&fresh.serving)?;
        let credentials =
            Credentials::Certificate { cert_pem: fresh.client.certificate_pem.clone(), key_pem: fresh.client.key_pem.clone() };
        let mut identity = self.identity.lock();
        fresh.servers = identity.servers.clone();
        // On disk first: what is shown is what a restart will show.
        self.store.save(&fresh)?;
        self.transport.set_trust(&fresh.server_ca_pem, &credentials)?;
        *self.serving.0.write() = serving;
        *identity = fresh;
        tracing::info!(node_name, "this node's certificates are renewed");
        Ok(())
    }

    async fn ask(&self, asked: &Asked) -> Result<NodeJoinAnswer, Error> {
        let failed = |e: String| Error::Join(format!("renewal of this node's certificates: {e}"));
        let body = serde_json::to_vec(&asked.request).map_err(|e| failed(e.to_string()))?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(RENEW_PATH)
            .header("content-type", "application/json")
            .body(Bytes::from(body))
            .map_err(|e| failed(e.to_string()))?;
        let response = self.transport.send(request).await?;
        let code = response.status();
        let body = response.into_body().collect().await.map_err(|e| failed(e.to_string()))?.to_bytes();
        if !code.is_success() {
            return Err(failed(Status::from_response(code.as_u16(), &body).message));
        }
        serde_json::from_slice(&body).map_err(|e| failed(e.to_string()))
    }

    fn shown(&self) -> Result<serde_json::Value, String> {
        let list = CertificateList { holder: self.identity.lock().node_name.clone(), certificates: Vec::new() };
        let list = CertificateList { certificates: self.list().map_err(|e| e.to_string())?, ..list };
        serde_json::to_value(list).map_err(|e| e.to_string())
    }
}

impl NodeCertificates for Certificates {
    fn show(&self) -> Result<serde_json::Value, String> {
        self.shown()
    }

    fn rotate(&self) -> BoxFuture<'_, Result<serde_json::Value, String>> {
        async {
            self.renew().await.map_err(|e| e.to_string())?;
            self.shown()
        }
        .boxed()
    }
}

fn describe(name: &str, pem: &str) -> Result<CertificateInfo, Error> {
    let bad = |e: String| Error::Host(format!("certificate {name} of this node: {e}"));
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| bad(e.to_string()))?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).map_err(|e| bad(e.to_string()))?;
    Ok(CertificateInfo {
        name: name.to_owned(),
        subject: parsed.subject().to_string(),
        issuer: parsed.issuer().iter_common_name().next().and_then(|name| name.as_str().ok()).unwrap_or_default().to_owned(),
        not_before: parsed.validity().not_before.timestamp(),
        not_after: parsed.validity().not_after.timestamp(),
    })
}

//! Certificate requests: approves those of kubelets for themselves, has approved ones signed, and removes old ones.
//!
//! Must not hold a key: a [`Signer`] given by the server signs.
//!
//! Answers to: <https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/>.

mod request;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest as Csr;
use serde_json::{Value, json};
use trireme_client::{Client, DeleteOptions, Informer, Object, ResourceType};

use crate::runtime::clock::{self, seconds_since};
use crate::runtime::{Context, Controller, Next, Watches};
use crate::{ControllerOptions, Error};

/// The part that approves the requests of kubelets, as it is switched off.
pub(crate) const APPROVING: &str = "certificatesigningrequest-approving-controller";
/// The part that signs what is approved.
pub(crate) const SIGNING: &str = "certificatesigningrequest-signing-controller";
/// The part that removes old requests.
pub(crate) const CLEANER: &str = "certificatesigningrequest-cleaner-controller";

const PENDING_MAX_SECS: i64 = 24 * 3600;
const DECIDED_MAX_SECS: i64 = 3600;

/// Signs an approved request. The implementation checks that the request is one its signer may sign.
pub trait Signer: Send + Sync {
    /// Whether requests for this `spec.signerName` are signed here.
    fn handles(&self, signer_name: &str) -> bool;
    /// The certificate chain, PEM.
    fn sign<'a>(&'a self, request: &'a Csr) -> BoxFuture<'a, Result<Vec<u8>, SignError>>;
}

/// Why a request was not signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The signer never signs such a request.
    #[error("{0}")]
    Refused(String),
    /// It could not be signed now; a later attempt may succeed.
    #[error("{0}")]
    Unavailable(String),
}

/// The certificate request controller.
pub(crate) struct CertificateRequests {
    client: Client,
    csrs: Arc<Informer<Csr>>,
    options: Arc<ControllerOptions>,
}

impl Controller for CertificateRequests {
    const NAME: &'static str = "certificate-controller";
    const QUEUE: &'static str = "certificate";
    type Key = String;
    type Reads = Arc<Informer<Csr>>;

    fn new(csrs: Self::Reads, context: &Context) -> Option<Self> {
        Some(Self { client: context.client.clone(), csrs, options: Arc::clone(&context.options) })
    }

    fn watch(self: &Arc<Self>, watches: &mut Watches<'_, String>) {
        watches.on(&self.csrs, |event| [event.object().name().to_owned()]);
    }

    async fn reconcile(&self, key: &String) -> Result<Next, Error> {
        let Some(csr) = self.csrs.get("", key) else { return Ok(Next::Wait) };
        let left = secs_left(&csr, clock::now());
        let is_on = |part: &str| self.options.switches.is_on(part);
        if left <= 0 && is_on(CLEANER) {
            return match self.client.delete::<Csr>(None, key, &DeleteOptions::uid(csr.uid())).await {
                Ok(()) => Ok(Next::Wait),
                Err(error) if error.is_not_found() => Ok(Next::Wait),
                Err(error) => Err(error.into()),
            };
        }
        let decided = has_condition(&csr, "Approved") || has_condition(&csr, "Denied");
        if !decided {
            if is_on(APPROVING) {
                self.approve(&csr).await?;
            }
        } else if is_on(SIGNING) && has_condition(&csr, "Approved") && !is_signed(&csr) && !has_condition(&csr, "Failed") {
            self.sign(&csr).await?;
        }
        Ok(if left > 0 { Next::After(Duration::from_secs(left.unsigned_abs())) } else { Next::Wait })
    }
}

fn has_condition(csr: &Csr, kind: &str) -> bool {
    csr.status.iter().flat_map(|status| status.conditions.iter().flatten()).any(|condition| condition.type_ == kind)
}

fn is_signed(csr: &Csr) -> bool {
    csr.status.as_ref().and_then(|status| status.certificate.as_ref()).is_some_and(|cert| !cert.0.is_empty())
}

/// Seconds until a request is old enough to be removed.
fn secs_left(csr: &Csr, now: Timestamp) -> i64 {
    let created = csr.metadata.creation_timestamp.as_ref().map_or(0, |since| seconds_since(since, now));
    let pending = PENDING_MAX_SECS - created;
    let conditions = csr.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let decided = conditions
        .filter(|condition| matches!(condition.type_.as_str(), "Approved" | "Denied" | "Failed"))
        .filter_map(|condition| condition.last_update_time.as_ref().or(condition.last_transition_time.as_ref()))
        .map(|since| DECIDED_MAX_SECS - seconds_since(since, now))
        .min();
    decided.unwrap_or(pending)
}

impl CertificateRequests {
    /// Approves a kubelet's request for its own client certificate, if its sender may make such requests.
    async fn approve(&self, csr: &Csr) -> Result<(), Error> {
        let Some(kind) = request::recognize(csr) else { return Ok(()) };
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {
                "user": csr.spec.username, "uid": csr.spec.uid, "groups": csr.spec.groups, "extra": csr.spec.extra,
                "resourceAttributes": {
                    "group": "certificates.k8s.io", "resource": "certificatesigningrequests", "version": "*",
                    "verb": "create", "subresource": kind.subresource,
                },
            },
        });
        let resource = ResourceType::of::<SubjectAccessReview>();
        let answer: Value = self.client.create_any(&resource, None, &review).await?;
        if answer["status"]["allowed"] != json!(true) {
            return Ok(());
        }
        self.add_condition(csr, "approval", "Approved", "AutoApproved", kind.message).await
    }

    async fn sign(&self, csr: &Csr) -> Result<(), Error> {
        let Some(signer) = &self.options.signer else { return Ok(()) };
        if !signer.handles(&csr.spec.signer_name) {
            return Ok(());
        }
        match signer.sign(csr).await {
            Ok(certificate) => {
                let mut fresh = self.fresh(csr).await?;
                fresh["status"]["certificate"] = json!(ByteString(certificate));
                self.put(csr, "status", &fresh).await
            }
            Err(SignError::Refused(why)) => self.add_condition(csr, "status", "Failed", "SignerValidationFailure", &why).await,
            Err(SignError::Unavailable(why)) => Err(Error::Invalid(why)),
        }
    }

    async fn add_condition(&self, csr: &Csr, subresource: &str, kind: &str, reason: &str, message: &str) -> Result<(), Error> {
        let mut fresh = self.fresh(csr).await?;
        let condition = json!({
            "type": kind, "status": "True", "reason": reason, "message": message,
            "lastUpdateTime": clock::now().to_string(), "lastTransitionTime": clock::now().to_string(),
        });
        if !fresh["status"].is_object() {
            fresh["status"] = json!({});
        }
        match fresh["status"]["conditions"].as_array_mut() {
            Some(conditions) => conditions.push(condition),
            None => fresh["status"]["conditions"] = json!([condition]),
        }
        self.put(csr, subresource, &fresh).await
    }

    /// The object as it is, undecoded; it must still be in the state that was looked at.
    async fn fresh(&self, csr: &Csr) -> Result<Value, Error> {
        let mut fresh: Value = self.client.get_any(&ResourceType::of::<Csr>(), None, csr.name()).await?;
        fresh["metadata"]["resourceVersion"] = json!(csr.metadata.resource_version);
        Ok(fresh)
    }

    async fn put(&self, csr: &Csr, subresource: &str, object: &Value) -> Result<(), Error> {
        let resource = ResourceType::of::<Csr>();
        self.client.replace_any::<_, serde::de::IgnoredAny>(&resource, None, csr.name(), Some(subresource), object).await?;
        Ok(())
    }
}
/// Whether a request is one that a kubelet may make for itself, its usages and signer given.
#[cfg(feature = "fuzzing")]
pub(crate) fn is_kubelets_request(pem: &[u8]) -> bool {
    let mut csr = Csr::default();
    csr.spec.signer_name = "kubernetes.io/kube-apiserver-client-kubelet".to_owned();
    csr.spec.usages = Some(vec!["digital signature".to_owned(), "client auth".to_owned()]);
    csr.spec.request = k8s_openapi::ByteString(pem.to_vec());
    request::recognize(&csr).is_some()
}

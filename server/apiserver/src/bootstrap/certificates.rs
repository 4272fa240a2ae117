//! The leader's duty towards CertificateSigningRequests: approve what nodes ask for themselves, sign what is approved.
//!
//! Lives here and not among the controllers because it holds the authorities' keys, which no client may.
//! Answers to <https://kubernetes.io/docs/reference/access-authn-authz/kubelet-tls-bootstrapping/> and upstream's
//! `csrapproving` and `csrsigning` controllers.

use std::{collections::HashSet, sync::Arc};

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use trireme_api::{meta, time};

use super::Door;
use crate::{
    admission::certificates::request_pem,
    lookup::ObjectReader,
    pki::{
        ClusterKeys, SignRequest, Signer, SignerName,
        sign::{RequestSubject, check},
    },
};

const GROUP: &str = "certificates.k8s.io";
const PLURAL: &str = "certificatesigningrequests";
const COLLECTION: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
/// After a failed write: the door's next change may be long in coming.
const RETRY: std::time::Duration = std::time::Duration::from_secs(2);

/// Approves and signs.
pub struct CertificateDuty {
    /// Where to write.
    pub door: Door,
    /// What there is.
    pub reader: Arc<dyn ObjectReader>,
    /// The authorities.
    pub keys: Arc<ClusterKeys>,
}

/// The next step for one request.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    /// Nothing to do (any more), or somebody else's business.
    Leave,
    /// Write this to the `approval` subresource.
    Approve(Value),
    /// Write this to the `status` subresource.
    Conclude(Value),
}

impl CertificateDuty {
    /// Works until `cancel`, woken by `progress` (the watch cache's revision).
    pub async fn run(&self, mut progress: watch::Receiver<i64>, cancel: CancellationToken) {
        let mut seen = -1;
        loop {
            let changed = self.reader.last_change(GROUP, PLURAL);
            let mut failed = false;
            if changed != seen {
                failed = !self.round(Timestamp::now()).await;
                seen = if failed { -1 } else { changed };
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(RETRY), if failed => {}
                moved = progress.changed() => if moved.is_err() { return },
            }
        }
    }

    /// Goes through all requests once. False if a write failed.
    async fn round(&self, now: Timestamp) -> bool {
        let mut good = true;
        for found in self.reader.list(GROUP, PLURAL, None) {
            let name = meta::name(&found.object);
            let written = match self.step(&found.object, now) {
                Step::Leave => continue,
                Step::Approve(csr) => self.door.replace(&format!("{COLLECTION}/{name}/approval"), &csr).await,
                Step::Conclude(csr) => self.door.replace(&format!("{COLLECTION}/{name}/status"), &csr).await,
            };
            if let Err(error) = written {
                tracing::warn!(%error, name, "certificate signing request");
                good = false;
            }
        }
        good
    }

    fn step(&self, csr: &Value, now: Timestamp) -> Step {
        let Some(signer) = SignerName::parse(meta::str_at(csr, &["spec", "signerName"])) else {
            return Step::Leave;
        };
        let conditions: HashSet<_> =
            meta::list_at(csr, &["status", "conditions"]).iter().map(|c| meta::str_at(c, &["type"])).collect();
        let signed = !meta::str_at(csr, &["status", "certificate"]).is_empty();
        if signed || conditions.contains("Denied") || conditions.contains("Failed") {
            return Step::Leave;
        }
        if conditions.contains("Approved") {
            return Step::Conclude(self.conclude(csr, signer, now));
        }
        match self.may_approve(csr, signer) {
            Some(message) => Step::Approve(with_condition(csr, "Approved", "AutoApproved", message, now)),
            None => Step::Leave,
        }
    }

    /// Signs, or says in a condition why this is never signed.
    fn conclude(&self, csr: &Value, signer: SignerName, now: Timestamp) -> Value {
        let Some(request_pem) = request_pem(csr) else {
            return with_condition(csr, "Failed", "SignerValidationFailure", "spec.request is no PEM", now);
        };
        let usages: Vec<String> =
            meta::list_at(csr, &["spec", "usages"]).iter().filter_map(Value::as_str).map(str::to_owned).collect();
        let request = SignRequest {
            signer,
            request_pem: &request_pem,
            usages: &usages,
            expiration_secs: meta::i64_at(csr, &["spec", "expirationSeconds"]),
        };
        match Signer::new(&self.keys).sign(&request, now) {
            Ok(pem) => {
                let mut csr = csr.clone();
                csr["status"]["certificate"] = Value::from(BASE64_STANDARD.encode(pem));
                csr
            }
            Err(error) => with_condition(csr, "Failed", "SignerValidationFailure", &error.to_string(), now),
        }
    }

    /// Whether a node asks for a certificate in its own name; the message for its approval.
    fn may_approve(&self, csr: &Value, signer: SignerName) -> Option<&'static str> {
        let requester = meta::str_at(csr, &["spec", "username"]);
        let is_node = meta::list_at(csr, &["spec", "groups"]).iter().any(|group| group == "system:nodes");
        let node_name = requester.strip_prefix("system:node:").filter(|_| is_node)?;
        let subject = RequestSubject::parse(&request_pem(csr)?).ok()?;
        let usages: Vec<String> =
            meta::list_at(csr, &["spec", "usages"]).iter().filter_map(Value::as_str).map(str::to_owned).collect();
        if subject.common_name != requester || check(signer, &subject, &usages).is_err() {
            return None;
        }
        match signer {
            SignerName::KubeletClient => Some("Auto approving self kubelet client certificate."),
            SignerName::KubeletServing => self
                .names_are_of(node_name, &subject)
                .then_some("Auto approving kubelet serving certificate for the node's own names and addresses."),
            SignerName::KubeApiServerClient => None,
        }
    }

    fn names_are_of(&self, node_name: &str, subject: &RequestSubject) -> bool {
        let Some(node) = self.reader.get("", "nodes", "", node_name) else {
            return false;
        };
        let mut own: HashSet<String> = meta::list_at(&node.object, &["status", "addresses"])
            .iter()
            .map(|address| meta::str_at(address, &["address"]).to_owned())
            .collect();
        own.insert(node_name.to_owned());
        subject.dns_names.iter().all(|name| own.contains(name))
            && subject.ips.iter().all(|ip| own.contains(&ip.to_string()))
    }
}

fn with_condition(csr: &Value, kind: &str, reason: &str, message: &str, now: Timestamp) -> Value {
    let mut csr = csr.clone();
    let mut conditions = meta::list_at(&csr, &["status", "conditions"]).to_vec();
    let at = time::format(now);
    conditions.push(json!({
        "type": kind, "status": "True", "reason": reason, "message": message,
        "lastUpdateTime": at, "lastTransitionTime": at,
    }));
    if !csr["status"].is_object() {
        csr["status"] = json!({});
    }
    csr["status"]["conditions"] = Value::from(conditions);
    csr
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    use super::*;
    use crate::authz::tests::FakeReader;

    fn csr(signer: &str, who: &str, common_name: &str, names: &[&str], usage: &str) -> Value {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(DnType::CommonName, common_name);
        let pem = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
        json!({"metadata": {"name": "c"}, "spec": {
            "signerName": format!("kubernetes.io/{signer}"), "request": BASE64_STANDARD.encode(pem),
            "username": who, "groups": ["system:nodes"], "usages": ["digital signature", usage]}})
    }

    #[test]
    fn nodes_get_their_own_certificates_and_nobody_elses() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let reader = Arc::new(FakeReader::default());
        reader.put("", "nodes", json!({"metadata": {"name": "n1"}, "status": {"addresses": [{"address": "10.0.0.1"}]}}));
        let duty = CertificateDuty {
            door: Door::new(Arc::new(|_| Box::pin(async { Ok((200, bytes::Bytes::new())) }))),
            reader,
            keys: Arc::new(ClusterKeys::generate(now).unwrap()),
        };
        let (client, serving) = ("kube-apiserver-client-kubelet", "kubelet-serving");
        let cases = [
            (csr(client, "system:node:n1", "system:node:n1", &[], "client auth"), true),
            (csr(client, "system:node:n1", "system:node:n2", &[], "client auth"), false),
            (csr(client, "jane", "jane", &[], "client auth"), false),
            (csr(client, "system:node:n1", "system:node:n1", &[], "server auth"), false),
            (csr(serving, "system:node:n1", "system:node:n1", &["n1", "10.0.0.1"], "server auth"), true),
            (csr(serving, "system:node:n1", "system:node:n1", &["10.0.0.2"], "server auth"), false),
            (csr(serving, "system:node:n1", "system:node:n1", &["kubernetes"], "server auth"), false),
            (csr("kube-apiserver-client", "system:node:n1", "system:node:n1", &[], "client auth"), false),
            (csr("legacy-unknown", "system:node:n1", "system:node:n1", &[], "client auth"), false),
        ];
        for (index, (request, approved)) in cases.iter().enumerate() {
            let step = duty.step(request, now);
            assert_eq!(matches!(step, Step::Approve(_)), *approved, "case {index}");
            let Step::Approve(approved) = step else { continue };
            let Step::Conclude(signed) = duty.step(&approved, now) else { panic!("case {index}") };
            assert!(signed["status"]["certificate"].is_string(), "case {index}: {signed}");
            assert_eq!(duty.step(&signed, now), Step::Leave);
        }
        // Approved by an administrator, but nothing that this signer ever signs.
        let wrong = csr(client, "jane", "jane", &[], "client auth");
        let approved = with_condition(&wrong, "Approved", "ByHand", "", now);
        let Step::Conclude(failed) = duty.step(&approved, now) else { panic!() };
        assert_eq!(failed["status"]["conditions"][1]["type"], "Failed");
        assert_eq!(duty.step(&failed, now), Step::Leave);
        let denied = with_condition(&wrong, "Denied", "ByHand", "", now);
        assert_eq!(duty.step(&denied, now), Step::Leave);
    }
}

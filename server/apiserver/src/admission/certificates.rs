//! CertificateApproval, CertificateSigning, CertificateSubjectRestriction, and the stamp of who asks.
//!
//! Answers to <https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#authorization>.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;
use trireme_api::meta;

use super::{forbid, is_on};
use crate::{
    admission_request::{AdmissionRequest, Operation},
    attributes::Attributes,
    authn::review::user_value,
    authz::Authorizer,
    error::Answer,
    pki::sign::RequestSubject,
};

const GROUP: &str = "certificates.k8s.io";
const PLURAL: &str = "certificatesigningrequests";

/// Writes the requester into a new request: nobody asks in another's name.
pub fn set_requester(request: &mut AdmissionRequest) {
    if request.operation != Operation::Create || !is_on(request, GROUP, PLURAL, "") {
        return;
    }
    let user = user_value(&request.user);
    let Some(spec) = request.object.as_mut().and_then(|csr| csr.get_mut("spec")).and_then(Value::as_object_mut) else {
        return;
    };
    for field in ["username", "uid", "groups", "extra"] {
        match user.get(field) {
            Some(value) => spec.insert(field.to_owned(), value.clone()),
            None => spec.remove(field),
        };
    }
}

/// The decoded PEM of a CertificateSigningRequest object.
pub fn request_pem(csr: &Value) -> Option<String> {
    let decoded = BASE64_STANDARD.decode(meta::str_at(csr, &["spec", "request"])).ok()?;
    String::from_utf8(decoded).ok()
}

/// The judging phase of all three plugins.
pub async fn validate(authorizer: &Authorizer, request: &AdmissionRequest) -> Answer<()> {
    if request.resource.group != GROUP || request.resource.resource != PLURAL {
        return Ok(());
    }
    match (request.operation, request.subresource.as_str()) {
        (Operation::Update, "approval") => may(authorizer, request, "approve").await,
        (Operation::Update, "status") => {
            let (Some(new), Some(old)) = (&request.object, &request.old_object) else {
                return Ok(());
            };
            let same = |path: &[&str]| meta::get(new, path) == meta::get(old, path);
            if same(&["status", "certificate"]) && same(&["status", "conditions"]) {
                return Ok(());
            }
            may(authorizer, request, "sign").await
        }
        (Operation::Create, "") => subject_restriction(request),
        _ => Ok(()),
    }
}

async fn may(authorizer: &Authorizer, request: &AdmissionRequest, verb: &str) -> Answer<()> {
    let old = request.old_object.as_deref().or(request.object.as_ref());
    let signer = old.map(|csr| meta::str_at(csr, &["spec", "signerName"])).unwrap_or_default();
    let ask = |name: String| Attributes {
        user: request.user.clone(),
        verb: verb.to_owned(),
        resource_request: true,
        group: GROUP.to_owned(),
        version: "*".to_owned(),
        resource: "signers".to_owned(),
        name,
        ..Attributes::default()
    };
    if authorizer.authorize(&ask(signer.to_owned())).await.allowed {
        return Ok(());
    }
    if let Some((domain, _)) = signer.split_once('/')
        && authorizer.authorize(&ask(format!("{domain}/*"))).await.allowed
    {
        return Ok(());
    }
    Err(forbid(request, &format!("user not permitted to {verb} requests with signerName {signer:?}")))
}

fn subject_restriction(request: &AdmissionRequest) -> Answer<()> {
    const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
    let Some(csr) = &request.object else {
        return Ok(());
    };
    if meta::str_at(csr, &["spec", "signerName"]) != CLIENT {
        return Ok(());
    }
    let subject = request_pem(csr).and_then(|pem| RequestSubject::parse(&pem).ok());
    let Some(subject) = subject else {
        return Err(forbid(request, "unable to parse the x509 certificate request"));
    };
    if subject.organizations.iter().any(|group| group == crate::user::GROUP_MASTERS) {
        let text = format!("use of {CLIENT} signer with system:masters group is not allowed");
        return Err(forbid(request, &text));
    }
    Ok(())
}

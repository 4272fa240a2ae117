//! CertificateApproval, CertificateSigning, CertificateSubjectRestriction, and recording the requesting user in the spec.
//!
//! Answers to <https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#authorization>.

use futures::future::BoxFuture;
use serde_json::Value;
use trireme_api::certificate_request::CertificateRequest;
use trireme_api::meta;

use crate::admission::effects::Effects;
use crate::admission::forbid;
use crate::admission::plugin::{Environment, Phase, Plugin};
use crate::admission::request::{AdmissionRequest, Operation};
use crate::attributes::Attributes;
use crate::authn::review::user_value;
use crate::authz::Authorizer;
use crate::error::Answer;

const GROUP: &str = "certificates.k8s.io";
const PLURAL: &str = "certificatesigningrequests";

/// CertificateApproval: a user who adds or changes a decision needs the permission `approve` for the signer.
pub struct CertificateApproval {
    authorizer: Authorizer,
}

/// CertificateSigning: a user who changes the certificate or the conditions in a status needs the permission `sign` for the signer.
pub struct CertificateSigning {
    authorizer: Authorizer,
}

/// CertificateSubjectRestriction: no client certificate for `system:masters`.
pub struct CertificateSubjectRestriction;

/// Sets the requesting user in the spec of a new request, so that a client cannot ask in the name of another user. Upstream does this
/// in the kind's strategy, which does not know the user here.
pub struct CertificateRequester;

impl CertificateApproval {
    /// Made from `environment`.
    pub fn new(environment: &Environment) -> CertificateApproval {
        CertificateApproval { authorizer: environment.authorizer.clone() }
    }
}

impl CertificateSigning {
    /// Made from `environment`.
    pub fn new(environment: &Environment) -> CertificateSigning {
        CertificateSigning { authorizer: environment.authorizer.clone() }
    }
}

impl Plugin for CertificateApproval {
    fn name(&self) -> &'static str {
        "CertificateApproval"
    }

    fn phases(&self) -> &'static [Phase] {
        &[Phase::Validate]
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.operation == Operation::Update && request.is_on(GROUP, PLURAL, "approval")
    }

    fn validate<'a>(&'a self, request: &'a AdmissionRequest, _effects: &'a mut Effects) -> BoxFuture<'a, Answer<()>> {
        Box::pin(may(&self.authorizer, request, "approve"))
    }
}

impl Plugin for CertificateSigning {
    fn name(&self) -> &'static str {
        "CertificateSigning"
    }

    fn phases(&self) -> &'static [Phase] {
        &[Phase::Validate]
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.operation == Operation::Update && request.is_on(GROUP, PLURAL, "status")
    }

    fn validate<'a>(&'a self, request: &'a AdmissionRequest, _effects: &'a mut Effects) -> BoxFuture<'a, Answer<()>> {
        let (Some(new), Some(old)) = (request.object(), &request.old_object) else {
            return Box::pin(std::future::ready(Ok(())));
        };
        let same = |path: &[&str]| meta::get(new, path) == meta::get(old, path);
        if same(&["status", "certificate"]) && same(&["status", "conditions"]) {
            return Box::pin(std::future::ready(Ok(())));
        }
        Box::pin(may(&self.authorizer, request, "sign"))
    }
}

impl Plugin for CertificateSubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    fn phases(&self) -> &'static [Phase] {
        &[Phase::Validate]
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.operation == Operation::Create && request.is_on(GROUP, PLURAL, "")
    }

    fn validate<'a>(&'a self, request: &'a AdmissionRequest, _effects: &'a mut Effects) -> BoxFuture<'a, Answer<()>> {
        Box::pin(std::future::ready(subject_restriction(request)))
    }
}

impl Plugin for CertificateRequester {
    fn name(&self) -> &'static str {
        "CertificateRequester"
    }

    fn phases(&self) -> &'static [Phase] {
        &[Phase::Admit]
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.operation == Operation::Create && request.is_on(GROUP, PLURAL, "")
    }

    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest, _effects: &'a mut Effects) -> BoxFuture<'a, Answer<()>> {
        let user = user_value(&request.user);
        let spec = request.object_mut().and_then(|csr| csr.get_mut("spec")).and_then(Value::as_object_mut);
        if let Some(spec) = spec {
            for field in ["username", "uid", "groups", "extra"] {
                match user.get(field) {
                    Some(value) => spec.insert(field.to_owned(), value.clone()),
                    None => spec.remove(field),
                };
            }
        }
        Box::pin(std::future::ready(Ok(())))
    }
}

async fn may(authorizer: &Authorizer, request: &AdmissionRequest, verb: &str) -> Answer<()> {
    let old = request.old_object.as_deref().or(request.object());
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
    let Some(csr) = request.object() else {
        return Ok(());
    };
    if meta::str_at(csr, &["spec", "signerName"]) != CLIENT {
        return Ok(());
    }
    let decoded = CertificateRequest::of_object(csr).map_err(|why| forbid(request, &format!("unable to parse csr: {why}")))?;
    if decoded.subject().organizations.iter().any(|group| group == crate::user::GROUP_MASTERS) {
        let text = format!("use of {CLIENT} signer with system:masters group is not allowed");
        return Err(forbid(request, &text));
    }
    Ok(())
}

//! Recognizes the requests that may be approved without a person. No I/O.

use k8s_openapi::api::certificates::v1::CertificateSigningRequest as Csr;
use trireme_api::certificate_request::CertificateRequest;

const SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const USER_PREFIX: &str = "system:node:";
const GROUP: &str = "system:nodes";

/// A kind of request that its sender may be allowed to make.
pub(super) struct Kind {
    /// What the sender must be allowed to create.
    pub(super) subresource: &'static str,
    /// Said when it is approved.
    pub(super) message: &'static str,
}

const SELF: Kind =
    Kind { subresource: "selfnodeclient", message: "Auto approving self kubelet client certificate after SubjectAccessReview." };
const NODE: Kind = Kind { subresource: "nodeclient", message: "Auto approving kubelet client certificate after SubjectAccessReview." };

pub(super) fn recognize(csr: &Csr) -> Option<Kind> {
    if csr.spec.signer_name != SIGNER || !usages_fit(csr.spec.usages.as_deref().unwrap_or_default()) {
        return None;
    }
    let request = CertificateRequest::decode(&csr.spec.request.0).ok()?;
    let subject = request.subject();
    let name = subject.common_name.as_str();
    if subject.organizations != [GROUP] || !name.starts_with(USER_PREFIX) {
        return None;
    }
    if !subject.dns_names.is_empty() || !subject.ips.is_empty() || subject.other_names {
        return None;
    }
    Some(if csr.spec.username.as_deref() == Some(name) { SELF } else { NODE })
}

fn usages_fit(usages: &[String]) -> bool {
    let has = |usage: &str| usages.iter().any(|known| known == usage);
    let only = usages.iter().all(|usage| matches!(usage.as_str(), "client auth" | "digital signature" | "key encipherment"));
    only && has("client auth") && has("digital signature")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use k8s_openapi::ByteString;

    use super::*;

    fn csr(organization: &str, name: &str, san: bool, username: &str) -> Csr {
        let mut params = rcgen::CertificateParams::new(if san { vec!["evil".to_owned()] } else { vec![] }).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, organization);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let pem = params.serialize_request(&rcgen::KeyPair::generate().unwrap()).unwrap().pem().unwrap();
        let mut csr = Csr::default();
        csr.spec.signer_name = SIGNER.to_owned();
        csr.spec.username = Some(username.to_owned());
        csr.spec.usages = Some(vec!["digital signature".to_owned(), "client auth".to_owned()]);
        csr.spec.request = ByteString(pem.into_bytes());
        csr
    }

    #[test]
    fn only_a_kubelets_plain_client_request_is_recognized() {
        let kind = |csr: &Csr| recognize(csr).map(|kind| kind.subresource);
        let good = csr(GROUP, "system:node:n1", false, "system:node:n1");
        assert_eq!(kind(&good), Some("selfnodeclient"));
        assert_eq!(kind(&csr(GROUP, "system:node:n1", false, "bootstrap")), Some("nodeclient"));
        assert_eq!(kind(&csr("system:masters", "system:node:n1", false, "system:node:n1")), None);
        assert_eq!(kind(&csr(GROUP, "admin", false, "admin")), None);
        assert_eq!(kind(&csr(GROUP, "system:node:n1", true, "system:node:n1")), None);
        let mut greedy = good.clone();
        greedy.spec.usages.as_mut().unwrap().push("server auth".to_owned());
        assert_eq!(kind(&greedy), None);
        let mut garbage = good;
        garbage.spec.request = ByteString(b"nonsense".to_vec());
        assert_eq!(kind(&garbage), None);
    }
}

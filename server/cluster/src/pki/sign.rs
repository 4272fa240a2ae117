//! The built-in signers behind CertificateSigningRequest objects.
//!
//! Owns what each `kubernetes.io/...` signer accepts and how it signs. Whether a request was approved is
//! the caller's to check. Answers to
//! <https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#kubernetes-signers>.

use jiff::Timestamp;
use rcgen::{CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose};
use trireme_api::certificate_request::{CertificateRequest, RequestSubject};

use super::{ClusterKeys, PkiError, authority::Authority, profile::LEAF_SECS};

/// The shortest life that a request may ask for.
const EXPIRATION_SECS_MIN: i64 = 600;

/// The signers that this server implements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignerName {
    /// `kubernetes.io/kube-apiserver-client`
    KubeApiServerClient,
    /// `kubernetes.io/kube-apiserver-client-kubelet`
    KubeletClient,
    /// `kubernetes.io/kubelet-serving`
    KubeletServing,
}

impl SignerName {
    /// The signer of this name, if it is one of ours.
    pub fn parse(name: &str) -> Option<SignerName> {
        Some(match name {
            "kubernetes.io/kube-apiserver-client" => SignerName::KubeApiServerClient,
            "kubernetes.io/kube-apiserver-client-kubelet" => SignerName::KubeletClient,
            "kubernetes.io/kubelet-serving" => SignerName::KubeletServing,
            _ => return None,
        })
    }
}

/// What a CertificateSigningRequest object asks for.
#[derive(Clone, Debug)]
pub struct SignRequest<'a> {
    /// `spec.signerName`.
    pub signer: SignerName,
    /// `spec.request`, decoded.
    pub request: &'a CertificateRequest,
    /// `spec.usages`.
    pub usages: &'a [String],
    /// `spec.expirationSeconds`.
    pub expiration_secs: Option<i64>,
}

/// The signers with the keys to sign.
pub struct Signer<'a> {
    keys: &'a ClusterKeys,
}

impl<'a> Signer<'a> {
    /// Signs with these keys.
    pub fn new(keys: &'a ClusterKeys) -> Signer<'a> {
        Signer { keys }
    }

    /// Signs, or says why this signer would never sign such a request.
    pub fn sign(&self, request: &SignRequest<'_>, now: Timestamp) -> Result<String, PkiError> {
        let subject = request.request.subject();
        check(request.signer, subject, request.usages).map_err(PkiError::Refused)?;
        // The same bytes that were checked are signed.
        let csr = CertificateSigningRequestParams::from_der(&request.request.der().into())?;
        let repeated = subject.organizations.len() > 1;
        if repeated {
            // rcgen keeps one value per attribute type; signing anyway would silently drop groups.
            return Err(PkiError::Refused("subjects with more than one organization are not supported".to_owned()));
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = csr.params.distinguished_name.clone();
        params.subject_alt_names = csr.params.subject_alt_names.clone();
        params.is_ca = IsCa::ExplicitNoCa;
        (params.key_usages, params.extended_key_usages) = usages(request.usages)?;
        let wanted = request.expiration_secs.unwrap_or(LEAF_SECS);
        self.authority(request.signer).sign(params, &csr.public_key, now, wanted.clamp(EXPIRATION_SECS_MIN, LEAF_SECS))
    }

    fn authority(&self, signer: SignerName) -> &Authority {
        match signer {
            SignerName::KubeletServing => &self.keys.server_ca,
            SignerName::KubeApiServerClient | SignerName::KubeletClient => &self.keys.client_ca,
        }
    }
}

/// Whether the signer signs such a request at all (upstream's kubelet client and serving checks).
pub fn check(signer: SignerName, subject: &RequestSubject, usages: &[String]) -> Result<(), String> {
    let has = |usage: &str| usages.iter().any(|u| u == usage);
    let only = |allowed: &[&str]| usages.iter().all(|u| allowed.contains(&u.as_str()));
    let node_subject = || {
        if subject.organizations != ["system:nodes"] {
            return Err("subject organization is not system:nodes".to_owned());
        }
        if !subject.common_name.starts_with("system:node:") {
            return Err("subject common name does not begin with system:node:".to_owned());
        }
        Ok(())
    };
    match signer {
        SignerName::KubeletClient => {
            node_subject()?;
            if !subject.dns_names.is_empty() || !subject.ips.is_empty() || subject.other_names {
                return Err("DNS, IP, email and URI subjectAltNames are not allowed".to_owned());
            }
            if !has("digital signature") || !has("client auth") || !only(&["digital signature", "key encipherment", "client auth"]) {
                return Err(
                    "usages did not match [client auth digital signature], [client auth digital signature key encipherment]".to_owned()
                );
            }
        }
        SignerName::KubeletServing => {
            node_subject()?;
            if subject.dns_names.is_empty() && subject.ips.is_empty() {
                return Err("DNS or IP subjectAltName is required".to_owned());
            }
            if subject.other_names {
                return Err("email and URI subjectAltNames are not allowed".to_owned());
            }
            if !has("digital signature") || !has("server auth") || !only(&["digital signature", "key encipherment", "server auth"]) {
                return Err(
                    "usages did not match [digital signature server auth], [digital signature key encipherment server auth]".to_owned()
                );
            }
        }
        SignerName::KubeApiServerClient => {
            if !has("client auth") || !only(&["digital signature", "key encipherment", "client auth"]) {
                return Err("usages must include client auth and may only add digital signature and key encipherment".to_owned());
            }
        }
    }
    Ok(())
}

fn usages(names: &[String]) -> Result<(Vec<KeyUsagePurpose>, Vec<ExtendedKeyUsagePurpose>), PkiError> {
    let (mut plain, mut extended) = (Vec::new(), Vec::new());
    for name in names {
        match name.as_str() {
            "digital signature" | "signing" => plain.push(KeyUsagePurpose::DigitalSignature),
            "key encipherment" => plain.push(KeyUsagePurpose::KeyEncipherment),
            "client auth" => extended.push(ExtendedKeyUsagePurpose::ClientAuth),
            "server auth" => extended.push(ExtendedKeyUsagePurpose::ServerAuth),
            other => {
                return Err(PkiError::Refused(format!("usage \"{other}\" is not signed here")));
            }
        }
    }
    Ok((plain, extended))
}

//! Certificate requests, as strangers with a join token send them.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use trireme_api::certificate_request::CertificateRequest;

use super::Target;

const BEGIN: &str = "-----BEGIN CERTIFICATE REQUEST-----\n";
const END: &str = "\n-----END CERTIFICATE REQUEST-----\n";

pub fn targets() -> Vec<Target> {
    vec![
        Target { name: "csr", what: "certificate requests in PEM", corpus: documents, run: judge },
        Target { name: "csr-der", what: "certificate requests below their PEM", corpus: requests, run: |der| judge(&pem(der)) },
    ]
}

/// Requests of kubelets and of others, as DER. The keys are new in each process: what is fuzzed is not the signature.
fn requests() -> Vec<Vec<u8>> {
    let request = |organization: &str, name: &str, alternatives: Vec<String>| {
        let mut params = rcgen::CertificateParams::new(alternatives).ok()?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, organization);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = rcgen::KeyPair::generate().ok()?;
        Some(params.serialize_request(&key).ok()?.der().to_vec())
    };
    [
        request("system:nodes", "system:node:n1", Vec::new()),
        request("system:nodes", "system:node:n1", vec!["n1".to_owned(), "10.0.0.1".to_owned()]),
        request("developers", "jane", Vec::new()),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn documents() -> Vec<Vec<u8>> {
    requests().iter().map(|der| pem(der)).collect()
}

fn pem(der: &[u8]) -> Vec<u8> {
    format!("{BEGIN}{}{END}", BASE64_STANDARD.encode(der)).into_bytes()
}

fn judge(document: &[u8]) {
    let decoded = CertificateRequest::decode(document);
    let is_kubelets = trireme_controllers::fuzzing::is_kubelets_request(document);
    // A kubelet's request, which is approved automatically, must decode.
    assert!(!is_kubelets || decoded.is_ok_and(|request| request.subject().common_name.starts_with("system:node:")));
}

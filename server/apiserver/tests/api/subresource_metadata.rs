//! What subresources keep of an object's metadata.

use crate::support::Cluster;
use base64::{Engine, prelude::BASE64_STANDARD};
use http::Method;
use serde_json::{Value, json};

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

/// "CSR API operations" of the conformance suite: an annotation that comes with an approval stays.
#[tokio::test(flavor = "multi_thread")]
async fn conformance_an_approval_keeps_the_annotations_that_come_with_it() {
    let cluster = Cluster::start().await;
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, "e2e.example.com");
    let pem = params.serialize_request(&key).unwrap().pem().unwrap();
    let request = json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": "c"},
        "spec": {"request": BASE64_STANDARD.encode(pem), "signerName": "example.com/e2e", "usages": ["digital signature", "key encipherment", "server auth"]}});
    let (code, answer) = cluster.admin(Method::POST, REQUESTS, request).await;
    assert_eq!(code, 201, "{answer}");
    let patch = json!({"metadata": {"annotations": {"patchedapproval": "true"}},
        "status": {"conditions": [{"type": "ApprovalPatch", "status": "True", "reason": "e2e"}]}});
    let (code, patched) = cluster.admin(Method::PATCH, &format!("{REQUESTS}/c/approval"), patch).await;
    assert_eq!((code, &patched["metadata"]["annotations"]["patchedapproval"]), (200, &json!("true")), "{patched}");
    assert_eq!(patched["status"]["conditions"][0]["type"], "ApprovalPatch");
    let (_, read) = cluster.admin(Method::GET, &format!("{REQUESTS}/c"), Value::Null).await;
    assert_eq!(read["metadata"]["annotations"]["patchedapproval"], "true");
    let patch = json!({"metadata": {"annotations": {"patchedstatus": "true"}}, "status": {"certificate": null}});
    let (code, patched) = cluster.admin(Method::PATCH, &format!("{REQUESTS}/c/status"), patch).await;
    assert_eq!((code, &patched["metadata"]["annotations"]["patchedstatus"]), (200, &json!("true")), "{patched}");
    cluster.stop().await;
}

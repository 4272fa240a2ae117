use std::collections::HashSet;

use jiff::Timestamp;
use rcgen::{CertificateParams, DnType, KeyPair};
use trireme_api::certificate_request::CertificateRequest;

use super::*;

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn csr(common_name: &str, organizations: &[&str], names: &[&str]) -> String {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    for organization in organizations {
        params.distinguished_name.push(DnType::OrganizationName, *organization);
    }
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.serialize_request(&key).unwrap().pem().unwrap()
}

#[test]
fn bundle_opens_with_its_token_only_and_tells_damage() {
    let keys = ClusterKeys::generate(now()).unwrap();
    let sealed = SealedBundle::seal(&keys, "right").unwrap();
    let stored = sealed.to_bytes().unwrap();
    assert!(!String::from_utf8_lossy(&stored).contains("PRIVATE KEY"));
    let opened = SealedBundle::from_bytes(&stored).unwrap().unseal("right").unwrap();
    assert_eq!(opened.server_ca.key_pem, keys.server_ca.key_pem);
    assert_eq!(opened.data_keys[0].bytes().unwrap(), keys.data_keys[0].bytes().unwrap());
    assert_eq!(SealedBundle::from_stored(&sealed.to_stored().unwrap()).unwrap(), sealed);
    assert!(matches!(sealed.unseal("wrong"), Err(PkiError::Unseal)));

    let mut weaker = sealed.clone();
    weaker.passes = 1;
    assert!(matches!(weaker.unseal("right"), Err(PkiError::Unseal)));
    let mut greedy = sealed;
    greedy.memory_kib = 8 * 1024 * 1024;
    assert!(matches!(greedy.unseal("right"), Err(PkiError::Malformed { .. })));
}

#[test]
fn every_profile_is_signed_by_its_own_authority() {
    let keys = ClusterKeys::generate(now()).unwrap();
    let fingerprints: HashSet<_> = [&keys.server_ca, &keys.client_ca, &keys.peer_ca, &keys.etcd_client_ca, &keys.front_proxy_ca]
        .iter()
        .map(|ca| ca.fingerprint().unwrap())
        .collect();
    assert_eq!(fingerprints.len(), 5);
    let profiles = [
        Profile::ApiServerServing(ServingNames {
            node_name: "s1".into(),
            node_ips: vec!["10.0.0.5".parse().unwrap()],
            service_ips: vec!["10.43.0.1".parse().unwrap()],
            cluster_domain: "cluster.local".into(),
            extra: vec!["api.example.org".into()],
        }),
        Profile::Admin,
        Profile::KubeletClient { node_name: "w1".into() },
        Profile::Peer { member_name: "s1".into(), addresses: vec!["10.0.0.5".into()] },
        Profile::EtcdClient { name: "root".into() },
        Profile::FrontProxyClient,
    ];
    for profile in profiles {
        let issued = profile.issue(&keys, now()).unwrap();
        let der = authority::certificates(&issued.certificate_pem).unwrap();
        let (_, leaf) = x509_parser::parse_x509_certificate(&der[0]).unwrap();
        for ca in [&keys.server_ca, &keys.client_ca, &keys.peer_ca, &keys.etcd_client_ca, &keys.front_proxy_ca] {
            let ca_der = ca.certificate_der().unwrap();
            let (_, ca_parsed) = x509_parser::parse_x509_certificate(&ca_der).unwrap();
            let own = ca.key_pem == profile.authority(&keys).key_pem;
            assert_eq!(leaf.verify_signature(Some(ca_parsed.public_key())).is_ok(), own, "{profile:?}");
        }
    }
}

#[test]
fn files_are_private_kept_while_good_and_renewed_when_names_change() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let files = ServerFiles::new(folder.path());
    assert!(files.read_keys().unwrap().is_none());
    let keys = ClusterKeys::generate(now()).unwrap();
    files.write_keys(&keys).unwrap();
    assert_eq!(files.read_keys().unwrap().unwrap().peer_ca.key_pem, keys.peer_ca.key_pem);

    let profile = |ip: &str| Profile::KubeletServing { node_name: "w1".into(), addresses: vec![ip.parse().unwrap()] };
    let first = files.ensure("serving", &profile("10.0.0.1"), &keys, now()).unwrap();
    let again = files.ensure("serving", &profile("10.0.0.1"), &keys, now()).unwrap();
    assert_eq!(first.certificate_pem, again.certificate_pem);
    let moved = files.ensure("serving", &profile("10.0.0.2"), &keys, now()).unwrap();
    assert_ne!(first.certificate_pem, moved.certificate_pem);
    let late = Timestamp::from_second(now().as_second() + 300 * 86_400).unwrap();
    let renewed = files.ensure("serving", &profile("10.0.0.2"), &keys, late).unwrap();
    assert_ne!(moved.certificate_pem, renewed.certificate_pem);
    std::fs::write(files.tls("serving.crt"), "rubbish").unwrap();
    files.ensure("serving", &profile("10.0.0.2"), &keys, late).unwrap();
    for path in [files.tls("serving.key"), files.cred("cluster-keys.json"), files.tls("server-ca.crt")] {
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn signers_sign_what_they_are_for() {
    let keys = ClusterKeys::generate(now()).unwrap();
    let strings = |usages: &[&str]| usages.iter().map(|u| (*u).to_owned()).collect::<Vec<_>>();
    let client = strings(&["client auth", "digital signature"]);
    let serving = strings(&["server auth", "digital signature", "key encipherment"]);
    let node = ("system:node:w1", &["system:nodes"][..]);
    use SignerName::{KubeApiServerClient, KubeletClient, KubeletServing};
    let cases: &[(SignerName, String, &[String], bool)] = &[
        (KubeletClient, csr(node.0, node.1, &[]), &client, true),
        (KubeletClient, csr(node.0, node.1, &["w1"]), &client, false),
        (KubeletClient, csr("w1", node.1, &[]), &client, false),
        (KubeletClient, csr(node.0, &["system:masters"], &[]), &client, false),
        (KubeletClient, csr(node.0, node.1, &[]), &serving, false),
        (KubeletServing, csr(node.0, node.1, &["w1", "10.0.0.1"]), &serving, true),
        (KubeletServing, csr(node.0, node.1, &[]), &serving, false),
        (KubeletServing, csr(node.0, node.1, &["w1"]), &client, false),
        (KubeApiServerClient, csr("jane", &["devs"], &[]), &client, true),
        (KubeApiServerClient, csr("jane", &["devs"], &[]), &serving, false),
    ];
    for (index, (signer, request_pem, usages, good)) in cases.iter().enumerate() {
        let decoded = CertificateRequest::decode(request_pem.as_bytes()).unwrap();
        let request = SignRequest { signer: *signer, request: &decoded, usages, expiration_secs: Some(3600) };
        let result = Signer::new(&keys).sign(&request, now());
        assert_eq!(result.is_ok(), *good, "case {index}: {result:?}");
        if let Ok(pem) = result {
            let der = authority::certificates(&pem).unwrap();
            let (_, leaf) = x509_parser::parse_x509_certificate(&der[0]).unwrap();
            assert_eq!(leaf.validity().not_after.timestamp(), now().as_second() + 3600);
        }
    }
}

#[test]
fn service_account_signature_verifies_and_is_published() {
    let keys = ServiceAccountKeys::generate().unwrap().load().unwrap();
    let other = ServiceAccountKeys::generate().unwrap().load().unwrap();
    let signature = keys[0].sign(b"message").unwrap();
    assert!(keys[0].verify(b"message", &signature));
    assert!(!keys[0].verify(b"massage", &signature));
    assert!(!other[0].verify(b"message", &signature));
    let document = trireme_apiserver::authn::signing_key::jwks(&keys);
    assert_eq!(document["keys"][0]["kid"], keys[0].key_id());
    assert_eq!(document["keys"][0]["alg"], "ES256");
}

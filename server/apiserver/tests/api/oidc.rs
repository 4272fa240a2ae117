//! Tokens of an identity provider, which is a real HTTPS server of this test, and bootstrap tokens.

use std::sync::Arc;

use crate::support::hook::{self, Hook};
use crate::support::{Cluster, read};
use base64::{Engine, prelude::BASE64_STANDARD, prelude::BASE64_URL_SAFE_NO_PAD};
use http::Method;
use jiff::Timestamp;
use parking_lot::Mutex;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use trireme_apiserver::authn::oidc::OidcOptions;

struct Signer {
    id: &'static str,
    pair: EcdsaKeyPair,
}

impl Signer {
    fn new(id: &'static str) -> Signer {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        Signer { id, pair: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random).unwrap() }
    }

    fn jwk(&self) -> Value {
        let (x, y) = self.pair.public_key().as_ref()[1..].split_at(32);
        let text = |bytes| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        json!({"kty": "EC", "crv": "P-256", "kid": self.id, "use": "sig", "x": text(x), "y": text(y)})
    }

    fn token(&self, claims: &Value) -> String {
        let header = json!({"alg": "ES256", "kid": self.id});
        let text = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", text(&header), text(claims));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }
}

/// A provider that shows these keys.
async fn provider(keys: Arc<Mutex<Vec<Value>>>) -> (Hook, String) {
    let url: Arc<Mutex<String>> = Arc::default();
    let own = url.clone();
    let hook = hook::serve_paths(move |path, _| {
        let issuer = own.lock().clone();
        let document = match path {
            "/.well-known/openid-configuration" => json!({"issuer": issuer, "jwks_uri": format!("{issuer}/keys")}),
            "/keys" => json!({"keys": *keys.lock()}),
            other => json!({"unknown": other}),
        };
        Box::pin(async move { document })
    })
    .await;
    let issuer = hook.url.trim_end_matches("/check").to_owned();
    url.lock().clone_from(&issuer);
    (hook, issuer)
}

async fn review(cluster: &Cluster, token: &str) -> Value {
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
    let (code, answer) = cluster.admin(Method::POST, "/apis/authentication.k8s.io/v1/tokenreviews", body).await;
    assert_eq!(code, 201, "{answer}");
    answer["status"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_vouches_for_users() {
    let home = tempfile::tempdir().unwrap();
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let keys = Arc::new(Mutex::new(vec![old.jwk()]));
    let (hook, issuer) = provider(keys.clone()).await;
    let ca = home.path().join("ca.pem");
    std::fs::write(&ca, BASE64_STANDARD.decode(&hook.ca).unwrap()).unwrap();
    let options = OidcOptions {
        groups_claim: Some("groups".to_owned()),
        groups_prefix: "idp:".to_owned(),
        required_claims: [("site".to_owned(), "kiel".to_owned())].into(),
        algorithms: vec!["ES256".to_owned()],
        ca_file: Some(ca),
        ..OidcOptions::new(issuer.clone(), "kubernetes".to_owned())
    };
    let cluster = Cluster::start_on("127.0.0.1:0", |all, _| all.oidc = Some(options)).await;
    let now = Timestamp::now().as_second();
    let claims =
        json!({"iss": issuer, "aud": ["other", "kubernetes"], "sub": "jane", "exp": now + 600, "site": "kiel", "groups": ["a", "b"]});
    let status = review(&cluster, &old.token(&claims)).await;
    let user = json!({"username": format!("{issuer}#jane"), "groups": ["idp:a", "idp:b", "system:authenticated"]});
    assert_eq!((&status["authenticated"], &status["user"]), (&json!(true), &user), "{status}");

    let with = |claim: &str, value: Value| {
        let mut changed = claims.clone();
        changed[claim] = value;
        changed
    };
    for (claims, why) in [
        (with("aud", json!("other")), "expected audience"),
        (with("aud", Value::Null), "expected audience"),
        (with("exp", json!(now - 1)), "expired"),
        (with("exp", Value::Null), "expired"),
        (with("nbf", json!(now + 3600)), "not valid yet"),
        (with("site", json!("bonn")), "required claim site"),
        (with("sub", json!("")), "\"sub\""),
        (with("sub", json!(7)), "\"sub\""),
        (with("groups", json!([1])), "group"),
    ] {
        let status = review(&cluster, &old.token(&claims)).await;
        assert!(status["authenticated"].is_null() && status["error"].as_str().unwrap().contains(why), "{why}: {status}");
    }
    // The prefix keeps a user of the provider apart from a user of the cluster with the same name.
    let status = review(&cluster, &old.token(&with("sub", json!("system:admin")))).await;
    assert_eq!(status["user"]["username"], format!("{issuer}#system:admin"));

    let good = old.token(&claims);
    let forged = format!("{}.{}", good.rsplit_once('.').unwrap().0, BASE64_URL_SAFE_NO_PAD.encode([0; 64]));
    let unsigned = format!("{}.{}.", BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), good.split('.').nth(1).unwrap());
    for bad in [&forged, &unsigned, &good[..good.len() - 2], "a.b.c", &Signer::new("old").token(&claims)] {
        assert!(review(&cluster, bad).await["authenticated"].is_null(), "{bad}");
    }

    // The provider's new key is fetched when the first token needs it; the old tokens end with their key.
    *keys.lock() = vec![new.jwk()];
    let renewed = async {
        while review(&cluster, &new.token(&claims)).await["authenticated"] != json!(true) {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(crate::support::PATIENCE, renewed).await.unwrap();
    assert!(review(&cluster, &old.token(&claims)).await["authenticated"].is_null());
    assert!(*hook.connections.lock() <= 8, "the provider is not asked for each bad token: {}", hook.connections.lock());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_down_stops_nobody_else() {
    let home = tempfile::tempdir().unwrap();
    let ca = home.path().join("ca.pem");
    let (hook, _) = provider(Arc::default()).await;
    std::fs::write(&ca, BASE64_STANDARD.decode(&hook.ca).unwrap()).unwrap();
    let options = OidcOptions {
        ca_file: Some(ca),
        algorithms: vec!["ES256".to_owned()],
        ..OidcOptions::new("https://localhost:1".to_owned(), "kubernetes".to_owned())
    };
    let cluster = Cluster::start_on("127.0.0.1:0", |all, _| all.oidc = Some(options)).await;
    let claims = json!({"iss": "https://localhost:1", "aud": "kubernetes", "sub": "jane", "exp": Timestamp::now().as_second() + 600});
    let status = review(&cluster, &Signer::new("k").token(&claims)).await;
    assert!(status["error"].as_str().unwrap().contains("https://localhost:1/.well-known"), "{status}");
    let own = read(
        cluster
            .send(
                Method::POST,
                "/api/v1/namespaces/default/serviceaccounts/default/token",
                json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}),
                &[("content-type", "application/json")],
            )
            .await,
    )
    .await
    .1;
    assert_eq!(review(&cluster, own["status"]["token"].as_str().unwrap()).await["authenticated"], json!(true));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bootstrap_tokens_authenticate_where_they_are_enabled() {
    let token = "abcdef.0123456789abcdef";
    let secret = json!({"metadata": {"name": "bootstrap-token-abcdef"}, "type": "bootstrap.kubernetes.io/token", "stringData": {
        "token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true",
        "auth-extra-groups": "system:bootstrappers:workers"}});
    for enabled in [true, false] {
        let cluster = Cluster::start_on("127.0.0.1:0", |options, _| options.bootstrap_tokens = enabled).await;
        assert!(review(&cluster, token).await["authenticated"] != json!(true), "there is no such token");
        let (code, answer) = cluster.admin(Method::POST, "/api/v1/namespaces/kube-system/secrets", secret.clone()).await;
        assert_eq!(code, 201, "{answer}");
        let status = review(&cluster, token).await;
        assert_eq!(status["authenticated"] == json!(true), enabled, "{status}");
        if enabled {
            let groups = ["system:bootstrappers", "system:bootstrappers:workers"];
            assert_eq!((&status["user"]["username"], &status["user"]["groups"]), (&json!("system:bootstrap:abcdef"), &json!(groups)));
            assert!(review(&cluster, "abcdef.0123456789abcdee").await["authenticated"] != json!(true));
        }
    }
}

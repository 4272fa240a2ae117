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
use trireme_apiserver::authn::providers::ProviderOptions;

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
    let cluster = Cluster::start_on("127.0.0.1:0", |all, _| all.providers = ProviderOptions::Flags(Box::new(options.into()))).await;
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
    let cluster = Cluster::start_on("127.0.0.1:0", |all, _| all.providers = ProviderOptions::Flags(Box::new(options.into()))).await;
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
            let groups = ["system:bootstrappers", "system:bootstrappers:workers", "system:authenticated"];
            assert_eq!((&status["user"]["username"], &status["user"]["groups"]), (&json!("system:bootstrap:abcdef"), &json!(groups)));
            assert!(review(&cluster, "abcdef.0123456789abcdee").await["authenticated"] != json!(true));
        }
    }
}

/// A file with a provider, whose claims are mapped by expressions.
fn configuration(issuer: &str, ca: &str, audiences: &[&str]) -> Value {
    let pem = String::from_utf8(BASE64_STANDARD.decode(ca).unwrap()).unwrap();
    json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration", "jwt": [{
        "issuer": {"url": issuer, "audiences": audiences, "audienceMatchPolicy": "MatchAny", "certificateAuthority": pem},
        "claimValidationRules": [{"expression": "claims.site == 'kiel'", "message": "only Kiel"}],
        "claimMappings": {
            "username": {"expression": "'idp:' + claims.sub"},
            "groups": {"expression": "claims.roles.filter(role, role != 'internal').map(role, 'idp:' + role)"},
            "uid": {"claim": "uid"},
            "extra": [{"key": "example.com/site", "valueExpression": "claims.site"}],
        },
        "userValidationRules": [{"expression": "user.username != 'idp:root'", "message": "not root"}],
    }], "anonymous": {"enabled": true, "conditions": [{"path": "/livez"}]}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_names_providers_and_is_followed() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("authentication.yaml");
    let (one, two) = (Signer::new("one"), Signer::new("two"));
    let (hook, issuer) = provider(Arc::new(Mutex::new(vec![one.jwk()]))).await;
    let (other_hook, other_issuer) = provider(Arc::new(Mutex::new(vec![two.jwk()]))).await;
    std::fs::write(&file, configuration(&issuer, &hook.ca, &["a", "b"]).to_string()).unwrap();
    let path = file.clone();
    let cluster = Cluster::start_on("127.0.0.1:0", |all, _| all.providers = ProviderOptions::File(path)).await;
    let claims = |issuer: &str| {
        let end = Timestamp::now().as_second() + 600;
        json!({"iss": issuer, "aud": "b", "sub": "jane", "uid": "7", "exp": end, "site": "kiel", "roles": ["dev", "internal"]})
    };
    let with = |claim: &str, value: Value| {
        let mut changed = claims(&issuer);
        changed[claim] = value;
        one.token(&changed)
    };
    let status = review(&cluster, &one.token(&claims(&issuer))).await;
    let user =
        json!({"username": "idp:jane", "uid": "7", "groups": ["idp:dev", "system:authenticated"], "extra": {"example.com/site": ["kiel"]}});
    assert_eq!((&status["authenticated"], &status["user"]), (&json!(true), &user), "{status}");
    for (token, why) in [
        (with("aud", json!("c")), "expected audience"),
        (with("site", json!("bonn")), "only Kiel"),
        (with("sub", json!("root")), "not root"),
        (with("uid", Value::Null), "uid"),
        (with("roles", json!("dev")), "oidc:"),
    ] {
        let status = review(&cluster, &token).await;
        assert!(status["authenticated"].is_null() && status["error"].as_str().unwrap().contains(why), "{why}: {status}");
    }
    let ask = async |path: &str| {
        let request = http::Request::builder().uri(path).body(bytes::Bytes::new()).unwrap();
        cluster.api.handle(request).await.status().as_u16()
    };
    assert_eq!((ask("/livez").await, ask("/version").await), (200, 401), "only where the file says so");

    // A file that cannot be used changes nothing; one that can takes effect as a whole.
    let reloads = async |wanted: &str| {
        let series = format!("apiserver_authentication_config_controller_automatic_reloads_total{{status=\"{wanted}\"}} 1");
        let seen = async {
            loop {
                let text = read(cluster.send(Method::GET, "/metrics", Value::Null, &[]).await).await.1;
                if text.as_str().unwrap().contains(&series) {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(crate::support::PATIENCE, seen).await.unwrap();
    };
    std::fs::write(&file, "kind: nonsense").unwrap();
    reloads("failure").await;
    assert_eq!(review(&cluster, &one.token(&claims(&issuer))).await["authenticated"], json!(true));
    assert!(review(&cluster, &two.token(&claims(&other_issuer))).await["authenticated"].is_null());
    let mut both = configuration(&issuer, &hook.ca, &["b"]);
    both["jwt"].as_array_mut().unwrap().push(configuration(&other_issuer, &other_hook.ca, &["b"])["jwt"][0].clone());
    both["anonymous"] = json!({"enabled": false});
    std::fs::write(&file, both.to_string()).unwrap();
    reloads("success").await;
    for token in [one.token(&claims(&issuer)), two.token(&claims(&other_issuer))] {
        assert_eq!(review(&cluster, &token).await["user"], user);
    }
    assert!(
        review(&cluster, &one.token(&claims(&other_issuer))).await["authenticated"].is_null(),
        "one provider does not sign for another"
    );
    assert_eq!(ask("/livez").await, 401);
    cluster.stop().await;
}

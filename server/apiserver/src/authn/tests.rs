use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::authz::{Authorizer, tests::FakeReader};
use trireme_cluster::pki::{ClusterKeys, Profile, authority::certificates};

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
const YEAR: i64 = 365 * 86_400;

fn at(secs: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + secs).unwrap()
}

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
    }
    headers
}

struct World {
    reader: Arc<FakeReader>,
    keys: ClusterKeys,
    authenticator: Authenticator,
}

fn world() -> World {
    let reader = Arc::new(FakeReader::with_defaults());
    let object = |name: &str, uid: &str| json!({"metadata": {"namespace": "a", "name": name, "uid": uid}});
    reader.put("", "serviceaccounts", object("bot", "sa-1"));
    let mut pod = object("p", "pod-1");
    pod["spec"] = json!({"serviceAccountName": "bot", "nodeName": "n1"});
    reader.put("", "pods", pod);
    reader.put("", "nodes", json!({"metadata": {"name": "n1", "uid": "node-1"}}));
    reader.put("", "secrets", object("s", "secret-1"));
    let keys = ClusterKeys::generate(at(0)).unwrap();
    let own = keys.api_server_keys().unwrap();
    let signing = (keys.service_account.pkcs8.iter())
        .map(|key| SigningKey::from_pkcs8(&base64::Engine::decode(&base64::prelude::BASE64_STANDARD, key).unwrap()).unwrap())
        .collect();
    let tokens = ServiceAccountTokens::new(ISSUER, vec![], signing, reader.clone());
    let authenticator = Authenticator::new(own.client_authorities, own.front_proxy_authorities, Arc::new(tokens)).unwrap();
    World { reader, keys, authenticator }
}

impl World {
    fn peer(&self, keys: &ClusterKeys, profile: Profile, now: Timestamp) -> Peer {
        let issued = profile.issue(keys, at(0)).unwrap();
        self.authenticator.peer(&certificates(&issued.certificate_pem).unwrap(), now)
    }

    async fn mint(&self, spec: Value) -> Result<Value, Box<Status>> {
        token_request::create(self.authenticator.tokens(), "a", "bot", json!({"spec": spec}), "id-1", at(0)).await
    }

    async fn who(&self, token: &str, now: Timestamp) -> Result<UserInfo, Box<Status>> {
        let headers = headers(&[("authorization", &format!("Bearer {token}"))]);
        self.authenticator.authenticate(&Peer::None, &headers, "/api", now).await
    }
}

#[tokio::test]
async fn certificates_prove_who_one_is_or_end_in_401() {
    let world = world();
    let foreign = ClusterKeys::generate(at(0)).unwrap();
    let node = || Profile::KubeletClient { node_name: "n1".into() };
    let none = HeaderMap::new();
    let ask = async |peer: &Peer, path: &'static str, now| {
        world.authenticator.authenticate(peer, &none, path, now).await.map(|user| user.name).map_err(|s| s.code())
    };
    let good = world.peer(&world.keys, node(), at(0));
    assert_eq!(ask(&good, "/api", at(0)).await, Ok("system:node:n1".to_owned()));
    assert_eq!(ask(&good, "/api", at(YEAR + 1)).await, Err(401), "expired on an open connection");
    let expired = world.peer(&world.keys, node(), at(YEAR + 1));
    let strange = world.peer(&foreign, node(), at(0));
    let serving = world.peer(&world.keys, Profile::EtcdServing { addresses: vec![] }, at(0));
    let peer_cert = world.peer(&world.keys, Profile::Peer { member_name: "s".into(), addresses: vec![] }, at(0));
    for bad in [&expired, &strange, &serving, &peer_cert] {
        assert_eq!(ask(bad, "/api", at(0)).await, Err(401));
        assert_eq!(ask(bad, "/livez", at(0)).await, Err(401), "a bad credential is not anonymous");
    }
    for (path, expected) in [("/livez", true), ("/version", true), ("/api", false), ("/apis", false), ("/metrics", false)] {
        assert_eq!(ask(&Peer::None, path, at(0)).await.is_ok(), expected, "{path}");
    }
    let admin = world.peer(&world.keys, Profile::Admin, at(0));
    let user = world.authenticator.authenticate(&admin, &none, "/api", at(0)).await.unwrap();
    assert_eq!(user.groups, ["system:masters", "system:authenticated"]);
}

#[tokio::test]
async fn only_the_front_proxy_may_name_users() {
    let world = world();
    let named = headers(&[
        ("x-remote-user", "eve"),
        ("x-remote-group", "g1"),
        ("x-remote-group", "g2"),
        ("x-remote-extra-acme.com%2fproject", "p"),
    ]);
    let proxy = world.peer(&world.keys, Profile::FrontProxyClient, at(0));
    let user = world.authenticator.authenticate(&proxy, &named, "/api", at(0)).await.unwrap();
    assert_eq!((user.name.as_str(), user.groups.len()), ("eve", 3));
    assert_eq!(user.extra["acme.com/project"], ["p"]);
    let node = world.peer(&world.keys, Profile::KubeletClient { node_name: "n1".into() }, at(0));
    let user = world.authenticator.authenticate(&node, &named, "/api", at(0)).await.unwrap();
    assert_eq!(user.name, "system:node:n1");
    assert!(world.authenticator.authenticate(&Peer::None, &named, "/api", at(0)).await.is_err());
}

#[tokio::test]
async fn a_token_lives_as_long_as_what_it_is_bound_to() {
    let world = world();
    let pod = json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "pod-1"}, "expirationSeconds": 700});
    let answer = world.mint(pod).await.unwrap();
    let token = answer["status"]["token"].as_str().unwrap().to_owned();
    assert_eq!(answer["status"]["expirationTimestamp"], trireme_api::time::format(at(700)));
    let user = world.who(&token, at(10)).await.unwrap();
    assert_eq!(user.name, "system:serviceaccount:a:bot");
    assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"]);
    assert_eq!(user.extra["authentication.kubernetes.io/pod-uid"], ["pod-1"]);
    assert_eq!(user.extra["authentication.kubernetes.io/node-uid"], ["node-1"]);
    assert!(world.who(&token, at(700)).await.is_err(), "expired");

    let (input, signature) = token.rsplit_once('.').unwrap();
    let flipped: String = signature.chars().rev().collect();
    assert!(world.who(&format!("{input}.{flipped}"), at(10)).await.is_err());
    let unsigned = format!("eyJhbGciOiJub25lIn0.{}.", input.split_once('.').unwrap().1);
    assert!(world.who(&unsigned, at(10)).await.is_err());
    for rubbish in ["", ".", "..", "a.b", "a.b.c", "x"] {
        assert!(world.who(rubbish, at(10)).await.is_err(), "{rubbish:?}");
    }

    world.reader.put("", "pods", json!({"metadata": {"namespace": "a", "name": "p", "uid": "pod-2"}}));
    assert!(world.who(&token, at(10)).await.is_err(), "another pod of the same name");
    world.reader.remove("", "pods", "a", "p");
    assert!(world.who(&token, at(10)).await.is_err(), "the pod is gone");

    let plain = world.mint(json!({})).await.unwrap()["status"]["token"].as_str().unwrap().to_owned();
    assert!(world.who(&plain, at(10)).await.is_ok());
    world.reader.remove("", "serviceaccounts", "a", "bot");
    assert!(world.who(&plain, at(10)).await.is_err(), "the service account is gone");
    let back = json!({"metadata": {"namespace": "a", "name": "bot", "uid": "sa-1"}});
    world.reader.put_late("", "serviceaccounts", back);
    assert!(world.who(&plain, at(10)).await.is_ok(), "created on another server just now");
}

#[tokio::test]
async fn token_requests_are_checked() {
    let world = world();
    let bind = |kind: &str, name: &str, uid: &str| json!({"boundObjectRef": {"apiVersion": "v1", "kind": kind, "name": name, "uid": uid}});
    for (spec, code) in [
        (json!({"expirationSeconds": 599}), 422),
        (json!({"expirationSeconds": 1_i64 << 33}), 422),
        (bind("Pod", "none", ""), 404),
        (bind("Pod", "p", "other"), 409),
        (bind("Service", "p", ""), 400),
    ] {
        assert_eq!(world.mint(spec.clone()).await.unwrap_err().code(), code, "{spec}");
    }
    for spec in [bind("Secret", "s", "secret-1"), bind("Node", "n1", ""), bind("Pod", "p", "")] {
        let token = world.mint(spec).await.unwrap()["status"]["token"].as_str().unwrap().to_owned();
        assert!(world.who(&token, at(1)).await.is_ok());
    }
    // What the kubelet asks for: shown as an hour, good for a year.
    let mut spec = bind("Pod", "p", "pod-1");
    spec["expirationSeconds"] = json!(3607);
    let answer = world.mint(spec).await.unwrap();
    assert_eq!(answer["status"]["expirationTimestamp"], trireme_api::time::format(at(3607)));
    assert!(world.who(answer["status"]["token"].as_str().unwrap(), at(4000)).await.is_ok());

    let elsewhere = world.mint(json!({"audiences": ["vault"]})).await.unwrap();
    let token = elsewhere["status"]["token"].as_str().unwrap();
    assert!(world.who(token, at(1)).await.is_err(), "not meant for the API server");
    let review = json!({"spec": {"token": token, "audiences": ["vault", "else"]}});
    let judged = review::token(&world.authenticator, review, at(1)).await.unwrap();
    assert_eq!(judged["status"]["audiences"], json!(["vault"]));
    assert_eq!(judged["status"]["user"]["username"], "system:serviceaccount:a:bot");
    let judged = review::token(&world.authenticator, json!({"spec": {"token": token}}), at(1)).await.unwrap();
    assert_eq!(judged["status"]["authenticated"], Value::Null);
    assert!(judged["status"]["error"].is_string());
}

#[tokio::test]
async fn impersonation_needs_every_part_allowed() {
    let world = world();
    world.reader.put(
        "rbac.authorization.k8s.io",
        "clusterroles",
        json!({"metadata": {"name": "imp"}, "rules": [
        {"apiGroups": [""], "resources": ["users"], "verbs": ["impersonate"], "resourceNames": ["jane"]},
        {"apiGroups": [""], "resources": ["groups"], "verbs": ["impersonate"], "resourceNames": ["devs"]},
        {"apiGroups": ["authentication.k8s.io"], "resources": ["userextras/scopes"], "verbs": ["impersonate"]}]}),
    );
    world.reader.put(
        "rbac.authorization.k8s.io",
        "clusterrolebindings",
        json!({"metadata": {"name": "imp"},
        "roleRef": {"kind": "ClusterRole", "name": "imp"}, "subjects": [{"kind": "User", "name": "max"}]}),
    );
    let authorizer = Authorizer::new(world.reader.clone());
    let max = UserInfo::new("max", &["system:authenticated"]);
    type Case = (&'static [(&'static str, &'static str)], Result<&'static str, u16>);
    let cases: &[Case] = &[
        (&[], Ok("")),
        (&[("impersonate-user", "jane")], Ok("jane")),
        (&[("impersonate-user", "root")], Err(403)),
        (&[("impersonate-user", "jane"), ("impersonate-group", "devs")], Ok("jane")),
        (&[("impersonate-user", "jane"), ("impersonate-group", "system:masters")], Err(403)),
        (&[("impersonate-user", "jane"), ("impersonate-extra-scopes", "x")], Ok("jane")),
        (&[("impersonate-user", "jane"), ("impersonate-extra-other", "x")], Err(403)),
        (&[("impersonate-user", "jane"), ("impersonate-uid", "1")], Err(403)),
        (&[("impersonate-group", "devs")], Err(500)),
    ];
    for (pairs, expected) in cases {
        let result = impersonation::impersonate(&authorizer, &max, &headers(pairs)).await;
        let name = result.map(|user| user.map(|u| u.name).unwrap_or_default()).map_err(|status| status.code());
        assert_eq!(name, expected.map(str::to_owned), "{pairs:?}");
    }
    let root = UserInfo::new("root", &["system:masters"]);
    let asked = headers(&[("impersonate-user", "system:serviceaccount:a:bot")]);
    let user = impersonation::impersonate(&authorizer, &root, &asked).await.unwrap().unwrap();
    assert!(user.in_group("system:serviceaccounts:a") && user.in_group("system:authenticated"));
    let asked = headers(&[("impersonate-user", "system:anonymous")]);
    let user = impersonation::impersonate(&authorizer, &root, &asked).await.unwrap().unwrap();
    assert_eq!(user.groups, ["system:unauthenticated"]);
}

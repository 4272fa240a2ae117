//! Registry credentials out of a pod's imagePullSecrets. Answers to
//! <https://kubernetes.io/docs/tasks/configure-pod-container/pull-image-private-registry/>.

use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;
use trireme_proto::cri;

use super::reference;
use crate::{objects::Objects, pod::spec};

/// All credentials that fit the image, the most specific first. A secret that is missing or malformed gives none, as upstream has it:
/// the pull itself then says what is wrong.
pub(crate) async fn of(pod: &Pod, image: &str, objects: &Objects) -> Vec<cri::AuthConfig> {
    let mut found = Vec::new();
    for reference in spec::pod_spec(pod).image_pull_secrets.iter().flatten() {
        let Ok(Some(secret)) = objects.secret(spec::namespace(pod), &reference.name).await else { continue };
        let data = secret.data.as_ref();
        let file = |key: &str| data.and_then(|d| d.get(key)).and_then(|v| serde_json::from_slice::<Value>(&v.0).ok());
        let auths = file(".dockerconfigjson").and_then(|mut v| v.get_mut("auths").map(Value::take)).or_else(|| file(".dockercfg"));
        if let Some(Value::Object(auths)) = auths {
            found.extend(auths.iter().filter_map(|(server, auth)| fits(server, image).map(|weight| (weight, parse(auth)))));
        }
    }
    found.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
    found.into_iter().map(|(_, auth)| auth).collect()
}

/// How specifically an entry names the image's place; None if it names another.
fn fits(server: &str, image: &str) -> Option<usize> {
    let server = server.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let server = server.strip_suffix("/v1").or(server.strip_suffix("/v2")).unwrap_or(server);
    let server = if server == "index.docker.io" || server == "registry-1.docker.io" { "docker.io" } else { server };
    let registry = reference::registry(image);
    let (host, path) = server.split_once('/').map_or((server, ""), |(h, p)| (h, p));
    let full = if image.starts_with(registry) { image.to_string() } else { format!("{registry}/{image}") };
    let fits_path = path.is_empty() || full.strip_prefix(registry).is_some_and(|rest| rest.trim_start_matches('/').starts_with(path));
    (fits_host(host, registry) && fits_path).then_some(server.len())
}

/// A `*` stands for one whole label.
fn fits_host(pattern: &str, host: &str) -> bool {
    let (mut pattern, mut host) = (pattern.split('.'), host.split('.'));
    loop {
        match (pattern.next(), host.next()) {
            (None, None) => return true,
            (Some("*"), Some(_)) => {}
            (Some(a), Some(b)) if a == b => {}
            _ => return false,
        }
    }
}

/// Without the server's address, as upstream has it: that these are meant for the image's registry is settled, and the runtime takes
/// none for an address that has a port and no scheme.
fn parse(auth: &Value) -> cri::AuthConfig {
    let text = |key: &str| auth.get(key).and_then(Value::as_str).unwrap_or_default().to_string();
    let decoded = STANDARD.decode(text("auth")).ok().and_then(|raw| String::from_utf8(raw).ok());
    let (username, password) = match decoded.as_deref().and_then(|pair| pair.split_once(':')) {
        Some((user, password)) => (user.to_string(), password.trim_end_matches('\0').to_string()),
        None => (text("username"), text("password")),
    };
    cri::AuthConfig {
        username,
        password,
        identity_token: text("identitytoken"),
        registry_token: text("registrytoken"),
        ..Default::default()
    }
}

//! The address and credentials of a webhook outside the cluster, as a file in the form of a kubeconfig.
//!
//! Owns the reading: of the current context, its cluster and its user. What cannot be carried out (plugins that make credentials) is
//! refused by name. The file is read once.
//! <https://kubernetes.io/docs/reference/access-authn-authz/webhook/#configuration-file-format>

use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::HeaderValue;
use rustls::ClientConfig as Tls;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use trireme_api::{meta, schema};

use super::authority;
use super::insecure;
use super::webhooks::ClientConfig;

/// Reads a file.
///
/// # Errors
/// Why no webhook can be reached by it, in one line with the path.
pub fn read(path: &Path) -> Result<ClientConfig, String> {
    let shown = path.display();
    let text = std::fs::read(path).map_err(|error| format!("{shown}: {error}"))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    parse(&text, folder).map_err(|error| format!("{shown}: {error}"))
}

/// Parses a file; paths in it are relative to `folder`.
fn parse(text: &[u8], folder: &Path) -> Result<ClientConfig, String> {
    let file = schema::parse_yaml(text)?;
    let context = match meta::str_at(&file, &["current-context"]) {
        "" => return Err("it has no current-context".to_owned()),
        name => entry(&file, "contexts", "context", name)?,
    };
    let cluster = entry(&file, "clusters", "cluster", meta::str_at(context, &["cluster"]))?;
    let nobody = Value::Null;
    let user = match meta::str_at(context, &["user"]) {
        "" => &nobody,
        name => entry(&file, "users", "user", name)?,
    };
    for refused in ["exec", "auth-provider", "tokenFile", "as"] {
        if user.get(refused).is_some() {
            return Err(format!("the user's {refused:?} is not supported: name a token or a certificate"));
        }
    }
    for refused in ["proxy-url", "disable-compression"] {
        if cluster.get(refused).is_some_and(|value| value != &Value::Bool(false)) {
            return Err(format!("the cluster's {refused:?} is not supported"));
        }
    }
    let server = meta::str_at(cluster, &["server"]);
    let name = Some(meta::str_at(cluster, &["tls-server-name"]).to_owned()).filter(|name| !name.is_empty());
    ClientConfig::outside(server, tls(cluster, user, folder)?, name, authorization(user)?)
}

fn entry<'a>(file: &'a Value, list: &str, key: &str, name: &str) -> Result<&'a Value, String> {
    let found = meta::list_at(file, &[list]).iter().find(|one| one["name"] == name);
    found.and_then(|one| one.get(key)).ok_or_else(|| format!("{list} has no {name:?}"))
}

fn authorization(user: &Value) -> Result<Option<HeaderValue>, String> {
    let text = |key| meta::str_at(user, &[key]);
    let value = match (text("token"), text("username")) {
        ("", "") => return Ok(None),
        ("", name) => format!("Basic {}", BASE64_STANDARD.encode(format!("{name}:{}", text("password")))),
        (token, _) => format!("Bearer {token}"),
    };
    let mut value = HeaderValue::from_str(&value).map_err(|_| "the user's token is no text for a header".to_owned())?;
    value.set_sensitive(true);
    Ok(Some(value))
}

fn tls(cluster: &Value, user: &Value, folder: &Path) -> Result<Arc<Tls>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = Tls::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?;
    let authorities = file_or_data(cluster, "certificate-authority", folder)?;
    let builder = match (cluster["insecure-skip-tls-verify"].as_bool(), authorities) {
        (Some(true), None) => builder.dangerous().with_custom_certificate_verifier(insecure::verifier(&provider)),
        (Some(true), Some(_)) => return Err("insecure-skip-tls-verify and certificate-authority exclude each other".to_owned()),
        (_, Some(pem)) => {
            builder.with_root_certificates(authority::pem_roots(&pem).map_err(|error| format!("certificate-authority: {error}"))?)
        }
        (_, None) => builder.with_root_certificates(authority::system_roots()?),
    };
    let certificate = file_or_data(user, "client-certificate", folder)?;
    let key = file_or_data(user, "client-key", folder)?;
    let config = match (certificate, key) {
        (None, None) => builder.with_no_client_auth(),
        (Some(certificate), Some(key)) => {
            let chain = CertificateDer::pem_slice_iter(&certificate).collect::<Result<Vec<_>, _>>();
            let chain = chain.map_err(|error| format!("client-certificate: {error}"))?;
            let key = PrivateKeyDer::from_pem_slice(&key).map_err(|error| format!("client-key: {error}"))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| format!("client-certificate: {error}"))?
        }
        _ => return Err("client-certificate and client-key need each other".to_owned()),
    };
    Ok(Arc::new(config))
}

/// The contents of `KEY-data`, in base64, or of the file that `KEY` names.
fn file_or_data(section: &Value, key: &str, folder: &Path) -> Result<Option<Vec<u8>>, String> {
    let data = meta::str_at(section, &[&format!("{key}-data")]).to_owned();
    if !data.is_empty() {
        return BASE64_STANDARD.decode(data).map(Some).map_err(|error| format!("{key}-data: {error}"));
    }
    match meta::str_at(section, &[key]) {
        "" => Ok(None),
        path => {
            let path = folder.join(path);
            std::fs::read(&path).map(Some).map_err(|error| format!("{key}: {}: {error}", path.display()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn file(cluster: Value, user: Value) -> Result<ClientConfig, String> {
        let file = json!({"current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
            "clusters": [{"name": "k", "cluster": cluster}], "users": [{"name": "u", "user": user}]});
        parse(file.to_string().as_bytes(), Path::new("/nowhere"))
    }

    #[test]
    fn a_file_names_a_webhook_or_says_why_not() {
        let cluster = json!({"server": "https://audit.example.com:8443/events", "insecure-skip-tls-verify": true});
        assert_eq!(file(cluster.clone(), json!({"token": "t"})).unwrap().url(), "https://audit.example.com:8443/events");
        for (cluster, user, why) in [
            (json!({"server": "http://a", "insecure-skip-tls-verify": true}), json!({}), "no https URL"),
            (cluster.clone(), json!({"exec": {}}), "exec"),
            (cluster.clone(), json!({"client-certificate-data": "eA=="}), "need each other"),
            (json!({"server": "https://a", "certificate-authority": "ca.pem"}), json!({}), "/nowhere/ca.pem"),
            (json!({"server": "https://a", "certificate-authority-data": "eA=="}), json!({}), "no certificate"),
            (cluster.clone(), json!({"token": "a\nb"}), "header"),
        ] {
            let error = file(cluster, user).unwrap_err();
            assert!(error.contains(why) && !error.contains('\n'), "{error}");
        }
        assert!(parse(b"{}", Path::new(".")).unwrap_err().contains("current-context"));
    }
}

//! How the operator's commands reach a running cluster: a kubeconfig, the HTTPS transport, and the paths below
//! [`trireme_api::admin::PREFIX`].
//!
//! Owns finding and reading the kubeconfig (as much of it as names a cluster and a user) and printing what comes back. Must not know
//! what any endpoint does.

use std::path::{Path, PathBuf};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::BodyExt;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use trireme_api::admin::PREFIX;
use trireme_client::{Body, Credentials, HttpsOptions, HttpsTransport, Status, Transport};

use super::{Failure, table};
use crate::cli::{AdminArgs, OutputForm};

/// Where a server writes the administrator's kubeconfig.
const DEFAULT_KUBECONFIG: &str = "/etc/trireme/kubeconfig.yaml";

/// A way into a cluster, as an administrator.
pub struct AdminClient {
    transport: HttpsTransport,
    server: String,
    ca_pem: String,
    credentials: Credentials,
    output: OutputForm,
}

impl AdminClient {
    /// Finds the cluster; does not connect yet.
    pub fn new(args: &AdminArgs) -> Result<Self, Failure> {
        let path = kubeconfig_path(args.kubeconfig.as_deref())?;
        let found = Found::read(&path).map_err(|reason| Failure::usage(format!("kubeconfig {}: {reason}", path.display())))?;
        Self::with(found.server, found.ca_pem, found.credentials, args.output)
    }

    fn with(server: String, ca_pem: String, credentials: Credentials, output: OutputForm) -> Result<Self, Failure> {
        let options = HttpsOptions { servers: vec![server.clone()], ca_pem: ca_pem.clone(), credentials: credentials.clone() };
        Ok(Self { transport: HttpsTransport::new(options)?, server, ca_pem, credentials, output })
    }

    /// The same cluster, through another of its servers (`https://host:port`).
    pub fn at(&self, server: &str) -> Result<Self, Failure> {
        Self::with(server.to_owned(), self.ca_pem.clone(), self.credentials.clone(), self.output)
    }

    /// Sends a request to a path below the prefix and reads a JSON answer. An empty answer is `null`.
    pub async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: Option<&Value>) -> Result<T, Failure> {
        let sent = body.map(Value::to_string).unwrap_or_default();
        let answer = self.stream(method, &format!("{PREFIX}{path}"), Bytes::from(sent)).await?;
        let answer = answer.collect().await.map_err(|e| self.broken(&e))?.to_bytes();
        let answer: &[u8] = if answer.is_empty() { b"null" } else { &answer };
        serde_json::from_slice(answer).map_err(|e| Failure::from(format!("{}: answer not understood: {e}", self.server)))
    }

    /// Sends a request to a whole path and hands out the body of a good answer.
    pub async fn stream(&self, method: Method, path: &str, body: Bytes) -> Result<Body, Failure> {
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json").body(body)?;
        let response = self.transport.send(request).await.map_err(|e| self.broken(&e))?;
        if response.status().is_success() {
            return Ok(response.into_body());
        }
        let code = response.status().as_u16();
        let body = response.into_body().collect().await.map_err(|e| self.broken(&e))?.to_bytes();
        let status = Status::from_response(code, &body);
        Err(Failure::from(match code {
            401 | 403 => format!("{}: {} (the kubeconfig must be an administrator's)", self.server, status.message),
            _ => status.message,
        }))
    }

    fn broken(&self, error: &dyn std::fmt::Display) -> Failure {
        Failure::from(format!("{}: {error}", self.server))
    }

    /// Prints a document in the form that was asked for; `rows` make the table.
    pub fn print<T: Serialize>(&self, document: &T, header: &[&str], rows: impl FnOnce(&T) -> Vec<Vec<String>>) -> Result<(), Failure> {
        Self::print_as(self.output, document, header, rows)
    }

    /// The same without a cluster to ask.
    pub fn print_as<T: Serialize>(
        output: OutputForm,
        document: &T,
        header: &[&str],
        rows: impl FnOnce(&T) -> Vec<Vec<String>>,
    ) -> Result<(), Failure> {
        let text = match output {
            OutputForm::Table => table::lines(header, &rows(document)).join("\n"),
            OutputForm::Json => serde_json::to_string_pretty(document)?,
            OutputForm::Yaml => serde_saphyr::to_string(document)?.trim_end().to_owned(),
        };
        println!("{text}");
        Ok(())
    }

    /// Says what was done, unless a document was asked for: that is printed then.
    pub fn say<T: Serialize>(&self, text: &str, document: &T) -> Result<(), Failure> {
        match self.output {
            OutputForm::Table => println!("{text}"),
            _ => self.print(document, &[], |_| Vec::new())?,
        }
        Ok(())
    }
}

/// `--kubeconfig`, else the first file of `$KUBECONFIG` that exists, else the server's own.
fn kubeconfig_path(given: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(given) = given {
        return Ok(given.to_owned());
    }
    let listed = std::env::var_os("KUBECONFIG").unwrap_or_default();
    let mut candidates: Vec<PathBuf> = std::env::split_paths(&listed).filter(|path| !path.as_os_str().is_empty()).collect();
    if candidates.is_empty() {
        candidates.push(DEFAULT_KUBECONFIG.into());
    }
    candidates.iter().find(|path| path.exists()).cloned().ok_or_else(|| {
        let looked: Vec<String> = candidates.iter().map(|path| path.display().to_string()).collect();
        Failure::usage(format!("no kubeconfig at {}; name an administrator's with --kubeconfig", looked.join(", ")))
    })
}

/// What a kubeconfig's current context says.
struct Found {
    server: String,
    ca_pem: String,
    credentials: Credentials,
}

impl Found {
    fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
        let config: Value =
            serde_saphyr::from_str(&text).map_err(|e| format!("no YAML: {}", e.to_string().lines().next().unwrap_or_default()))?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        let wanted = config["current-context"].as_str().ok_or("no current-context")?;
        let context = &named(&config, "contexts", wanted)?["context"];
        let cluster = &named(&config, "clusters", context["cluster"].as_str().unwrap_or_default())?["cluster"];
        let user = &named(&config, "users", context["user"].as_str().unwrap_or_default())?["user"];
        let server = cluster["server"].as_str().ok_or("the cluster has no server")?.to_owned();
        let ca_pem = pem(cluster, "certificate-authority", folder)?.ok_or("the cluster has no certificate-authority")?;
        let credentials = match (pem(user, "client-certificate", folder)?, pem(user, "client-key", folder)?) {
            (Some(cert_pem), Some(key_pem)) => Credentials::Certificate { cert_pem, key_pem },
            _ => match (user["token"].as_str(), user["tokenFile"].as_str()) {
                (Some(token), _) => Credentials::Token(token.to_owned()),
                (None, Some(file)) => Credentials::TokenFile(folder.join(file)),
                (None, None) => return Err("the user has neither client certificate nor token".into()),
            },
        };
        Ok(Self { server, ca_pem, credentials })
    }
}

fn named<'a>(config: &'a Value, list: &str, name: &str) -> Result<&'a Value, String> {
    let found = config[list].as_array().and_then(|items| items.iter().find(|item| item["name"] == name));
    found.ok_or_else(|| format!("{list} has no {name:?}"))
}

/// `<key>-data` in base64, or the file that `<key>` names, as seen from the kubeconfig's folder.
fn pem(holder: &Value, key: &str, folder: &Path) -> Result<Option<String>, String> {
    if let Some(data) = holder[format!("{key}-data")].as_str() {
        let bytes = BASE64_STANDARD.decode(data).map_err(|e| format!("{key}-data: {e}"))?;
        return String::from_utf8(bytes).map(Some).map_err(|e| format!("{key}-data: {e}"));
    }
    match holder[key].as_str() {
        Some(file) => std::fs::read_to_string(folder.join(file)).map(Some).map_err(|e| format!("{key} {file}: {e}")),
        None => Ok(None),
    }
}

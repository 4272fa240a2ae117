//! The client's side of joining: from a token and an address to a pinned authority and certificates.
//!
//! Owns the only connection that is made without a trusted authority: the one that fetches the authority itself, which is
//! believed only if its hash is the token's. Used by nodes and, for the first steps, by joining servers.

mod connection;
mod token;

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use trireme_api::join::CA_PATH;

use crate::error::Error;
pub use token::JoinToken;

/// The cluster, as a stranger with a token sees it.
#[derive(Debug, Clone)]
pub struct JoinClient {
    server: String,
    token: JoinToken,
    ca_pem: String,
}

impl JoinClient {
    /// Fetches the cluster's authority from `server` (`https://host:port`) and checks it against the token.
    pub async fn connect(server: &str, token: JoinToken) -> Result<Self, Error> {
        let (status, body) = connection::Connection::unverified(server)?.send("GET", CA_PATH, None, Vec::new()).await?;
        let ca_pem = String::from_utf8(body).map_err(|_| refused(server, "its CA bundle is no text"))?;
        if status != 200 || !ca_pem.contains("BEGIN CERTIFICATE") {
            return Err(refused(server, &format!("{CA_PATH} answered {status}: is this a Trireme server?")));
        }
        match token.ca_hash() {
            Some(expected) => check_hash(server, &ca_pem, expected)?,
            None => tracing::warn!(
                server,
                "the token has no CA hash: this server is trusted because it answered; use the full K10 token from the server's token file"
            ),
        }
        Ok(Self { server: server.to_owned(), token, ca_pem })
    }

    /// Connects, trying again while the server can't be reached; a wrong CA or answer ends it.
    pub async fn connect_patiently(server: &str, token: JoinToken) -> Result<Self, Error> {
        let mut told = false;
        loop {
            match connection::reachable(server).await {
                Ok(()) => return Self::connect(server, token).await,
                Err(error) if !told => tracing::warn!(server, %error, "server can't be reached yet, trying again"),
                Err(_) => {}
            }
            told = true;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// The authority of the servers' certificates, PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Posts a join request, trying again while no server can answer.
    pub async fn post<Q: Serialize, A: DeserializeOwned>(&self, path: &str, role: &str, request: &Q) -> Result<A, Error> {
        let body = serde_json::to_vec(request).map_err(|e| refused(&self.server, &e.to_string()))?;
        let authorization = self.token.authorization(role);
        let mut told = None;
        loop {
            let connection = connection::Connection::verified(&self.server, &self.ca_pem)?;
            let reason = match connection.send("POST", path, Some(&authorization), body.clone()).await {
                Ok((200 | 201, answer)) => {
                    return serde_json::from_slice(&answer).map_err(|e| refused(&self.server, &format!("answer not understood: {e}")));
                }
                Ok((401, _)) => return Err(Error::Join(format!("{} refuses the token: is it this cluster's?", self.server))),
                Ok((status, answer)) if status < 500 && status != 429 => return Err(refused(&self.server, &message_of(status, &answer))),
                Ok((status, answer)) => message_of(status, &answer),
                Err(error) => error.to_string(),
            };
            // Logged once for each reason, not for each attempt.
            if told.as_ref() != Some(&reason) {
                tracing::warn!(server = self.server, reason, "not joined yet, trying again");
                told = Some(reason);
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

fn refused(server: &str, reason: &str) -> Error {
    Error::Join(format!("{server}: {reason}"))
}

/// The message of a `Status`, or the bare code.
fn message_of(status: u16, body: &[u8]) -> String {
    let parsed: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let message = parsed.and_then(|v| v["message"].as_str().map(str::to_owned));
    message.unwrap_or_else(|| format!("answered {status}"))
}

fn check_hash(server: &str, ca_pem: &str, expected: &str) -> Result<(), Error> {
    // The hash is over the first certificate's DER, as the server prints it into its tokens.
    let der = first_certificate(ca_pem).ok_or_else(|| refused(server, "its CA bundle holds no certificate"))?;
    let actual = hex::encode(Sha256::digest(&der));
    if actual == expected {
        return Ok(());
    }
    Err(Error::Join(format!(
        "the CA of {server} has hash {actual}, the token says {expected}: wrong token, or somebody answers in the server's place"
    )))
}

fn first_certificate(pem: &str) -> Option<Vec<u8>> {
    use rustls_pki_types::pem::PemObject;
    rustls_pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).ok().map(|c| c.to_vec())
}

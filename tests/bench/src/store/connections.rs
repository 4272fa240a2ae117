//! The connections that a run's clients share.

use std::path::PathBuf;

use anyhow::Context;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

/// Files for mutual TLS; plain text without.
#[derive(clap::Args, Debug)]
pub struct Tls {
    /// CA of the servers
    #[arg(long, requires = "cert")]
    ca: Option<PathBuf>,
    /// Our certificate
    #[arg(long, requires = "key")]
    cert: Option<PathBuf>,
    /// Its key
    #[arg(long, requires = "ca")]
    key: Option<PathBuf>,
}

/// Open connections, spread over the endpoints.
pub struct Connections {
    channels: Vec<Channel>,
}

impl Connections {
    /// Opens `count` connections, each endpoint in turn.
    pub async fn open(endpoints: &[String], count: usize, tls: &Tls) -> anyhow::Result<Connections> {
        let tls = tls.config()?;
        let mut channels = Vec::with_capacity(count);
        for url in endpoints.iter().cycle().take(count) {
            let mut endpoint = Endpoint::from_shared(url.clone()).with_context(|| format!("endpoint {url}"))?.tcp_nodelay(true);
            if let Some(tls) = &tls {
                endpoint = endpoint.tls_config(tls.clone())?;
            }
            channels.push(endpoint.connect().await.with_context(|| format!("connect to {url}"))?);
        }
        Ok(Connections { channels })
    }

    /// The connection of client number `client`.
    pub fn of(&self, client: usize) -> Channel {
        self.channels[client % self.channels.len()].clone()
    }
}

impl Tls {
    fn config(&self) -> anyhow::Result<Option<ClientTlsConfig>> {
        let (Some(ca), Some(cert), Some(key)) = (&self.ca, &self.cert, &self.key) else { return Ok(None) };
        let read = |path: &PathBuf| std::fs::read(path).with_context(|| format!("read {}", path.display()));
        let identity = Identity::from_pem(read(cert)?, read(key)?);
        Ok(Some(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(ca)?)).identity(identity).domain_name("localhost")))
    }
}

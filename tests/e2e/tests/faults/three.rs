//! Three servers without nodes, each a process of its own; who leads them, and what breaks them.

use std::{fs, time::Duration};

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::task::block_in_place;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use trireme_e2e::process::{Place, Server};
use trireme_harness::{eventually, signal};
use trireme_proto::etcd::{StatusRequest, maintenance_client::MaintenanceClient};

use super::LIMIT;

const TOKEN: &str = "faults-test-of-trireme";
const CALL: Duration = Duration::from_secs(5);

/// Who leads, as one server sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reign {
    /// The server's index; none if it knows no leader.
    pub leader: Option<usize>,
    pub term: u64,
}

pub struct Three<'a> {
    pub servers: Vec<Server<'a>>,
    /// Their member ids.
    ids: Vec<u64>,
}

/// Three places whose addresses are this one's, with 1, 2 and 3 behind it.
pub fn homes(net: &str) -> anyhow::Result<[Place; 3]> {
    let home = |name: &str, n: u8| Place::at(name, &format!("{net}{n}"));
    Ok([home("a", 1)?, home("b", 2)?, home("c", 3)?])
}

impl<'a> Three<'a> {
    /// Starts them, and waits until all are ready and vote.
    pub fn start(homes: &'a [Place; 3]) -> anyhow::Result<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        block_in_place(|| {
            let first = homes[0].server(&["--cluster-init", "--token", TOKEN])?;
            let url = first.url();
            let mut servers = vec![first];
            for home in &homes[1..] {
                servers.push(home.server(&["--server", &url, "--token", TOKEN])?);
            }
            let ids = eventually("three that vote", LIMIT, || {
                let list = get(&servers[2], "/trireme/v1/members")?;
                let members = list["members"].as_array().context("members")?;
                let of = |home: &Place| members.iter().find(|m| m["name"] == home.name.as_str() && m["role"] != "learner");
                homes.iter().map(|home| of(home)?["id"].as_u64()).collect::<Option<Vec<_>>>().with_context(|| list.to_string())
            })?;
            Ok(Self { servers, ids })
        })
    }

    /// A connection to a server's etcd API, made when it is used.
    pub fn channel(&self, server: usize) -> anyhow::Result<Channel> {
        let server = &self.servers[server];
        let read = |name: &str| fs::read(server.file(name)).with_context(|| format!("read {name}"));
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(read("tls/etcd/ca.crt")?))
            .identity(Identity::from_pem(read("tls/etcd/client.crt")?, read("tls/etcd/client.key")?))
            .domain_name(&server.place().name);
        let url = format!("https://{}:{}", server.place().address, server.place().etcd_port);
        Ok(Endpoint::from_shared(url)?.tcp_nodelay(true).connect_timeout(CALL).tls_config(tls)?.connect_lazy())
    }

    /// Who leads, as this server sees it.
    pub async fn reign(&self, server: usize) -> anyhow::Result<Reign> {
        let mut client = MaintenanceClient::new(self.channel(server)?);
        let status = tokio::time::timeout(CALL, client.status(StatusRequest {})).await??.into_inner();
        Ok(Reign { leader: self.ids.iter().position(|id| *id == status.leader), term: status.raft_term })
    }

    /// The leader that a majority of these servers agrees on.
    pub async fn leader(&self) -> anyhow::Result<(usize, u64)> {
        self.agreed(&[0, 1, 2], 0).await
    }

    /// The leader of a term after this one, once all of these servers name it.
    pub async fn agreed(&self, among: &[usize], after: u64) -> anyhow::Result<(usize, u64)> {
        let end = tokio::time::Instant::now() + LIMIT;
        loop {
            let mut seen = Vec::new();
            for server in among {
                seen.push(self.reign(*server).await.ok());
            }
            if let Some(Some(Reign { leader: Some(leader), term })) = seen.first()
                && *term > after
                && seen.iter().all(|reign| *reign == seen[0])
            {
                return Ok((*leader, *term));
            }
            ensure!(tokio::time::Instant::now() < end, "{among:?} do not agree on a leader after term {after}: {seen:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The others.
    pub fn but(&self, server: usize) -> Vec<usize> {
        (0..3).filter(|other| *other != server).collect()
    }

    /// Stops it where it stands, or lets it go on.
    pub fn signal(&self, server: usize, name: &str) -> anyhow::Result<()> {
        signal(self.servers[server].pid(), name)
    }

    /// Every server is the process that was started, is ready, and agrees with the others on the leader.
    pub async fn all_well(&mut self) -> anyhow::Result<()> {
        for server in &mut self.servers {
            let name = server.place().name.clone();
            ensure!(server.ended()?.is_none(), "server {name} has ended: {}", server.log()?);
            block_in_place(|| {
                eventually(&format!("server {name} to be ready"), LIMIT, || {
                    ensure!(server.is_ready(), "it is not");
                    Ok(())
                })
            })?;
        }
        self.leader().await.map(drop)
    }
}

/// A document of the API, read as the administrator.
pub fn get(server: &Server<'_>, path: &str) -> anyhow::Result<Value> {
    let answer = server.admin(&[path])?;
    ensure!(answer.code == 200, "GET {path}: {answer:?}");
    Ok(serde_json::from_str(&answer.body)?)
}

/// Sends a document as the administrator; the answer must be a success.
pub fn send(server: &Server<'_>, method: &str, path: &str, body: &Value) -> anyhow::Result<Value> {
    let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let header = format!("Content-Type: {kind}");
    let answer = server.admin(&["-X", method, "--header", &header, "--data", &body.to_string(), path])?;
    ensure!((200..300).contains(&answer.code), "{method} {path}: {answer:?}");
    Ok(serde_json::from_str(&answer.body)?)
}

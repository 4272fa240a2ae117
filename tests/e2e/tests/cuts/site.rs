//! Three real servers, each with its data directory on a disk that forgets what was not synced.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::{task::block_in_place, time::timeout};
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use trireme_chaos::history::Kv;
use trireme_e2e::process::{Place, Server};
use trireme_proto::etcd::{
    HashKvRequest, PutRequest, StatusRequest, StatusResponse, kv_client::KvClient, maintenance_client::MaintenanceClient,
};
use trireme_unsynced::{Disk, Survivors, survivors::Loss};

use super::load::{range, short_kv};

const TOKEN: &str = "power-cuts-of-trireme";
/// Of each disk. Servers refuse writes when little of it is left.
const DISK_BYTES: u64 = 4 << 30;
/// Until something that must come has come. Generous: the machine may be busy.
pub const LIMIT: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(50);
const ANSWER: Duration = Duration::from_secs(5);
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A server and its disk.
pub struct Member<'a> {
    place: &'a Place,
    // Ends before its disk is unmounted.
    server: Option<Server<'a>>,
    pub disk: Disk,
}

/// The cluster.
pub struct Site<'a> {
    pub members: Vec<Member<'a>>,
    pub endpoints: Vec<Endpoint>,
    /// Objects that Kubernetes' API has acknowledged.
    maps: BTreeSet<String>,
}

/// Three places on addresses of the loopback network.
pub fn places(net: &str) -> anyhow::Result<Vec<Place>> {
    (1..=3).map(|n| Place::at(&format!("s{n}"), &format!("{net}{n}"))).collect()
}

/// Polls until it holds.
pub async fn until<T, F: Future<Output = anyhow::Result<T>>>(what: &str, mut attempt: impl FnMut() -> F) -> anyhow::Result<T> {
    let end = Instant::now() + LIMIT;
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > end => return Err(error.context(format!("waited {} s in vain for {what}", LIMIT.as_secs()))),
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}

// === impl Member ===

impl<'a> Member<'a> {
    fn new(place: &'a Place) -> anyhow::Result<Self> {
        std::fs::create_dir_all(place.data())?;
        let disk = Disk::mount(&place.data(), DISK_BYTES)?;
        Ok(Self { place, server: None, disk })
    }

    fn server(&self) -> anyhow::Result<&Server<'a>> {
        self.server.as_ref().context("not running")
    }

    /// Starts it as it was left, and does not wait for it.
    pub fn start(&mut self) -> anyhow::Result<()> {
        self.server = Some(self.place.start(&[])?);
        Ok(())
    }

    /// SIGKILL, and no waiting.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.server.as_mut().context("not running")?.kill()
    }

    /// Waits for the end of what was killed, and takes its disk's power.
    pub fn cut(&mut self, survivors: Survivors, seed: u64) -> anyhow::Result<Loss> {
        self.server = None;
        self.disk.cut(survivors, seed).with_context(|| format!("the disk of {}", self.place.name))
    }

    /// An error once its process has ended by itself.
    pub fn lives(&mut self) -> anyhow::Result<()> {
        match self.server.as_mut().context("not running")?.ended()? {
            Some(status) => bail!("{} has ended ({status}); its last words: {}", self.place.name, self.last_words()),
            None => Ok(()),
        }
    }

    /// The end of its log.
    pub fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.place.path("server.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

// === impl Site ===

impl<'a> Site<'a> {
    /// Founds a cluster of three.
    pub async fn found(places: &'a [Place]) -> anyhow::Result<Site<'a>> {
        let mut members: Vec<Member<'a>> = places.iter().map(Member::new).collect::<anyhow::Result<_>>()?;
        let first = format!("https://{}:{}", places[0].address, places[0].https_port);
        for (n, member) in members.iter_mut().enumerate() {
            let args: &[&str] = if n == 0 { &["--cluster-init", "--token", TOKEN] } else { &["--server", &first, "--token", TOKEN] };
            member.server = Some(block_in_place(|| member.place.server(args))?);
            until("its vote", || async {
                let answer = block_in_place(|| member.server()?.admin(&["/trireme/v1/members"]))?;
                let said: Value = serde_json::from_str(&answer.body)?;
                let voters = said["members"].as_array().into_iter().flatten().filter(|member| member["role"] != "learner").count();
                ensure!(voters == n + 1, "{said}");
                Ok(())
            })
            .await?;
        }
        let endpoints = places.iter().map(|place| endpoint(place, &members[0])).collect::<anyhow::Result<_>>()?;
        let site = Site { members, endpoints, maps: BTreeSet::new() };
        site.ready().await?;
        Ok(site)
    }

    pub async fn channel(&self, member: usize) -> anyhow::Result<Channel> {
        Ok(timeout(ANSWER, self.endpoints[member].connect()).await??)
    }

    async fn status(&self, member: usize) -> anyhow::Result<StatusResponse> {
        let mut client = MaintenanceClient::new(self.channel(member).await?);
        Ok(timeout(ANSWER, client.status(StatusRequest {})).await??.into_inner())
    }

    /// Who leads, and in which term, when all that run agree.
    pub async fn leader(&self) -> anyhow::Result<(usize, u64)> {
        let mut found = None;
        let mut named = BTreeSet::new();
        for (n, _) in self.members.iter().enumerate().filter(|(_, member)| member.server.is_some()) {
            let status = self.status(n).await?;
            named.insert((status.leader, status.raft_term));
            if status.header.unwrap_or_default().member_id == status.leader {
                found = Some((n, status.raft_term));
            }
        }
        ensure!(named.len() == 1, "no agreement about the leader: {named:?}");
        found.context("the leader is not among them")
    }

    /// Who leads, and in which term, as one of them says.
    pub async fn leader_as_told_by(&self, member: usize) -> anyhow::Result<(usize, u64)> {
        let status = self.status(member).await?;
        for n in (0..self.members.len()).filter(|n| *n != member) {
            if self.status(n).await.is_ok_and(|other| other.header.unwrap_or_default().member_id == status.leader) {
                return Ok((n, status.raft_term));
            }
        }
        ensure!(status.header.unwrap_or_default().member_id == status.leader, "no leader that answers: {}", status.leader);
        Ok((member, status.raft_term))
    }

    /// A linearizable read at one server.
    pub async fn read(&self, member: usize, prefix: &str) -> anyhow::Result<()> {
        let mut client = KvClient::new(self.channel(member).await?).max_decoding_message_size(usize::MAX);
        timeout(ANSWER, client.range(range(prefix, false))).await??;
        Ok(())
    }

    /// A new key is refused, for want of space.
    pub async fn must_refuse(&self, key: &str) -> anyhow::Result<()> {
        let mut client = KvClient::new(self.channel(0).await?);
        let put = PutRequest { key: Bytes::copy_from_slice(key.as_bytes()), ..PutRequest::default() };
        let refused = timeout(ANSWER, client.put(put)).await?.err().context("it was acknowledged")?;
        ensure!(refused.code() == Code::ResourceExhausted, "refused, but so: {refused}");
        Ok(())
    }

    /// Until every server says that it is ready, and all agree who leads.
    pub async fn ready(&self) -> anyhow::Result<()> {
        let waited = until("every server to be ready", || async {
            for member in &self.members {
                ensure!(block_in_place(|| member.server().is_ok_and(Server::is_ready)), "{} is not ready", member.place.name);
            }
            self.leader().await.map(drop)
        });
        waited.await.map_err(|error| {
            let words: Vec<String> =
                self.members.iter().map(|member| format!("--- {}\n{}", member.place.name, member.last_words())).collect();
            error.context(words.join("\n"))
        })
    }

    /// An object through Kubernetes' API of one server.
    pub fn create_map(&mut self, member: usize, name: &str) -> anyhow::Result<()> {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"made": "between power cuts"}});
        let body = map.to_string();
        let answer = self.members[member].server()?.admin(&["--header", "Content-Type: application/json", "--data", &body, MAPS])?;
        ensure!(answer.code == 201, "POST {name}: {answer:?}");
        self.maps.insert(name.to_owned());
        Ok(())
    }

    /// Every server lists every object that was acknowledged, and no other.
    pub fn maps_are_there(&self) -> anyhow::Result<()> {
        for member in &self.members {
            let answer = member.server()?.admin(&[MAPS])?;
            let list: Value = serde_json::from_str(&answer.body)?;
            let names = list["items"].as_array().context("items")?.iter().filter_map(|item| item["metadata"]["name"].as_str());
            let found: BTreeSet<String> = names.filter(|name| !name.starts_with("kube-")).map(str::to_owned).collect();
            ensure!(found == self.maps, "{}: lists {found:?}, acknowledged were {:?}", member.place.name, self.maps);
        }
        Ok(())
    }

    /// What one server has by itself of the keys with a prefix, and at which revision.
    pub async fn keys(&self, member: usize, prefix: &str) -> anyhow::Result<(i64, Vec<Kv>)> {
        let mut client = KvClient::new(self.channel(member).await?).max_decoding_message_size(usize::MAX);
        let response = timeout(ANSWER, client.range(range(prefix, true))).await??.into_inner();
        Ok((response.header.unwrap_or_default().revision, response.kvs.iter().map(short_kv).collect()))
    }

    /// All replicas have the same hash at a revision, history included.
    pub async fn hashes_agree(&self, revision: i64) -> anyhow::Result<()> {
        until("equal hashes", || async {
            let mut hashes = BTreeSet::new();
            for n in 0..self.members.len() {
                let mut client = MaintenanceClient::new(self.channel(n).await?);
                let response = timeout(LIMIT, client.hash_kv(HashKvRequest { revision })).await??.into_inner();
                ensure!(response.hash_revision == revision, "hashed {} instead of {revision}", response.hash_revision);
                hashes.insert((response.hash, response.compact_revision));
            }
            ensure!(hashes.len() == 1, "hash and compact revision differ at {revision}: {hashes:?}");
            Ok(())
        })
        .await
    }
}

/// Where a server's etcd API is, with the certificates of the first one's host.
fn endpoint(place: &Place, first: &Member<'_>) -> anyhow::Result<Endpoint> {
    let read = |name: &str| std::fs::read(first.server()?.file(&format!("tls/etcd/{name}"))).with_context(|| name.to_owned());
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(read("ca.crt")?))
        .identity(Identity::from_pem(read("client.crt")?, read("client.key")?))
        .domain_name("localhost");
    let url = format!("https://{}:{}", place.address, place.etcd_port);
    Ok(Endpoint::from_shared(url)?.tcp_nodelay(true).connect_timeout(Duration::from_secs(1)).tls_config(tls)?)
}

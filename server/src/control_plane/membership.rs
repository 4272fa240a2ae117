//! The cluster that this server is a member of: its keys and facts come from a new cluster, from a join, or from the disk.

use std::path::Path;

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use trireme_agent::join::{JoinClient, JoinToken};
use trireme_api::join::{ClusterFacts, SERVER_PATH, ServerJoinAnswer, ServerJoinRequest};
use trireme_cluster::pki::{ClusterKeys, Issued, Profile, SealedBundle, ServerFiles};
use trireme_cluster::tokens::{SECRET_LEN_MIN, is_long_enough, open_server_secret, random_secret};
use trireme_raft::{JoinTicket, PeerIdentity, WhenEmpty};

use crate::cli::{FlannelBackend, ServerArgs};
use crate::commands::{Failure, token};

/// What a server must have before its store can open.
pub struct Membership {
    /// Authorities and keys of the cluster.
    pub keys: ClusterKeys,
    /// What all its parts agree on.
    pub facts: ClusterFacts,
    /// The server secret as this server knew it last.
    pub server_secret: String,
    /// This member's certificate towards its peers.
    pub peer: Issued,
    /// What the store does if it is empty.
    pub when_empty: WhenEmpty,
    /// Whether this server initialized the cluster: it has to put the sealed keys into the store.
    pub initialized_now: bool,
}

/// Name and addresses of this server.
pub struct ThisServer<'a> {
    /// Its name.
    pub name: &'a str,
    /// `host:port` of its store.
    pub peer_address: String,
    /// `https://host:port` of its API.
    pub api_url: String,
}

/// The file beside the keys: a restart needs no flag repeated.
#[derive(Serialize, Deserialize)]
struct Kept {
    facts: ClusterFacts,
    server_secret: String,
    /// This server initializes the cluster and has not finished: after a kill it continues.
    #[serde(default, rename = "founding")]
    initializing: bool,
    /// SHA-256 of server secrets that were rotated away, hex: a unit file may still name one.
    #[serde(default)]
    former: Vec<String>,
}

const KEPT: &str = "cluster.json";
/// Backups on this disk, in the store's folder but not its own.
const SNAPSHOTS: &str = "snapshots";
/// Under this name the cluster's facts are in every snapshot.
pub const FACTS_NOTE: &str = "cluster-facts";

/// Reads the keys from disk, initializes a cluster or joins one.
pub async fn obtain(args: &ServerArgs, this: &ThisServer<'_>, server_dir: &Path) -> Result<Membership, Failure> {
    let files = ServerFiles::new(server_dir);
    let given = token(args.token.clone(), args.token_file.as_deref())?;
    if trireme_raft::reset::resume(&server_dir.join("db"))? {
        tracing::info!("a cluster reset that was interrupted is finished");
    }
    let member = server_dir.join("db/member").exists();
    let Some((keys, kept)) = files.read_keys()?.zip(read_kept(&files)?) else {
        if member {
            return Err(Failure::from(format!(
                "--data-dir: {} holds a store, but the cluster's keys in {} are gone; remove this member and let it join again with an empty directory",
                server_dir.join("db").display(),
                files.cred("").display()
            )));
        }
        return match &args.server {
            Some(server) => join(server, given, this, &files).await,
            None => initialize(args, given, this, &files),
        };
    };
    check_unchanged(args, &kept.facts)?;
    check_own_cluster(given.as_deref(), &keys, &kept, server_dir)?;
    match &args.server {
        _ if member => {
            let initializing = kept.initializing;
            finish(&files, keys, kept, this, WhenEmpty::Refuse, initializing)
        }
        _ if kept.initializing => finish(&files, keys, kept, this, WhenEmpty::Initialize, true),
        // The store of this server was removed, or the process was killed before it created one.
        Some(server) => join(server, Some(given.unwrap_or(kept.server_secret)), this, &files).await,
        None => Err(Failure::usage(format!(
            "--data-dir: {} has a cluster's keys but no store: give --server to join that cluster again, or an empty directory",
            server_dir.display()
        ))),
    }
}

/// A token of another cluster means that this is the wrong folder, or the wrong token.
fn check_own_cluster(given: Option<&str>, keys: &ClusterKeys, kept: &Kept, server_dir: &Path) -> Result<(), Failure> {
    let Some(token) = given.map(JoinToken::parse).transpose()? else { return Ok(()) };
    if token.pins(&keys.server_ca.certificate_pem) && token.secret() == kept.server_secret {
        return Ok(());
    }
    // A made token got this server in once; a rotated one did, too.
    let spent = token.ca_hash().is_some() && token.pins(&keys.server_ca.certificate_pem);
    if spent || kept.former.contains(&fingerprint(token.secret())) {
        tracing::warn!("--token: this server has joined already and the token given is not the cluster's any more; leave it out");
        return Ok(());
    }
    Err(Failure::usage(format!(
        "--token: {} belongs to another cluster than this token; give its own (or none), or another --data-dir",
        server_dir.display()
    )))
}

/// The cluster's first objects are there: from now on a missing store is a lost one.
pub fn settle(server_dir: &Path) -> Result<(), Failure> {
    let files = ServerFiles::new(server_dir);
    match read_kept(&files)? {
        Some(kept) if kept.initializing => write_kept(&files, &Kept { initializing: false, ..kept }),
        _ => Ok(()),
    }
}

/// Writes down what a restored server has to know, but for the keys.
pub fn keep_restored(files: &ServerFiles, facts: ClusterFacts, server_secret: &str) -> Result<(), Failure> {
    write_kept(files, &Kept { facts, server_secret: server_secret.to_owned(), initializing: false, former: Vec::new() })
}

/// Another server secret is in force: the next start knows it, and knows the one before when it sees it.
pub fn keep_secret(server_dir: &Path, secret: &str) -> Result<(), Failure> {
    let files = ServerFiles::new(server_dir);
    match read_kept(&files)? {
        Some(mut kept) if kept.server_secret != secret => {
            kept.former.push(fingerprint(&kept.server_secret));
            secret.clone_into(&mut kept.server_secret);
            write_kept(&files, &kept)
        }
        _ => Ok(()),
    }
}

fn fingerprint(secret: &str) -> String {
    hex::encode(Sha256::digest(secret))
}

fn initialize(args: &ServerArgs, given: Option<String>, this: &ThisServer<'_>, files: &ServerFiles) -> Result<Membership, Failure> {
    let server_secret = match given {
        Some(text) => JoinToken::parse(&text)?.secret().to_owned(),
        None => random_secret()?,
    };
    if !is_long_enough(&server_secret) {
        return Err(Failure::usage(format!(
            "--token: a new cluster's secret needs at least {SECRET_LEN_MIN} characters; leave it out to have one made"
        )));
    }
    let keys = ClusterKeys::generate(Timestamp::now())?;
    let kept = Kept { facts: facts(args), server_secret, initializing: true, former: Vec::new() };
    write_kept(files, &kept)?;
    // Written last: a server with keys has everything else.
    files.write_keys(&keys)?;
    finish(files, keys, kept, this, WhenEmpty::Initialize, true)
}

/// A member whose log is damaged never votes again under its id (design D8). Its disk's content is put aside, and it joins
/// as if it had never been there: the same key gets a new id, and the old one goes.
///
/// # Errors
/// `why`, with what is left to do, where no other server is known or none answers.
pub async fn rejoin(args: &ServerArgs, this: &ThisServer<'_>, server_dir: &Path, why: &str) -> Result<Membership, Failure> {
    let files = ServerFiles::new(server_dir);
    let db = server_dir.join("db");
    let secret = read_kept(&files)?.map(|kept| kept.server_secret);
    let given = token(args.token.clone(), args.token_file.as_deref())?.or(secret);
    let mut servers: Vec<String> = args.server.iter().cloned().collect();
    servers.extend(trireme_raft::other_servers(&db));
    let mut failure = None;
    for server in servers.iter().filter(|server| **server != this.api_url) {
        tracing::error!(why, server, "this member's log cannot be trusted; it joins again under a new id");
        match join(server, given.clone(), this, &files).await {
            Ok(member) => {
                put_aside(&db, &server_dir.join("db-damaged")).map_err(|e| Failure::from(format!("{}: {e}", db.display())))?;
                return Ok(member);
            }
            Err(error) => failure = Some(error.message),
        }
    }
    let others = failure.map_or_else(|| "no other server is known".to_owned(), |error| format!("joining again failed: {error}"));
    Err(Failure::from(format!(
        "{why}; {others}. If other servers are up, start this one with --server URL --token T; if it was the only one, restore a snapshot"
    )))
}

/// Makes room for a new member, and keeps what was there until the next time; backups stay where they are looked for.
fn put_aside(db: &Path, aside: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(aside) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    std::fs::rename(db, aside)?;
    let backups = aside.join(SNAPSHOTS);
    if backups.is_dir() {
        std::fs::create_dir(db)?;
        std::fs::rename(backups, db.join(SNAPSHOTS))?;
    }
    Ok(())
}

async fn join(server: &str, given: Option<String>, this: &ThisServer<'_>, files: &ServerFiles) -> Result<Membership, Failure> {
    let text =
        given.ok_or_else(|| Failure::usage("--server needs --token or --token-file: the text in the first server's server/token file"))?;
    let token = JoinToken::parse(&text)?;
    let (mut server_secret, made) = (token.secret().to_owned(), token.is_made());
    let client = JoinClient::connect_patiently(server, token).await?;
    let ask = |spki: Option<String>| ServerJoinRequest {
        node_name: this.name.to_owned(),
        peer_address: this.peer_address.clone(),
        api_url: this.api_url.clone(),
        peer_spki: spki,
    };
    let first: ServerJoinAnswer = client.post(SERVER_PATH, "server", &ask(None)).await?;
    let sealed: SealedBundle = serde_json::from_value(first.sealed_keys)?;
    let keys = sealed.unseal(&server_secret)?;
    match &first.server_secret {
        Some((value, salt)) => server_secret = open_server_secret(&keys, &hex::decode(salt)?, BASE64_STANDARD.decode(value)?.into())?,
        None if made => return Err(Failure::from("--token: the cluster cannot say its server token yet; try again in a moment")),
        None => {}
    }
    let peer = peer_certificate(files, &keys, this)?;
    let identity =
        PeerIdentity::from_pem(keys.peer_ca.certificate_pem.as_bytes(), peer.certificate_pem.as_bytes(), peer.key_pem.as_bytes())?;
    let second: ServerJoinAnswer = client.post(SERVER_PATH, "server", &ask(Some(hex::encode(identity.spki_sha256())))).await?;
    let ticket = second.ticket.ok_or("the cluster made no place for this server")?;
    let ticket = JoinTicket::from_bytes(BASE64_STANDARD.decode(ticket)?.into())?;
    tracing::info!(server, node_id = ticket.node_id(), "joined the cluster");
    let kept = Kept { facts: first.cluster, server_secret, initializing: false, former: Vec::new() };
    write_kept(files, &kept)?;
    files.write_keys(&keys)?;
    finish(files, keys, kept, this, WhenEmpty::Join(ticket), false)
}

fn finish(
    files: &ServerFiles,
    keys: ClusterKeys,
    kept: Kept,
    this: &ThisServer<'_>,
    when_empty: WhenEmpty,
    initialized_now: bool,
) -> Result<Membership, Failure> {
    let peer = peer_certificate(files, &keys, this)?;
    Ok(Membership { keys, facts: kept.facts, server_secret: kept.server_secret, peer, when_empty, initialized_now })
}

fn peer_certificate(files: &ServerFiles, keys: &ClusterKeys, this: &ThisServer<'_>) -> Result<Issued, Failure> {
    Ok(files.ensure("peer", &peer_profile(this), keys, Timestamp::now())?)
}

/// What this member's certificate says.
pub fn peer_profile(this: &ThisServer<'_>) -> Profile {
    let host = this.peer_address.rsplit_once(':').map_or(this.peer_address.as_str(), |(host, _)| host);
    Profile::Peer { member_name: this.name.to_owned(), addresses: vec![host.to_owned()] }
}

fn facts(args: &ServerArgs) -> ClusterFacts {
    ClusterFacts {
        cluster_cidr: args.cluster_cidr.to_string(),
        service_cidr: args.service_cidr.to_string(),
        cluster_dns: args.dns_address().into(),
        cluster_domain: args.cluster_domain.clone(),
        flannel_backend: backend_name(args.flannel_backend).to_owned(),
        network_policy: !args.disable_network_policy,
        kube_proxy: !args.disable_kube_proxy,
    }
}

fn backend_name(backend: FlannelBackend) -> &'static str {
    match backend {
        FlannelBackend::Vxlan => "vxlan",
        FlannelBackend::HostGw => "host-gw",
        FlannelBackend::None => "none",
    }
}

/// A flag that would change the cluster under its pods is refused; leaving it out is fine.
fn check_unchanged(args: &ServerArgs, kept: &ClusterFacts) -> Result<(), Failure> {
    let defaults = ["10.42.0.0/16", "10.43.0.0/16", "cluster.local"];
    let given = [
        ("cluster-cidr", args.cluster_cidr.to_string(), &kept.cluster_cidr),
        ("service-cidr", args.service_cidr.to_string(), &kept.service_cidr),
        ("cluster-domain", args.cluster_domain.clone(), &kept.cluster_domain),
    ];
    for (option, now, before) in given {
        if now != *before && !defaults.contains(&now.as_str()) {
            return Err(Failure::usage(format!("--{option} {now}: this cluster was initialized with {before}, which can't be changed")));
        }
    }
    if args.disable_network_policy && kept.network_policy {
        return Err(Failure::usage(
            "--disable-network-policy: this cluster was initialized without it, which can't be changed: its agents enforce network policies".to_owned(),
        ));
    }
    if args.disable_kube_proxy && kept.kube_proxy {
        return Err(Failure::usage(
            "--disable-kube-proxy: this cluster was initialized without it, which can't be changed: its agents serve Services".to_owned(),
        ));
    }
    Ok(())
}

fn read_kept(files: &ServerFiles) -> Result<Option<Kept>, Failure> {
    let path = files.cred(KEPT);
    match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| Failure::from(format!("{}: {e}", path.display()))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Failure::from(format!("{}: {e}", path.display()))),
    }
}

fn write_kept(files: &ServerFiles, kept: &Kept) -> Result<(), Failure> {
    Ok(trireme_agent::identity::write_secret(&files.cred(KEPT), &serde_json::to_vec(kept)?)?)
}

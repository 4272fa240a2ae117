//! The steps of a server's start, each with the error that a person needs when it fails.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::future::BoxFuture;
use ipnet::Ipv4Net;
use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::ServiceAccount;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use trireme_api::certificate_request::CertificateRequest;
use trireme_api::join::ClusterFacts;
use trireme_apiserver::ApiServer;
use trireme_apiserver::ApiServerOptions;
use trireme_apiserver::admission::plugins::service_allocation::Ranges;
use trireme_apiserver::audit::Audit;
use trireme_apiserver::authn::{accept_any_verifier, legacy_token::LegacyClaims};
use trireme_cluster::admin::{CertificatesOf, Members, SecretsOf, Targets, Tokens};
use trireme_cluster::bootstrap::{Bootstrap, Writer};
use trireme_cluster::join::{JoinOptions, JoinService};
use trireme_cluster::pki::{
    Certificates, ClusterKeys, Issued, Profile, SealedBundle, ServerFiles, ServingNames, SignRequest, Signer, SignerName, seal::SEALED_NAME,
};
use trireme_cluster::tokens::{LiveTokens, TokenRole};
use trireme_controllers::SignError;
use trireme_proto::store::{BackupNote, SealedKey};
use trireme_raft::{DiskEngines, Listen, PeerIdentity, Store, StoreError, StoreOptions, Timing, Upkeep};

use super::{FACTS_NOTE, Membership, Parts, ThisServer, etcd_api, folder, kubeconfig, membership};
use crate::cli::ServerArgs;
use crate::commands::Failure;
use crate::snapshots::{Folder, Snapshots};

const BOOTSTRAP_RETRY: Duration = Duration::from_millis(200);

/// A server that is being started.
pub struct Startup<'a> {
    args: &'a ServerArgs,
    name: String,
    node_ip: IpAddr,
    server_dir: PathBuf,
}

impl<'a> Startup<'a> {
    /// Looks at what can be known before anything is touched: name, address, folder.
    pub fn prepare(args: &'a ServerArgs) -> Result<Self, Failure> {
        let name = args.node_name.clone().map_or_else(trireme_agent::host::node_name, Ok)?;
        let node_ip = match args.advertise_address.or(args.node_ip) {
            Some(ip) => ip,
            None => trireme_agent::host::node_ip()?,
        };
        let server_dir = args.data_dir.join("server");
        private_folder(&server_dir)?;
        Ok(Self { args, name, node_ip, server_dir })
    }

    /// What it is started with.
    pub fn args(&self) -> &ServerArgs {
        self.args
    }

    /// This server's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The API server's port.
    pub fn https_port(&self) -> u16 {
        self.args.https_listen_port
    }

    /// Takes the API server's port, first of all: a server that can't listen must not initialize a cluster.
    pub async fn listen(&self) -> Result<TcpListener, Failure> {
        let address = SocketAddr::from((self.args.bind_address, self.args.https_listen_port));
        TcpListener::bind(address).await.map_err(|e| match e.kind() {
            std::io::ErrorKind::AddrNotAvailable => {
                Failure::from(format!("--bind-address {}: this host has no such address: {e}", address.ip()))
            }
            _ => Failure::from(format!("--https-listen-port {}: cannot listen on {address}: {e}", address.port())),
        })
    }

    /// Takes the port of the store, before a cluster is initialized or joined, for the same reason.
    pub fn listen_for_peers(&self) -> Result<std::net::TcpListener, Failure> {
        let address = SocketAddr::from((self.args.bind_address, self.args.peer_port));
        std::net::TcpListener::bind(address)
            .map_err(|e| Failure::from(format!("--peer-port {}: cannot listen on {address}: {e}", address.port())))
    }

    /// The folder of everything a server keeps.
    pub fn server_dir(&self) -> &Path {
        &self.server_dir
    }

    fn peer_address(&self) -> SocketAddr {
        SocketAddr::from((self.node_ip, self.args.peer_port))
    }

    fn api_url(&self) -> String {
        format!("https://{}", SocketAddr::from((self.node_ip, self.args.https_listen_port)))
    }

    /// Keys and facts: read from disk, of a new cluster, or of one that is joined.
    pub async fn obtain(&self) -> Result<Membership, Failure> {
        let this = ThisServer { name: &self.name, peer_address: self.peer_address().to_string(), api_url: self.api_url() };
        membership::obtain(self.args, &this, &self.server_dir).await
    }

    /// Opens the store and its peer listener. A member whose log cannot be trusted joins again under a new id, if it can.
    pub async fn open_store(
        &self,
        member: &mut Membership,
        certificates: &Certificates,
        peers: std::net::TcpListener,
    ) -> Result<Store, Failure> {
        let again = peers.try_clone()?;
        let this = ThisServer { name: &self.name, peer_address: self.peer_address().to_string(), api_url: self.api_url() };
        let mut identity = peer_identity(member)?;
        let store = match Store::open(self.store_options(member, identity.clone(), peers)?).await {
            Err(StoreError::MustRejoin(why)) => {
                *member = membership::rejoin(self.args, &this, &self.server_dir, &why).await?;
                identity = peer_identity(member)?;
                let store = Store::open(self.store_options(member, identity.clone(), again)?).await?;
                store.metrics().damage.log.store(1, Ordering::Relaxed);
                store
            }
            opened => opened?,
        };
        certificates.add("peer", membership::peer_profile(&this), Timestamp::now(), move |issued| {
            identity.renew(issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes()).map_err(|e| e.to_string())
        })?;
        let facts = serde_json::to_vec(&member.facts)?;
        store.set_backup_notes(vec![BackupNote { name: FACTS_NOTE.to_owned(), value: facts.into() }]);
        Ok(store)
    }

    fn store_options(
        &self,
        member: &Membership,
        identity: Arc<PeerIdentity>,
        peers: std::net::TcpListener,
    ) -> Result<StoreOptions, Failure> {
        Ok(StoreOptions {
            data_dir: self.server_dir.join("db"),
            name: self.name.clone(),
            identity,
            listen: Listen::Socket(peers),
            advertise: self.peer_address().to_string(),
            api_urls: vec![self.api_url()],
            client_urls: etcd_api::client_urls(self.args, self.node_ip),
            version: crate::VERSION.to_owned(),
            when_empty: member.when_empty.clone(),
            timing: timing(self.args)?,
            engines: Arc::new(DiskEngines),
            // By bytes and by time: `Upkeep::log`.
            snapshot_every: u64::MAX,
            log_kept: u64::MAX,
            upkeep: Upkeep { quota_bytes: self.args.quota_backend_bytes, ..Upkeep::default() },
        })
    }

    /// The tokens in force, as the store has them; before it has any, as this server knows them.
    pub fn tokens(&self, member: &Membership, store: &Store) -> Result<LiveTokens, Failure> {
        let tokens = LiveTokens::new(store.clone(), Arc::new(member.keys.clone()), member.server_secret.clone())?;
        tokens.refresh()?;
        Ok(tokens)
    }

    /// The audit log, open, if the flags ask for one.
    fn audit(&self) -> Result<Option<Arc<Audit>>, Failure> {
        let opened = self.args.upstream.audit().map_err(Failure::usage)?.map(Audit::open).transpose();
        Ok(opened.map_err(|error| Failure::usage(format!("--kube-apiserver-arg audit-*: {error}")))?.map(Arc::new))
    }

    /// Starts the API server over the store, with the routes for joining and for operators.
    pub async fn start_api(
        &self,
        member: &Membership,
        store: &Store,
        tokens: &LiveTokens,
        certificates: &Arc<Certificates>,
    ) -> Result<ApiServer, Failure> {
        let keys = Arc::new(member.keys.clone());
        let mut options = ApiServerOptions {
            ranges: Ranges { service_cidr: member.facts.service_cidr.parse()?, ..Ranges::default() },
            cluster_domain: member.facts.cluster_domain.clone(),
            advertise_address: SocketAddr::from((self.node_ip, self.args.https_listen_port)).to_string(),
            tunnels: self.args.tunnel_use(),
            ..ApiServerOptions::default()
        };
        self.args.upstream.apply_to_api_server(&mut options);
        options.kubelet_tls = Some(Arc::new(kubelet_tls(&member.keys, certificates)?));
        options.resource_metrics = self.args.has_resource_metrics();
        options.audit = self.audit()?;
        options.providers = self.args.upstream.providers().map_err(Failure::usage)?;
        options.aggregator_identity = Some(certificates.show("front-proxy-client", Profile::FrontProxyClient, Timestamp::now())?);
        let api = ApiServer::start(options, keys.api_server_keys()?, store.clone()).await?;
        api.set_extra_routes(Arc::new(JoinService::new(JoinOptions {
            store: store.clone(),
            reader: api.storage().clone(),
            keys: keys.clone(),
            tokens: tokens.clone(),
            reserved: self.serving_names(&member.facts)?.all(),
            facts: member.facts.clone(),
        })));
        api.add_operator_routes(Arc::new(Members::new(store.clone())));
        api.add_operator_routes(Arc::new(Targets::new(store.clone(), api.storage().clone())));
        api.add_operator_routes(Arc::new(Tokens::new(tokens.clone(), &keys)?));
        api.add_operator_routes(Arc::new(SecretsOf::new(keys.clone())));
        api.add_operator_routes(Arc::new(CertificatesOf::new(self.name.clone(), certificates.clone())));
        Ok(api)
    }

    /// This server's snapshots: on demand over the API, and by the clock.
    pub fn start_snapshots(&self, api: &ApiServer, store: &Store, cancel: &CancellationToken) {
        let folder = self.args.snapshot_dir.clone().unwrap_or_else(|| self.server_dir.join("db/snapshots"));
        let snapshots = Snapshots::new(store.clone(), Folder::new(folder), &self.name);
        api.add_operator_routes(Arc::new(snapshots.clone()));
        if !self.args.disable_snapshots {
            let schedule = self.args.snapshot_schedule_cron.clone();
            tokio::spawn(schedule.run(snapshots, self.args.snapshot_retention, cancel.clone()));
        }
    }

    /// TLS of the API port: any client certificate is taken, and judged by authentication.
    pub fn serving_tls(&self, certificates: &Certificates, facts: &ClusterFacts) -> Result<Arc<rustls::ServerConfig>, Failure> {
        let shown = certificates.show("apiserver", Profile::ApiServerServing(self.serving_names(facts)?), Timestamp::now())?;
        let mut config = rustls::ServerConfig::builder().with_client_cert_verifier(accept_any_verifier()).with_cert_resolver(shown);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    fn serving_names(&self, facts: &ClusterFacts) -> Result<ServingNames, Failure> {
        Ok(ServingNames {
            node_name: self.name.clone(),
            node_ips: self.node_ips(),
            // From the cluster's facts, not from flags: a restart or a restore may omit the flags.
            service_ips: vec![first_service_ip(facts.service_cidr.parse()?)],
            cluster_domain: facts.cluster_domain.clone(),
            extra: self.args.tls_san.clone(),
        })
    }

    /// Serves the etcd API.
    pub fn start_etcd_api(
        &self,
        keys: &ClusterKeys,
        certificates: &Certificates,
        store: Store,
        listener: TcpListener,
        cancel: &CancellationToken,
    ) -> Result<tokio::task::JoinHandle<()>, Failure> {
        let mut names = vec![self.name.clone()];
        names.extend(self.args.tls_san.iter().cloned());
        names.extend(self.node_ips().iter().map(IpAddr::to_string));
        if !self.args.bind_address.is_unspecified() {
            names.push(self.args.bind_address.to_string());
        }
        etcd_api::start(self.args, &names, keys, &self.server_dir, certificates, store, listener, cancel)
    }

    fn node_ips(&self) -> Vec<IpAddr> {
        let mut ips = vec![self.node_ip];
        ips.extend(self.args.node_ip.into_iter().chain(self.args.node_external_ip));
        ips.extend(Some(self.args.bind_address).filter(|ip| !ip.is_unspecified()));
        ips.sort();
        ips.dedup();
        ips
    }

    /// This server's certificates: none yet, each part registers its own.
    pub fn certificates(&self, member: &Membership) -> Arc<Certificates> {
        Arc::new(Certificates::new(ServerFiles::new(&self.server_dir), Arc::new(member.keys.clone())))
    }

    /// Tokens and the administrator's kubeconfig.
    pub fn write_files(&self, member: &Membership, tokens: &LiveTokens, certificates: &Certificates) -> Result<(), Failure> {
        let ca = &member.keys.server_ca;
        let current = tokens.current()?;
        current.write(&self.server_dir, &ca.fingerprint()?)?;
        membership::keep_secret(&self.server_dir, current.server_secret())?;
        let (path, mode) = (self.args.write_kubeconfig.clone(), self.args.write_kubeconfig_mode);
        let (url, ca_pem) = (self.args.local_url(), ca.certificate_pem.clone());
        let write = move |admin: &Issued| {
            kubeconfig::write(&path, mode, &url, &ca_pem, &admin.certificate_pem, &admin.key_pem)
                .map_err(|e| format!("--write-kubeconfig {}: {e}", path.display()))
        };
        let again = write.clone();
        let admin = certificates.add("admin", Profile::Admin, Timestamp::now(), again)?;
        write(&admin).map_err(Failure::from)
    }

    /// The token for this server's own node: the servers' own, because a node token does not admit under a server's name and address.
    pub fn own_node_token(&self, member: &Membership, tokens: &LiveTokens) -> Result<String, Failure> {
        Ok(tokens.current()?.full(TokenRole::Server, &member.keys.server_ca.fingerprint()?).to_string())
    }

    /// Whether the nodes answer cluster DNS.
    pub fn nodes_answer_dns(&self) -> bool {
        self.args.nodes_answer_dns()
    }

    /// The address of the `kubernetes` Service.
    pub fn service_ip(&self, facts: &ClusterFacts) -> Result<IpAddr, Failure> {
        Ok(first_service_ip(facts.service_cidr.parse()?))
    }

    /// The keys sealed under the token, to be put into the store by the server that initialized the cluster.
    pub fn sealed_keys(&self, member: &Membership) -> Result<Option<SealedKey>, Failure> {
        if !member.initialized_now {
            return Ok(None);
        }
        Ok(Some(SealedBundle::seal(&member.keys, &member.server_secret)?.to_stored()?))
    }
}

fn first_service_ip(cidr: Ipv4Net) -> IpAddr {
    Ipv4Addr::from(u32::from(cidr.network()) + 1).into()
}

/// Looks at options and folder, before anything is waited for or written.
pub fn check(args: &ServerArgs) -> Result<(), Failure> {
    check_networks(args)?;
    timing(args)?;
    crate::commands::token(args.token.clone(), args.token_file.as_deref())?;
    args.upstream.audit().map_err(Failure::usage)?;
    args.upstream.providers().map_err(Failure::usage)?;
    folder::check(&args.data_dir)
}

/// The store's clocks.
fn timing(args: &ServerArgs) -> Result<Timing, Failure> {
    let millis = Duration::from_millis;
    Timing::with_clocks(millis(args.raft_heartbeat_ms), millis(args.raft_election_timeout_ms))
        .map_err(|e| Failure::usage(format!("--raft-heartbeat-ms, --raft-election-timeout-ms: {e}")))
}

/// Networks that overlap, or an address outside its network, would only show when packets go astray.
fn check_networks(args: &ServerArgs) -> Result<(), Failure> {
    let (pods, services) = (args.cluster_cidr, args.service_cidr);
    if pods.contains(&services.network()) || services.contains(&pods.network()) {
        return Err(Failure::usage(format!(
            "--service-cidr {services}: overlaps --cluster-cidr {pods}; give networks apart from each other"
        )));
    }
    match args.cluster_dns {
        Some(dns) if !services.contains(&dns) => {
            Err(Failure::usage(format!("--cluster-dns {dns}: expected an address in --service-cidr {services}")))
        }
        _ => Ok(()),
    }
}

fn private_folder(path: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| Failure::from(format!("--data-dir: create {}: {e}", path.display())))
}

/// TLS towards kubelets: our client certificate, and the authority that signed theirs.
fn kubelet_tls(keys: &ClusterKeys, certificates: &Certificates) -> Result<rustls::ClientConfig, Failure> {
    let shown = certificates.show("apiserver-kubelet-client", Profile::ApiServerKubeletClient, Timestamp::now())?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in keys.server_ca.certificates_der()? {
        roots.add(certificate)?;
    }
    Ok(rustls::ClientConfig::builder().with_root_certificates(roots).with_client_cert_resolver(shown))
}

/// Writes of the server itself, under this leadership's fence.
pub fn writer(parts: &Parts, fence: trireme_raft::Fence) -> Writer {
    Writer::of(parts.api.clone(), Some(fence))
}

/// Creates the objects that every cluster has; tries again until they exist or the leadership ends.
pub async fn bootstrap_cluster(parts: &Parts, sealed: Option<SealedKey>, fence: trireme_raft::Fence, stop: CancellationToken) {
    let bootstrap = Bootstrap {
        writer: writer(parts, fence),
        reader: parts.api.storage().clone(),
        service_ip: parts.service_ip,
        https_port: parts.https_port,
        service_cidr: parts.service_cidr.clone(),
    };
    loop {
        let done = async {
            if let Some(key) = &sealed
                && parts.store.sealed(SEALED_NAME).map_err(|e| e.to_string())?.is_none()
            {
                parts.store.sealed_put(SEALED_NAME, key.clone(), 0).await.map_err(|e| e.to_string())?;
            }
            parts.tokens.record_secret().await.map_err(|e| e.to_string())?;
            bootstrap.run(&parts.keys).await.map_err(|e| e.to_string())?;
            super::addons::install(parts, &bootstrap.writer).await
        };
        match done.await {
            Ok(()) => {
                if let Err(error) = membership::settle(&parts.server_dir) {
                    tracing::warn!(error = error.message, "the cluster is initialized, but that could not be written to disk");
                }
                return parts.api.mark_bootstrapped();
            }
            Err(error) => tracing::warn!(error, "the cluster's first objects are not all there yet"),
        }
        tokio::select! {
            () = tokio::time::sleep(BOOTSTRAP_RETRY) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Signs approved certificate requests with the cluster's keys.
pub struct CsrSigner {
    keys: ClusterKeys,
}

impl CsrSigner {
    /// Signs with these keys.
    pub fn new(keys: ClusterKeys) -> Self {
        Self { keys }
    }

    fn sign_now(&self, request: &CertificateSigningRequest) -> Result<Vec<u8>, SignError> {
        let spec = &request.spec;
        let signer = SignerName::parse(&spec.signer_name).ok_or_else(|| SignError::Refused("not a signer of this cluster".into()))?;
        let decoded = CertificateRequest::decode(&spec.request.0).map_err(|e| SignError::Refused(format!("spec.request: {e}")))?;
        let usages = spec.usages.clone().unwrap_or_default();
        let question = SignRequest { signer, request: &decoded, usages: &usages, expiration_secs: spec.expiration_seconds.map(i64::from) };
        let signed = Signer::new(&self.keys).sign(&question, Timestamp::now());
        signed.map(String::into_bytes).map_err(|e| SignError::Refused(e.to_string()))
    }
}

impl trireme_controllers::Signer for CsrSigner {
    fn handles(&self, signer_name: &str) -> bool {
        SignerName::parse(signer_name).is_some()
    }

    fn sign<'a>(&'a self, request: &'a CertificateSigningRequest) -> BoxFuture<'a, Result<Vec<u8>, SignError>> {
        Box::pin(async move { self.sign_now(request) })
    }
}

/// Signs the tokens that Secrets hold, with the keys of the API server's own tokens.
pub struct SecretTokenSigner {
    api: ApiServer,
}

impl SecretTokenSigner {
    /// Signs as this API server does.
    pub fn new(api: ApiServer) -> Self {
        Self { api }
    }
}

impl trireme_controllers::TokenSigner for SecretTokenSigner {
    fn sign(&self, account: &ServiceAccount, secret_name: &str) -> Result<String, String> {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let meta = &account.metadata;
        let claims = LegacyClaims::new(&text(&meta.namespace), &text(&meta.name), &text(&meta.uid), secret_name);
        self.api.authenticator().tokens().sign_legacy(&claims).map_err(|error| error.to_string())
    }
}

/// Who this server is to its peers.
fn peer_identity(member: &Membership) -> Result<Arc<PeerIdentity>, Failure> {
    let (ca, peer) = (&member.keys.peer_ca, &member.peer);
    Ok(Arc::new(PeerIdentity::from_pem(ca.certificate_pem.as_bytes(), peer.certificate_pem.as_bytes(), peer.key_pem.as_bytes())?))
}

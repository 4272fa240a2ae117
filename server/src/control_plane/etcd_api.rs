//! The etcd API of a server: its port, its certificates, and what it hides.
//!
//! Its clients carry certificates of an authority of their own: neither a kubelet's nor an administrator's opens it.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::server::WebPkiClientVerifier;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use trireme_apiserver::storage::keys::KUBERNETES_KEYS;
use trireme_cluster::pki::files::write_private;
use trireme_cluster::pki::{Certificates, ClusterKeys, Profile, ServerFiles};
use trireme_etcd::{EtcdApi, EtcdOptions, HiddenKeys};
use trireme_raft::Store;

use crate::cli::ServerArgs;
use crate::commands::Failure;

/// Its name in `--disable`.
pub const NAME: &str = "etcd";

/// Where the files for clients on this host lie, below `server/tls`.
const FOLDER: &str = "etcd";

/// What kube-apiserver keeps of the past: `--etcd-compaction-interval`.
const RETENTION: Duration = Duration::from_secs(300);

/// Takes the port, unless this is disabled: a server that can't listen must not initialize a cluster.
pub async fn listen(args: &ServerArgs) -> Result<Option<TcpListener>, Failure> {
    if args.disable.iter().any(|name| name == NAME) {
        return Ok(None);
    }
    let address = SocketAddr::from((args.bind_address, args.etcd_port));
    let taken = |e| Failure::from(format!("--etcd-port {}: cannot listen on {address}: {e}", address.port()));
    TcpListener::bind(address).await.map(Some).map_err(taken)
}

/// Where the others and their clients find it.
pub fn client_urls(args: &ServerArgs, node_ip: IpAddr) -> Vec<String> {
    match args.disable.iter().any(|name| name == NAME) {
        true => Vec::new(),
        false => vec![format!("https://{}", SocketAddr::from((node_ip, args.etcd_port)))],
    }
}

/// Serves it until cancelled.
pub fn start(
    args: &ServerArgs,
    names: &[String],
    keys: &ClusterKeys,
    server_dir: &Path,
    certificates: &Certificates,
    store: Store,
    listener: TcpListener,
    cancel: &CancellationToken,
) -> Result<tokio::task::JoinHandle<()>, Failure> {
    write_client_files(&ServerFiles::new(server_dir), certificates, keys)?;
    let tls = serving_tls(certificates, names, keys)?;
    let hidden = match args.etcd_expose_kubernetes_keys {
        true => HiddenKeys::none(),
        false => HiddenKeys::new([(KUBERNETES_KEYS.0.into(), KUBERNETES_KEYS.1.into())]),
    };
    let api = EtcdApi::new(store, EtcdOptions { hidden, retention: RETENTION, ..EtcdOptions::default() }, cancel.clone());
    Ok(tokio::spawn(async move { api.serve(listener, Arc::new(tls)).await }))
}

/// What `etcdctl` needs on this host: `--cacert`, `--cert` and `--key`.
fn write_client_files(files: &ServerFiles, certificates: &Certificates, keys: &ClusterKeys) -> Result<(), Failure> {
    // Users of the files read them again.
    certificates.add(&format!("{FOLDER}/client"), Profile::EtcdClient { name: "etcdctl".into() }, Timestamp::now(), |_| Ok(()))?;
    let ca = files.tls(&format!("{FOLDER}/ca.crt"));
    if std::fs::read(&ca).ok().as_deref() != Some(keys.server_ca.certificate_pem.as_bytes()) {
        write_private(&ca, keys.server_ca.certificate_pem.as_bytes())?;
    }
    Ok(())
}

fn serving_tls(certificates: &Certificates, names: &[String], keys: &ClusterKeys) -> Result<rustls::ServerConfig, Failure> {
    let profile = Profile::EtcdServing { addresses: names.to_vec() };
    let shown = certificates.show(&format!("{FOLDER}/server"), profile, Timestamp::now())?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in keys.etcd_client_ca.certificates_der()? {
        roots.add(certificate)?;
    }
    let clients = WebPkiClientVerifier::builder(Arc::new(roots)).build()?;
    let mut config = rustls::ServerConfig::builder().with_client_cert_verifier(clients).with_cert_resolver(shown);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

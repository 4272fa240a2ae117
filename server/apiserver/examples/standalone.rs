//! An API server over a store in memory, to try requests against: prints its address and an administrator's certificate.
//!
//! `cargo run -p trireme-apiserver --no-default-features --example standalone -- 127.0.0.1:7443 /tmp/folder`

#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../tests/api/support.rs"]
#[allow(dead_code, clippy::unwrap_used, clippy::panic)]
mod support;

use support::Cluster;
use trireme_cluster::pki::Profile;

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let (listen, folder) = (args.next().unwrap(), args.next().unwrap());
    let cluster = Cluster::start_on(&listen, |_, _| {}).await;
    let admin = cluster.issue(&Profile::Admin);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(format!("{folder}/admin.crt"), &admin.certificate_pem).unwrap();
    std::fs::write(format!("{folder}/admin.key"), &admin.key_pem).unwrap();
    std::fs::write(format!("{folder}/ca.crt"), &cluster.keys.server_ca.certificate_pem).unwrap();
    println!("https://{} {folder}/admin.crt {folder}/admin.key", cluster.address);
    tokio::signal::ctrl_c().await.unwrap();
    cluster.stop().await;
}

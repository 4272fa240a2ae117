//! A CSI driver for tests, whose volumes are folders of the host: a node's half of a real driver, with its registrar.
//!
//! Owns: the sockets of the driver and of its registration, one folder for each volume, a log of the calls, and what goes wrong
//! on order ([`Faults`]). All of it is files below one folder, so that a test in another process can read and order.
//! Must not: be used for data. It knows no other clients than a kubelet.
// A fault that cannot be ordered, or a call that cannot be noted, ends the test.
#![allow(missing_docs, clippy::panic)]

mod faults;
mod node;
mod registrar;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use trireme_proto::csi::node_server::NodeServer;
use trireme_proto::csi::node_service_capability::rpc::Type;
use trireme_proto::pluginregistration::registration_server::RegistrationServer;

pub use faults::Faults;
use node::NodeService;
use registrar::Registrar;

/// What the driver says of itself.
#[derive(Clone, Debug)]
pub struct Options {
    pub name: String,
    pub node_id: String,
    /// The kubelet's folder: the sockets are in `plugins/<name>` and `plugins_registry` below it.
    pub kubelet: PathBuf,
    /// Where the volumes, the log and the faults are.
    pub data: PathBuf,
    pub abilities: Vec<Type>,
    pub topology: Vec<(String, String)>,
    pub max_volumes: i64,
    /// Whether volumes are mounted, for which root is needed; otherwise a published volume is an empty folder.
    pub mounts: bool,
}

impl Options {
    /// A driver that stages, and mounts nothing.
    pub fn new(name: &str, kubelet: &Path, data: &Path) -> Options {
        Options {
            name: name.to_owned(),
            node_id: "node-1".to_owned(),
            kubelet: kubelet.to_owned(),
            data: data.to_owned(),
            abilities: vec![Type::StageUnstageVolume],
            topology: Vec::new(),
            max_volumes: 0,
            mounts: false,
        }
    }

    /// The socket by which the driver registers.
    pub fn registration_socket(&self) -> PathBuf {
        self.kubelet.join("plugins_registry").join(format!("{}-reg.sock", self.name))
    }
}

/// A running driver. Dropping it removes its sockets.
pub struct Driver {
    options: Arc<Options>,
    cancel: CancellationToken,
}

impl Driver {
    /// Serves from now on, and registers.
    pub async fn start(options: Options) -> io::Result<Driver> {
        let options = Arc::new(options);
        let cancel = CancellationToken::new();
        std::fs::create_dir_all(options.data.join("volumes"))?;
        let socket = options.kubelet.join("plugins").join(&options.name).join("csi.sock");
        let node = NodeServer::new(NodeService::new(Arc::clone(&options)));
        serve(&socket, Server::builder().add_service(node), &cancel)?;
        let registrar = RegistrationServer::new(Registrar { options: Arc::clone(&options), endpoint: socket });
        serve(&options.registration_socket(), Server::builder().add_service(registrar), &cancel)?;
        Ok(Driver { options, cancel })
    }

    /// What goes wrong on order.
    pub fn faults(&self) -> Faults {
        Faults::new(&self.options.data)
    }

    /// All calls so far: the call's name, and what it was about.
    pub fn calls(&self) -> Vec<String> {
        faults::calls(&self.options.data)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.cancel.cancel();
        let _ = std::fs::remove_file(self.options.registration_socket());
    }
}

fn serve(socket: &Path, router: tonic::transport::server::Router, cancel: &CancellationToken) -> io::Result<()> {
    if let Some(folder) = socket.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let _ = std::fs::remove_file(socket);
    let incoming = UnixListenerStream::new(UnixListener::bind(socket)?);
    let cancel = cancel.clone();
    tokio::spawn(async move {
        // Calls that hang on order do not end by themselves.
        cancel.run_until_cancelled(router.serve_with_incoming(incoming)).await;
    });
    Ok(())
}

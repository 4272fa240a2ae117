//! `device-plugins/kubelet.sock`, where plugins register.

use std::{
    os::unix::fs::FileTypeExt,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status, transport::Server};
use trireme_proto::deviceplugin::{
    Empty, RegisterRequest,
    registration_server::{Registration, RegistrationServer},
};

use super::{devices::Devices, resource_name::is_extended};
use crate::{
    clock::blocking,
    error::{Error, Result},
    files,
};

const SOCKET: &str = "kubelet.sock";
/// The version of the API that this kubelet speaks.
const VERSION: &str = "v1beta1";
/// No registration says more.
const MAX_MESSAGE_BYTES: usize = 64 << 10;
/// Registrations of one connection at a time.
const MAX_CALLS: usize = 16;

impl Devices {
    /// Makes the folder, and removes the sockets that an earlier kubelet and its plugins left: plugins register again when theirs, or the
    /// kubelet's, is another one.
    pub(crate) fn make_folder(&self) -> Result<()> {
        files::make_directories(&self.folder, 0o750)?;
        for path in sockets(&self.folder) {
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::warn!(%error, socket = %path.display(), "cannot remove an old socket of a device plugin");
            }
        }
        Ok(())
    }

    /// Lets plugins register, until dropped.
    pub(crate) async fn serve(self: Arc<Self>) {
        if let Err(error) = self.listen().await {
            tracing::error!(%error, "device plugins cannot register with this node");
        }
    }

    async fn listen(self: Arc<Self>) -> Result<()> {
        let socket = self.folder.join(SOCKET);
        let wrap = || Error::io(format!("listen on {} (a socket's path has at most 107 bytes)", socket.display()));
        let listener = blocking(|| UnixListener::bind(&socket)).map_err(wrap())?;
        let service = RegistrationServer::new(Registrar { devices: self.clone() }).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let router = Server::builder().concurrency_limit_per_connection(MAX_CALLS).add_service(service);
        let served = router.serve_with_incoming(UnixListenerStream::new(listener)).await;
        served.map_err(|error| Error::Config(format!("serve {}: {error}", socket.display())))
    }

    /// Whether a plugin that registers by `plugins_registry` can be spoken to.
    pub(crate) fn check_registered(name: &str, versions: &[String]) -> std::result::Result<(), String> {
        check(name, versions)
    }
}

/// The sockets of a folder. Links are not followed.
fn sockets(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_socket())).map(|entry| entry.path())
}

fn check(resource: &str, versions: &[String]) -> std::result::Result<(), String> {
    if !versions.iter().any(|version| version == VERSION) {
        return Err(format!("requested API version {versions:?} is not supported by kubelet. Supported version is {VERSION:?}"));
    }
    if !is_extended(resource) {
        return Err(format!("the ResourceName {resource:?} is invalid: it has to be one of a vendor, like example.com/gpu"));
    }
    Ok(())
}

/// Where a plugin listens: a name in the folder, and nothing outside of it.
fn endpoint(folder: &Path, name: &str) -> std::result::Result<PathBuf, String> {
    let is_inside = !name.is_empty() && Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    match is_inside && name != SOCKET && !name.contains('\0') {
        true => Ok(folder.join(name)),
        false => Err(format!("endpoint {name:?} is no name of a plugin's socket in {}", folder.display())),
    }
}

struct Registrar {
    devices: Arc<Devices>,
}

#[tonic::async_trait]
impl Registration for Registrar {
    async fn register(&self, request: Request<RegisterRequest>) -> std::result::Result<Response<Empty>, Status> {
        let RegisterRequest { version, endpoint: name, resource_name, .. } = request.into_inner();
        let socket = check(&resource_name, &[version]).and_then(|()| endpoint(&self.devices.folder, &name));
        let socket = socket.map_err(|why| {
            tracing::warn!(why, "a device plugin is not registered");
            Status::invalid_argument(why)
        })?;
        match self.devices.connect(&resource_name, socket, None).await {
            Ok(()) => Ok(Response::new(Empty {})),
            Err(error) => {
                tracing::warn!(%error, "a device plugin is not registered");
                Err(Status::unavailable(error.to_string()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_resources_of_vendors_and_sockets_of_the_folder_are_taken() {
        let versions = |version: &str| vec![version.to_owned()];
        assert_eq!(check("example.com/gpu", &versions("v1beta1")), Ok(()));
        for (name, version, why) in [
            ("example.com/gpu", "v1alpha1", "requested API version"),
            ("cpu", "v1beta1", "is invalid"),
            ("kubernetes.io/gpu", "v1beta1", "is invalid"),
            ("example.com/", "v1beta1", "is invalid"),
        ] {
            assert!(check(name, &versions(version)).unwrap_err().contains(why), "{name} {version}");
        }
        let folder = Path::new("/root/device-plugins");
        assert_eq!(endpoint(folder, "gpu.sock"), Ok(folder.join("gpu.sock")));
        for bad in ["", ".", "..", "../x", "/run/x.sock", "a/../../x", "kubelet.sock", "a\0b"] {
            assert!(endpoint(folder, bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_sockets_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("gpu.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        std::fs::write(dir.path().join("kubelet_internal_checkpoint"), "").unwrap();
        std::os::unix::fs::symlink(&socket, dir.path().join("link")).unwrap();
        std::fs::create_dir(dir.path().join("folder")).unwrap();
        assert_eq!(sockets(dir.path()).collect::<Vec<_>>(), [socket]);
    }
}

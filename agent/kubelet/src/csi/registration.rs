//! Finds plugins: a socket in `plugins_registry` is asked who is behind it, and told whether it is registered. When the socket goes, so
//! does the registration.
//!
//! Answers to <https://kubernetes.io/docs/reference/node/device-plugin-registration-and-allocation/> and upstream's plugin registration
//! service v1. Of the types of plugins CSI drivers and device plugins are taken; others are told so.

use std::{
    collections::HashMap,
    os::{
        fd::AsFd,
        unix::fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::{net::unix::pipe::Receiver, task::JoinHandle};
use trireme_proto::pluginregistration::{self as wire, registration_client::RegistrationClient};

use super::{driver::Driver, state::Csi};
use crate::{
    clock::blocking,
    device::Devices,
    error::{Error, Result},
    files,
    plugin_call::{answer, channel},
};

/// What a plugin says of itself that offers devices.
const DEVICE_PLUGIN: &str = "DevicePlugin";
/// The deadline of each of the two calls of a registration.
const CALL: Duration = Duration::from_secs(10);
/// No registration says more.
const MAX_MESSAGE_BYTES: usize = 64 << 10;
/// More sockets than any host has drivers; the rest is left alone.
const MAX_PLUGINS: usize = 128;
/// The folder is looked at again after this even if the kernel told nothing.
const LOOK_ANYWAY: Duration = Duration::from_secs(60);
/// After changes stop for so long, they are looked at together.
const GATHER: Duration = Duration::from_millis(50);
/// Between attempts to register one plugin: doubled from the first up to the last.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(122);

/// Tells a socket from a later one of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    changed: (i64, i64),
}

struct Known {
    identity: Identity,
    /// Registers it; it then waits to be stopped.
    task: JoinHandle<()>,
}

impl Csi {
    /// Makes the folders that plugins are configured with.
    pub(crate) fn make_folders(&self) -> Result<()> {
        files::make_directories(&self.layout.registry(), 0o750)?;
        files::make_directories(&self.layout.plugins(), 0o750)
    }

    /// Follows the folder until dropped.
    pub(crate) async fn follow_plugins(self: Arc<Self>) {
        let folder = self.layout.registry();
        let changes = blocking(|| Changes::of(&folder));
        if let Err(error) = &changes {
            tracing::warn!(%error, "changes among plugins are noticed once a minute only");
        }
        let changes = changes.ok();
        let mut known: HashMap<PathBuf, Known> = HashMap::new();
        loop {
            self.compare(&mut known, blocking(|| sockets(&folder))).await;
            tokio::select! {
                () = tokio::time::sleep(LOOK_ANYWAY) => {}
                () = next(changes.as_ref()) => tokio::time::sleep(GATHER).await,
            }
        }
    }

    async fn compare(self: &Arc<Self>, known: &mut HashMap<PathBuf, Known>, found: HashMap<PathBuf, Identity>) {
        let gone = known.extract_if(|path, plugin| found.get(path) != Some(&plugin.identity));
        for (path, plugin) in gone.collect::<Vec<_>>() {
            plugin.task.abort();
            self.forget_plugin(&path).await;
        }
        for (path, identity) in found {
            let (me, socket) = (self.clone(), path.clone());
            known.entry(path).or_insert_with(|| Known { identity, task: tokio::spawn(me.register(socket)) });
        }
    }

    /// Tries until the plugin is registered.
    async fn register(self: Arc<Self>, socket: PathBuf) {
        let mut pause = FIRST_RETRY;
        while let Err(error) = self.register_once(&socket).await {
            tracing::warn!(%error, socket = %socket.display(), "a plugin is not registered, will be retried");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LAST_RETRY);
        }
    }

    async fn register_once(self: &Arc<Self>, socket: &Path) -> Result<()> {
        let mut plugin = RegistrationClient::new(channel(socket.to_owned())).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let info = answer(CALL, plugin.get_info(wire::InfoRequest {})).await?;
        let outcome = match (info.r#type.as_str(), check(&info)) {
            (_, Err(why)) => Err(why),
            (DEVICE_PLUGIN, Ok(())) => {
                self.devices.connect(&info.name, endpoint(socket, &info), Some(socket.to_owned())).await.map_err(|e| e.to_string())
            }
            (_, Ok(())) => self.register_driver(socket, &info).await.map_err(|e| e.to_string()),
        };
        let status =
            wire::RegistrationStatus { plugin_registered: outcome.is_ok(), error: outcome.as_ref().err().cloned().unwrap_or_default() };
        let told = answer(CALL, plugin.notify_registration_status(status)).await;
        outcome.map_err(Error::Config)?;
        tracing::info!(plugin = info.name, r#type = info.r#type, "plugin registered");
        // The plugin works, whether its registrar listens or not.
        if let Err(error) = told {
            tracing::warn!(%error, plugin = info.name, "a plugin's registrar cannot be told that it is registered");
        }
        Ok(())
    }

    async fn register_driver(self: &Arc<Self>, socket: &Path, info: &wire::PluginInfo) -> Result<()> {
        let (driver, node) = Driver::meet(endpoint(socket, info)).await?;
        self.announce(&info.name, &node).await?;
        self.drivers.add(&info.name, socket.to_owned(), driver);
        Ok(())
    }

    async fn forget_plugin(&self, socket: &Path) {
        self.devices.forget(socket);
        for name in self.drivers.remove(socket) {
            tracing::info!(driver = name, "CSI driver is gone");
            if let Err(error) = self.withdraw(&name).await {
                tracing::warn!(%error, driver = name, "this node is still said to have a driver that is gone");
            }
        }
    }
}

/// Where the plugin's own service listens.
fn endpoint(socket: &Path, info: &wire::PluginInfo) -> PathBuf {
    if info.endpoint.is_empty() { socket.to_owned() } else { PathBuf::from(&info.endpoint) }
}

/// Whether a plugin can be spoken to.
fn check(info: &wire::PluginInfo) -> Result<(), String> {
    if !info.endpoint.is_empty() && !Path::new(&info.endpoint).is_absolute() {
        return Err(format!("endpoint {:?} of plugin {} is no absolute path", info.endpoint, info.name));
    }
    match info.r#type.as_str() {
        "CSIPlugin" => check_driver(info),
        DEVICE_PLUGIN => Devices::check_registered(&info.name, &info.supported_versions),
        other => Err(format!("plugins of type {other:?} are not supported by this node")),
    }
}

fn check_driver(info: &wire::PluginInfo) -> Result<(), String> {
    if !is_driver_name(&info.name) {
        return Err(format!(
            "invalid CSI driver name {:?}: at most 63 letters, digits, '-' and '.', a letter or digit at both ends",
            info.name
        ));
    }
    let major = |version: &String| version.trim_start_matches('v').split('.').next().and_then(|major| major.parse().ok());
    if !info.supported_versions.iter().any(|version| major(version) == Some(1_u32)) {
        return Err(format!(
            "failed to get supported versions: none of the CSI versions reported by this driver are supported: {:?}",
            info.supported_versions
        ));
    }
    Ok(())
}

fn is_driver_name(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    let ends = [name.bytes().next(), name.bytes().last()];
    name.len() <= 63 && name.bytes().all(inner) && ends.iter().all(|end| end.is_some_and(|byte| byte.is_ascii_alphanumeric()))
}

/// The sockets in the folder. Hidden ones are not meant, and links are not followed.
fn sockets(folder: &Path) -> HashMap<PathBuf, Identity> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let sockets = entries.filter_map(|entry| {
        let metadata = entry.metadata().ok()?;
        let is_meant = metadata.file_type().is_socket() && !entry.file_name().as_encoded_bytes().starts_with(b".");
        let identity = Identity { device: metadata.dev(), inode: metadata.ino(), changed: (metadata.ctime(), metadata.ctime_nsec()) };
        is_meant.then(|| (entry.path(), identity))
    });
    sockets.take(MAX_PLUGINS).collect()
}

/// The kernel's notifications of a folder: a descriptor that is read like a pipe.
struct Changes(Receiver);

impl Changes {
    fn of(folder: &Path) -> Result<Changes> {
        let wrap = || Error::errno(format!("watch {}", folder.display()));
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).map_err(wrap())?;
        let what = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVE | AddWatchFlags::IN_ATTRIB;
        inotify.add_watch(folder, what).map_err(wrap())?;
        let descriptor = inotify.as_fd().try_clone_to_owned().and_then(Receiver::from_owned_fd_unchecked);
        descriptor.map(Changes).map_err(Error::io(format!("watch {}", folder.display())))
    }
}

/// Returns when something changed.
async fn next(changes: Option<&Changes>) {
    let Some(Changes(descriptor)) = changes else { return std::future::pending().await };
    if descriptor.readable().await.is_err() {
        return std::future::pending().await;
    }
    // What changed does not matter: the folder is looked at. The queue is emptied, also of an overflow.
    let mut events = [0; 4096];
    while descriptor.try_read(&mut events).is_ok_and(|length| length > 0) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(kind: &str, name: &str, versions: &[&str], endpoint: &str) -> wire::PluginInfo {
        let supported_versions = versions.iter().map(ToString::to_string).collect();
        wire::PluginInfo { r#type: kind.into(), name: name.into(), endpoint: endpoint.into(), supported_versions }
    }

    #[test]
    fn only_drivers_of_version_one_with_sound_names_are_taken() {
        assert_eq!(check(&info("CSIPlugin", "d.example.com", &["0.3.0", "1.0.0"], "/s")), Ok(()));
        assert_eq!(check(&info("DevicePlugin", "example.com/gpu", &["v1beta1"], "/s")), Ok(()));
        for (bad, why) in [
            (info("DRAPlugin", "d", &["1.0.0"], ""), "not supported"),
            (info("DevicePlugin", "gpu", &["v1beta1"], ""), "ResourceName \"gpu\" is invalid"),
            (info("DevicePlugin", "example.com/gpu", &["1.0.0"], ""), "requested API version"),
            (info("DevicePlugin", "example.com/gpu", &["v1beta1"], "relative"), "no absolute path"),
            (info("CSIPlugin", "../../etc", &["1.0.0"], ""), "invalid CSI driver name"),
            (info("CSIPlugin", "", &["1.0.0"], ""), "invalid CSI driver name"),
            (info("CSIPlugin", &"a".repeat(64), &["1.0.0"], ""), "invalid CSI driver name"),
            (info("CSIPlugin", "d", &["0.3.0"], ""), "none of the CSI versions"),
            (info("CSIPlugin", "d", &[], ""), "none of the CSI versions"),
            (info("CSIPlugin", "d", &["1.0.0"], "relative"), "no absolute path"),
        ] {
            assert!(check(&bad).unwrap_err().contains(why), "{bad:?}");
        }
    }

    #[test]
    fn only_sockets_count() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("d-reg.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let _hidden = std::os::unix::net::UnixListener::bind(dir.path().join(".hidden.sock")).unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        std::os::unix::fs::symlink(&socket, dir.path().join("link")).unwrap();
        assert_eq!(sockets(dir.path()).into_keys().collect::<Vec<_>>(), [socket]);
    }
}

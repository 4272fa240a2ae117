//! Where volumes and what is written about them are on this host: upstream's paths, because drivers are configured with them.

use std::path::{Path, PathBuf};

use trireme_client::storage::csi::hash;
pub(crate) use trireme_client::storage::csi::{VolumeId, ephemeral_handle};

use crate::error::{Error, Result};

/// The directory of the plugin below a pod's `volumes` and `volumeDevices`.
const DIRECTORY: &str = "kubernetes.io~csi";

/// A name that may become one component of a path.
pub(crate) fn component(name: &str) -> Result<&str> {
    let plain = !name.is_empty() && name.len() <= 253 && !name.starts_with('.') && !name.contains(['/', '\0']);
    if plain { Ok(name) } else { Err(Error::Config(format!("{name:?} cannot be a part of a path"))) }
}

/// The folders of one node.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: &Path) -> Layout {
        Layout { root: root.to_owned() }
    }

    /// Where plugins put the sockets by which they register.
    pub(crate) fn registry(&self) -> PathBuf {
        self.root.join("plugins_registry")
    }

    /// Where plugins put the sockets of their services.
    pub(crate) fn plugins(&self) -> PathBuf {
        self.root.join("plugins")
    }

    pub(crate) fn pods(&self) -> PathBuf {
        self.root.join("pods")
    }

    /// The folders of all staged volumes, one below the folder of each driver.
    pub(crate) fn staged(&self) -> PathBuf {
        self.plugins().join("kubernetes.io/csi")
    }

    /// What belongs to a staged volume; its files are in `globalmount` below it.
    pub(crate) fn staging(&self, id: &VolumeId) -> Result<PathBuf> {
        Ok(self.staged().join(component(&id.driver)?).join(hash(&id.handle)))
    }

    /// What belongs to a pod's volumes that are file systems, or to those that are devices.
    pub(crate) fn of_pod(&self, pod_uid: &str, form: Form) -> Result<PathBuf> {
        let parent = match form {
            Form::FileSystem => "volumes",
            Form::Device => "volumeDevices",
        };
        Ok(self.pods().join(component(pod_uid)?).join(parent).join(DIRECTORY))
    }

    /// What belongs to a volume of a pod.
    pub(crate) fn published(&self, pod_uid: &str, spec_name: &str, form: Form) -> Result<PathBuf> {
        Ok(self.of_pod(pod_uid, form)?.join(component(spec_name)?))
    }
}

/// What a pod gets of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    FileSystem,
    Device,
}

/// Where a staged volume is mounted.
pub(crate) fn global_mount(staging: &Path) -> PathBuf {
    staging.join("globalmount")
}

/// Where a pod's volume is mounted, or where its device is.
pub(crate) fn target(published: &Path, form: Form) -> PathBuf {
    match form {
        Form::FileSystem => published.join("mount"),
        Form::Device => published.join("device"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_upstreams() {
        let id = VolumeId { driver: "d.example.com".into(), handle: "h/1".into() };
        let layout = Layout::new(Path::new("/root"));
        let staging = layout.staging(&id).unwrap();
        assert_eq!(staging, Path::new("/root/plugins/kubernetes.io/csi/d.example.com").join(hash("h/1")));
        let published = layout.published("uid", "pv-1", Form::FileSystem).unwrap();
        assert_eq!(target(&published, Form::FileSystem), Path::new("/root/pods/uid/volumes/kubernetes.io~csi/pv-1/mount"));
    }

    #[test]
    fn no_name_leads_out_of_the_folders() {
        let layout = Layout::new(Path::new("/root"));
        for bad in ["", ".", "..", "../x", "a/b", "/etc", "a\0b", ".hidden"] {
            assert!(layout.staging(&VolumeId { driver: bad.into(), handle: "h".into() }).is_err(), "{bad:?}");
            let form = Form::Device;
            assert!(layout.published("uid", bad, form).is_err() && layout.published(bad, "pv", form).is_err(), "{bad:?}");
        }
    }
}

//! The seam between the kubelet and each kind of volume.
//!
//! A plugin owns one directory name, `volumes/<directory>/<volume>` below a pod's directory, as upstream lays it out. Setting up is
//! idempotent and is repeated to refresh, so a restarted agent takes over what it finds. Taking down knows nothing but the path: what
//! a plugin needs for that, it writes beside the volume while setting up. Where a volume has to be attached to the node first, setting up
//! waits for that (and returns `Error::Waiting` until it is done).

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Volume};

use super::{content::token::Tokens, mounts};
use crate::{container::fields::Place, csi::Csi, error::Result, objects::Objects};

/// A volume that is ready to be mounted into containers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Mounted {
    pub(crate) path: PathBuf,
    pub(crate) read_only: bool,
    /// It is a block device, and no directory or file.
    pub(crate) is_device: bool,
}

/// What setting up a pod's volumes needs.
pub(crate) struct Context<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) pod_dir: &'a Path,
    pub(crate) place: &'a Place,
    pub(crate) objects: &'a Objects,
    pub(crate) tokens: &'a Tokens,
    pub(crate) csi: &'a Arc<Csi>,
    pub(crate) node_memory_bytes: i64,
    /// This node as the API has it, once it is registered.
    pub(crate) node: Option<&'a Node>,
    /// Where this node has the folders of its local volumes.
    pub(crate) local_volumes: &'a Path,
    pub(crate) now: Timestamp,
}

impl Context<'_> {
    /// The group that owns the pod's volumes.
    pub(crate) fn fs_group(&self) -> Option<i64> {
        self.pod.spec.as_ref()?.security_context.as_ref()?.fs_group
    }
}

/// The outcome for one volume.
pub(crate) struct Ready {
    pub(crate) mounted: Mounted,
    /// When it has to be set up again although nothing changed: a token ends.
    pub(crate) refresh_at: Option<Timestamp>,
}

impl Ready {
    pub(crate) fn new(path: PathBuf, read_only: bool) -> Ready {
        Ready { mounted: Mounted { path, read_only, is_device: false }, refresh_at: None }
    }
}

/// One kind of volume.
pub(crate) trait Plugin: Send + Sync {
    /// The directory of this plugin's volumes: `kubernetes.io~empty-dir`.
    fn directory(&self) -> &'static str;

    /// Whether a volume of a pod is of this kind.
    fn handles(&self, volume: &Volume) -> bool;

    /// Makes the volume at `path`, or brings it up to date.
    fn set_up<'a>(&'a self, volume: &'a Volume, path: PathBuf, context: &'a Context<'_>) -> BoxFuture<'a, Result<Ready>>;

    /// Takes down what is at `path`, which may be the work of an earlier agent. Idempotent. The directory itself is removed later.
    fn tear_down(&self, path: &Path) -> Result<()> {
        mounts::unmount_below(path)
    }

    /// Whether its files are made of API objects, and have to follow them.
    fn follows_objects(&self) -> bool {
        false
    }
}

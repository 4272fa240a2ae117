//! What a node can be short of: the signals of upstream's eviction thresholds, and what they are measured by.

use crate::machine::{Disk, Space};

/// A signal. The order is the one in which pods are evicted for them: memory first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    Memory,
    NodeBytes,
    NodeInodes,
    ImageBytes,
    ImageInodes,
    Pids,
}

/// What pods give back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resource {
    Memory,
    Disk,
    Inodes,
    Pids,
}

/// A measure of each signal, taken at one time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Readings {
    pub(crate) memory: Space,
    /// The file system of the kubelet's own files.
    pub(crate) node: Option<Disk>,
    /// The one of images, where that is known.
    pub(crate) images: Option<Disk>,
    pub(crate) pids: Space,
}

impl Signal {
    pub(crate) const ALL: [Signal; 6] =
        [Signal::Memory, Signal::NodeBytes, Signal::NodeInodes, Signal::ImageBytes, Signal::ImageInodes, Signal::Pids];

    /// Upstream's name of it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Signal::Memory => "memory.available",
            Signal::NodeBytes => "nodefs.available",
            Signal::NodeInodes => "nodefs.inodesFree",
            Signal::ImageBytes => "imagefs.available",
            Signal::ImageInodes => "imagefs.inodesFree",
            Signal::Pids => "pid.available",
        }
    }

    pub(crate) fn resource(self) -> Resource {
        match self {
            Signal::Memory => Resource::Memory,
            Signal::NodeBytes | Signal::ImageBytes => Resource::Disk,
            Signal::NodeInodes | Signal::ImageInodes => Resource::Inodes,
            Signal::Pids => Resource::Pids,
        }
    }
}

impl Resource {
    /// Its name in requests and messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Resource::Memory => "memory",
            Resource::Disk => "ephemeral-storage",
            Resource::Inodes => "inodes",
            Resource::Pids => "pids",
        }
    }

    /// Whether the runtime's images and pods' files take it.
    pub(crate) fn is_of_disks(self) -> bool {
        matches!(self, Resource::Disk | Resource::Inodes)
    }
}

impl Readings {
    /// None where it cannot be measured.
    pub(crate) fn of(&self, signal: Signal) -> Option<Space> {
        match signal {
            Signal::Memory => Some(self.memory),
            Signal::NodeBytes => self.node.map(|disk| disk.bytes),
            Signal::NodeInodes => self.node.map(|disk| disk.inodes),
            Signal::ImageBytes => self.images.map(|disk| disk.bytes),
            Signal::ImageInodes => self.images.map(|disk| disk.inodes),
            Signal::Pids => Some(self.pids),
        }
    }
}

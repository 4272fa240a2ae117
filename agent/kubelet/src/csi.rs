//! CSI: drivers that register on this node, and the volumes that they make available to its pods.
//!
//! Owns: the folder `plugins_registry` (`registration`), the calls to drivers (`driver`), this node's CSINode object (`node_info`), and
//! each volume's way from attached over staged to published (`mount`) and back (`release`), its size (`expand`) and use (`usage`).
//! Must not: attach volumes (the attach/detach controller and the driver's attacher do), make them, or trust a driver: each call has a
//! deadline, each name that becomes a part of a path is checked, and what a driver holds up is one volume, never another pod.
//!
//! What is staged and published is on disk, in `vol_data.json` files of upstream's form and place (`layout`, `record`), written before
//! the driver is called: a restarted agent, also after a reboot, releases what an earlier one published.
//! Answers to <https://kubernetes.io/docs/concepts/storage/volumes/#csi> and <https://github.com/container-storage-interface/spec>.

mod attach;
mod capability;
mod driver;
mod drivers;
mod expand;
mod layout;
mod mount;
mod node_info;
mod record;
mod registration;
mod release;
mod state;
#[cfg(test)]
mod tests;
mod usage;
mod volume_use;
mod wanted;

pub(crate) use state::{Csi, Parts};
pub(crate) use usage::InUse;
pub(crate) use wanted::{Claimed, Source, Wanted};

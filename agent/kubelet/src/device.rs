//! Devices: the plugins that offer them on this node, and which container has which.
//!
//! Owns: the folder `device-plugins` with the socket where plugins register (`registration`), the calls to them (`plugin`), what they
//! offer (`inventory`), the devices of each container (`ledger`), and the file that restores them after a restart (`checkpoint`).
//! Must not: know what a device is, choose by topology (policy `none`), or trust a plugin: each call has a deadline, each list a bound,
//! each name is checked, and a plugin that hangs holds up the pods that ask for its devices and no others.
//!
//! A pod is given all its devices when it is admitted (`allocate`), in the order of its containers, and they are asked for from the plugin
//! then. A pod that is refused them is Failed. A container that starts is told what its plugins answered (`extras`). A pod gives its devices
//! back when nothing of it runs any more. Of two containers that may run at the same time, none has a device of the other (`choice`,
//! `lifetime`).
//!
//! After a restart of the agent devices stay with the containers that have them. The node has none to give until their plugin registers
//! again; what runs goes on. A container that is started before that waits: the options of its plugin are not known yet.
//! Answers to <https://kubernetes.io/docs/concepts/extend-kubernetes/compute-storage-net/device-plugins/>.

mod allocate;
mod answer;
mod checkpoint;
mod choice;
mod devices;
#[cfg(test)]
pub(crate) mod double;
mod extras;
mod health;
mod inventory;
mod ledger;
mod lifetime;
mod plugin;
mod registration;
mod resource_name;
mod shares;
#[cfg(test)]
mod tests;

pub(crate) use devices::Devices;
pub(crate) use extras::Extras;
#[cfg(test)]
pub(crate) use inventory::Amounts;
pub(crate) use inventory::Totals;
pub(crate) use resource_name::is_extended;
pub(crate) use shares::Share;

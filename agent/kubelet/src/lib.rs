//! The kubelet: makes the pods that are bound to this node run in the container runtime, and tells the API server how they are.
//!
//! Owns: pods, their volumes, cgroups, logs and probes on this host; the Node object and its Lease; the kubelet API on 10250.
//! Must not: configure networks (the runtime calls CNI), program Services, speak to anything of the runtime but CRI, or run a
//! runtime binary.
//!
//! A pod's path: the watch (`pods`) tells the pod's worker (`pod::worker`), which observes the runtime, asks the pure planner
//! (`pod::plan`) what to do, does it, and reports the pure result of `pod::status`. Nothing else starts or stops a container.
//!
//! Seams: `runtime` (CRI, or a double in tests), `clock`, `cgroup` (any mount point), `volume::Plugin`, and [`HostPorts`].
//!
//! **Architecture Invariant:** all state about running pods is in the runtime, in the API server and in deterministic paths, with
//! one exception: a file lists the devices of each container, because neither keeps them (`device`). Killing the agent at any moment changes
//! nothing for the pods.
//!
//! Where extensions go: another reason to end a pod is another verdict in `pod::worker`.
//!
//! Answers to <https://kubernetes.io/docs/reference/command-line-tools-reference/kubelet/>.

mod amount;
/// An API server in memory, the one that the tests with a real runtime use.
#[cfg(test)]
#[path = "../tests/lab/api.rs"]
#[allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)]
mod api_double;
mod cgroup;
mod cleanup;
mod clock;
mod container;
mod core;
mod csi;
mod dbus;
mod device;
mod error;
mod events;
mod eviction;
mod files;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod host_ports;
mod image;
mod kubelet;
mod logs;
mod machine;
mod metrics;
mod node;
mod objects;
mod options;
mod plugin_call;
mod pod;
mod pod_index;
mod pod_resources;
mod pods;
mod probe;
mod runtime;
mod server;
mod static_pods;
mod volume;

pub use cleanup::clean_up;
pub use error::Error;
pub use host_ports::{HostPortMapping, HostPortProtocol, HostPorts};
pub use image::{inventory::ImagePolicy, kept::KeptImages};
pub use kubelet::Kubelet;
pub use node::thresholds::{EvictionThresholds, SoftThresholds};
pub use options::{KubeletOptions, NodeCertificates, ServingTls};

//! The kubelet: makes the pods that are bound to this node run in the container runtime, and tells the API server how they are.
//!
//! Owns: pods, their volumes, cgroups, logs and probes on this host; the Node object and its Lease; the kubelet API on 10250.
//! Must not: configure networks (the runtime calls CNI), program Services, speak to anything of the runtime but CRI, or run a
//! runtime binary.
//!
//! The way of a pod: the watch (`pods`) tells its worker (`pod::worker`), which observes the runtime, asks the pure planner
//! (`pod::plan`) what to do, does it, and reports the pure result of `pod::status`. Nothing else starts or stops a container.
//!
//! **Architecture Invariant:** all state about running pods is in the runtime, in the API server and in deterministic paths. There
//! is no state file, and killing the agent at any moment changes nothing for the pods.
//!
//! Places kept for what comes: static pods become another source feeding `pods`; eviction another reason for a verdict in
//! `pod::worker`; claims and CSI another arm in `volume`; devices another part of `container::config`.
//!
//! Answers to <https://kubernetes.io/docs/reference/command-line-tools-reference/kubelet/>.

mod amount;
mod cgroup;
mod cleanup;
mod container;
mod core;
mod error;
mod events;
mod image;
mod kubelet;
mod logs;
mod machine;
mod metrics;
mod node;
mod objects;
mod options;
mod pod;
mod pods;
mod probe;
mod runtime;
mod server;
mod volume;

pub use cleanup::clean_up;
pub use error::Error;
pub use kubelet::Kubelet;
pub use options::{KubeletOptions, NodeCertificates, ServingTls};

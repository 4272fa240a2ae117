//! One pod: what it should be (`spec`), what the runtime has of it (`observed`), what to do about the difference
//! (`plan`, pure), what to tell the API server (`status`, pure), and the task that does it (`worker`).
//!
//! Architecture invariant: nothing about a running pod is remembered on disk by us. A restarted agent rebuilds everything from
//! the runtime's labels and annotations, the API server's pod and deterministic paths; so adopting what runs is the normal path.
//!
//! Answers to <https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/>.

pub(crate) mod admit;
pub(crate) mod backoff;
pub(crate) mod handler;
pub(crate) mod holds;
pub(crate) mod hook;
pub(crate) mod kill;
pub(crate) mod observed;
pub(crate) mod plan;
pub(crate) mod resize;
pub(crate) mod spec;
pub(crate) mod start;
pub(crate) mod status;
pub(crate) mod status_patch;
pub(crate) mod sysctls;
pub(crate) mod verdict;
pub(crate) mod worker;

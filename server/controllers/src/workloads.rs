//! Controllers of workloads: what runs pods.

mod amount;
pub(crate) mod autoscaler;
pub(crate) mod cron_job;
pub(crate) mod daemon_set;
pub(crate) mod deployment;
mod hash;
mod history;
pub(crate) mod job;
pub(crate) mod replicas;
pub(crate) mod stateful_set;
pub(crate) mod status;
pub(crate) mod ttl_after_finished;

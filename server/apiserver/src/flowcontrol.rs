//! API Priority and Fairness: which requests run, which wait, and which are refused.
//!
//! A request is classified by the FlowSchemas ([`classify`]) and so belongs to a priority level and, within it, to a flow. Levels divide the
//! server's seats ([`shares`]); a level lends what it does not use ([`demand`]). A request takes as many seats as its work is estimated
//! to need ([`work`]). Where a level has too few, requests wait in queues: each flow has a few of them by shuffle sharding
//! ([`shuffle`]), and queues are served by virtual time ([`queues`]), so that a flow with many requests delays itself more than others.
//!
//! Owns the decision about one request, and the objects' conditions ([`upkeep`]). Must not read bodies or answer: the filter is
//! `chain::flowcontrol`. What decides is pure ([`classify`], [`queues`], [`shares`], [`shuffle`], [`work`]); [`level`] is the one place with
//! a lock and a clock. Requests of this process (controllers, scheduler) are classified and never wait: they bound their own number,
//! and a request that waits for another one of this process cannot take the last seat from it.
//!
//! Answers to KEP-1040 and <https://kubernetes.io/docs/concepts/cluster-administration/flow-control/>.

pub mod classify;
pub mod collector;
pub mod configuration;
pub mod control;
pub mod demand;
pub mod level;
pub mod levels;
pub mod metrics;
pub mod queues;
pub mod shares;
pub mod shuffle;
pub mod upkeep;
pub mod work;

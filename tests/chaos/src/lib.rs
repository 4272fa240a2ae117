//! Proof that the store is right, and where it is not: histories of what clients saw, the invariants they must
//! keep, and a seeded simulation that makes such histories under every fault it knows.
//!
//! - [`history`]: what was asked and answered, and what watches said; [`record`]: the one account of the store's
//!   changes that follows from it;
//! - [`invariants`]: what must hold of a history, one promise a file. Pure: they know no store;
//! - [`report`]: the figures of all long fault tests, in one table;
//! - [`sim`]: hosts, network, disks and time under one seed, with the real store, log, peer protocol (TLS, HTTP/2)
//!   and watch code on them.
//!
//! The binary runs seeds: the same seed twice gives the same trace. `ops/test chaos` is the way in.

pub mod history;
pub mod invariants;
pub mod record;
pub mod report;
pub mod sim;

//! A world under one seed: hosts with clocks and disks of their own, a network between them, and everything that
//! can happen to them. On the hosts runs the real store: state machine, log, openraft, the peer protocol with TLS
//! and HTTP/2, watches. Nothing here is in two threads, so the order of things follows from the seed.
//!
//! A host is a tokio runtime of one thread with a paused clock, advanced a millisecond at a time. That is what turmoil
//! does too; turmoil's hosts cannot be stopped and woken (SIGSTOP) with their clocks jumping, nor have clocks that run
//! at different speeds, which are half of what is asked here.

pub mod board;
pub mod disk;
pub mod faults;
pub mod host;
pub mod load;
pub mod net;
pub mod recorder;
pub mod run;
pub mod trace;
pub mod watcher;
pub mod world;

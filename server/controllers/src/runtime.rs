//! The runtime of all controllers: their declaration, the informers they share, and their lifetime within one leadership.
//!
//! Owns: the trait [`Controller`], the informers by type ([`Informers`]), and the start and end of every controller with a
//! leadership ([`Lead`]).
//!
//! Must not: know any controller. A controller gets its informers from its declaration alone ([`Controller::Reads`]), and its
//! work starts when exactly these have passed the leadership's first entry: there is no second list that could forget one.

pub(crate) mod clock;
mod controller;
mod declaration;
mod informers;
mod lead;
mod own_writes;

pub(crate) use controller::{Controller, Next, Watches};
pub(crate) use declaration::{Declaration, Prepared, work};
pub(crate) use informers::{All, Informers, Part, Reads, Request, Scope};
pub(crate) use lead::{ClientFor, Context, Lead};
pub(crate) use own_writes::OwnWrites;

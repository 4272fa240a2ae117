//! Every mutation: create, update, delete and what they share ([`mutation`]).

pub mod create;
pub mod delete;
pub mod deletion;
pub mod identity;
pub mod managers;
pub mod mutation;
pub mod ownership;
pub mod update;
mod validation;

//! Transactions sent to the kernel without `nft`.
//!
//! `nft` reads all chains of all tables before it sends anything: with the chains of 10,000 Services that takes longer than the change
//! itself. The statements that come with each change of a Service or policy are encoded here. [`Batch::of`] returns none for a transaction
//! with any other statement, which then goes through `nft`; both have the same effect, and a test compares them statement by statement.
//!
//! Must not read from the kernel what a table holds. Answers to `include/uapi/linux/netfilter/nf_tables.h` and `nfnetlink.h`.

mod attributes;
mod batch;
mod elements;
mod rule;
mod socket;

pub(crate) use batch::Batch;
pub(crate) use socket::Socket;

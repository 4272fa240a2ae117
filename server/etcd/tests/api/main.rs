//! The etcd API of a store of one member in memory, through gRPC and HTTP as clients speak them.
#![allow(clippy::unwrap_used, clippy::panic)]

mod concurrency;
mod hidden;
mod kv;
mod lease;
mod operator;
mod server;
mod watch;

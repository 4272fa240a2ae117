//! nftables transactions: the only crate that speaks to nftables, by netlink or by `nft`, and that runs `conntrack` and, for hosts that still
//! use it, `iptables-legacy`.
//!
//! Each owner (service proxy, host ports, network policy) has a table of its own and changes nothing else: a [`Transaction`] is bound to
//! one table, and an [`OwnedTable`] notices when another program changes or removes that table. The exception is [`firewall`], which adds
//! marked rules to chains of the host's firewall, because no rule elsewhere can overrule their `policy drop`.
//!
//! Must not know Services, pods or policies: callers say what the rules are.
//!
//! Answers to <https://wiki.nftables.org/> and `nft(8)`.

pub mod conntrack;
pub mod events;
pub mod firewall;
mod netlink;
mod program;
mod table;
mod transaction;

pub use program::exists as program_exists;
pub use table::{OwnedTable, is_direct, remove as remove_table};
pub use transaction::{Family, Hook, Transaction};

/// What goes wrong with packet rules.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program could not be run.
    #[error("run {program}: {source}")]
    Run {
        /// Which one.
        program: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// A program did not end in time.
    #[error("{program} did not end within {seconds} s")]
    Timeout {
        /// Which one.
        program: &'static str,
        /// How long it had.
        seconds: u64,
    },
    /// A program refused; of an nft transaction nothing was applied.
    #[error("{program} refused: {message}")]
    Refused {
        /// Which one.
        program: &'static str,
        /// The first lines of the error output of nft.
        message: String,
    },
    /// The kernel refused a transaction; nothing of it was applied.
    #[error("the kernel refused packet rules{}: {source}", .statement.as_ref().map(|s| format!(" ({s})")).unwrap_or_default())]
    Kernel {
        /// The statement at which it stopped, if it is about one.
        statement: Option<String>,
        /// Why.
        source: std::io::Error,
    },
    /// A name or rule that would break out of its place in a transaction.
    #[error("not a valid nftables {what}: {text:?}")]
    Invalid {
        /// Name, rule, ...
        what: &'static str,
        /// The text.
        text: String,
    },
    /// The kernel's notifications cannot be received.
    #[error("listen to nftables changes: {0}")]
    Listen(std::io::Error),
}

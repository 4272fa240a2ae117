//! A table with one owner, which notices when another program changes it.
//!
//! `nft flush ruleset` (which Debian's `nftables.service` runs at each start and reload) removes every table. The kernel announces a
//! transaction before the program that made it ends, so a change that is announced while no transaction of the owner runs is another
//! program's.

use std::time::Duration;

use crate::{
    Error,
    events::{Change, Event, Events, Received},
    netlink::{Batch, Socket},
    program,
    transaction::{Family, Transaction},
};

/// After a failure to receive notifications.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// The owner's hold on one table.
#[derive(Debug)]
pub struct OwnedTable {
    family: Family,
    name: String,
    events: Events,
    socket: Socket,
    intact: bool,
}

impl OwnedTable {
    /// Takes the table's name; nothing is made yet. Must be called on a tokio runtime, in the network namespace of the table.
    pub fn new(family: Family, name: &str) -> Result<Self, Error> {
        Ok(Self { family, name: name.to_owned(), events: Events::open()?, socket: Socket::open().map_err(Error::Listen)?, intact: false })
    }

    /// An empty transaction on this table.
    pub fn transaction(&self) -> Transaction {
        Transaction::new(self.family, &self.name)
    }

    /// Whether the table is as this owner's transactions left it. False until the first one.
    pub fn is_intact(&mut self) -> bool {
        let touched = self.was_touched();
        self.intact = self.intact && !touched;
        self.intact
    }

    /// Waits until another program changes or removes the table; at once if that has happened since the last transaction.
    pub async fn disturbed(&mut self) {
        while self.intact {
            match self.events.next().await {
                Ok(Received::Events(events)) => self.intact = !events.iter().any(|e| self.concerns(e)),
                Ok(Received::Lost) => self.intact = false,
                Err(error) => {
                    tracing::warn!(%error, "changes to the packet rules by others are not noticed");
                    tokio::time::sleep(LISTEN_AGAIN).await;
                }
            }
        }
    }

    /// Applies a transaction as a whole, or nothing of it.
    pub async fn commit(&mut self, transaction: &Transaction) -> Result<(), Error> {
        let was_intact = self.is_intact();
        let mut exists = true;
        let mut complete = true;
        let mut applied = std::pin::pin!(send(&self.socket, transaction));
        // A large transaction announces more than the socket holds: what is announced is read while it runs.
        let result = loop {
            tokio::select! {
                result = &mut applied => break result,
                received = self.events.next() => complete &= self.follow_existence(received?, &mut exists),
            }
        };
        self.intact = false;
        result?;
        // The own changes have been announced by now. If another program removed the table right after, its removal is the last event.
        for received in self.events.drain()? {
            complete &= self.follow_existence(received, &mut exists);
        }
        if !complete {
            exists = is_listed(self.family, &self.name).await?;
        }
        self.intact = (was_intact || transaction.replaces_table()) && exists;
        Ok(())
    }

    /// Whether the table exists after these events; false if events are missing.
    fn follow_existence(&self, received: Received, exists: &mut bool) -> bool {
        let Received::Events(events) = received else { return false };
        for event in events.iter().filter(|e| self.concerns(e)) {
            match event.change {
                Change::Added => *exists = true,
                Change::Removed => *exists = false,
                Change::Content => {}
            }
        }
        true
    }

    /// Whether anything announced by now concerns this table, or may.
    fn was_touched(&self) -> bool {
        match self.events.drain() {
            Ok(all) => all.iter().any(|received| match received {
                Received::Events(events) => events.iter().any(|e| self.concerns(e)),
                Received::Lost => true,
            }),
            Err(error) => {
                tracing::warn!(%error, "changes to the packet rules by others are not noticed");
                true
            }
        }
    }

    fn concerns(&self, event: &Event) -> bool {
        event.family == self.family.number() && event.table == self.name
    }
}

/// Whether a transaction goes to the kernel directly. Anything else costs a run of `nft`, which reads all chains of all tables.
pub fn is_direct(transaction: &Transaction) -> bool {
    Batch::of(transaction).is_some()
}

/// Applies a transaction as a whole, or nothing of it: directly if it can be, else through `nft`.
async fn send(socket: &Socket, transaction: &Transaction) -> Result<(), Error> {
    transaction.check()?;
    let Some(batch) = Batch::of(transaction) else { return apply(transaction).await };
    socket.apply(batch).await.map_err(|refusal| {
        let statement = refusal.statement.and_then(|place| transaction.statement(place));
        Error::Kernel { statement, source: refusal.source }
    })
}

/// Applies a transaction as a whole, or nothing of it, through `nft`.
pub(crate) async fn apply(transaction: &Transaction) -> Result<(), Error> {
    program::run("nft", &["-f", "-"], &transaction.script()?).await.map(drop)
}

async fn is_listed(family: Family, name: &str) -> Result<bool, Error> {
    let listing = program::run("nft", &["list", "tables"], "").await?;
    let line = format!("table {family} {name}");
    Ok(listing.lines().any(|l| l == line))
}

/// Removes a table of ours; it is no error if it does not exist.
pub async fn remove(family: Family, name: &str) -> Result<(), Error> {
    let mut transaction = Transaction::new(family, name);
    transaction.remove_table();
    apply(&transaction).await
}

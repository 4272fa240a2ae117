//! Images that are never collected.

use std::collections::BTreeSet;

use futures::future::BoxFuture;

/// Knows which images could not be pulled again, such as those that were imported from files. Runtimes before containerd 1.7 do not say it over CRI.
pub trait KeptImages: Send + Sync {
    /// Their names; an error is one line.
    fn names(&self) -> BoxFuture<'_, Result<BTreeSet<String>, String>>;
}

/// Only the runtime knows.
pub(crate) struct NoKeptImages;

impl KeptImages for NoKeptImages {
    fn names(&self) -> BoxFuture<'_, Result<BTreeSet<String>, String>> {
        Box::pin(async { Ok(BTreeSet::new()) })
    }
}

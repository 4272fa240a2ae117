//! Work that waits for the disk, kept off the threads that must not.

use tokio::runtime::{Handle, RuntimeFlavor};

use crate::error::StoreError;

/// Runs `work` on a thread for such work. A runtime of one thread belongs to somebody who wants one order of
/// things (a simulation): there it is done in place.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StoreError> {
    if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(|error| StoreError::io("blocking work", error))
}

//! Runs work that waits for the disk off the threads that must not wait.

use tokio::runtime::{Handle, RuntimeFlavor};

use crate::error::StoreError;

/// Runs `work` on a thread for blocking work. On a runtime of one thread, which is a simulation's and must be deterministic, it runs in
/// place.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StoreError> {
    if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(|error| StoreError::io("blocking work", error))
}

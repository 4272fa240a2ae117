//! A panic of one request ends this request and its connection, never the server.
//!
//! Answers to upstream's `WithPanicRecovery`. The place and the text of the panic are logged by the process's panic hook.

use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use trireme_api::status::Status;

use crate::error::Answer;

/// Runs a future; a panic becomes a 500, as the outer error.
pub async fn catch<T>(future: impl Future<Output = Answer<T>>) -> Answer<Answer<T>> {
    // Unwind safe: a panic leaves only the request's own state incomplete, as locks of shared state are not held across calls.
    match AssertUnwindSafe(future).catch_unwind().await {
        Ok(outcome) => Ok(outcome),
        Err(_) => Err(Status::internal("This request caused apiserver to panic. Look in the logs for details.").into()),
    }
}

//! How long an answer may take. Long-running requests end by rules of their own.
//!
//! Answers to upstream's `WithRequestDeadline` and `WithTimeoutForNonLongRunningRequests`.

use std::time::Duration;

use futures::FutureExt;
use trireme_api::{status::Status, time::go_duration};

use crate::chain::call::Call;
use crate::error::Answer;

/// The time for a request: the parameter `timeout`, at most `longest`; `None` if the request is long-running.
pub fn limit(longest: Duration, call: &Call) -> Answer<Option<Duration>> {
    if call.target.long_running {
        return Ok(None);
    }
    let text = call.info.query.text("timeout");
    if text.is_empty() {
        return Ok(Some(longest));
    }
    match go_duration(text) {
        None => Err(Status::bad_request(format!("invalid timeout specified in the request URL - time: invalid duration {text:?}")).into()),
        Some(asked) if asked.is_zero() => Ok(Some(longest)),
        Some(asked) => Ok(Some(asked.min(longest))),
    }
}

/// Awaits an answer within a limit.
pub async fn within<T: Send>(limit: Option<Duration>, answer: impl Future<Output = Answer<T>> + Send) -> Answer<T> {
    let answer = answer.boxed();
    match limit {
        None => answer.await,
        Some(limit) => tokio::time::timeout(limit, answer)
            .await
            .unwrap_or_else(|_| Err(Status::timeout("request did not complete within the allotted timeout", 0).into())),
    }
}

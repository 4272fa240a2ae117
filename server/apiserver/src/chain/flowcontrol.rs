//! Limits the number of concurrent requests.
//!
//! Priority and fairness would be implemented here: today each kind of request has a fixed limit ([`inflight`]), and a request beyond it
//! is refused with Retry-After. Parts of this process (which bound their own concurrency) and administrators are exempt.
//! Answers to upstream's `WithMaxInFlightLimit`.

pub mod inflight;

use std::sync::Arc;

use trireme_api::status::Status;

use crate::chain::call::Call;
use crate::error::Answer;
use crate::metrics::RequestLabels;
use crate::server::Server;
use crate::user::{GROUP_MASTERS, GROUP_NODES};
use inflight::{Place, Pool};

/// After how many seconds a refused client should try again.
const RETRY_AFTER_SECS: u16 = 1;

/// Takes a place for the request. `None` if it needs none.
pub fn filter(server: &Server, call: &Call) -> Answer<Option<Arc<Place>>> {
    if call.in_process || call.user.in_group(GROUP_MASTERS) {
        return Ok(None);
    }
    let pool = match call.info.verb.as_str() {
        _ if call.target.long_running && call.user.in_group(GROUP_NODES) => Pool::NodeLongRunning,
        _ if call.target.long_running => Pool::LongRunning,
        "get" | "list" | "head" => Pool::ReadOnly,
        _ => Pool::Mutating,
    };
    match server.inflight.try_place(pool) {
        Some(place) => Ok(Some(Arc::new(place))),
        None => {
            let labels = RequestLabels::of(&call.method, &call.info, call.target.resource());
            server.metrics.observe_termination(&labels, 429);
            Err(Status::too_many_requests("Too many requests, please try again later.", RETRY_AFTER_SECS).into())
        }
    }
}

//! Limits the number of concurrent requests: priority and fairness ([`crate::flowcontrol`]), or fixed limits where it is switched off.
//!
//! Requests are classified before they are authorized, so that every answer names its schema and level, and take their seats when
//! their body is complete. Seats are held until the answer begins: a watch has them for its beginning, and other long-running requests
//! have none. Watches and tunnels have places of their own kind ([`inflight`]) as long as they last; parts of this process and
//! administrators need none. Answers to upstream's `WithPriorityAndFairness` and `WithMaxInFlightLimit`.

pub mod inflight;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Response};
use trireme_api::status::Status;

use crate::chain::call::Call;
use crate::error::Answer;
use crate::flowcontrol::control::Class;
use crate::flowcontrol::level::{Entry, Seat};
use crate::flowcontrol::metrics::RequestKind;
use crate::flowcontrol::queues::Work;
use crate::flowcontrol::work;
use crate::http::request_info::RequestInfo;
use crate::metrics::RequestLabels;
use crate::server::Server;
use crate::user::{GROUP_MASTERS, GROUP_NODES};
use inflight::{Place, Pool};

/// After how many seconds a refused client should try again.
const RETRY_AFTER_SECS: u16 = 1;
/// The part of its time that a request may wait.
const WAIT_PART: u32 = 4;
const UIDS: [HeaderName; 2] =
    [HeaderName::from_static("x-kubernetes-pf-flowschema-uid"), HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid")];

/// What a request holds while it runs.
#[derive(Default)]
pub struct Admitted {
    /// Until its answer begins.
    pub seat: Option<Seat>,
    /// Until its answer ends.
    pub place: Option<Arc<Place>>,
}

/// Determines the schema and level of a request.
pub fn classify(server: &Server, call: &mut Call) {
    call.class = server.flowcontrol.as_ref().and_then(|control| control.classify(&call.user, &call.info));
}

/// Names the schema and level in the answer.
pub fn mark<T>(response: &mut Response<T>, class: Option<Class>) {
    let Some(class) = class else { return };
    for (name, uid) in UIDS.into_iter().zip(class.uids()) {
        if let Some(uid) = uid {
            response.headers_mut().insert(name, uid);
        }
    }
}

/// Takes what the request needs; waits for it, at most a part of `longest`.
pub async fn filter(server: &Server, call: &Call, longest: Duration) -> Answer<Admitted> {
    let place = place(server, call)?;
    if call.in_process || (call.target.long_running && call.info.verb != "watch") {
        return Ok(Admitted { seat: None, place });
    }
    let Some(class) = &call.class else { return Ok(Admitted { seat: None, place }) };
    let (work, watchers) = estimate(call, class);
    let kind = match call.info.verb.as_str() {
        "watch" => RequestKind::Watch,
        "get" | "list" | "head" => RequestKind::ReadOnly,
        _ => RequestKind::Mutating,
    };
    let seat = match class.enter(work, watchers, kind) {
        Some(Entry::Seated(seat)) => Ok(seat),
        Some(Entry::Waiting(pending)) => pending.wait(longest / WAIT_PART).await.map_err(|_| ()),
        Some(Entry::Refused(_)) | None => Err(()),
    };
    let seat = seat.map_err(|()| refused(server, call))?;
    Ok(Admitted { seat: Some(seat), place })
}

/// Takes a place of the request's kind. `None` if it needs none.
fn place(server: &Server, call: &Call) -> Answer<Option<Arc<Place>>> {
    if call.in_process || call.user.in_group(GROUP_MASTERS) {
        return Ok(None);
    }
    let pool = match call.info.verb.as_str() {
        _ if call.target.long_running && call.user.in_group(GROUP_NODES) => Pool::NodeLongRunning,
        _ if call.target.long_running => Pool::LongRunning,
        _ if server.flowcontrol.is_some() => return Ok(None),
        "get" | "list" | "head" => Pool::ReadOnly,
        _ => Pool::Mutating,
    };
    server.inflight.try_place(pool).map(|place| Some(Arc::new(place))).ok_or_else(|| refused(server, call))
}

fn refused(server: &Server, call: &Call) -> Box<Status> {
    let labels = RequestLabels::of(&call.method, &call.info, call.target.resource());
    server.metrics.observe_termination(&labels, 429);
    Status::too_many_requests("Too many requests, please try again later.", RETRY_AFTER_SECS).into()
}

/// What the request is thought to cost, and the watchers that it reaches if it is a change.
fn estimate(call: &Call, class: &Class) -> (Work, Option<usize>) {
    let info = &call.info;
    let Some(row) = call.target.view.as_ref().and_then(|view| view.row.as_ref()) else { return (Work::ONE, None) };
    match info.verb.as_str() {
        "list" | "watch" if info.name.is_empty() && reads_state(info) => {
            let (objects, _) = row.cache.size();
            (work::list(objects, page(info), class.seats_max()), None)
        }
        // A token is made of an account and changes nothing.
        "create" | "update" | "patch" | "delete" | "deletecollection" if info.subresource != "token" => {
            let watchers = if info.query.has("dryRun") { 0 } else { row.cache.watchers(&info.namespace, &info.name) };
            (if watchers == 0 { Work::ONE } else { work::change(watchers, class.seats_max()) }, Some(watchers))
        }
        _ => (Work::ONE, None),
    }
}

/// Whether a list or watch begins with the objects as they are.
fn reads_state(info: &RequestInfo) -> bool {
    let version = info.query.text("resourceVersion");
    info.verb == "list" || matches!(version, "" | "0") || info.query.flag("sendInitialEvents")
}

/// How many objects are looked at for a page; none if all are.
fn page(info: &RequestInfo) -> Option<usize> {
    let selects = |selector: &Option<String>| selector.as_ref().is_some_and(|text| !text.is_empty());
    if info.verb != "list" || selects(&info.label_selector) || selects(&info.field_selector) {
        return None;
    }
    info.query.text("limit").parse().ok().filter(|limit| *limit > 0)
}

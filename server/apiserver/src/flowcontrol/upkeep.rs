//! Keeps flow control current: the table when objects change, the division of seats every ten seconds, and on the leader what the
//! objects themselves lack: the mandatory ones, and the condition `Dangling` of FlowSchemas.
//!
//! Answers to upstream's `pkg/util/flowcontrol/apf_controller.go`: type, reasons and messages of the condition.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use http::header::{CONTENT_TYPE, HeaderValue, USER_AGENT};
use http::{Method, Request};
use jiff::Timestamp;
use serde_json::{Value, json};
use trireme_api::{bootstrap, meta};
use trireme_raft::Fence;

use crate::chain;
use crate::chain::call::Source;
use crate::flowcontrol::configuration::{Configuration, GROUP, LEVELS, MANDATORY, SCHEMAS};
use crate::http::body::Payload;
use crate::server::Server;
use crate::storage::cache::interest::Interest;
use crate::storage::lookup::ObjectReader;
use crate::user::{GROUP_MASTERS, UserInfo};

/// How often the seats are divided.
const PERIOD: Duration = Duration::from_secs(10);
/// After how long a write that failed is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// Changes within this time are seen together.
const SETTLE: Duration = Duration::from_millis(50);
/// Upstream's name of the writer.
const MANAGER: &str = "api-priority-and-fairness-config-consumer-v1";

/// Runs until the server stops.
pub async fn run(server: Arc<Server>) {
    let stopping = server.stopping.clone();
    stopping.run_until_cancelled(async { tokio::join!(follow(&server), divide(&server)) }).await;
}

async fn divide(server: &Arc<Server>) {
    let Some(control) = &server.flowcontrol else { return };
    loop {
        tokio::time::sleep(PERIOD).await;
        control.divide();
    }
}

async fn follow(server: &Arc<Server>) {
    let (Some(control), Some(schemas), Some(levels)) =
        (&server.flowcontrol, server.rows.row(GROUP, SCHEMAS), server.rows.row(GROUP, LEVELS))
    else {
        return;
    };
    let mut schemas = schemas.cache.subscribe(Interest::Everything);
    let mut levels = levels.cache.subscribe(Interest::Everything);
    let mut status = server.store_status.clone();
    loop {
        // What changes from here on wakes again.
        schemas.may_have_changed(i64::MAX);
        levels.may_have_changed(i64::MAX);
        let leads = status.borrow_and_update().leadership.as_ref().map(|leadership| leadership.fence);
        control.configure(Configuration::read(&*server.storage));
        let is_done = match leads {
            Some(fence) if server.bootstrapped.load(std::sync::atomic::Ordering::Acquire) => mend(server, fence).await,
            Some(_) => false,
            None => true,
        };
        tokio::select! {
            is_there = schemas.changed() => if !is_there { return },
            is_there = levels.changed() => if !is_there { return },
            _ = status.wait_for(|now| now.leadership.is_some() != leads.is_some()) => {}
            () = tokio::time::sleep(RETRY), if !is_done => {}
        }
        tokio::time::sleep(SETTLE).await;
    }
}

/// Makes the mandatory objects that are missing and writes the conditions that are not as they should be. False if one was not
/// written.
async fn mend(server: &Arc<Server>, fence: Fence) -> bool {
    let reader = &*server.storage;
    let mut is_done = true;
    for (plural, objects) in [(LEVELS, bootstrap::priority_levels()), (SCHEMAS, bootstrap::flow_schemas())] {
        for object in objects.iter().filter(|object| MANDATORY.contains(&meta::name(object))) {
            if reader.get(GROUP, plural, "", meta::name(object)).is_none() {
                is_done &= send(server, fence, Method::POST, plural, object).await;
            }
        }
    }
    for schema in reader.list(GROUP, SCHEMAS, None) {
        let level = meta::str_at(&schema.object, &["spec", "priorityLevelConfiguration", "name"]);
        let exists = reader.get(GROUP, LEVELS, "", level).is_some();
        let conditions = meta::list_at(&schema.object, &["status", "conditions"]);
        let Some(conditions) = changed(conditions, level, exists, Timestamp::now()) else { continue };
        let version = meta::resource_version(&schema.object);
        let patch = json!({"metadata": {"resourceVersion": version}, "status": {"conditions": conditions}});
        let path = format!("{SCHEMAS}/{}/status", meta::name(&schema.object));
        is_done &= send(server, fence, Method::PATCH, &path, &patch).await;
    }
    is_done
}

async fn send(server: &Arc<Server>, fence: Fence, method: Method, path: &str, body: &Value) -> bool {
    let content_type = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
    let mut request = Request::new(Payload::from(Bytes::from(body.to_string())));
    *request.method_mut() = method;
    let Ok(target) = format!("/apis/{GROUP}/v1/{path}?fieldManager={MANAGER}").parse() else { return true };
    *request.uri_mut() = target;
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    request.headers_mut().insert(USER_AGENT, HeaderValue::from_static("flowcontrol"));
    let user = UserInfo::new("system:apiserver", &[GROUP_MASTERS]);
    let answer = chain::run(server.clone(), Source::InProcess(Box::new(user), Some(fence)), request).boxed().await;
    let is_done = answer.status().is_success();
    if !is_done {
        tracing::debug!(path, status = answer.status().as_u16(), "an object of flow control was not written");
    }
    is_done
}

/// The conditions with `Dangling` as it is now; `None` if it is there already.
fn changed(conditions: &[Value], level: &str, exists: bool, now: Timestamp) -> Option<Vec<Value>> {
    let (status, reason, end) = match exists {
        true => ("False", "Found", "and it exists"),
        false => ("True", "NotFound", "but there is no such object"),
    };
    let message = format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?} {end}");
    let mut conditions = conditions.to_vec();
    let mut new = json!({"type": "Dangling", "status": status, "reason": reason, "message": message,
        "lastTransitionTime": trireme_api::time::format(now)});
    match conditions.iter_mut().find(|one| one["type"] == "Dangling") {
        Some(old) => {
            if old["status"] == new["status"] {
                new["lastTransitionTime"] = old["lastTransitionTime"].clone();
            }
            if *old == new {
                return None;
            }
            *old = new;
        }
        None => conditions.push(new),
    }
    Some(conditions)
}

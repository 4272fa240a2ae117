//! Whether extension servers can be reached: the condition `Available` of APIServices, and the documents that discovery shows.
//!
//! Every server asks for the documents, because each shows discovery; the leader alone writes conditions. Servers are asked when an
//! APIService or the endpoints of its Service change, and again from time to time.
//!
//! Answers to upstream's `pkg/controllers/status/remote` of kube-aggregator: order of the checks, reasons and messages.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{join_all, select_all};
use http::header::{CONTENT_TYPE, HeaderValue, USER_AGENT};
use http::{Method, Request};
use jiff::Timestamp;
use serde_json::{Value, json};
use trireme_api::meta;
use trireme_raft::Fence;

use super::table::{Remote, Table};
use super::{GROUP, PLURAL};
use crate::chain;
use crate::chain::call::Source;
use crate::egress::services;
use crate::http::body::Payload;
use crate::server::Server;
use crate::storage::cache::interest::{Interest, Subscription};
use crate::storage::lookup::ObjectReader;
use crate::user::{GROUP_MASTERS, UserInfo};

/// After how long servers that answer are asked again.
const RECHECK: Duration = Duration::from_secs(30);
/// After how long a server that does not answer is asked again.
const RETRY: Duration = Duration::from_secs(2);
/// Changes within this time are seen together.
const SETTLE: Duration = Duration::from_millis(100);

/// Why an APIService is available, or is not.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    is_available: bool,
    reason: &'static str,
    message: String,
}

/// Keeps conditions and documents current until the server stops.
pub async fn run(server: Arc<Server>) {
    let stopping = server.stopping.clone();
    stopping.run_until_cancelled(follow(&server)).await;
}

async fn follow(server: &Arc<Server>) {
    let Some(row) = server.rows.row(GROUP, PLURAL) else { return };
    let mut changed = row.cache.subscribe(Interest::Everything);
    let mut status = server.store_status.clone();
    loop {
        // What changes from here on wakes again.
        changed.may_have_changed(i64::MAX);
        let leads = status.borrow_and_update().leadership.as_ref().map(|leadership| leadership.fence);
        let table = server.aggregation.table();
        server.aggregation.forget_all_but(&table);
        let mut endpoints = endpoints_of(server, &table);
        let all_answer = join_all(table.by_priority().iter().map(|remote| check(server, remote, leads))).await.into_iter().all(|one| one);
        let wait = if all_answer { RECHECK } else { RETRY };
        tokio::select! {
            is_there = changed.changed() => if !is_there { return },
            _ = status.wait_for(|now| now.leadership.is_some() != leads.is_some()) => {}
            () = any_change(&mut endpoints) => {}
            () = tokio::time::sleep(wait), if !table.is_empty() => {}
        }
        tokio::time::sleep(SETTLE).await;
    }
}

/// The changes of the endpoints in namespaces that have an extension server.
fn endpoints_of(server: &Server, table: &Table) -> Vec<Subscription> {
    let Some(row) = server.rows.row("discovery.k8s.io", "endpointslices") else { return Vec::new() };
    let mut namespaces: Vec<String> = table.by_priority().iter().map(|remote| remote.namespace.clone()).collect();
    namespaces.sort();
    namespaces.dedup();
    let mut all: Vec<Subscription> =
        namespaces.into_iter().map(|namespace| row.cache.subscribe(Interest::Namespace(namespace.into()))).collect();
    for one in &mut all {
        one.may_have_changed(i64::MAX);
    }
    all
}

async fn any_change(subscriptions: &mut [Subscription]) {
    if subscriptions.is_empty() {
        return std::future::pending().await;
    }
    select_all(subscriptions.iter_mut().map(|one| one.changed().boxed())).await;
}

/// Asks one server. True if it is available.
async fn check(server: &Arc<Server>, remote: &Remote, leads: Option<Fence>) -> bool {
    let verdict = judge(server, remote).await;
    if let Some(fence) = leads
        && let Err(error) = write(server, remote, &verdict, fence).await
    {
        tracing::debug!(name = remote.name, error, "the condition of an APIService was not written");
        return false;
    }
    verdict.is_available
}

async fn judge(server: &Server, remote: &Remote) -> Verdict {
    let asked = server.aggregation.ask(remote).await;
    if let Some(missing) = missing(server.aggregation.reader(), remote) {
        return missing;
    }
    match asked {
        Ok(()) => Verdict { is_available: true, reason: "Passed", message: "all checks passed".to_owned() },
        Err(error) => {
            let url = format!("https://{}:{}/apis/{}/{}", remote.host(), remote.port, remote.group, remote.version);
            unavailable("FailedDiscoveryCheck", format!("failing or missing response from {url}: {error}"))
        }
    }
}

fn unavailable(reason: &'static str, message: String) -> Verdict {
    Verdict { is_available: false, reason, message }
}

/// What the Service lacks, if it lacks anything.
fn missing(reader: &dyn ObjectReader, remote: &Remote) -> Option<Verdict> {
    let (namespace, name) = (&remote.namespace, &remote.service);
    let Some(service) = reader.get("", "services", namespace, name) else {
        return Some(unavailable("ServiceNotFound", format!("service/{name} in {namespace:?} is not present")));
    };
    if meta::str_at(&service.object, &["spec", "type"]) == "ExternalName" {
        return None;
    }
    let Some(port_name) = services::port_name(&service.object, remote.port) else {
        let message = format!("service/{name} in {namespace:?} is not listening on port {}", remote.port);
        return Some(unavailable("ServicePortError", message));
    };
    services::endpoints(reader, namespace, name, &port_name).is_empty().then(|| {
        let message = format!("endpoints for service/{name} in {namespace:?} have no addresses with port name {port_name:?}");
        unavailable("MissingEndpoints", message)
    })
}

/// Writes the condition where it is another one.
async fn write(server: &Arc<Server>, remote: &Remote, verdict: &Verdict, fence: Fence) -> Result<(), String> {
    let Some(found) = server.aggregation.reader().get(GROUP, PLURAL, "", &remote.name) else { return Ok(()) };
    let conditions = meta::list_at(&found.object, &["status", "conditions"]);
    let Some(conditions) = changed(conditions, verdict, Timestamp::now()) else { return Ok(()) };
    let version = meta::str_at(&found.object, &["metadata", "resourceVersion"]);
    let patch = json!({"metadata": {"resourceVersion": version}, "status": {"conditions": conditions}});
    let mut request = Request::new(Payload::from(Bytes::from(patch.to_string())));
    *request.method_mut() = Method::PATCH;
    *request.uri_mut() = format!("/apis/{GROUP}/v1/{PLURAL}/{}/status", remote.name).parse().map_err(|error| format!("{error}"))?;
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/merge-patch+json"));
    request.headers_mut().insert(USER_AGENT, HeaderValue::from_static("kube-aggregator"));
    let user = UserInfo::new("system:apiserver", &[GROUP_MASTERS]);
    let answer = chain::run(server.clone(), Source::InProcess(Box::new(user), Some(fence)), request).boxed().await;
    if answer.status().is_success() { Ok(()) } else { Err(format!("status {}", answer.status())) }
}

/// The conditions with the verdict among them; `None` if it is there already.
fn changed(conditions: &[Value], verdict: &Verdict, now: Timestamp) -> Option<Vec<Value>> {
    let mut conditions = conditions.to_vec();
    let status = if verdict.is_available { "True" } else { "False" };
    let mut new = json!({"type": "Available", "status": status, "reason": verdict.reason, "message": verdict.message,
        "lastTransitionTime": trireme_api::time::format(now)});
    match conditions.iter_mut().find(|one| one["type"] == "Available") {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_condition_keeps_the_time_of_its_last_transition() {
        let at = |secs: i64| Timestamp::from_second(secs).unwrap();
        let verdict = |is_available, message: &str| Verdict { is_available, reason: "R", message: message.to_owned() };
        let other = json!({"type": "Other", "status": "True"});
        let first = changed(std::slice::from_ref(&other), &verdict(false, "a"), at(0)).unwrap();
        assert_eq!((first.len(), &first[0]), (2, &other));
        assert_eq!(changed(&first, &verdict(false, "a"), at(9)), None, "nothing is new");
        let second = changed(&first, &verdict(false, "b"), at(9)).unwrap();
        assert_eq!(second[1]["lastTransitionTime"], first[1]["lastTransitionTime"]);
        let third = changed(&second, &verdict(true, "b"), at(9)).unwrap();
        assert_eq!((&third[1]["status"], &third[1]["lastTransitionTime"]), (&json!("True"), &json!("1970-01-01T00:00:09Z")));
    }
}

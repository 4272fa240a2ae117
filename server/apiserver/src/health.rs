//! `/livez`, `/readyz`, `/healthz`.
//!
//! Live means: this process can answer. Ready means: it can also answer correctly, so it needs contact to its cluster and a
//! complete watch cache. Balancers ask `/readyz?exclude=etcd`, which stands an election. <https://kubernetes.io/docs/reference/using-api/health-checks/>.

use std::time::Duration;

use http::Response;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::request_info::query_pairs;
use crate::respond::{self, Body};
use crate::server::Server;

/// How long a server may be without its cluster before balancers should pass it over. An election is no reason to end
/// every watch.
const CONTACT_GRACE: Duration = Duration::from_secs(3);

/// Since when a server has no contact to its cluster, as far as anybody asked.
#[derive(Debug, Default)]
pub struct ContactLost(Mutex<Option<Instant>>);

impl ContactLost {
    /// Notes whether there is contact; true when there was none for longer than the grace.
    fn note(&self, contact: bool) -> bool {
        let mut since = self.0.lock();
        if contact {
            *since = None;
            return false;
        }
        since.get_or_insert_with(Instant::now).elapsed() > CONTACT_GRACE
    }
}

/// One check: its name, and why it fails.
type Check = (&'static str, Option<String>);

fn checks(server: &Server, kind: &str) -> Vec<Check> {
    let mut checks: Vec<Check> = vec![("ping", None), ("log", None)];
    if kind != "livez" {
        checks.push(("etcd", (!server.has_contact()).then(|| without_contact(server))));
        let damaged = server.registry.cache.damaged();
        checks.push(("informer-sync", (server.registry.cache.ingested() < 0).then(|| "the watch cache is not filled".to_owned())));
        checks.push(("stored-objects", (damaged > 0).then(|| format!("{damaged} stored objects cannot be read"))));
    }
    let bootstrapped = server.bootstrapped.load(std::sync::atomic::Ordering::Acquire);
    checks.push(("poststarthook/bootstrap", (kind != "livez" && !bootstrapped).then(|| "not finished".to_owned())));
    if kind == "readyz" {
        // With `etcd` excluded this is what is left of it: an election is waited for.
        let lost = server.contact_lost.note(server.has_contact());
        checks.push(("etcd-lost", lost.then(|| "no contact to a quorum of the cluster for too long".to_owned())));
        checks.push(("shutdown", server.stopping.is_cancelled().then(|| "process is shutting down".to_owned())));
    }
    checks
}

/// Why there is no contact: what has befallen this member, if that is it.
fn without_contact(server: &Server) -> String {
    match &server.store_status.borrow().failure {
        Some(failure) => format!("the store of this server has stopped: {failure}"),
        None => "this server has no contact to a quorum of its cluster".to_owned(),
    }
}

/// Whether `/readyz` passes.
pub fn is_ready(server: &Server) -> bool {
    checks(server, "readyz").iter().all(|(_, failure)| failure.is_none())
}

/// Answers `/<kind>` and `/<kind>/<check>`. With `verbose`, who is `known` reads the reasons; strangers are told that there are some.
pub fn answer(server: &Server, kind: &str, one: Option<&str>, query: &str, known: bool) -> Response<Body> {
    let all = checks(server, kind);
    if let Some(name) = one {
        return match all.iter().find(|(check, _)| *check == name) {
            None => crate::handlers::paths::not_found(),
            Some((_, None)) => respond::text(200, "ok"),
            Some((_, Some(reason))) => respond::text(500, format!("internal server error: {reason}\n")),
        };
    }
    let (mut excluded, mut verbose) = (Vec::new(), false);
    for (key, value) in query_pairs(query) {
        match key.as_str() {
            "exclude" => excluded.push(value),
            "verbose" => verbose = true,
            _ => {}
        }
    }
    let mut text = String::new();
    let mut failed = false;
    for (name, reason) in &all {
        if let Some(at) = excluded.iter().position(|e| e == name) {
            excluded.remove(at);
            text.push_str(&format!("[+]{name} excluded: ok\n"));
        } else if let Some(reason) = reason {
            failed = true;
            let reason = if verbose && known { reason.as_str() } else { "reason withheld" };
            text.push_str(&format!("[-]{name} failed: {reason}\n"));
        } else {
            text.push_str(&format!("[+]{name} ok\n"));
        }
    }
    if !excluded.is_empty() {
        let names: Vec<String> = excluded.iter().map(|e| format!("{e:?}")).collect();
        text.push_str(&format!("warn: some health checks cannot be excluded: no matches for {}\n", names.join(", ")));
    }
    if failed {
        for (name, reason) in &all {
            if let Some(reason) = reason {
                tracing::debug!(check = name, %reason, "{kind} check failed");
            }
        }
        return respond::text(500, format!("{text}{kind} check failed\n"));
    }
    if verbose { respond::text(200, format!("{text}{kind} check passed\n")) } else { respond::text(200, "ok") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_election_is_waited_for_and_a_lost_quorum_is_not() {
        let lost = ContactLost::default();
        assert!(!lost.note(true) && !lost.note(false));
        tokio::time::advance(CONTACT_GRACE).await;
        assert!(!lost.note(false), "within the grace");
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(lost.note(false), "beyond it");
        assert!(!lost.note(true), "back");
        assert!(!lost.note(false), "the next loss begins anew");
    }
}

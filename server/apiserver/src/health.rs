//! `/livez`, `/readyz`, `/healthz`.
//!
//! Live means: this process can answer. Ready means: it can also answer correctly, so it needs contact to its cluster and a
//! complete watch cache. <https://kubernetes.io/docs/reference/using-api/health-checks/>.

use http::Response;

use crate::request_info::query_pairs;
use crate::respond::{self, Body};
use crate::server::Server;

/// One check: its name, and why it fails.
type Check = (&'static str, Option<String>);

fn checks(server: &Server, kind: &str) -> Vec<Check> {
    let mut checks: Vec<Check> = vec![("ping", None), ("log", None)];
    if kind != "livez" {
        checks.push(("etcd", (!server.has_contact()).then(|| "this server has no contact to a quorum of its cluster".to_owned())));
        let damaged = server.registry.cache.damaged();
        checks.push(("informer-sync", (server.registry.cache.ingested() < 0).then(|| "the watch cache is not filled".to_owned())));
        checks.push(("stored-objects", (damaged > 0).then(|| format!("{damaged} stored objects cannot be read"))));
    }
    let bootstrapped = server.bootstrapped.load(std::sync::atomic::Ordering::Acquire);
    checks.push(("poststarthook/bootstrap", (kind != "livez" && !bootstrapped).then(|| "not finished".to_owned())));
    if kind == "readyz" {
        checks.push(("shutdown", server.stopping.is_cancelled().then(|| "process is shutting down".to_owned())));
    }
    checks
}

/// Answers `/<kind>` and `/<kind>/<check>`.
pub fn answer(server: &Server, kind: &str, one: Option<&str>, query: &str) -> Response<Body> {
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
        } else if reason.is_some() {
            failed = true;
            text.push_str(&format!("[-]{name} failed: reason withheld\n"));
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

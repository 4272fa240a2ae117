//! `/livez`, `/readyz`, `/healthz`.
//!
//! Live means: this process can answer. Ready means: it can also answer correctly, so it needs contact to its cluster and a
//! complete watch cache. Load balancers ask `/readyz?exclude=etcd`, which does not fail during an election.
//! <https://kubernetes.io/docs/reference/using-api/health-checks/>.

pub mod contact;

use http::Response;

use crate::http::parameters::Parameters;
use crate::http::respond::{self, Body, path_not_found};
use crate::server::Server;

/// One check: its name, and why it fails.
type Check = (&'static str, Option<String>);

fn checks(server: &Server, kind: &str) -> Vec<Check> {
    let mut checks: Vec<Check> = vec![("ping", None), ("log", None)];
    if kind != "livez" {
        checks.push(("etcd", (!server.has_contact()).then(|| without_contact(server))));
        let damaged = server.storage.cache.damaged();
        checks.push(("informer-sync", (server.storage.cache.ingested() < 0).then(|| "the watch cache is not filled".to_owned())));
        checks.push(("stored-objects", (damaged > 0).then(|| format!("{damaged} stored objects cannot be read"))));
    }
    let bootstrapped = server.bootstrapped.load(std::sync::atomic::Ordering::Acquire);
    checks.push(("poststarthook/bootstrap", (kind != "livez" && !bootstrapped).then(|| "not finished".to_owned())));
    if kind == "readyz" {
        // For balancers that exclude `etcd`: fails only when contact is lost for longer than an election takes.
        let lost = server.contact_lost.note(server.has_contact());
        checks.push(("etcd-lost", lost.then(|| "no contact to a quorum of the cluster for too long".to_owned())));
        checks.push(("shutdown", server.stopping.is_cancelled().then(|| "process is shutting down".to_owned())));
    }
    checks
}

/// Why there is no contact: a failure of this member's own store, if that is the reason.
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

/// Answers `/<kind>` and `/<kind>/<check>`. With `verbose`, a `known` (authenticated) user reads the reasons; others learn only which
/// checks fail.
pub fn answer(server: &Server, kind: &str, one: Option<&str>, query: &Parameters, known: bool) -> Response<Body> {
    let all = checks(server, kind);
    if let Some(name) = one {
        return match all.iter().find(|(check, _)| *check == name) {
            None => path_not_found(),
            Some((_, None)) => respond::text(200, "ok"),
            Some((_, Some(reason))) => respond::text(500, format!("internal server error: {reason}\n")),
        };
    }
    let mut excluded: Vec<String> = query.all("exclude").map(str::to_owned).collect();
    let verbose = query.has("verbose");
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

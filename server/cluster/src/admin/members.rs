//! Who belongs to the cluster: `/trireme/v1/members`.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Method, Response};
use trireme_api::admin::{MEMBERS, Member, MemberList, Progress};
use trireme_api::gvk::GroupResource;
use trireme_api::status::Status;
use trireme_proto::store::MemberRecord;
use trireme_raft::{Store, StoreError};

use trireme_apiserver::endpoints::operator::{RouteFamily, RouteRequest, json, method_not_allowed, not_found};
use trireme_apiserver::http::respond::Body;
use trireme_apiserver::{Answer, store_status};

/// A member that answered nothing for this long counts as dead.
const ALIVE_WITHIN: Duration = Duration::from_secs(2);

/// The endpoints of the members.
pub struct Members {
    store: Store,
}

impl RouteFamily for Members {
    fn name(&self) -> &'static str {
        MEMBERS
    }

    fn answer(&self, request: RouteRequest) -> BoxFuture<'_, Answer<Response<Body>>> {
        self.dispatch(request).boxed()
    }
}

impl Members {
    /// Those of this store's cluster.
    pub fn new(store: Store) -> Members {
        Members { store }
    }

    async fn dispatch(&self, request: RouteRequest) -> Answer<Response<Body>> {
        let outcome = match (&request.method, request.parts().as_slice()) {
            (&Method::GET, []) => return json(&self.list().await),
            (&Method::DELETE, [id]) => {
                let id = id_of(id)?;
                match request.param("force").as_deref() {
                    Some("true") => self.store.remove_by_force(id).await,
                    _ => self.store.remove(id).await,
                }
            }
            (&Method::POST, ["lead"]) => self.store.transfer_leader(self.successor()?).await,
            (&Method::POST, [id, "promote"]) => self.store.promote(id_of(id)?).await,
            (&Method::POST, [id, "lead"]) => self.store.transfer_leader(id_of(id)?).await,
            (_, [] | [_] | [_, "promote" | "lead"]) => return Err(method_not_allowed(&request)),
            _ => return Err(not_found()),
        };
        tracing::info!(method = %request.method, path = request.path.join("/"), user = request.user.name, done = outcome.is_ok(), "members");
        match outcome {
            Ok(()) => json(&self.list().await),
            Err(error) => Err(Box::new(refusal(&error))),
        }
    }

    /// The voter with the shortest lag that is not the leader, as far as this member can tell.
    fn successor(&self) -> Answer<u64> {
        let status = self.store.status().borrow().clone();
        let leader = status.leader.map(|leader| leader.node_id);
        let (alive, lags) = (self.store.alive(ALIVE_WITHIN), self.store.lags());
        let others = status.voters.into_iter().filter(|id| Some(*id) != leader);
        // A follower knows neither liveness nor lag: then the first voter that is not the leader is chosen.
        let best = others.min_by_key(|id| (!alive.contains(id), lags.get(id).copied().unwrap_or(u64::MAX), *id));
        best.ok_or_else(|| Box::new(Status::failure(409, "Conflict", "there is no other voter to take the lead")))
    }

    async fn list(&self) -> MemberList {
        let status = self.store.status().borrow().clone();
        let leader = status.leader.as_ref().map(|leader| leader.node_id);
        let leads = leader == Some(self.store.node_id());
        let (alive, lags) = (self.store.alive(ALIVE_WITHIN), self.store.lags());
        let mut members: Vec<Member> =
            self.store.members().await.into_iter().map(|record| member(record, leader, &status.voters)).collect();
        for member in members.iter_mut().filter(|_| leads) {
            let lag_entries = if member.id == self.store.node_id() { 0 } else { lags.get(&member.id).copied().unwrap_or(0) };
            member.progress = Some(Progress { alive: alive.contains(&member.id), lag_entries });
        }
        members.sort_by_key(|member| member.id);
        MemberList {
            cluster_id: format!("{:016x}", self.store.cluster_id()),
            answered_by: self.store.node_id(),
            leader,
            feature_level: self.store.feature_level(),
            members,
        }
    }
}

fn member(record: MemberRecord, leader: Option<u64>, voters: &[u64]) -> Member {
    let addresses = record.addresses.unwrap_or_default();
    let role = if leader == Some(record.id) {
        "leader"
    } else if voters.contains(&record.id) {
        "voter"
    } else {
        "learner"
    };
    Member {
        id: record.id,
        name: record.name,
        role: role.to_owned(),
        peer_address: addresses.peer.into_iter().next().unwrap_or_default(),
        api_urls: addresses.api,
        version: record.version,
        feature_level: record.feature_level,
        progress: None,
    }
}

fn id_of(text: &str) -> Answer<u64> {
    text.parse().map_err(|_| Box::new(Status::bad_request(format!("{text:?} is no member id: a number is expected"))))
}

/// The status for a change of members that the store refuses: a conflict with the current membership.
fn refusal(error: &StoreError) -> Status {
    match error {
        StoreError::Invalid(reason) | StoreError::Conflict(reason) => Status::failure(409, "Conflict", reason.clone()),
        error => store_status(error, &GroupResource::new("trireme", MEMBERS), "update"),
    }
}

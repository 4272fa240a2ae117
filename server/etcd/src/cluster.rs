//! etcd's Cluster service.
//!
//! A member of this store is known by its key, so none can be added by its address alone: a new one joins by itself, with
//! the token. Everything else works as in etcd.

use tonic::{Request, Response, Status};
use trireme_proto::{etcd, store};
use trireme_raft::StoreError;

use crate::backend::Backend;
use crate::error::{self, status};

/// The service.
pub(crate) struct ClusterService {
    backend: Backend,
}

// === impl ClusterService ===

impl ClusterService {
    pub(crate) fn new(backend: Backend) -> ClusterService {
        ClusterService { backend }
    }

    async fn records(&self) -> Vec<store::MemberRecord> {
        self.backend.store().members().await
    }

    async fn members(&self) -> Vec<etcd::Member> {
        self.records().await.into_iter().map(member).collect()
    }

    async fn find(&self, id: u64) -> Result<store::MemberRecord, Status> {
        self.records().await.into_iter().find(|member| member.id == id).ok_or_else(|| error::MEMBER_NOT_FOUND.into())
    }
}

#[tonic::async_trait]
impl etcd::cluster_server::Cluster for ClusterService {
    async fn member_add(&self, request: Request<etcd::MemberAddRequest>) -> Result<Response<etcd::MemberAddResponse>, Status> {
        if request.into_inner().peer_ur_ls.is_empty() {
            return Err(error::MEMBER_BAD_URLS.into());
        }
        Err(Status::unimplemented(
            "etcdserver: members are known by their keys and join by themselves: run `trireme server --server https://<a server>:6443 --token-file <token>` on the new one",
        ))
    }

    async fn member_remove(&self, request: Request<etcd::MemberRemoveRequest>) -> Result<Response<etcd::MemberRemoveResponse>, Status> {
        let id = request.into_inner().id;
        let removed = self.find(id).await?;
        let voters = self.backend.status().voters;
        if removed.role() == store::MemberRole::Voter && voters.len() == 1 {
            return Err(error::MEMBERS_NOT_ENOUGH.into());
        }
        self.backend.store().remove(id).await.map_err(status)?;
        Ok(Response::new(etcd::MemberRemoveResponse { header: self.backend.header_now(), members: self.members().await }))
    }

    async fn member_update(&self, request: Request<etcd::MemberUpdateRequest>) -> Result<Response<etcd::MemberUpdateResponse>, Status> {
        let etcd::MemberUpdateRequest { id, peer_ur_ls } = request.into_inner();
        let addresses: Option<Vec<String>> = peer_ur_ls.iter().map(|url| peer_address(url)).collect();
        let addresses = addresses.filter(|addresses| !addresses.is_empty()).ok_or_else(|| Status::from(error::MEMBER_BAD_URLS))?;
        self.find(id).await?;
        self.backend.store().update_peer_addresses(id, addresses).await.map_err(status)?;
        Ok(Response::new(etcd::MemberUpdateResponse { header: self.backend.header_now(), members: self.members().await }))
    }

    async fn member_list(&self, request: Request<etcd::MemberListRequest>) -> Result<Response<etcd::MemberListResponse>, Status> {
        if request.into_inner().linearizable {
            self.backend.barrier().await?;
        }
        Ok(Response::new(etcd::MemberListResponse { header: self.backend.header_now(), members: self.members().await }))
    }

    async fn member_promote(&self, request: Request<etcd::MemberPromoteRequest>) -> Result<Response<etcd::MemberPromoteResponse>, Status> {
        let id = request.into_inner().id;
        if self.find(id).await?.role() != store::MemberRole::Learner {
            return Err(error::MEMBER_NOT_LEARNER.into());
        }
        match self.backend.store().promote(id).await {
            Ok(()) => {}
            Err(StoreError::Invalid(what)) => return Err(Status::failed_precondition(format!("etcdserver: {what}"))),
            Err(other) => return Err(status(other)),
        }
        Ok(Response::new(etcd::MemberPromoteResponse { header: self.backend.header_now(), members: self.members().await }))
    }
}

fn member(record: store::MemberRecord) -> etcd::Member {
    let is_learner = record.role() == store::MemberRole::Learner;
    let addresses = record.addresses.unwrap_or_default();
    etcd::Member {
        id: record.id,
        name: record.name,
        peer_ur_ls: addresses.peer.iter().map(|address| format!("https://{address}")).collect(),
        client_ur_ls: addresses.client,
        is_learner,
    }
}

/// `https://host:port` as the store keeps it. Peers speak TLS only.
fn peer_address(url: &str) -> Option<String> {
    let uri: http::Uri = url.parse().ok()?;
    let plain = uri.scheme_str() == Some("https") && matches!(uri.path(), "" | "/") && uri.query().is_none();
    let authority = uri.authority()?;
    (plain && authority.port().is_some() && !authority.as_str().contains('@')).then(|| authority.to_string())
}

#[cfg(test)]
mod tests {
    use super::peer_address;

    #[test]
    fn peers_are_named_by_scheme_host_and_port() {
        assert_eq!(peer_address("https://10.0.0.1:2380").as_deref(), Some("10.0.0.1:2380"));
        assert_eq!(peer_address("https://[fd00::1]:2380/").as_deref(), Some("[fd00::1]:2380"));
        for wrong in ["http://10.0.0.1:2380", "https://10.0.0.1", "10.0.0.1:2380", "https://a:1/x", "https://u@a:1", "", "unix://x"] {
            assert_eq!(peer_address(wrong), None, "{wrong}");
        }
    }
}

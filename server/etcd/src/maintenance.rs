//! etcd's Maintenance service.
//!
//! Alarms are not set and not disarmed by hand here: they show a member's condition, and go when it is better.

use tonic::{Request, Response, Status};
use trireme_proto::etcd;
use trireme_proto::etcd::AlarmType;
use trireme_proto::etcd::alarm_request::AlarmAction;
use trireme_raft::{Role, SpaceLevel, StoreStatus};

use crate::backend::{Backend, blocking, has_leader};
use crate::error::{self, status};
use crate::{CLUSTER_VERSION, VERSION, snapshot};

/// The service.
pub(crate) struct MaintenanceService {
    backend: Backend,
}

// === impl MaintenanceService ===

impl MaintenanceService {
    pub(crate) fn new(backend: Backend) -> MaintenanceService {
        MaintenanceService { backend }
    }

    /// The alarms of all members that answer.
    async fn alarms_everywhere(&self) -> Vec<etcd::AlarmMember> {
        let conditions = self.backend.store().conditions().await;
        let alarms = conditions.into_iter().flat_map(|member| alarms(member.node_id, member.level, member.fault.is_some()));
        alarms.collect()
    }
}

#[tonic::async_trait]
impl etcd::maintenance_server::Maintenance for MaintenanceService {
    type SnapshotStream = snapshot::SnapshotStream;

    async fn alarm(&self, request: Request<etcd::AlarmRequest>) -> Result<Response<etcd::AlarmResponse>, Status> {
        let request = request.into_inner();
        let alarms = match request.action() {
            AlarmAction::Get => {
                let wanted = |alarm: &etcd::AlarmMember| request.alarm() == AlarmType::None || request.alarm() == alarm.alarm();
                self.alarms_everywhere().await.into_iter().filter(wanted).collect()
            }
            // Nothing to do: an alarm cannot be disarmed while its cause lasts, and it ends with its cause. A member that has space
            // again accepts writes again.
            AlarmAction::Deactivate => Vec::new(),
            AlarmAction::Activate => {
                return Err(Status::unimplemented("etcdserver: alarms show a member's condition and cannot be raised by hand"));
            }
        };
        Ok(Response::new(etcd::AlarmResponse { header: self.backend.header_now(), alarms }))
    }

    async fn status(&self, _request: Request<etcd::StatusRequest>) -> Result<Response<etcd::StatusResponse>, Status> {
        let condition = self.backend.status();
        let store = self.backend.store();
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        Ok(Response::new(etcd::StatusResponse {
            header: self.backend.header_now(),
            version: VERSION.to_owned(),
            db_size: bytes(store.size_bytes()),
            leader: condition.leader.as_ref().map_or(0, |leader| leader.node_id),
            raft_index: condition.committed_index.max(condition.applied_index),
            raft_term: condition.term,
            raft_applied_index: condition.applied_index,
            errors: errors(&self.backend, &condition),
            db_size_in_use: bytes(store.live_bytes()),
            is_learner: condition.role == Role::Learner,
            storage_version: CLUSTER_VERSION.to_owned(),
            db_size_quota: bytes(store.space().borrow().quota_bytes),
        }))
    }

    async fn defragment(&self, _request: Request<etcd::DefragmentRequest>) -> Result<Response<etcd::DefragmentResponse>, Status> {
        let backend = self.backend.clone();
        blocking(move || backend.store().reclaim().map_err(status)).await?;
        Ok(Response::new(etcd::DefragmentResponse { header: self.backend.header_now() }))
    }

    async fn hash(&self, _request: Request<etcd::HashRequest>) -> Result<Response<etcd::HashResponse>, Status> {
        let backend = self.backend.clone();
        let hash = blocking(move || backend.store().hash(0).map_err(status)).await?;
        Ok(Response::new(etcd::HashResponse { header: Some(self.backend.header(hash.revision)), hash: hash.hash }))
    }

    async fn hash_kv(&self, request: Request<etcd::HashKvRequest>) -> Result<Response<etcd::HashKvResponse>, Status> {
        let revision = request.into_inner().revision;
        let backend = self.backend.clone();
        let hash = blocking(move || backend.store().hash(revision).map_err(status)).await?;
        Ok(Response::new(etcd::HashKvResponse {
            header: self.backend.header_now(),
            hash: hash.hash,
            compact_revision: hash.compact_revision,
            hash_revision: hash.revision,
        }))
    }

    async fn snapshot(&self, _request: Request<etcd::SnapshotRequest>) -> Result<Response<Self::SnapshotStream>, Status> {
        snapshot::stream(&self.backend).await.map(Response::new)
    }

    async fn move_leader(&self, request: Request<etcd::MoveLeaderRequest>) -> Result<Response<etcd::MoveLeaderResponse>, Status> {
        let target = request.into_inner().target_id;
        if !self.backend.status().voters.contains(&target) {
            return Err(error::BAD_TRANSFEREE.into());
        }
        self.backend.store().transfer_leader(target).await.map_err(status)?;
        Ok(Response::new(etcd::MoveLeaderResponse { header: self.backend.header_now() }))
    }

    async fn downgrade(&self, _request: Request<etcd::DowngradeRequest>) -> Result<Response<etcd::DowngradeResponse>, Status> {
        Err(Status::unimplemented("etcdserver: a cluster cannot be downgraded through this API: its release is trireme's"))
    }
}

/// What is wrong with a member, in etcd's terms.
fn alarms(member_id: u64, level: SpaceLevel, damaged: bool) -> Vec<etcd::AlarmMember> {
    let space = (level != SpaceLevel::Ample).then_some(AlarmType::Nospace);
    let damage = damaged.then_some(AlarmType::Corrupt);
    space.into_iter().chain(damage).map(|alarm| etcd::AlarmMember { member_id, alarm: alarm as i32 }).collect()
}

/// What is wrong with this member, in words.
fn errors(backend: &Backend, condition: &StoreStatus) -> Vec<String> {
    let store = backend.store();
    let mut errors: Vec<String> = Vec::new();
    if !has_leader(condition) {
        errors.push(error::NO_LEADER.text().to_owned());
    }
    let space = *store.space().borrow();
    if space.level != SpaceLevel::Ample {
        errors.push(space.reason());
    }
    errors.extend(condition.failure.iter().map(|failure| failure.to_string()));
    let alarms = alarms(store.node_id(), space.level, condition.failure.is_some());
    errors.extend(alarms.iter().map(|alarm| format!("memberID:{} alarm:{}", alarm.member_id, alarm.alarm().as_str_name())));
    errors
}

//! The condition of the members: each reports its own, within the caller's time limit.

use trireme_proto::peer;

use super::Store;
use super::core::Core;
use super::space::SpaceLevel;
use crate::error::StoreError;
use crate::network::client::Lane;

/// What a member says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberCondition {
    /// Which member.
    pub node_id: u64,
    /// How much space it has.
    pub level: SpaceLevel,
    /// What is wrong with its state, if anything is.
    pub fault: Option<String>,
}

impl MemberCondition {
    fn new(node_id: u64, said: peer::ConditionResponse) -> MemberCondition {
        let level = match said.space_level {
            0 => SpaceLevel::Ample,
            1 => SpaceLevel::Low,
            _ => SpaceLevel::Full,
        };
        MemberCondition { node_id, level, fault: Some(said.fault).filter(|fault| !fault.is_empty()) }
    }
}

impl Store {
    /// How the members are doing, this one first, then the others that answer in time.
    pub async fn conditions(&self) -> Vec<MemberCondition> {
        let core = &self.core;
        let mut here = MemberCondition::new(core.node_id, core.condition_here());
        // The failure that ended Raft here is reported too, although it is no fault of the state.
        here.fault = here.fault.or_else(|| core.status.borrow().failure.as_ref().map(ToString::to_string));
        let others = core.directory.all().into_iter().map(|(member, _)| member).filter(|member| *member != core.node_id);
        let asked = futures::future::join_all(others.map(|member| async move { (member, condition(core, member).await) })).await;
        let answered = asked.into_iter().filter_map(|(member, answer)| Some(MemberCondition::new(member, answer.ok()?)));
        std::iter::once(here).chain(answered).collect()
    }
}

/// How another member is doing.
pub(super) async fn condition(core: &Core, member: u64) -> Result<peer::ConditionResponse, StoreError> {
    let mut client = core.clients.client(member, Lane::Bulk)?;
    let call = tokio::time::timeout(core.timing.rpc, client.condition(peer::ConditionRequest {})).await;
    let answer = call.map_err(|_| StoreError::NoLeader(format!("member {member} does not answer")))?;
    Ok(answer.map_err(|status| StoreError::NoLeader(format!("member {member}: {}", status.message())))?.into_inner())
}

impl Core {
    /// How this member is doing.
    pub(crate) fn condition_here(&self) -> peer::ConditionResponse {
        let space = *self.space.status().borrow();
        let fault = self.state.fault().borrow().as_ref().map(|fault| fault.reason.to_string());
        peer::ConditionResponse {
            space_level: space.level as u32,
            free_bytes: space.free_bytes,
            applied_index: self.machine.applied().at().index,
            fault: fault.unwrap_or_default(),
        }
    }
}

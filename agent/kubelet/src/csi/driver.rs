//! One registered driver: the calls of its node service, each with a deadline.

use std::{collections::HashSet, path::PathBuf, time::Duration};

use tonic::transport::Channel;
use trireme_proto::csi::{self, node_client::NodeClient, node_service_capability::rpc::Type};

use crate::plugin_call::{Refused, answer, channel};

/// Upstream's deadline of each call.
pub(super) const CALL: Duration = Duration::from_secs(120);
/// Statistics are asked for again a minute later: one that takes so long is of no use.
const STATISTICS: Duration = Duration::from_secs(30);
/// No answer of a node service is larger.
const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// What a driver's node service can do.
#[derive(Clone, Debug, Default)]
pub(crate) struct Abilities(HashSet<i32>);

impl Abilities {
    pub(super) fn has(&self, ability: Type) -> bool {
        self.0.contains(&(ability as i32))
    }

    #[cfg(test)]
    pub(super) fn with(abilities: &[Type]) -> Abilities {
        Abilities(abilities.iter().map(|ability| *ability as i32).collect())
    }
}

/// A cheap handle on one driver.
#[derive(Clone, Debug)]
pub(crate) struct Driver {
    node: NodeClient<Channel>,
    pub(super) abilities: Abilities,
}

impl Driver {
    /// Connects to a driver and asks what it can do, and what it knows of this node.
    pub(super) async fn meet(socket: PathBuf) -> Result<(Driver, csi::NodeGetInfoResponse), Refused> {
        let mut node = NodeClient::new(channel(socket)).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let info = answer(CALL, node.node_get_info(csi::NodeGetInfoRequest {})).await?;
        let abilities = answer(CALL, node.node_get_capabilities(csi::NodeGetCapabilitiesRequest {})).await?;
        let types = abilities.capabilities.into_iter().filter_map(|one| one.r#type);
        let abilities = Abilities(types.map(|csi::node_service_capability::Type::Rpc(rpc)| rpc.r#type).collect());
        Ok((Driver { node, abilities }, info))
    }

    pub(super) async fn stage(&self, request: csi::NodeStageVolumeRequest) -> Result<(), Refused> {
        answer(CALL, self.node.clone().node_stage_volume(request)).await.map(drop)
    }

    pub(super) async fn unstage(&self, request: csi::NodeUnstageVolumeRequest) -> Result<(), Refused> {
        answer(CALL, self.node.clone().node_unstage_volume(request)).await.map(drop)
    }

    pub(super) async fn publish(&self, request: csi::NodePublishVolumeRequest) -> Result<(), Refused> {
        answer(CALL, self.node.clone().node_publish_volume(request)).await.map(drop)
    }

    pub(super) async fn unpublish(&self, request: csi::NodeUnpublishVolumeRequest) -> Result<(), Refused> {
        answer(CALL, self.node.clone().node_unpublish_volume(request)).await.map(drop)
    }

    pub(super) async fn expand(&self, request: csi::NodeExpandVolumeRequest) -> Result<(), Refused> {
        answer(CALL, self.node.clone().node_expand_volume(request)).await.map(drop)
    }

    pub(super) async fn statistics(&self, request: csi::NodeGetVolumeStatsRequest) -> Result<csi::NodeGetVolumeStatsResponse, Refused> {
        answer(STATISTICS, self.node.clone().node_get_volume_stats(request)).await
    }
}

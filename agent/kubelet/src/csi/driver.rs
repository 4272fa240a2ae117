//! One registered driver: the calls of its node service, each with a deadline.
//!
//! The channel is lazy: while the driver restarts every call fails with `Unavailable`, and the next one connects again.

use std::{collections::HashSet, future::Future, path::PathBuf, time::Duration};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::{
    Code, Response, Status,
    transport::{Channel, Endpoint, Uri},
};
use trireme_proto::csi::{self, node_client::NodeClient, node_service_capability::rpc::Type};

use crate::error::Error;

/// Upstream's deadline of each call.
pub(super) const CALL: Duration = Duration::from_secs(120);
/// Statistics are asked for again a minute later: one that takes so long is of no use.
const STATISTICS: Duration = Duration::from_secs(30);
/// No answer of a node service is larger.
const MAX_MESSAGE_BYTES: usize = 1 << 20;
/// What a driver says goes into events and logs.
const MAX_TEXT_CHARS: usize = 1000;

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rpc error: code = {} desc = {message}", name(*.code))]
pub(crate) struct Refused {
    pub(super) code: Code,
    message: String,
}

impl Refused {
    /// Whether the call may have had its effect nonetheless, or still has it later.
    pub(super) fn is_uncertain(&self) -> bool {
        matches!(self.code, Code::Cancelled | Code::DeadlineExceeded | Code::Unavailable | Code::ResourceExhausted | Code::Aborted)
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Error {
        Error::Config(refused.to_string())
    }
}

/// The name of a code as Go prints it.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

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

/// A connection to a plugin's socket; connects on first use.
pub(super) fn channel(socket: PathBuf) -> Channel {
    // The authority is never used: the connector ignores it.
    Endpoint::from_static("http://plugin.invalid").connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    }))
}

/// The answer of a call, or why there is none.
pub(super) async fn answer<T>(deadline: Duration, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Refused> {
    match tokio::time::timeout(deadline, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => {
            let away = std::error::Error::source(&status).is_some() && matches!(status.code(), Code::Unknown | Code::Cancelled);
            let code = if away { Code::Unavailable } else { status.code() };
            Err(Refused { code, message: status.message().chars().take(MAX_TEXT_CHARS).collect() })
        }
        Err(_) => Err(Refused { code: Code::DeadlineExceeded, message: "context deadline exceeded".into() }),
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

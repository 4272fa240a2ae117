//! What all calls to a peer share: the client's type, the headers that name both ends, and how an answer becomes openraft's error.

use openraft::errors::{NetworkError, RPCError, Unreachable};
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use trireme_proto::peer::peer_client::PeerClient;

use super::{CLUSTER_HEADER, FROM_HEADER, TO_HEADER};
use crate::error::StoreError;
use crate::types::TypeConfig;

/// A ready client for one peer.
pub(crate) type Client = PeerClient<InterceptedService<Channel, Headers>>;
/// The error that openraft gets for a call that failed.
pub(super) type Rpc = RPCError<TypeConfig>;

/// Names the cluster, the sender and the receiver in every call.
#[derive(Clone)]
pub(crate) struct Headers {
    cluster: MetadataValue<tonic::metadata::Ascii>,
    from: MetadataValue<tonic::metadata::Ascii>,
    to: MetadataValue<tonic::metadata::Ascii>,
}

// === impl Headers ===

impl Headers {
    pub(super) fn new(cluster_id: u64, from: u64, to: u64) -> Result<Headers, StoreError> {
        let header = |text: String| text.parse().map_err(|error| StoreError::Invalid(format!("header: {error}")));
        Ok(Headers { cluster: header(format!("{cluster_id:x}"))?, from: header(from.to_string())?, to: header(to.to_string())? })
    }
}

impl Interceptor for Headers {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> {
        let metadata = request.metadata_mut();
        metadata.insert(CLUSTER_HEADER, self.cluster.clone());
        metadata.insert(FROM_HEADER, self.from.clone());
        metadata.insert(TO_HEADER, self.to.clone());
        Ok(request)
    }
}

pub(super) fn rpc_error(status: &tonic::Status) -> Rpc {
    match status.code() {
        // The peer is unreachable or refuses this member: back off.
        tonic::Code::Unavailable | tonic::Code::PermissionDenied | tonic::Code::FailedPrecondition => {
            RPCError::Unreachable(Unreachable::from_string(status))
        }
        _ => RPCError::Network(NetworkError::from_string(status)),
    }
}

/// Whether a call failed before anything was sent: there was no connection to send it on.
pub(crate) fn never_sent(status: &tonic::Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

pub(super) fn malformed(error: StoreError) -> Rpc {
    RPCError::Network(NetworkError::from_string(error))
}

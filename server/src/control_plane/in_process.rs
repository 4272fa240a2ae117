//! The transport by which controllers and the scheduler reach the API server of their own process: no socket, no TLS, the same
//! filters. Identity and fence travel as typed request extensions that no header can set.

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::BodyExt;
use trireme_apiserver::ApiServer;
use trireme_apiserver::Caller;
use trireme_apiserver::UserInfo;
use trireme_client::{BoxError, Fence, Identity, Transport, TransportError};

/// A transport into one API server.
#[derive(Clone)]
pub struct InProcess {
    server: ApiServer,
}

impl InProcess {
    /// Reaches `server`.
    pub fn new(server: ApiServer) -> Self {
        Self { server }
    }
}

impl Transport for InProcess {
    fn send(&self, mut request: http::Request<Bytes>) -> BoxFuture<'static, Result<http::Response<trireme_client::Body>, TransportError>> {
        let server = self.server.clone();
        Box::pin(async move {
            let identity: Identity =
                request.extensions_mut().remove().ok_or_else(|| TransportError::Config("a request in process needs an identity".into()))?;
            let fence: Option<Fence> = request.extensions_mut().remove();
            let caller = Caller {
                user: UserInfo { name: identity.user, uid: identity.uid, groups: identity.groups, extra: identity.extra },
                fence: fence.map(|f| trireme_raft::Fence { term: f.term, node_id: f.node_id }),
            };
            let response = server.call(caller, request).await;
            Ok(response.map(|body| body.map_err(|e| -> BoxError { e }).boxed_unsync()))
        })
    }
}

//! One request on its way through the chain: parsed once, read by every filter.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, Request};
use hyper::upgrade::OnUpgrade;
use trireme_raft::Fence;

use crate::attributes::Attributes;
use crate::audit::Record;
use crate::authn::Peer;
use crate::catalog::rows::Rows;
use crate::endpoints::target::Target;
use crate::flowcontrol::control::Class;
use crate::http::body::Payload;
use crate::http::negotiate::{self, Encoding};
use crate::http::request_info::{InvalidPath, RequestInfo};
use crate::user::UserInfo;

/// The sender of a request.
pub enum Source {
    /// A client behind a socket: its credentials must be judged.
    Network,
    /// A part of this process, whose identity is known.
    InProcess(Box<UserInfo>, Option<Fence>),
}

/// A request that is being filtered.
pub struct Call {
    /// The method.
    pub method: Method,
    /// What the URL asks for. No later code reads the URL itself.
    pub info: RequestInfo,
    /// The resource and the endpoint that are addressed.
    pub target: Target,
    /// The headers; without credentials once authentication has passed.
    pub headers: HeaderMap,
    /// The body, until it is read.
    pub payload: Option<Payload>,
    /// Whether a part of the body was left unread in the connection.
    pub broken: bool,
    /// The user; none before authentication.
    pub user: UserInfo,
    /// Whether this process itself asks.
    pub in_process: bool,
    /// The leadership under which a part of this process writes.
    pub fence: Option<Fence>,
    /// What the certificates of the connection prove.
    pub peer: Arc<Peer>,
    /// Where the connection comes from.
    pub from: Option<IpAddr>,
    /// The connection's way to another protocol.
    pub upgrade: Option<OnUpgrade>,
    /// How a Status that ends the request is encoded.
    pub status_encoding: Encoding,
    /// The id under which it appears in logs and audit events, once it has one.
    pub audit_id: Option<HeaderValue>,
    /// Its flow schema and priority level, once they are known.
    pub class: Option<Class>,
    /// Its audit events, if any are recorded.
    pub record: Option<Record>,
}

impl Call {
    /// Takes a request apart.
    pub fn parse(rows: &Rows, source: Source, request: Request<Payload>) -> Result<Call, InvalidPath> {
        let (mut parts, payload) = request.into_parts();
        let info = RequestInfo::parse(&parts.method, parts.uri.path(), parts.uri.query().unwrap_or_default())?;
        let (user, fence, in_process) = match source {
            Source::Network => (UserInfo::default(), None, false),
            Source::InProcess(user, fence) => (*user, fence, true),
        };
        Ok(Call {
            target: Target::resolve(rows, &info),
            info,
            status_encoding: negotiate::status_encoding(&parts.headers),
            peer: parts.extensions.get::<Arc<Peer>>().cloned().unwrap_or_default(),
            from: parts.extensions.get::<SocketAddr>().map(SocketAddr::ip),
            upgrade: parts.extensions.remove::<OnUpgrade>(),
            audit_id: None,
            class: None,
            record: None,
            method: parts.method,
            headers: parts.headers,
            payload: Some(payload),
            broken: false,
            user,
            in_process,
            fence,
        })
    }

    /// The request as the authorizer sees it.
    pub fn attributes(&self) -> Attributes {
        Attributes::of(&self.user, &self.info)
    }
}

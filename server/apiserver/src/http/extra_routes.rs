//! Routes that another part of the process answers from inside the filter chain: joining nodes and servers.
//!
//! Owns the seam only. The cluster's keys and tokens are not the API server's: `trireme-cluster` implements it.

use std::net::IpAddr;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, Method, Response};
use jiff::Timestamp;

use crate::error::Answer;
use crate::user::UserInfo;

/// A request to one of the routes.
#[derive(Clone, Copy)]
pub struct RouteCall<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path.
    pub path: &'a str,
    /// The headers: a stranger's hold the token.
    pub headers: &'a HeaderMap,
    /// The body.
    pub body: &'a Bytes,
    /// Where the connection comes from.
    pub from: Option<IpAddr>,
    /// When it came.
    pub now: Timestamp,
}

/// Routes outside the Kubernetes API.
pub trait ExtraRoutes: Send + Sync + 'static {
    /// Whether a path is answered before authentication.
    fn is_for_strangers(&self, path: &str) -> bool;
    /// Whether a path is answered to a user with an identity; the endpoint judges which.
    fn is_for_members(&self, path: &str) -> bool;
    /// Whether a stranger may ask again yet. Asked before the body is read.
    fn throttle(&self, from: Option<IpAddr>, now: Timestamp) -> Answer<()>;
    /// Answers a stranger.
    fn stranger<'a>(&'a self, request: RouteCall<'a>) -> BoxFuture<'a, Answer<Response<Bytes>>>;
    /// Answers a user.
    fn member<'a>(&'a self, user: &'a UserInfo, request: RouteCall<'a>) -> BoxFuture<'a, Answer<Response<Bytes>>>;
}

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
    /// The headers. Those of an unauthenticated request still contain the token.
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
    /// Limits the rate of unauthenticated requests. Called before the body is read.
    fn throttle(&self, from: Option<IpAddr>, now: Timestamp) -> Answer<()>;
    /// Answers an unauthenticated request.
    fn stranger<'a>(&'a self, request: RouteCall<'a>) -> BoxFuture<'a, Answer<Response<Bytes>>>;
    /// Answers an authenticated user.
    fn member<'a>(&'a self, user: &'a UserInfo, request: RouteCall<'a>) -> BoxFuture<'a, Answer<Response<Bytes>>>;
}

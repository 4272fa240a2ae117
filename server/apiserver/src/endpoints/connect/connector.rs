//! The description of one connecting subresource.

use futures::future::BoxFuture;
use http::Response;

use crate::endpoints::context::Context;
use crate::error::Answer;
use crate::http::parameters::Parameters;
use crate::http::respond::Body;

/// How long a connection lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duration {
    /// As long as both sides like.
    Unbounded,
    /// Like any request, unless this flag is set.
    UnboundedIf(&'static str),
}

/// A connecting subresource of one resource.
pub struct Connector {
    /// The API group.
    pub group: &'static str,
    /// The plural name of the resource.
    pub resource: &'static str,
    /// The subresource.
    pub subresource: &'static str,
    /// Whether a path follows the subresource, and every method is passed on.
    pub takes_path: bool,
    /// Whether the verb `create` is needed whatever the method.
    pub needs_create: bool,
    /// The kind under which admission sees the connection; `None` if it does not.
    pub admitted_as: Option<&'static str>,
    /// How long it lasts.
    pub duration: Duration,
    /// Carries the request on.
    pub connect: for<'a> fn(&'a Context) -> BoxFuture<'a, Answer<Response<Body>>>,
}

impl Connector {
    /// Whether a request with these parameters has no bounded duration.
    pub fn is_long_running(&self, query: &Parameters) -> bool {
        match self.duration {
            Duration::Unbounded => true,
            Duration::UnboundedIf(flag) => query.flag(flag),
        }
    }
}

//! `nodes/proxy`: requests to a node's kubelet, or to another port of the node.
//!
//! Answers to upstream's `ResourceLocation` (`pkg/registry/core/node/strategy.go`).

use futures::FutureExt;
use http::Response;
use trireme_api::status::Status;

use crate::egress::Place;
use crate::endpoints::connect::address;
use crate::endpoints::connect::connector::{Connector, Duration};
use crate::endpoints::connect::destination::Security;
use crate::endpoints::connect::name::ProxyName;
use crate::endpoints::connect::proxied::proxied;
use crate::endpoints::context::Context;
use crate::endpoints::nodes::kubelet;
use crate::error::Answer;
use crate::http::respond::Body;

/// `nodes/proxy`.
pub static CONNECTOR: Connector = Connector {
    group: "",
    resource: "nodes",
    subresource: "proxy",
    takes_path: true,
    needs_create: false,
    admitted_as: Some("NodeProxyOptions"),
    duration: Duration::Unbounded,
    connect: |ctx| connect(ctx).boxed(),
};

async fn connect(ctx: &Context) -> Answer<Response<Body>> {
    let name = ProxyName::parse(&ctx.info.name, "node")?;
    let mut destination =
        kubelet::destination(&*ctx.server.storage, ctx.server.options.kubelet_tls.as_ref(), name.name, ctx.proxied_path())?;
    if !name.port.is_empty() && name.port != destination.port.to_string() {
        // Another port is not the kubelet's: the server's certificate is not shown there.
        destination.place = Place::Elsewhere;
        destination.port = name.port.parse().map_err(|_| Status::bad_request(format!("invalid port {:?}", name.port)))?;
        destination.security = if name.https { Security::Unverified } else { Security::Plain };
    }
    destination.dial = address::resolve(&destination.host, destination.port).await?.to_string();
    proxied(ctx, &destination).await
}

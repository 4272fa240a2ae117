//! `pods/proxy`: HTTP requests to a port of a pod.

use futures::FutureExt;
use http::Response;
use serde_json::Value;
use trireme_api::gvk::GroupResource;
use trireme_api::meta;
use trireme_api::status::Status;

use crate::egress::Place;
use crate::endpoints::connect::address;
use crate::endpoints::connect::connector::{Connector, Duration};
use crate::endpoints::connect::destination::{Destination, Security};
use crate::endpoints::connect::name::ProxyName;
use crate::endpoints::connect::proxied::proxied;
use crate::endpoints::context::Context;
use crate::error::Answer;
use crate::http::respond::Body;
use crate::storage::lookup::ObjectReader;

/// The port of a pod that names none.
const DEFAULT_PORT: u16 = 80;

/// `pods/proxy`.
pub static CONNECTOR: Connector = Connector {
    group: "",
    resource: "pods",
    subresource: "proxy",
    takes_path: true,
    needs_create: false,
    admitted_as: Some("PodProxyOptions"),
    duration: Duration::Unbounded,
    connect: |ctx| connect(ctx).boxed(),
};

async fn connect(ctx: &Context) -> Answer<Response<Body>> {
    let name = ProxyName::parse(&ctx.info.name, "pod")?;
    let pod = ctx
        .server
        .storage
        .get("", "pods", &ctx.info.namespace, name.name)
        .ok_or_else(|| Status::not_found(&GroupResource::new("", "pods"), name.name))?;
    let address = address::allowed(meta::str_at(&pod.object, &["status", "podIP"]))?.to_string();
    let port = port(&pod.object, name.port)?;
    let security = if name.https { Security::Unverified } else { Security::Plain };
    let place = Place::Pod(meta::str_at(&pod.object, &["spec", "nodeName"]).to_owned());
    let destination = Destination { host: address.clone(), dial: address, port, place, security, path: ctx.proxied_path() };
    proxied(ctx, &destination).await
}

/// The port that is meant: a number, the name of a container's port, or the first one that a container has.
fn port(pod: &Value, wanted: &str) -> Answer<u16> {
    if let Ok(port) = wanted.parse() {
        return Ok(port);
    }
    let ports = meta::list_at(pod, &["spec", "containers"]).iter().flat_map(|container| meta::list_at(container, &["ports"]));
    let found = ports
        .filter(|port| wanted.is_empty() || port["name"] == wanted)
        .find_map(|port| u16::try_from(port.get("containerPort")?.as_u64()?).ok());
    match found {
        Some(port) => Ok(port),
        None if wanted.is_empty() => Ok(DEFAULT_PORT),
        None => Err(Status::bad_request(format!("no container of the pod has a port {wanted:?}")).into()),
    }
}

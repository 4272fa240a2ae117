//! `services/proxy`: HTTP requests to one of the pods behind a Service.
//!
//! Services are resolved to endpoints in this process, so this works on a server that is no node. Owns that a Service leads to pods of
//! its own namespace only: a user who may write endpoints must not choose what this server connects to. Answers to upstream's
//! `ResourceLocation` (`pkg/registry/core/service/storage/storage.go`).

use futures::FutureExt;
use http::Response;
use rand::seq::SliceRandom;
use serde_json::Value;
use trireme_api::gvk::GroupResource;
use trireme_api::meta;
use trireme_api::status::Status;

use crate::egress::Place;
use crate::egress::services::{self, Address};
use crate::endpoints::connect::connector::{Connector, Duration};
use crate::endpoints::connect::destination::{Destination, Security};
use crate::endpoints::connect::name::ProxyName;
use crate::endpoints::connect::proxied::proxied;
use crate::endpoints::context::Context;
use crate::error::Answer;
use crate::http::respond::Body;
use crate::storage::lookup::ObjectReader;

/// `services/proxy`.
pub static CONNECTOR: Connector = Connector {
    group: "",
    resource: "services",
    subresource: "proxy",
    takes_path: true,
    needs_create: false,
    admitted_as: Some("ServiceProxyOptions"),
    duration: Duration::Unbounded,
    connect: |ctx| connect(ctx).boxed(),
};

async fn connect(ctx: &Context) -> Answer<Response<Body>> {
    let name = ProxyName::parse(&ctx.info.name, "service")?;
    let namespace = ctx.info.namespace.as_str();
    let reader: &dyn ObjectReader = &*ctx.server.storage;
    let service = reader
        .get("", "services", namespace, name.name)
        .ok_or_else(|| Status::not_found(&GroupResource::new("", "services"), name.name))?;
    let port_name = port_name(&service.object, &name)?;
    let mut candidates = services::endpoints(reader, namespace, name.name, &port_name);
    candidates.shuffle(&mut rand::rng());
    let chosen = candidates.into_iter().find_map(|candidate| Some((node_of_pod(&candidate, reader, namespace)?, candidate)));
    let (node, chosen) =
        chosen.ok_or_else(|| Status::service_unavailable(format!("no endpoints available for service {:?}", ctx.info.name)))?;
    let security = if name.https { Security::Unverified } else { Security::Plain };
    let address = chosen.address.to_string();
    let destination = Destination {
        host: address.clone(),
        dial: address,
        port: chosen.port,
        place: Place::Pod(node),
        security,
        path: ctx.proxied_path(),
    };
    proxied(ctx, &destination).await
}

/// The name of the Service's port: that of a port number, else as it was given.
fn port_name(service: &Value, wanted: &ProxyName<'_>) -> Answer<String> {
    let Ok(number) = wanted.port.parse::<i64>() else { return Ok(wanted.port.to_owned()) };
    let found = u16::try_from(number).ok().and_then(|number| services::port_name(service, number));
    let missing = || Status::service_unavailable(format!("no service port {number} found for service {:?}", wanted.name));
    found.ok_or_else(|| Box::new(missing()))
}

/// The node of the pod whose address it is; `None` if no pod of the namespace has it.
fn node_of_pod(candidate: &Address, reader: &dyn ObjectReader, namespace: &str) -> Option<String> {
    if candidate.pod_namespace != namespace {
        return None;
    }
    let pod = reader.get("", "pods", namespace, &candidate.pod)?;
    let addresses = meta::list_at(&pod.object, &["status", "podIPs"]);
    let is_its = addresses.iter().any(|ip| ip["ip"].as_str().and_then(|text| text.parse().ok()) == Some(candidate.address));
    is_its.then(|| meta::str_at(&pod.object, &["spec", "nodeName"]).to_owned())
}

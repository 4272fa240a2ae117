//! `pods/portforward`: streams to ports of a pod.

use futures::FutureExt;
use http::Response;

use crate::endpoints::connect::connector::{Connector, Duration};
use crate::endpoints::connect::forward::forward;
use crate::endpoints::context::Context;
use crate::endpoints::pods::container::{kubelet_of, pod, with_query};
use crate::error::Answer;
use crate::http::respond::Body;

/// `pods/portforward`.
pub static CONNECTOR: Connector = Connector {
    group: "",
    resource: "pods",
    subresource: "portforward",
    takes_path: false,
    needs_create: true,
    admitted_as: Some("PodPortForwardOptions"),
    duration: Duration::Unbounded,
    connect: |ctx| connect(ctx).boxed(),
};

async fn connect(ctx: &Context) -> Answer<Response<Body>> {
    let pod = pod(ctx).await?;
    let ports: Vec<(&str, String)> = ctx.info.query.all("ports").map(|port| ("port", port.to_owned())).collect();
    let path = format!("/portForward/{}/{}", ctx.info.namespace, ctx.info.name);
    forward(ctx, &kubelet_of(ctx, &pod, with_query(path, &ports))?).await
}

//! The pod and the container that a connection is about.

use serde_json::Value;
use trireme_api::meta;
use trireme_api::status::Status;

use crate::endpoints::connect::destination::Destination;
use crate::endpoints::context::Context;
use crate::endpoints::nodes::kubelet;
use crate::error::Answer;
use crate::http::parameters::escape;

/// The addressed pod, as it is now.
pub async fn pod(ctx: &Context) -> Answer<Value> {
    let (view, row) = ctx.stored()?;
    ctx.server.storage.refresh(row).await?;
    let stored = ctx.server.storage.read(row, &row.key(&ctx.info.namespace, &ctx.info.name))?;
    Ok(stored.ok_or_else(|| Status::not_found(&view.resource.group_resource(), &ctx.info.name))?.object)
}

/// The container that is meant: the one that was named, or the only one.
pub fn container(ctx: &Context, pod: &Value) -> Answer<String> {
    let names = |list: &str| -> Vec<String> {
        meta::list_at(pod, &["spec", list]).iter().filter_map(|c| c.get("name")?.as_str().map(str::to_owned)).collect()
    };
    let (containers, init, ephemeral) = (names("containers"), names("initContainers"), names("ephemeralContainers"));
    let pod_name = &ctx.info.name;
    let wanted = ctx.info.query.text("container");
    if !wanted.is_empty() {
        return if containers.iter().chain(&init).chain(&ephemeral).any(|name| name == wanted) {
            Ok(wanted.to_owned())
        } else {
            Err(Status::bad_request(format!("container {wanted} is not valid for pod {pod_name}")).into())
        };
    }
    match containers.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(Status::bad_request(format!("a container name must be specified for pod {pod_name}")).into()),
        _ => {
            let mut message = format!("a container name must be specified for pod {pod_name}, choose one of: [{}]", containers.join(" "));
            if !init.is_empty() {
                message.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            Err(Status::bad_request(message).into())
        }
    }
}

/// The kubelet of the pod's node.
pub fn kubelet_of(ctx: &Context, pod: &Value, path: String) -> Answer<Destination> {
    let node = meta::str_at(pod, &["spec", "nodeName"]);
    if node.is_empty() {
        return Err(Status::bad_request(format!("pod {} does not have a host assigned", ctx.info.name)).into());
    }
    kubelet::destination(&*ctx.server.storage, ctx.server.options.kubelet_tls.as_ref(), node, path)
}

/// A path with these parameters.
pub fn with_query(path: String, pairs: &[(&str, String)]) -> String {
    if pairs.is_empty() {
        return path;
    }
    let query: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={}", escape(value, b"-_.~"))).collect();
    format!("{path}?{}", query.join("&"))
}

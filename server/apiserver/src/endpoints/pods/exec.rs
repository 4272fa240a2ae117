//! `pods/exec` and `pods/attach`: streams into a container.

use futures::FutureExt;
use http::Response;
use trireme_api::status::Status;

use crate::endpoints::connect::connector::{Connector, Duration};
use crate::endpoints::connect::forward::forward;
use crate::endpoints::context::Context;
use crate::endpoints::pods::container::{container, kubelet_of, pod, with_query};
use crate::error::Answer;
use crate::http::respond::Body;

/// `pods/exec`.
pub static EXEC: Connector = connector("exec", "PodExecOptions");
/// `pods/attach`.
pub static ATTACH: Connector = connector("attach", "PodAttachOptions");

const fn connector(subresource: &'static str, admitted_as: &'static str) -> Connector {
    Connector {
        group: "",
        resource: "pods",
        subresource,
        takes_path: false,
        needs_create: true,
        admitted_as: Some(admitted_as),
        duration: Duration::Unbounded,
        connect: |ctx| connect(ctx).boxed(),
    }
}

async fn connect(ctx: &Context) -> Answer<Response<Body>> {
    let pod = pod(ctx).await?;
    let query = &ctx.info.query;
    let action = ctx.info.subresource.as_str();
    let container = container(ctx, &pod)?;
    let mut passed: Vec<(&str, String)> = [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")]
        .into_iter()
        .filter(|(theirs, _)| query.flag(theirs))
        .map(|(_, ours)| (ours, "1".to_owned()))
        .collect();
    let commands: Vec<(&str, String)> = query.all("command").map(|value| ("command", value.to_owned())).collect();
    if action == "exec" && commands.is_empty() {
        Err(Status::bad_request("you must specify at least 1 command for the container"))?;
    }
    if !passed.iter().any(|(name, _)| *name != "tty") {
        Err(Status::bad_request("you must specify at least 1 of stdin, stdout, stderr"))?;
    }
    if action == "exec" {
        passed.extend(commands);
    }
    let path = format!("/{action}/{}/{}/{container}", ctx.info.namespace, ctx.info.name);
    forward(ctx, &kubelet_of(ctx, &pod, with_query(path, &passed))?).await
}

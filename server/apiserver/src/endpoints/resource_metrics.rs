//! `metrics.k8s.io`: the use of nodes and pods, one of them or a list.

use std::collections::BTreeSet;
use std::sync::Arc;

use http::Response;
use serde_json::Value;
use trireme_api::gvk::GroupResource;
use trireme_api::meta;
use trireme_api::selector::{FieldSelector, LabelSelector};
use trireme_api::status::Status;

use crate::endpoints::context::Context;
use crate::error::Answer;
use crate::http::respond::{self, Body, method_not_allowed, path_not_found};
use crate::resource_metrics::{self, ResourceMetrics, objects};
use crate::storage::lookup::ObjectReader;

/// Answers a request for the use of nodes or pods.
pub async fn answer(ctx: &Context) -> Answer<Response<Body>> {
    let Some(metrics) = &ctx.server.resource_metrics else { return Ok(path_not_found()) };
    let info = &ctx.info;
    let (kind, namespaced) = match info.resource.as_str() {
        "nodes" => ("NodeMetrics", false),
        "pods" => ("PodMetrics", true),
        _ => return Err(Status::resource_not_found().into()),
    };
    let is_one = info.verb == "get" && info.name_in_path;
    let wrong_scope = if namespaced { is_one && !info.below_namespace } else { info.below_namespace };
    if wrong_scope || info.has_empty_part || !info.subresource.is_empty() || !info.remainder.is_empty() {
        return Err(Status::resource_not_found().into());
    }
    if !is_one && info.verb != "list" {
        return Err(method_not_allowed());
    }
    let sources = sources(ctx, is_one)?;
    let items = if namespaced { pods(ctx, metrics, &sources).await } else { nodes(ctx, metrics, &sources).await };
    if !is_one {
        return Ok(respond::object(200, ctx.form.encoding, &objects::list(&info.version, kind, &items)));
    }
    let resource = GroupResource::new(resource_metrics::GROUP, info.resource.clone());
    let item = items.first().ok_or_else(|| Status::not_found(&resource, &info.name))?;
    Ok(respond::object(200, ctx.form.encoding, item))
}

/// The nodes or pods that are asked about.
fn sources(ctx: &Context, is_one: bool) -> Answer<Vec<Arc<Value>>> {
    let info = &ctx.info;
    if is_one {
        let found = ctx.server.storage.get("", &info.resource, &info.namespace, &info.name);
        return Ok(found.map(|found| found.object).into_iter().collect());
    }
    let bad = |error: &dyn std::fmt::Display| Status::bad_request(error.to_string());
    let labels = LabelSelector::parse(info.label_selector.as_deref().unwrap_or_default()).map_err(|error| bad(&error))?;
    let fields = FieldSelector::parse(info.field_selector.as_deref().unwrap_or_default()).map_err(|error| bad(&error))?;
    let known = |field: &str| matches!(field, "metadata.name" | "metadata.namespace");
    if let Some(field) = fields.first_unsupported(known) {
        return Err(bad(&format!("field label not supported: {field}")).into());
    }
    let namespace = Some(info.namespace.as_str()).filter(|namespace| !namespace.is_empty());
    let all = ctx.server.storage.list("", &info.resource, namespace).into_iter().map(|found| found.object);
    let selected = all.filter(|object| {
        let own = meta::get(object, &["metadata", "labels"]).and_then(Value::as_object);
        let field = |field: &str| if field == "metadata.name" { meta::name(object) } else { meta::namespace(object) };
        labels.matches(own) && fields.matches(|name| field(name).into())
    });
    Ok(selected.collect())
}

async fn nodes(ctx: &Context, metrics: &ResourceMetrics, sources: &[Arc<Value>]) -> Vec<Value> {
    let names: BTreeSet<String> = sources.iter().map(|node| meta::name(node).to_owned()).collect();
    let usages = metrics.of(names).await;
    let object = |node: &Arc<Value>| {
        let usage = usages.iter().find(|usage| usage.node == meta::name(node))?;
        Some(objects::node(&ctx.info.version, node, usage.time, usage.window, usage.total))
    };
    sources.iter().filter_map(object).collect()
}

async fn pods(ctx: &Context, metrics: &ResourceMetrics, sources: &[Arc<Value>]) -> Vec<Value> {
    let node_of = |pod: &Value| meta::str_at(pod, &["spec", "nodeName"]).to_owned();
    let running = || sources.iter().filter(|pod| meta::str_at(pod, &["status", "phase"]) == "Running");
    let names: BTreeSet<String> = running().map(|pod| node_of(pod)).filter(|node| !node.is_empty()).collect();
    let usages = metrics.of(names).await;
    let object = |pod: &Arc<Value>| {
        let node = node_of(pod);
        let usage = usages.iter().find(|usage| usage.node == node)?;
        let containers = usage.pods.get(&(meta::namespace(pod).to_owned(), meta::name(pod).to_owned()))?;
        Some(objects::pod(&ctx.info.version, pod, usage.time, usage.window, containers))
    };
    running().filter_map(object).collect()
}

//! Requests that are carried on to a kubelet or a pod: logs, exec, attach, port-forward, proxy.
//!
//! Bytes are passed through: after `101 Switching Protocols` the server understands nothing of what is said. The kubelet
//! must show a serving certificate of this cluster, and gets the server's client certificate.

use std::sync::Arc;

use http::header::{CONNECTION, HOST, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde_json::Value;
use trireme_api::gvk::{GroupResource, GroupVersionKind};
use trireme_api::meta;
use trireme_api::status::Status;

use super::Context;
use crate::admission_request::{AdmissionEffects, Operation};
use crate::egress::Stream;
use crate::error::Answer;
use crate::lookup::ObjectReader;
use crate::request_info::query_pairs;
use crate::respond::Body;

const KUBELET_PORT: u16 = 10250;
/// No more is read of what a kubelet says about a log that it does not give.
const MAX_WORDS_BYTES: usize = 50_000;

/// Where a request goes.
struct Target {
    host: String,
    port: u16,
    tls: Option<Arc<rustls::ClientConfig>>,
    /// Path and query.
    path: String,
}

/// Answers a connecting subresource.
pub async fn answer(ctx: &Context) -> Answer<Response<Body>> {
    require_create(ctx).await?;
    let target = match (ctx.info.resource.as_str(), ctx.info.subresource.as_str()) {
        ("pods", "log") => log(ctx).await?,
        ("pods", "exec" | "attach") => exec(ctx).await?,
        ("pods", "portforward") => port_forward(ctx).await?,
        ("nodes", "proxy") => node_proxy(ctx)?,
        ("pods", "proxy") => pod_proxy(ctx).await?,
        ("services", "proxy") => service_proxy(ctx)?,
        _ => return Err(super::method_not_allowed()),
    };
    if ctx.info.subresource == "log" {
        return readable(ctx, forward(ctx, target).await?).await;
    }
    admit(ctx).await?;
    forward(ctx, target).await
}

/// A kubelet says in plain words why there is no log; clients read a Status.
async fn readable(ctx: &Context, response: Response<Body>) -> Answer<Response<Body>> {
    let code = response.status();
    if code.is_success() || code == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(response);
    }
    let (mut body, mut words) = (response.into_body(), Vec::new());
    while words.len() < MAX_WORDS_BYTES {
        let Some(Ok(frame)) = body.frame().await else { break };
        words.extend_from_slice(frame.data_ref().map(|data| &data[..]).unwrap_or_default());
    }
    let words = String::from_utf8_lossy(&words).trim().to_owned();
    Err(match code {
        StatusCode::BAD_REQUEST => Status::bad_request(words),
        StatusCode::INTERNAL_SERVER_ERROR => Status::internal(words),
        StatusCode::NOT_FOUND => {
            Status::failure(404, "NotFound", format!("the server could not find the requested resource ( pods {}): {words}", ctx.info.name))
        }
        other => Status::failure(other.as_u16(), other.canonical_reason().unwrap_or_default(), words),
    }
    .into())
}

/// A WebSocket begins with a GET, but whoever may only read may not run commands: what enters a pod needs `create` too. Upstream's
/// `AuthorizePodWebsocketUpgradeCreatePermission`, on since 1.35.
async fn require_create(ctx: &Context) -> Answer<()> {
    let enters = ctx.info.resource == "pods" && matches!(ctx.info.subresource.as_str(), "exec" | "attach" | "portforward");
    if !enters || ctx.info.verb == "create" {
        return Ok(());
    }
    let mut attributes = ctx.attributes();
    attributes.verb = "create".to_owned();
    crate::filters::authorize(&ctx.server, &attributes).await
}

/// Admission sees connections too.
async fn admit(ctx: &Context) -> Answer<()> {
    let mut mutation = ctx.mutation(false, Value::Null)?;
    let mut request = mutation.admission_request(Operation::Connect, &ctx.info.name, None, None);
    request.kind = GroupVersionKind::new("", "v1", "PodExecOptions");
    let mut effects = AdmissionEffects::default();
    mutation.admit(&mut request, &mut effects).await?;
    mutation.admit_validating(&mut request, &mut effects).await
}

async fn pod_of(ctx: &Context) -> Answer<Value> {
    let (view, row) = ctx.stored()?;
    ctx.server.registry.refresh(row).await?;
    let key = row.key(&ctx.info.namespace, &ctx.info.name);
    let stored = ctx.server.registry.read(row, &key)?;
    Ok(stored.ok_or_else(|| Status::not_found(&view.resource.group_resource(), &ctx.info.name))?.object)
}

fn queries(ctx: &Context) -> Vec<(String, String)> {
    query_pairs(&ctx.query).collect()
}

fn is_true(pairs: &[(String, String)], name: &str) -> bool {
    pairs.iter().any(|(k, v)| k == name && !matches!(v.as_str(), "false" | "0"))
}

/// The container that is meant: the one that was named, or the only one.
fn container(ctx: &Context, pod: &Value, pairs: &[(String, String)]) -> Answer<String> {
    let names = |list: &str| -> Vec<String> {
        meta::list_at(pod, &["spec", list]).iter().filter_map(|c| c.get("name")?.as_str().map(str::to_owned)).collect()
    };
    let (containers, init, ephemeral) = (names("containers"), names("initContainers"), names("ephemeralContainers"));
    let pod_name = &ctx.info.name;
    match pairs.iter().find(|(k, v)| k == "container" && !v.is_empty()) {
        Some((_, wanted)) => {
            if containers.iter().chain(&init).chain(&ephemeral).any(|c| c == wanted) {
                Ok(wanted.clone())
            } else {
                Err(Status::bad_request(format!("container {wanted} is not valid for pod {pod_name}")).into())
            }
        }
        None if containers.len() == 1 => Ok(containers[0].clone()),
        None if containers.is_empty() => Err(Status::bad_request(format!("a container name must be specified for pod {pod_name}")).into()),
        None => {
            let mut message = format!("a container name must be specified for pod {pod_name}, choose one of: [{}]", containers.join(" "));
            if !init.is_empty() {
                message.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            Err(Status::bad_request(message).into())
        }
    }
}

/// The kubelet of the pod's node.
fn kubelet_of(ctx: &Context, pod: &Value, path: String) -> Answer<Target> {
    let node = meta::str_at(pod, &["spec", "nodeName"]);
    if node.is_empty() {
        return Err(Status::bad_request(format!("pod {} does not have a host assigned", ctx.info.name)).into());
    }
    kubelet(ctx, node, path)
}

fn kubelet(ctx: &Context, node_name: &str, path: String) -> Answer<Target> {
    let node = ctx
        .server
        .registry
        .get("", "nodes", "", node_name)
        .ok_or_else(|| Status::not_found(&GroupResource::new("", "nodes"), node_name))?;
    let addresses = meta::list_at(&node.object, &["status", "addresses"]);
    let host = ["InternalIP", "Hostname", "InternalDNS", "ExternalIP"]
        .iter()
        .find_map(|kind| addresses.iter().find(|a| a["type"] == *kind)?.get("address")?.as_str())
        .ok_or_else(|| Status::internal(format!("no preferred addresses found; known addresses: [] of node {node_name}")))?;
    let port = meta::i64_at(&node.object, &["status", "daemonEndpoints", "kubeletEndpoint", "Port"])
        .and_then(|p| u16::try_from(p).ok())
        .filter(|p| *p != 0)
        .unwrap_or(KUBELET_PORT);
    let tls =
        ctx.server.options.kubelet_tls.clone().ok_or_else(|| Status::internal("this server has no client certificate for kubelets"))?;
    Ok(Target { host: host.to_owned(), port, tls: Some(tls), path })
}

fn with_query(path: String, pairs: &[(&str, String)]) -> String {
    if pairs.is_empty() {
        return path;
    }
    let query: Vec<String> = pairs.iter().map(|(k, v)| format!("{k}={}", encode(v))).collect();
    format!("{path}?{}", query.join("&"))
}

/// Percent-encodes a query value.
fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

async fn log(ctx: &Context) -> Answer<Target> {
    const PASSED: [&str; 8] = ["follow", "previous", "timestamps", "sinceSeconds", "sinceTime", "tailLines", "limitBytes", "stream"];
    let pod = pod_of(ctx).await?;
    let pairs = queries(ctx);
    let container = container(ctx, &pod, &pairs)?;
    for key in ["tailLines", "limitBytes", "sinceSeconds"] {
        if let Some((_, v)) = pairs.iter().find(|(k, _)| k == key)
            && v.parse::<i64>().is_err()
        {
            Err(Status::bad_request(format!("strconv.ParseInt: parsing {v:?}: invalid syntax")))?;
        }
    }
    let passed: Vec<(&str, String)> = PASSED
        .iter()
        .filter_map(|key| {
            pairs.iter().find(|(k, _)| k == key).map(|(_, v)| (*key, if v.is_empty() { "true".to_owned() } else { v.clone() }))
        })
        .collect();
    let path = format!("/containerLogs/{}/{}/{container}", ctx.info.namespace, ctx.info.name);
    kubelet_of(ctx, &pod, with_query(path, &passed))
}

async fn exec(ctx: &Context) -> Answer<Target> {
    let pod = pod_of(ctx).await?;
    let pairs = queries(ctx);
    let verb = ctx.info.subresource.as_str();
    let container = container(ctx, &pod, &pairs)?;
    let mut passed = Vec::new();
    for (theirs, ours) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
        if is_true(&pairs, theirs) {
            passed.push((ours, "1".to_owned()));
        }
    }
    let commands: Vec<(&str, String)> = pairs.iter().filter(|(k, _)| k == "command").map(|(_, v)| ("command", v.clone())).collect();
    if verb == "exec" && commands.is_empty() {
        Err(Status::bad_request("you must specify at least 1 command for the container"))?;
    }
    if !["input", "output", "error"].iter().any(|s| passed.iter().any(|(k, _)| k == s)) {
        Err(Status::bad_request("you must specify at least 1 of stdin, stdout, stderr"))?;
    }
    passed.extend(commands);
    let path = format!("/{verb}/{}/{}/{container}", ctx.info.namespace, ctx.info.name);
    kubelet_of(ctx, &pod, with_query(path, &passed))
}

async fn port_forward(ctx: &Context) -> Answer<Target> {
    let pod = pod_of(ctx).await?;
    let ports: Vec<(&str, String)> = queries(ctx).into_iter().filter(|(k, _)| k == "ports").map(|(_, v)| ("port", v)).collect();
    let path = format!("/portForward/{}/{}", ctx.info.namespace, ctx.info.name);
    kubelet_of(ctx, &pod, with_query(path, &ports))
}

/// The path after `/proxy`, with the query as it was sent.
fn trailing(ctx: &Context) -> String {
    let mut path = format!("/{}", ctx.info.trailing.join("/"));
    if ctx.info.path.ends_with('/') && !path.ends_with('/') {
        path.push('/');
    }
    if !ctx.query.is_empty() {
        path.push('?');
        path.push_str(&ctx.query);
    }
    path
}

fn node_proxy(ctx: &Context) -> Answer<Target> {
    let (name, _) = ctx.info.name.split_once(':').unwrap_or((&ctx.info.name, ""));
    kubelet(ctx, name, trailing(ctx))
}

async fn pod_proxy(ctx: &Context) -> Answer<Target> {
    let (name, port) = ctx.info.name.split_once(':').unwrap_or((&ctx.info.name, ""));
    let pod = ctx
        .server
        .registry
        .get("", "pods", &ctx.info.namespace, name)
        .ok_or_else(|| Status::not_found(&GroupResource::new("", "pods"), name))?;
    let ip = meta::str_at(&pod.object, &["status", "podIP"]);
    if ip.is_empty() {
        return Err(Status::service_unavailable(format!("address not allowed: pod {name} has no address")).into());
    }
    let port = match port.parse::<u16>() {
        Ok(port) => port,
        Err(_) => meta::list_at(&pod.object, &["spec", "containers"])
            .iter()
            .flat_map(|c| meta::list_at(c, &["ports"]))
            .find(|p| port.is_empty() || p["name"] == port)
            .and_then(|p| p.get("containerPort")?.as_u64())
            .and_then(|p| u16::try_from(p).ok())
            .unwrap_or(80),
    };
    Ok(Target { host: ip.to_owned(), port, tls: None, path: trailing(ctx) })
}

/// Services are resolved to an endpoint in process, so this works on a server that is no node.
fn service_proxy(ctx: &Context) -> Answer<Target> {
    let parts: Vec<&str> = ctx.info.name.split(':').collect();
    let (name, port) = match parts.as_slice() {
        [name] => (*name, ""),
        [name, port] => (*name, *port),
        [_, name, port] => (*name, *port),
        _ => return Err(Status::bad_request(format!("invalid service request {:?}", ctx.info.name)).into()),
    };
    let unavailable = || Status::service_unavailable(format!("no endpoints available for service {:?}", ctx.info.name));
    let service = ctx
        .server
        .registry
        .get("", "services", &ctx.info.namespace, name)
        .ok_or_else(|| Status::not_found(&GroupResource::new("", "services"), name))?;
    let wanted = meta::list_at(&service.object, &["spec", "ports"])
        .iter()
        .find(|p| port.is_empty() || p["name"] == port || p["port"].as_u64().is_some_and(|number| port.parse() == Ok(number)))
        .ok_or_else(|| Status::service_unavailable(format!("no service port {port:?} found for service {name:?}")))?;
    let port_name = wanted.get("name").and_then(Value::as_str).unwrap_or_default();
    let slices = ctx.server.registry.list("discovery.k8s.io", "endpointslices", Some(&ctx.info.namespace));
    let mut candidates = Vec::new();
    for slice in slices.iter().filter(|s| meta::label(&s.object, "kubernetes.io/service-name") == Some(name)) {
        let Some(port) = meta::list_at(&slice.object, &["ports"])
            .iter()
            .find(|p| p.get("name").and_then(Value::as_str).unwrap_or_default() == port_name)
            .and_then(|p| p.get("port")?.as_u64())
            .and_then(|p| u16::try_from(p).ok())
        else {
            continue;
        };
        for endpoint in meta::list_at(&slice.object, &["endpoints"]) {
            if meta::get(endpoint, &["conditions", "ready"]) != Some(&Value::Bool(false))
                && let Some(address) = meta::list_at(endpoint, &["addresses"]).first().and_then(Value::as_str)
            {
                candidates.push((address.to_owned(), port));
            }
        }
    }
    if candidates.is_empty() {
        return Err(unavailable().into());
    }
    let (host, port) = candidates.swap_remove(rand::Rng::random_range(&mut rand::rng(), 0..candidates.len()));
    Ok(Target { host, port, tls: None, path: trailing(ctx) })
}

/// Headers that belong to one hop.
const HOP: [&str; 8] =
    ["connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade"];

fn copied(headers: &HeaderMap) -> HeaderMap {
    let mut out = HeaderMap::new();
    for (name, value) in headers {
        let hop = HOP.contains(&name.as_str()) || name == HOST || name == http::header::CONTENT_LENGTH;
        // Credentials and impersonation are for this server only.
        if !hop
            && name != http::header::AUTHORIZATION
            && !name.as_str().starts_with("impersonate-")
            && !name.as_str().starts_with("x-remote-")
        {
            out.append(name.clone(), value.clone());
        }
    }
    out
}

async fn forward(ctx: &Context, target: Target) -> Answer<Response<Body>> {
    let dial = |error: &dyn std::fmt::Display| Status::service_unavailable(format!("error trying to reach service: {error}"));
    let stream = ctx.server.options.egress.connect(&target.host, target.port).await.map_err(|e| dial(&e))?;
    let stream: Box<dyn Stream> = match &target.tls {
        None => stream,
        Some(config) => {
            let name = ServerName::try_from(target.host.clone()).map_err(|e| dial(&e))?;
            let stream = tokio_rustls::TlsConnector::from(config.clone()).connect(name, stream).await.map_err(|e| dial(&e))?;
            Box::new(stream)
        }
    };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| dial(&e))?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "connection to a node or pod ended");
        }
    });
    let upgrade = ctx.headers.get(UPGRADE).cloned();
    let mut request = Request::new(Full::new(ctx.body.clone()));
    *request.method_mut() = ctx.method.clone();
    *request.uri_mut() = target.path.parse::<Uri>().map_err(|e| Status::bad_request(e.to_string()))?;
    *request.headers_mut() = copied(&ctx.headers);
    let host =
        if target.host.contains(':') { format!("[{}]:{}", target.host, target.port) } else { format!("{}:{}", target.host, target.port) };
    request.headers_mut().insert(HOST, HeaderValue::from_str(&host).map_err(|e| Status::bad_request(e.to_string()))?);
    if let Some(protocol) = &upgrade {
        request.headers_mut().insert(UPGRADE, protocol.clone());
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    }
    let mut response = sender.send_request(request).await.map_err(|e| dial(&e))?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(client) = ctx.upgrade.lock().take() else {
            return Err(Status::bad_request("Upgrade request required").into());
        };
        let node = hyper::upgrade::on(&mut response);
        let stopping = ctx.server.stopping.clone();
        tokio::spawn(async move {
            let (client, node) = match tokio::try_join!(client, node) {
                Ok(both) => both,
                Err(error) => return tracing::debug!(%error, "upgrade failed"),
            };
            let (mut client, mut node) = (TokioIo::new(client), TokioIo::new(node));
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut client, &mut node) => {}
                () = stopping.cancelled() => {}
            }
        });
        let mut switched = Response::new(Body::default());
        *switched.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        for (name, value) in response.headers() {
            switched.headers_mut().append(name.clone(), value.clone());
        }
        return Ok(switched);
    }
    let (parts, body) = response.into_parts();
    let body = body.map_err(|e| Box::new(e) as crate::respond::BoxError).boxed_unsync();
    let mut answer = Response::new(body);
    *answer.status_mut() = parts.status;
    for (name, value) in &parts.headers {
        if !HOP.contains(&HeaderName::as_str(name)) {
            answer.headers_mut().append(name.clone(), value.clone());
        }
    }
    Ok(answer)
}

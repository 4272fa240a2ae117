//! The paths of the kubelet API, and how a request names a container.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Path, RawQuery, Request, State},
    http::StatusCode,
    middleware,
    response::{IntoResponse, Response},
    routing::{any, delete, get, post},
};
use serde_json::json;
use trireme_client::storage::LOCAL_VOLUMES_PATH;
use trireme_proto::cri;

use super::{
    checkpoint,
    context::Api,
    guard, local_volumes, logs, metrics,
    request::{answer_json, find_container, pod_uid, query, refuse, values},
    stats, streams,
    upstream::Wanted,
};

/// Where an operator's command finds this node's certificates, through the API server's proxy to nodes.
const NODE_CERTIFICATES_PATH: &str = "/trireme/certificates";

/// Everything on 10250.
pub(crate) fn all(api: Arc<Api>) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/healthz/{*rest}", get(healthz))
        .route("/pods", get(pods))
        .route("/containerLogs/{namespace}/{pod}/{container}", get(logs::serve))
        .route("/exec/{namespace}/{pod}/{container}", any(exec))
        .route("/exec/{namespace}/{pod}/{uid}/{container}", any(exec_uid))
        .route("/attach/{namespace}/{pod}/{container}", any(attach))
        .route("/attach/{namespace}/{pod}/{uid}/{container}", any(attach_uid))
        .route("/portForward/{namespace}/{pod}", any(port_forward))
        .route("/portForward/{namespace}/{pod}/{uid}", any(port_forward_uid))
        .route("/checkpoint/{namespace}/{pod}/{container}", post(checkpoint::serve))
        .route("/stats/summary", get(stats::summary))
        .route("/metrics", get(metrics::kubelet))
        .route("/metrics/cadvisor", get(metrics::containers))
        .route("/metrics/resource", get(metrics::resource))
        .route("/metrics/probes", get(metrics::probes))
        .route(NODE_CERTIFICATES_PATH, get(certificates))
        .route(&format!("{NODE_CERTIFICATES_PATH}/rotate"), post(rotate_certificates))
        .route(&format!("{LOCAL_VOLUMES_PATH}/{{name}}"), delete(local_volumes::remove))
        .layer(middleware::from_fn_with_state(api.clone(), guard::guard))
        .with_state(api)
}

/// The routes on 10248, for every process on this host.
pub(crate) fn health(api: Arc<Api>) -> Router {
    Router::new().route("/healthz", get(healthz)).with_state(api)
}

async fn healthz(State(api): State<Arc<Api>>) -> Response {
    // The agent itself is healthy while it waits for a runtime; the node's Ready condition tells of that.
    let _ = api;
    "ok".into_response()
}

async fn certificates(State(api): State<Arc<Api>>) -> Response {
    let Some(certificates) = &api.core.options.certificates else { return StatusCode::NOT_FOUND.into_response() };
    answer_certificates(certificates.show())
}

async fn rotate_certificates(State(api): State<Arc<Api>>) -> Response {
    let Some(certificates) = &api.core.options.certificates else { return StatusCode::NOT_FOUND.into_response() };
    answer_certificates(certificates.rotate().await)
}

fn answer_certificates(outcome: Result<serde_json::Value, String>) -> Response {
    match outcome {
        Ok(list) => answer_json(&list),
        Err(reason) => refuse(StatusCode::INTERNAL_SERVER_ERROR, reason),
    }
}

async fn pods(State(api): State<Arc<Api>>) -> Response {
    let items: Vec<serde_json::Value> = api.core.pods.list().iter().filter_map(|pod| serde_json::to_value(&**pod).ok()).collect();
    answer_json(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}

async fn running(api: &Api, namespace: &str, pod: &str, container: &str) -> Result<String, Response> {
    let found = find_container(api, namespace, pod, container).await?;
    if found.state != cri::ContainerState::ContainerRunning as i32 {
        return Err(refuse(StatusCode::BAD_REQUEST, format!("container not running ({})", found.id)));
    }
    Ok(found.id)
}

fn answer(result: Result<Response, Response>) -> Response {
    result.unwrap_or_else(|refusal| refusal)
}

async fn exec(
    State(api): State<Arc<Api>>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    RawQuery(raw): RawQuery,
    request: Request,
) -> Response {
    let query = query(raw.as_deref());
    let serve = async {
        let container_id = running(&api, &namespace, &pod, &container).await?;
        let wanted = Wanted::of(&query)?;
        let call = cri::ExecRequest {
            container_id,
            cmd: values(&query, &["command"]),
            tty: wanted.tty,
            stdin: wanted.stdin,
            stdout: wanted.stdout,
            stderr: wanted.stderr,
        };
        let url = api.core.runtime.exec(call).await.map_err(|e| refuse(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?;
        streams::remote_command(request, url, wanted).await
    };
    answer(serve.await)
}

async fn exec_uid(
    state: State<Arc<Api>>,
    Path((namespace, pod, _, container)): Path<(String, String, String, String)>,
    raw: RawQuery,
    request: Request,
) -> Response {
    exec(state, Path((namespace, pod, container)), raw, request).await
}

async fn attach(
    State(api): State<Arc<Api>>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    RawQuery(raw): RawQuery,
    request: Request,
) -> Response {
    let query = query(raw.as_deref());
    let serve = async {
        let container_id = running(&api, &namespace, &pod, &container).await?;
        let mut wanted = Wanted::of(&query)?;
        // Whether there is a terminal was decided when the container was made.
        let spec = api.core.pods.get(&namespace, &pod);
        wanted.tty = spec.as_deref().and_then(|p| crate::pod::spec::container(p, &container)).is_some_and(|(_, c)| c.tty == Some(true));
        wanted.stderr &= !wanted.tty;
        let call = cri::AttachRequest { container_id, stdin: wanted.stdin, tty: wanted.tty, stdout: wanted.stdout, stderr: wanted.stderr };
        let url = api.core.runtime.attach(call).await.map_err(|e| refuse(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?;
        streams::remote_command(request, url, wanted).await
    };
    answer(serve.await)
}

async fn attach_uid(
    state: State<Arc<Api>>,
    Path((namespace, pod, _, container)): Path<(String, String, String, String)>,
    raw: RawQuery,
    request: Request,
) -> Response {
    attach(state, Path((namespace, pod, container)), raw, request).await
}

async fn port_forward(
    State(api): State<Arc<Api>>,
    Path((namespace, pod)): Path<(String, String)>,
    RawQuery(raw): RawQuery,
    request: Request,
) -> Response {
    let query = query(raw.as_deref());
    let serve = async {
        let uid = pod_uid(&api, &namespace, &pod)?;
        let sandboxes =
            api.core.runtime.list_sandboxes(Some(&uid)).await.map_err(|e| refuse(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?;
        let ready = sandboxes.into_iter().find(|s| s.state == cri::PodSandboxState::SandboxReady as i32);
        let sandbox =
            ready.ok_or_else(|| refuse(StatusCode::NOT_FOUND, format!("not able to find pod sandbox for pod \"{pod}_{namespace}\"")))?;
        let listed = values(&query, &["port", "ports"]);
        let ports: Vec<u16> = listed
            .iter()
            .flat_map(|v| v.split(','))
            .filter(|p| !p.is_empty())
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map_err(|_| refuse(StatusCode::BAD_REQUEST, format!("invalid port in {listed:?}")))?;
        let url = api
            .core
            .runtime
            .port_forward(&sandbox.id, ports.iter().map(|p| i32::from(*p)).collect())
            .await
            .map_err(|e| refuse(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?;
        streams::port_forward(request, url, ports).await
    };
    answer(serve.await)
}

async fn port_forward_uid(
    state: State<Arc<Api>>,
    Path((namespace, pod, _)): Path<(String, String, String)>,
    raw: RawQuery,
    request: Request,
) -> Response {
    port_forward(state, Path((namespace, pod)), raw, request).await
}

//! Checkpoints of containers: `POST /checkpoint/NAMESPACE/POD/CONTAINER`.
//!
//! The runtime writes the archive, below the kubelet's folder; one that cannot do it says so, and the caller is told. Answers to
//! <https://kubernetes.io/docs/reference/node/kubelet-checkpoint-api/>.

// A refusal is a whole response; it is made once for a request that fails.
#![allow(clippy::result_large_err)]

use std::{path::PathBuf, sync::Arc, time::Duration};

use axum::{
    extract::{Path, RawQuery, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::{
    context::Api,
    request::{answer_json, find_container, pod_uid, query, refuse, values},
};
use crate::{files, pod::spec};

/// The folder of the archives, below the kubelet's own. Its mode is 0700: an archive holds the memory of a container.
const FOLDER: &str = "checkpoints";
/// The longest that a caller may ask the runtime to take.
const LONGEST: Duration = Duration::from_secs(3600);

pub(super) async fn serve(
    State(api): State<Arc<Api>>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    RawQuery(raw): RawQuery,
) -> Response {
    match make(&api, &namespace, &pod, &container, raw.as_deref()).await {
        Ok(archive) => answer_json(&json!({"items": [archive]})),
        Err(refusal) => refusal.into_response(),
    }
}

async fn make(api: &Api, namespace: &str, pod: &str, container: &str, raw: Option<&str>) -> Result<PathBuf, Response> {
    pod_uid(api, namespace, pod)?;
    let known = api.core.pods.get(namespace, pod).is_some_and(|object| spec::container(&object, container).is_some());
    if !known {
        return Err(refuse(StatusCode::NOT_FOUND, format!("container {container} does not exist")));
    }
    let timeout = timeout(raw)?;
    let failed =
        |why: String| refuse(StatusCode::INTERNAL_SERVER_ERROR, format!("checkpointing of {namespace}/{pod}/{container} failed ({why})"));
    let found = find_container(api, namespace, pod, container).await.map_err(|_| failed(format!("container {container} not found")))?;
    let folder = api.core.options.data_dir.join(FOLDER);
    files::make_directories(&folder, 0o700).map_err(|error| failed(error.to_string()))?;
    // The names are those of objects that exist: none has a slash.
    let archive = folder.join(format!("checkpoint-{pod}_{namespace}-{container}-{}.tar", api.core.now()));
    api.core.runtime.checkpoint(&found.id, &archive, timeout).await.map_err(|error| failed(error.to_string()))?;
    Ok(archive)
}

/// The last `timeout` in seconds; zero is the runtime's own.
fn timeout(raw: Option<&str>) -> Result<Duration, Response> {
    let query = query(raw);
    let Some(text) = values(&query, &["timeout"]).pop() else { return Ok(Duration::ZERO) };
    let seconds: Option<u64> = text.parse().ok();
    match seconds.map(Duration::from_secs).filter(|timeout| *timeout <= LONGEST) {
        Some(timeout) => Ok(timeout),
        // The code is upstream's.
        None => Err(refuse(StatusCode::NOT_FOUND, "cannot parse value of timeout parameter")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{
        collections::HashMap,
        net::{IpAddr, Ipv4Addr},
        os::unix::fs::PermissionsExt,
    };

    use axum::{Extension, body::Body};
    use http::{Method, Request};
    use tokio_util::sync::CancellationToken;
    use tonic::Code;
    use tower::ServiceExt;
    use trireme_proto::cri;

    use super::*;
    use crate::{
        api_double as api,
        cgroup::Cgroups,
        clock::Clock,
        core::{Core, Seams},
        metrics::Operations,
        options::KubeletOptions,
        pods::Pods,
        runtime::{Runtime, double::Double, keys},
        server::{
            auth::{Auth, Peer},
            removals::Removals,
            routes,
        },
    };

    #[tokio::test]
    async fn the_runtime_writes_the_archive_or_says_that_it_cannot() {
        let dir = tempfile::tempdir().unwrap();
        let objects = api::Api::new();
        let pod =
            json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u"}, "spec": {"nodeName": "n1", "containers": [{"name": "c"}]}});
        objects.put("/api/v1/namespaces/ns/pods/p", pod);
        let options = KubeletOptions::new("n1", IpAddr::V4(Ipv4Addr::LOCALHOST), dir.path().join("agent"), objects.client());
        let clock = Clock::simulated("2026-01-01T00:00:00Z".parse().unwrap());
        let runtime = Double::new(clock.clone());
        let labels = [(keys::POD_UID, "u"), (keys::CONTAINER_NAME, "c")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        let config = cri::ContainerConfig { labels: HashMap::from(labels), ..Default::default() };
        let id = runtime.create_container("s", config, cri::PodSandboxConfig::default()).await.unwrap();
        let seams =
            Seams { runtime: Arc::new(runtime.clone()), operations: Operations::new(), clock, cgroups: Cgroups::below("/", dir.path()) };
        let cancel = CancellationToken::new();
        let core = Core::new(options, seams, Arc::new(|_| {}), &cancel);
        core.pods.wait_synced().await;
        let pods = Pods::new(core.clone(), Arc::default(), cancel.clone());
        let api = Arc::new(Api { auth: Auth::new(core.client.clone(), "n1"), core, pods, removals: Removals::default() });
        let router = routes::all(api).layer(Extension(Peer(None)));
        let ask = |path: &str, token: &str| {
            let request = Request::builder().method(Method::POST).uri(format!("/checkpoint/{path}"));
            let request = request.header("authorization", format!("Bearer {token}")).body(Body::empty()).unwrap();
            let router = router.clone();
            async move {
                let answer = router.oneshot(request).await.unwrap();
                let code = answer.status().as_u16();
                let body = axum::body::to_bytes(answer.into_body(), 1 << 16).await.unwrap();
                (code, String::from_utf8_lossy(&body).into_owned())
            }
        };
        assert_eq!(ask("ns/p/c", "bad").await.0, 401);
        let folder = dir.path().join("agent/checkpoints");
        let archive = format!("{}/checkpoint-p_ns-c-2026-01-01T00:00:00Z.tar", folder.display());
        assert_eq!(ask("ns/p/c?timeout=5", "good").await, (200, json!({"items": [archive]}).to_string()));
        assert!(runtime.calls().contains(&format!("checkpoint {id} to {archive}")), "{:?}", runtime.calls());
        assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        runtime.fail("CheckpointContainer", Code::Unimplemented, "unknown method CheckpointContainer");
        let (code, why) = ask("ns/p/c", "good").await;
        assert!(code == 500 && why.starts_with("checkpointing of ns/p/c failed (") && why.contains("unknown method"), "{code} {why}");
        for (path, code) in [("ns/q/c", 404), ("ns/p/d", 404), ("ns/p/c?timeout=-1", 404), ("ns/p/c?timeout=99999999", 404)] {
            assert_eq!(ask(path, "good").await.0, code, "{path}");
        }
    }
}

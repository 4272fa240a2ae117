//! One probe attempt of any kind.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Probe};
use tonic::transport::Endpoint;

use super::http::{self, Answer, Request};
use crate::{container::env, core::Core};

/// At most this much of a command's output is reported.
const MAX_OUTPUT_BYTES: usize = 10 << 10;

/// What one attempt says.
pub(crate) enum Outcome {
    Success,
    /// A success with a warning for the pod's owner.
    Warning(String),
    Failure(String),
    /// The attempt could not be made at all.
    Unknown(String),
}

/// Makes one attempt.
pub(crate) async fn check(core: &Core, container: &Container, probe: &Probe, id: &str, pod_ip: &str) -> Outcome {
    let timeout = Duration::from_secs(u64::try_from(probe.timeout_seconds.unwrap_or(1).max(1)).unwrap_or(1));
    if let Some(action) = &probe.exec {
        let fixed = |name: &str| container.env.iter().flatten().rfind(|e| e.name == name).and_then(|e| e.value.clone());
        let command = action.command.iter().flatten().map(|word| env::expand(word, fixed)).collect();
        return exec(core, id, command, timeout).await;
    }
    if let Some(action) = &probe.http_get {
        let request = match Request::of(action, container, pod_ip, "probe") {
            Ok(request) => request,
            Err(why) => return Outcome::Unknown(why),
        };
        return match http::get(&request, timeout).await {
            Ok(Answer { status: 200..300, .. }) => Outcome::Success,
            Ok(Answer { status: 300..400, body }) => {
                Outcome::Warning(format!("Probe terminated redirects, Response body: {}", String::from_utf8_lossy(&body)))
            }
            Ok(Answer { status, .. }) => Outcome::Failure(format!("HTTP probe failed with statuscode: {status}")),
            Err(why) => Outcome::Failure(why.to_string()),
        };
    }
    if let Some(action) = &probe.tcp_socket {
        let host = action.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(pod_ip);
        let port = match http::port(&action.port, container) {
            Ok(port) => port,
            Err(why) => return Outcome::Unknown(why),
        };
        return match tokio::time::timeout(timeout, http::dial(host, port)).await {
            Ok(Ok(_)) => Outcome::Success,
            Ok(Err(why)) => Outcome::Failure(why),
            Err(_) => Outcome::Failure(format!("dial tcp {host}:{port}: i/o timeout")),
        };
    }
    if let Some(action) = &probe.grpc {
        let port = u16::try_from(action.port).unwrap_or_default();
        return match tokio::time::timeout(timeout, grpc(pod_ip, port, action.service.clone().unwrap_or_default())).await {
            Ok(Ok(1)) => Outcome::Success,
            Ok(Ok(_)) => Outcome::Failure("service unhealthy (responded with \"NOT_SERVING\")".into()),
            Ok(Err(why)) => Outcome::Failure(why),
            Err(_) => Outcome::Failure(format!(
                "timeout: failed to connect service \"{pod_ip}:{port}\" within {}s: context deadline exceeded",
                timeout.as_secs()
            )),
        };
    }
    Outcome::Unknown("missing probe handler".into())
}

async fn exec(core: &Core, id: &str, command: Vec<String>, timeout: Duration) -> Outcome {
    match core.runtime.exec_sync(id, command.clone(), timeout).await {
        Ok(response) if response.exit_code == 0 => Outcome::Success,
        Ok(response) => {
            let mut output = response.stdout.to_vec();
            output.extend_from_slice(&response.stderr);
            output.truncate(MAX_OUTPUT_BYTES);
            Outcome::Failure(String::from_utf8_lossy(&output).into_owned())
        }
        Err(crate::Error::Runtime { code: tonic::Code::DeadlineExceeded, .. }) => {
            Outcome::Failure(format!("command timed out: {command:?} timed out after {}s", timeout.as_secs()))
        }
        Err(e) if e.is_runtime_away() => Outcome::Unknown(e.to_string()),
        Err(e) => Outcome::Failure(e.to_string()),
    }
}

/// grpc.health.v1.Health/Check; 1 means SERVING.
async fn grpc(host: &str, port: u16, service: String) -> Result<i32, String> {
    #[derive(Clone, PartialEq, prost::Message)]
    struct CheckRequest {
        #[prost(string, tag = "1")]
        service: String,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct CheckResponse {
        #[prost(int32, tag = "1")]
        status: i32,
    }
    let shown = if host.contains(':') { format!("[{host}]") } else { host.to_string() };
    let endpoint = Endpoint::from_shared(format!("http://{shown}:{port}")).map_err(|e| e.to_string())?;
    let channel =
        endpoint.connect().await.map_err(|_| format!("timeout: failed to connect service \"{shown}:{port}\": connection refused"))?;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|e| e.to_string())?;
    let codec = tonic_prost::ProstCodec::<CheckRequest, CheckResponse>::default();
    let path = http_path("/grpc.health.v1.Health/Check");
    let response = client.unary(tonic::Request::new(CheckRequest { service }), path, codec).await;
    response.map(|r| r.into_inner().status).map_err(|status| format!("rpc error: code = {:?} desc = {}", status.code(), status.message()))
}

fn http_path(path: &'static str) -> ::http::uri::PathAndQuery {
    ::http::uri::PathAndQuery::from_static(path)
}

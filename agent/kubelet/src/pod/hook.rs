//! postStart and preStop hooks. Answers to
//! <https://kubernetes.io/docs/concepts/containers/container-lifecycle-hooks/>.

use std::time::Duration;

use k8s_openapi::api::core::v1::{LifecycleHandler, Pod};
use trireme_client::EventKind;

use super::spec;
use crate::{
    core::Core,
    probe::http::{self, Failure, Request},
};

/// Upstream has no limit. A postStart hook that hangs this long blocks its container's start and counts as failed.
const MAX_HTTP: Duration = Duration::from_secs(30 * 60);

/// A hook of one running container.
pub(crate) struct Hook<'a> {
    pub(crate) pod: &'a Pod,
    /// The container's name.
    pub(crate) container: &'a str,
    /// The container's id in the runtime.
    pub(crate) id: &'a str,
    pub(crate) pod_ip: &'a str,
    pub(crate) handler: &'a LifecycleHandler,
}

/// Runs a hook to its end. The caller bounds the time.
pub(crate) async fn run(core: &Core, hook: &Hook<'_>) -> Result<(), String> {
    let Some((_, container)) = spec::container(hook.pod, hook.container) else { return Ok(()) };
    if let Some(exec) = &hook.handler.exec {
        let command = exec.command.clone().unwrap_or_default();
        let response = core.runtime.exec_sync(hook.id, command.clone(), Duration::ZERO).await.map_err(|e| e.to_string())?;
        return match response.exit_code {
            0 => Ok(()),
            code => Err(format!(
                "command '{}' exited with {code}: {}{}",
                command.join(" "),
                String::from_utf8_lossy(&response.stderr),
                String::from_utf8_lossy(&response.stdout)
            )),
        };
    }
    if let Some(action) = &hook.handler.http_get {
        let request = Request::of(action, &container, hook.pod_ip, "lifecycle")?;
        return notify(core, hook, request).await;
    }
    if let Some(sleep) = &hook.handler.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or_default())).await;
        return Ok(());
    }
    if hook.handler.tcp_socket.is_some() {
        return Err("invalid handler: tcpSocket is not supported as a lifecycle hook".into());
    }
    Ok(())
}

/// An HTTP hook is a notification: any answer will do. If HTTPS is asked for and the server speaks plain HTTP, the request is repeated
/// over plain HTTP.
async fn notify(core: &Core, hook: &Hook<'_>, request: Request) -> Result<(), String> {
    let failure = match http::get(&request, MAX_HTTP).await {
        Ok(_) => return Ok(()),
        Err(failure) => failure,
    };
    if !matches!(failure, Failure::PlainAnswer(_)) {
        return Err(failure.to_string());
    }
    let plain = request.without_tls();
    http::get(&plain, MAX_HTTP).await.map_err(|e| e.to_string())?;
    let text = format!("request to HTTPS lifecycle hook {} got HTTP response, retry with HTTP succeeded", plain.authority());
    core.events.pod(hook.pod, EventKind::Warning, "LifecycleHTTPFallback", &text);
    Ok(())
}

//! Takes every pod of a stopped kubelet out of a runtime: what a host's clean-up begins with.
//!
//! Removes only sandboxes that carry a kubelet's labels; what others run in the same runtime stays.

use std::path::PathBuf;

use futures::{StreamExt, stream};
use trireme_proto::cri;

use crate::{error::Result, runtime::Runtime};

const POD_UID: &str = "io.kubernetes.pod.uid";
/// Sandboxes stopped at once: each costs the runtime processes.
const AT_ONCE: usize = 4;

/// Stops and removes the pods in the runtime behind `socket`; returns how many there were. Nobody serving the socket
/// is an error.
pub async fn remove_all_pods(socket: &str) -> Result<usize> {
    let runtime = Runtime::new(PathBuf::from(socket.strip_prefix("unix://").unwrap_or(socket)));
    let all = runtime.list_sandboxes(None).await?;
    let ours: Vec<cri::PodSandbox> = all.into_iter().filter(|s| s.labels.contains_key(POD_UID)).collect();
    let count = ours.len();
    let mut results = stream::iter(ours).map(|sandbox| remove(runtime.clone(), sandbox.id)).buffer_unordered(AT_ONCE);
    while let Some(result) = results.next().await {
        result?;
    }
    Ok(count)
}

async fn remove(runtime: Runtime, id: String) -> Result<()> {
    for container in runtime.list_containers(None).await?.into_iter().filter(|c| c.pod_sandbox_id == id) {
        runtime.stop_container(&container.id, 0).await?;
        runtime.remove_container(&container.id).await?;
    }
    runtime.stop_sandbox(&id).await?;
    runtime.remove_sandbox(&id).await
}

//! The runtime handler of a pod, and what it can do.
//!
//! Answers to <https://kubernetes.io/docs/concepts/containers/runtime-class/>.

use k8s_openapi::api::{
    core::v1::{Container, Pod},
    node::v1::RuntimeClass,
};

use super::spec;
use crate::{
    core::Core,
    error::{Error, Result},
};

/// The handler of the pod's RuntimeClass; empty for the runtime's default.
pub(crate) async fn runtime_handler(core: &Core, pod: &Pod) -> Result<String> {
    let Some(class) = spec::pod_spec(pod).runtime_class_name.as_deref().filter(|name| !name.is_empty()) else {
        return Ok(String::new());
    };
    match core.client.get::<RuntimeClass>(None, class).await {
        Ok(found) => Ok(found.handler),
        Err(e) if e.is_not_found() => Err(Error::Config(format!("runtimeclass.node.k8s.io {class:?} not found"))),
        Err(e) => Err(Error::Config(format!("failed to lookup RuntimeClass {class}: {e}"))),
    }
}

/// Whether the pod's handler mounts what is below a read-only mount read-only too. The runtime is asked only if the container wants that.
pub(crate) async fn mounts_recursively_read_only(core: &Core, pod: &Pod, container: &Container) -> Result<bool> {
    let mut modes = container.volume_mounts.iter().flatten().filter_map(|mount| mount.recursive_read_only.as_deref());
    if !modes.any(|mode| mode != "Disabled") {
        return Ok(false);
    }
    let name = runtime_handler(core, pod).await?;
    let handlers = core.runtime.status().await?.runtime_handlers;
    let features = handlers.iter().find(|handler| handler.name == name).and_then(|handler| handler.features);
    Ok(features.is_some_and(|features| features.recursive_read_only_mounts))
}

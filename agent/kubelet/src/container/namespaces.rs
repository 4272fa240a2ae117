//! The kernel namespaces that a container or sandbox shares, and with which other one. Pure.

use k8s_openapi::api::core::v1::Pod;
use trireme_proto::cri;

use crate::pod::spec;

/// Of the sandbox, and of every container that sees no other's processes.
pub(crate) fn of_pod(pod: &Pod) -> cri::NamespaceOption {
    let pod_spec = spec::pod_spec(pod);
    let node_or_pod = |host: Option<bool>| if host == Some(true) { cri::NamespaceMode::Node } else { cri::NamespaceMode::Pod };
    let pid = match (pod_spec.host_pid, pod_spec.share_process_namespace) {
        (Some(true), _) => cri::NamespaceMode::Node,
        (_, Some(true)) => cri::NamespaceMode::Pod,
        _ => cri::NamespaceMode::Container,
    };
    cri::NamespaceOption {
        network: node_or_pod(pod_spec.host_network) as i32,
        pid: pid as i32,
        ipc: node_or_pod(pod_spec.host_ipc) as i32,
        target_id: String::new(),
    }
}

/// Of one container. One with a target sees the target's processes, unless all processes of the pod or the host are seen anyway.
pub(crate) fn of_container(pod: &Pod, target_id: Option<&str>) -> cri::NamespaceOption {
    let mut options = of_pod(pod);
    if let Some(target) = target_id.filter(|_| options.pid == cri::NamespaceMode::Container as i32) {
        options.pid = cri::NamespaceMode::Target as i32;
        options.target_id = target.into();
    }
    options
}

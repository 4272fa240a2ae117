//! The sandbox: the namespaces that a pod's containers share.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::Pod;
use trireme_proto::cri;

use super::{dns, resources, security};
use crate::{
    error::{Error, Result},
    host_ports::{self, HostPortMapping, HostPortProtocol},
    options::KubeletOptions,
    pod::spec,
    runtime::keys,
};

/// The pod's host name without a domain: at most 63 characters, not ending in punctuation.
pub(crate) fn short_hostname(pod: &Pod) -> String {
    let wanted = spec::pod_spec(pod).hostname.as_deref().filter(|h| !h.is_empty()).unwrap_or(spec::name(pod));
    let cut: String = wanted.chars().take(63).collect();
    cut.trim_end_matches(['-', '.']).to_string()
}

/// `<subdomain>.<namespace>.svc.<cluster domain>` of a pod that has a subdomain.
pub(crate) fn domain(pod: &Pod, cluster_domain: &str) -> Option<String> {
    let subdomain = spec::pod_spec(pod).subdomain.as_deref().filter(|s| !s.is_empty())?;
    Some(format!("{subdomain}.{}.svc.{cluster_domain}", spec::namespace(pod)))
}

fn hostname(pod: &Pod, cluster_domain: &str) -> Result<String> {
    let pod_spec = spec::pod_spec(pod);
    // On the host's network the runtime would refuse to set a host name.
    if spec::is_host_network(pod) {
        return Ok(String::new());
    }
    if let Some(name) = pod_spec.hostname_override.as_deref().filter(|h| !h.is_empty()) {
        return Ok(name.to_string());
    }
    let short = short_hostname(pod);
    match domain(pod, cluster_domain) {
        Some(domain) if pod_spec.set_hostname_as_fqdn == Some(true) => {
            let full = format!("{short}.{domain}");
            if full.len() > 64 {
                return Err(Error::Config(format!(
                    "Failed to construct FQDN from Pod hostname and cluster domain, FQDN {full} is too long (64 characters is the max, {} characters requested)",
                    full.len()
                )));
            }
            Ok(full)
        }
        _ => Ok(short),
    }
}

/// `/var/log/pods/<namespace>_<name>_<uid>`.
pub(crate) fn log_directory(pod: &Pod, options: &KubeletOptions) -> std::path::PathBuf {
    options.pod_logs_dir.join(format!("{}_{}_{}", spec::namespace(pod), spec::name(pod), spec::uid(pod)))
}

/// The sandbox configuration for one attempt. Deterministic: the same pod and attempt give the same name in the runtime.
pub(crate) fn config(
    pod: &Pod,
    attempt: u32,
    options: &KubeletOptions,
    cgroup_parent: &str,
    resolv_conf: &str,
) -> Result<cri::PodSandboxConfig> {
    let pod_spec = spec::pod_spec(pod);
    if pod_spec.host_users == Some(false) {
        // containerd 1.6 would ignore the wish silently and run the pod as the host's root.
        return Err(Error::Config("the container runtime does not support user namespaces (hostUsers: false)".into()));
    }
    let mut labels: HashMap<String, String> = pod.metadata.labels.clone().unwrap_or_default().into_iter().collect();
    labels.extend(identity(pod));
    let mut annotations: HashMap<String, String> = pod.metadata.annotations.clone().unwrap_or_default().into_iter().collect();
    annotations.insert(keys::GRACE_PERIOD.into(), spec::grace_period_secs(pod).to_string());
    let sysctls = pod_spec.security_context.as_ref().and_then(|s| s.sysctls.as_ref());
    Ok(cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: spec::name(pod).into(),
            uid: spec::uid(pod).into(),
            namespace: spec::namespace(pod).into(),
            attempt,
        }),
        hostname: hostname(pod, &options.cluster_domain)?,
        log_directory: log_directory(pod, options).to_string_lossy().into_owned(),
        dns_config: Some(dns::dns_config(pod, options, resolv_conf)),
        port_mappings: host_ports::of(pod).into_iter().map(port_mapping).collect(),
        labels,
        annotations,
        linux: Some(cri::LinuxPodSandboxConfig {
            cgroup_parent: cgroup_parent.into(),
            security_context: Some(security::sandbox(pod)),
            sysctls: sysctls.into_iter().flatten().map(|s| (s.name.clone(), s.value.clone())).collect(),
            overhead: Some(cri::LinuxContainerResources::default()),
            resources: Some(cri::LinuxContainerResources {
                cpu_period: resources::CPU_PERIOD_US,
                cpu_shares: resources::cpu_shares(resources::pod_request(pod, "cpu").milli()),
                cpu_quota: resources::pod_limit(pod, "cpu").map_or(0, |l| resources::cpu_quota_us(l.milli())),
                memory_limit_in_bytes: resources::pod_limit(pod, "memory").map_or(0, |l| l.units()),
                ..Default::default()
            }),
        }),
    })
}

/// The labels by which sandboxes and containers are found again.
pub(crate) fn identity(pod: &Pod) -> [(String, String); 3] {
    [
        (keys::POD_NAME.to_string(), spec::name(pod).to_string()),
        (keys::POD_NAMESPACE.to_string(), spec::namespace(pod).to_string()),
        (keys::POD_UID.to_string(), spec::uid(pod).to_string()),
    ]
}

fn port_mapping(mapping: HostPortMapping) -> cri::PortMapping {
    cri::PortMapping {
        protocol: match mapping.protocol {
            HostPortProtocol::Tcp => cri::Protocol::Tcp,
            HostPortProtocol::Udp => cri::Protocol::Udp,
            HostPortProtocol::Sctp => cri::Protocol::Sctp,
        } as i32,
        container_port: i32::from(mapping.container_port),
        host_port: i32::from(mapping.host_port),
        host_ip: mapping.host_ip.map(|ip| ip.to_string()).unwrap_or_default(),
    }
}

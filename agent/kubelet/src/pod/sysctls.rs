//! Which kernel settings a pod may have. Pure.
//!
//! The safe ones are namespaced and cannot disturb other pods; the rest needs the operator's permission. Upstream also looks at the
//! kernel's version: every kernel that this kubelet runs on is newer. Answers to
//! <https://kubernetes.io/docs/tasks/administer-cluster/sysctl-cluster/>.

use k8s_openapi::api::core::v1::Pod;

use super::spec;

const SAFE: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];
const MAX_PATTERN_LEN: usize = 253;

/// The kernel namespace that holds a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Namespace {
    Ipc,
    Network,
}

impl Namespace {
    fn of(name: &str) -> Option<Namespace> {
        match name {
            "kernel.sem" => Some(Namespace::Ipc),
            _ if ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|prefix| name.starts_with(prefix)) => Some(Namespace::Ipc),
            _ if name.starts_with("net.") => Some(Namespace::Network),
            _ => None,
        }
    }

    fn title(self) -> &'static str {
        match self {
            Namespace::Ipc => "ipc",
            Namespace::Network => "net",
        }
    }
}

/// Why the pod must not run, if one of its settings is not allowed here.
pub(crate) fn forbidden(pod: &Pod, allowed: &[String]) -> Option<String> {
    let pod_spec = spec::pod_spec(pod);
    let wanted = pod_spec.security_context.as_ref()?.sysctls.as_ref()?;
    wanted.iter().find_map(|sysctl| {
        let name = normalize(&sysctl.name);
        let matches = |pattern: &str| match pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == pattern,
        };
        if !SAFE.contains(&name.as_str()) && !allowed.iter().any(|pattern| matches(&normalize(pattern))) {
            return Some(format!("{name:?} not allowlisted"));
        }
        let namespace = Namespace::of(&name)?;
        let shared = match namespace {
            Namespace::Ipc => pod_spec.host_ipc == Some(true),
            Namespace::Network => pod_spec.host_network == Some(true),
        };
        shared.then(|| format!("{name:?} not allowed with host {} enabled", namespace.title()))
    })
}

/// Whether an operator's pattern may be allowed: only settings that the kernel keeps for each namespace.
pub(crate) fn check_pattern(pattern: &str) -> Result<(), String> {
    let name = normalize(pattern);
    let body = name.strip_suffix('*').unwrap_or(&name);
    let plain = body.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.' | '/'));
    if body.is_empty() || name.len() > MAX_PATTERN_LEN || !plain {
        return Err(format!("{pattern:?} is no sysctl: expected a name such as net.core.somaxconn, or a prefix and *"));
    }
    if Namespace::of(body).is_none() {
        return Err(format!("the sysctl {pattern:?} is not known to be namespaced"));
    }
    Ok(())
}

/// The name with dots between its parts; slashes are the other spelling.
fn normalize(name: &str) -> String {
    let first = name.find(['.', '/']);
    if first.is_none_or(|at| name.as_bytes()[at] == b'.') {
        return name.to_string();
    }
    name.chars()
        .map(|c| match c {
            '/' => '.',
            '.' => '/',
            other => other,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn safe_ones_pass_unless_the_namespace_is_the_hosts() {
        let refused = |name: &str, host_network: bool, allowed: &[String]| {
            let pod: Pod =
                serde_json::from_value(json!({"metadata": {}, "spec": {"hostNetwork": host_network, "hostIPC": true, "containers": [],
                "securityContext": {"sysctls": [{"name": name, "value": "1"}]}}}))
                .unwrap();
            forbidden(&pod, allowed)
        };
        assert_eq!(refused("net.ipv4.tcp_syncookies", false, &[]), None);
        assert_eq!(refused("net/ipv4/tcp_syncookies", false, &[]), None);
        assert_eq!(
            refused("net.ipv4.tcp_syncookies", true, &[]).as_deref(),
            Some("\"net.ipv4.tcp_syncookies\" not allowed with host net enabled")
        );
        assert_eq!(
            refused("kernel.shm_rmid_forced", false, &[]).as_deref(),
            Some("\"kernel.shm_rmid_forced\" not allowed with host ipc enabled")
        );
        assert_eq!(refused("vm.swappiness", false, &[]).as_deref(), Some("\"vm.swappiness\" not allowlisted"));
        assert_eq!(refused("net.core.somaxconn", false, &["net.core.somaxconn".into()]), None);
        assert!(check_pattern("net.core.*").is_ok() && check_pattern("kernel.msg*").is_ok());
        for bad in ["vm.swappiness", "*", "", "kernel.*", "net.core.$x"] {
            assert!(check_pattern(bad).is_err(), "{bad}");
        }
    }
}

//! The container runtime: whether CRI answers, and whether it looks for the pod network where this node puts it.

use std::{path::Path, time::Duration};

use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use trireme_proto::cri::{self, runtime_service_client::RuntimeServiceClient};

use super::{Finding, Plan};

const DEADLINE: Duration = Duration::from_secs(10);
const SUBJECT: &str = "container runtime";

pub(super) async fn look(plan: &Plan) -> Vec<Finding> {
    let socket = plan.runtime_endpoint.clone();
    let remedy = format!("start containerd, or name its socket (now {})", socket.display());
    if let Err(error) = UnixStream::connect(&socket).await {
        return vec![Finding::fatal(SUBJECT, format!("no answer: {error}"), remedy)];
    }
    let channel = Endpoint::from_static("http://runtime.invalid").connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    }));
    let mut client = RuntimeServiceClient::new(channel);
    match tokio::time::timeout(DEADLINE, ask(&mut client)).await {
        Ok(Ok((version, config))) => {
            let mut findings = vec![Finding::fine(SUBJECT, format!("{} {}", version.runtime_name, version.runtime_version))];
            findings.extend(config.iter().flat_map(|config| judge(config, plan)));
            findings
        }
        Ok(Err(status)) => {
            let hint = "enable its CRI plugin: remove \"cri\" from disabled_plugins in /etc/containerd/config.toml, and restart it";
            vec![Finding::fatal(SUBJECT, format!("CRI does not answer: {}", status.message()), hint)]
        }
        Err(_) => {
            vec![Finding::fatal(SUBJECT, format!("CRI does not answer within {} s", DEADLINE.as_secs()), "systemctl restart containerd")]
        }
    }
}

async fn ask(client: &mut RuntimeServiceClient<Channel>) -> Result<(cri::VersionResponse, Option<Value>), tonic::Status> {
    let version = client.version(cri::VersionRequest { version: "v1".into() }).await?.into_inner();
    let status = client.status(cri::StatusRequest { verbose: true }).await?.into_inner();
    Ok((version, status.info.get("config").and_then(|text| serde_json::from_str(text).ok())))
}

/// Checks containerd's configuration, as containerd itself reports it.
fn judge(config: &Value, plan: &Plan) -> Vec<Finding> {
    let mut findings = Vec::new();
    let runtimes = config["containerd"]["runtimes"].as_object();
    let is_systemd = |runtime: &Value| runtime["options"]["SystemdCgroup"].as_bool().unwrap_or_default();
    if let Some(runtimes) = runtimes {
        let driver = if runtimes.values().any(is_systemd) { "systemd" } else { "cgroupfs" };
        findings.push(Finding::fine("cgroup driver", format!("{driver} (the node follows the runtime)")));
    }
    if plan.own_network {
        let folder = plan.data_dir.join("agent/cni");
        findings.extend(cni_dir(config, "confDir", "conf_dir", &folder.join("net.d")));
        findings.extend(cni_dir(config, "binDir", "bin_dir", &folder.join("bin")));
    }
    findings
}

/// containerd 2 has a list `binDirs` beside `binDir`.
fn cni_dir(config: &Value, field: &str, option: &str, wanted: &Path) -> Option<Finding> {
    let cni = config["cni"].as_object()?;
    let list = cni.get(&format!("{field}s")).and_then(Value::as_array);
    let mut found: Vec<&str> = list.into_iter().flatten().filter_map(Value::as_str).collect();
    found.extend(cni.get(field).and_then(Value::as_str).filter(|text| !text.is_empty()));
    let subject = format!("CNI {option}");
    let is_same = |dir: &&str| {
        Path::new(dir) == wanted || std::fs::canonicalize(dir).ok().is_some_and(|d| std::fs::canonicalize(wanted).ok() == Some(d))
    };
    if found.iter().any(is_same) {
        return Some(Finding::fine(subject, wanted.display().to_string()));
    }
    Some(Finding::fatal(
        subject,
        format!("containerd looks in {}: the node would stay NotReady", found.join(", ")),
        format!(
            "in /etc/containerd/config.toml, below [plugins.\"io.containerd.grpc.v1.cri\".cni], set {option} = \"{}\"; systemctl restart containerd",
            wanted.display()
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;
    use serde_json::json;

    #[test]
    fn vm_05_a_runtime_that_looks_elsewhere_for_the_pod_network_is_a_problem() {
        let plan =
            Plan { server: false, node: true, data_dir: "/var/lib/trireme".into(), runtime_endpoint: "/none".into(), own_network: true };
        let config = json!({
            "cni": {"binDir": "/usr/lib/cni", "confDir": "/var/lib/trireme/agent/cni/net.d"},
            "containerd": {"runtimes": {"runc": {"options": {"SystemdCgroup": true}}}},
        });
        let findings = judge(&config, &plan);
        let verdicts: Vec<_> = findings.iter().map(|f| (f.subject.as_str(), f.verdict)).collect();
        assert_eq!(verdicts, [("cgroup driver", Verdict::Fine), ("CNI conf_dir", Verdict::Fine), ("CNI bin_dir", Verdict::Fatal)]);
        assert!(findings[2].remedy.contains("bin_dir = \"/var/lib/trireme/agent/cni/bin\""), "{findings:?}");
    }
}

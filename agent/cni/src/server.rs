//! The agent's end of the plugin socket.
//!
//! One request per connection, one JSON document each way, both bounded. Only root may use the socket (0600): a process that can write to
//! it can configure network namespaces.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};
use tokio_util::sync::CancellationToken;

use crate::{Error, gate::SandboxPod, network::Network};

/// Largest request and answer, in bytes.
pub(crate) const MAX_MESSAGE: u64 = 64 * 1024;

/// A CNI command, as the plugin got it from the runtime.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// ADD, DEL or CHECK.
    pub command: String,
    /// The sandbox's id.
    pub container_id: String,
    /// Path of its network namespace; may be missing on DEL.
    pub netns: Option<PathBuf>,
    /// Name of the link inside.
    pub interface: String,
    /// The version that the answer must have.
    pub cni_version: String,
    /// What else the runtime says (`CNI_ARGS`): `KEY=VALUE` pairs, separated by semicolons.
    #[serde(default)]
    pub args: String,
}

impl Request {
    /// The pod whose sandbox this is, where the runtime says so.
    fn pod(&self) -> Option<SandboxPod> {
        let value =
            |key: &str| self.args.split(';').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('=')).filter(|value| !value.is_empty());
        Some(SandboxPod {
            namespace: value("K8S_POD_NAMESPACE")?.to_owned(),
            name: value("K8S_POD_NAME")?.to_owned(),
            uid: value("K8S_POD_UID").map(str::to_owned),
        })
    }
}

/// The agent's answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The CNI result to print.
    Ok(serde_json::Value),
    /// Why not.
    Err(String),
}

/// Binds the socket, replacing a stale one.
pub fn bind(path: &Path) -> Result<UnixListener, Error> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io(format!("remove {}", path.display()))(e)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(Error::io(format!("listen on {}", path.display())))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(Error::io(format!("chmod {}", path.display())))?;
    Ok(listener)
}

/// Serves plugin requests until cancelled.
pub async fn serve(listener: UnixListener, network: Network, cancel: CancellationToken) {
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted,
            () = cancel.cancelled() => return,
        };
        let Ok((stream, _)) = stream else { continue };
        let network = network.clone();
        tokio::spawn(async move {
            if let Err(error) = answer(stream, &network).await {
                tracing::debug!(%error, "CNI plugin went away");
            }
        });
    }
}

async fn answer(mut stream: UnixStream, network: &Network) -> std::io::Result<()> {
    let mut body = Vec::new();
    (&mut stream).take(MAX_MESSAGE).read_to_end(&mut body).await?;
    let answer = match serde_json::from_slice::<Request>(&body) {
        Ok(request) => handle(request, network).await.map_or_else(|e| Answer::Err(e.to_string()), Answer::Ok),
        Err(error) => Answer::Err(Error::BadRequest(error.to_string()).to_string()),
    };
    stream.write_all(&serde_json::to_vec(&answer)?).await?;
    stream.shutdown().await
}

async fn handle(request: Request, network: &Network) -> Result<serde_json::Value, Error> {
    match request.command.as_str() {
        "ADD" => {
            let owner = request.pod();
            let netns = request.netns.ok_or_else(|| Error::BadRequest("ADD without CNI_NETNS".into()))?;
            let pod = network.add(&request.container_id, owner, &netns, &request.interface).await?;
            Ok(serde_json::json!({
                "cniVersion": request.cni_version,
                "interfaces": [{"name": request.interface, "sandbox": netns}],
                "ips": [{"version": "4", "address": pod.address.to_string(), "gateway": pod.gateway, "interface": 0}],
                "routes": [{"dst": "0.0.0.0/0", "gw": pod.gateway}],
            }))
        }
        "DEL" => network.remove(&request.container_id).await.map(|()| serde_json::Value::Null),
        "CHECK" => Ok(serde_json::Value::Null),
        other => Err(Error::BadRequest(format!("unknown command {other}"))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_runtime_says_whose_sandbox_it_is() {
        let request = |args: &str| Request {
            command: "ADD".into(),
            container_id: "c".into(),
            netns: None,
            interface: "eth0".into(),
            cni_version: "1.0.0".into(),
            args: args.into(),
        };
        let pod = request("IgnoreUnknown=1;K8S_POD_NAMESPACE=a;K8S_POD_NAME=p;K8S_POD_INFRA_CONTAINER_ID=c;K8S_POD_UID=u").pod().unwrap();
        assert_eq!((pod.namespace.as_str(), pod.name.as_str(), pod.uid.as_deref()), ("a", "p", Some("u")));
        assert!(request("K8S_POD_NAMESPACE=a;K8S_POD_NAME=p").pod().unwrap().uid.is_none());
        assert!(request("IgnoreUnknown=1").pod().is_none() && request("").pod().is_none());
    }
}

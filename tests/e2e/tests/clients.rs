//! Clients that people bring: the Rust crate `kube` and the Python package `kubernetes`, unchanged.

use std::{collections::BTreeMap, process::Command, time::Duration};

use anyhow::{Context, ensure};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    Api, Client, Config,
    api::{AttachParams, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::io::AsyncReadExt;
use trireme_harness::{Cluster, repository};

const BOX: &str = "localhost/trireme/box:1";

async fn client(cluster: &Cluster) -> anyhow::Result<Client> {
    // An error means that another test has installed it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig())?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

#[tokio::test]
async fn kube_creates_reads_watches_patches_and_deletes() -> anyhow::Result<()> {
    let cluster = Cluster::single()?;
    let ns = cluster.namespace("kube")?;
    let maps: Api<ConfigMap> = Api::namespaced(client(&cluster).await?, ns.name());
    let mut watch = maps.watch(&WatchParams::default().fields("metadata.name=seen"), "0").await?.boxed();
    let mut map = ConfigMap { data: Some(BTreeMap::from([("k".into(), "v".into())])), ..Default::default() };
    map.metadata.name = Some("seen".into());
    let made = maps.create(&PostParams::default(), &map).await?;
    let mut stale = made.clone();
    maps.patch("seen", &PatchParams::default(), &Patch::Merge(serde_json::json!({"data": {"k": "w"}}))).await?;
    stale.data = None;
    let conflict = maps.replace("seen", &PostParams::default(), &stale).await;
    ensure!(matches!(&conflict, Err(kube::Error::Api(status)) if status.code == 409), "{conflict:?}");
    ensure!(maps.list(&ListParams::default().labels("none=such")).await?.items.is_empty());
    maps.delete("seen", &DeleteParams::default()).await?;
    let mut kinds = Vec::new();
    while kinds.last() != Some(&"deleted") {
        let event = tokio::time::timeout(Duration::from_secs(30), watch.next()).await.context("the watch is silent")?;
        kinds.push(match event.context("the watch ended")?? {
            WatchEvent::Added(_) => "added",
            WatchEvent::Modified(_) => "modified",
            WatchEvent::Deleted(_) => "deleted",
            _ => continue,
        });
    }
    ensure!(kinds == ["added", "modified", "deleted"], "{kinds:?}");
    Ok(())
}

#[tokio::test]
async fn kube_executes_in_a_pod() -> anyhow::Result<()> {
    let cluster = Cluster::single()?;
    let ns = cluster.namespace("kube-exec")?;
    ns.kubectl(&["run", "box", "--image", BOX, "--restart=Never", "--", "sleep", "600"])?;
    ns.kubectl(&["wait", "--for=condition=Ready", "pod/box", "--timeout=60s"])?;
    let pods: Api<Pod> = Api::namespaced(client(&cluster).await?, ns.name());
    let mut process = pods.exec("box", ["echo", "from kube"], &AttachParams::default().stderr(false)).await?;
    let mut said = String::new();
    process.stdout().context("stdout")?.read_to_string(&mut said).await?;
    ensure!(said == "from kube\n", "{said:?}");
    let status = process.take_status().context("status")?.await.context("no status came")?;
    ensure!(status.status.as_deref() == Some("Success"), "{status:?}");
    Ok(())
}

#[test]
fn the_python_client_does_the_same() -> anyhow::Result<()> {
    let cluster = Cluster::single()?;
    let ns = cluster.namespace("python")?;
    ns.kubectl(&["run", "box", "--image", BOX, "--restart=Never", "--", "sleep", "600"])?;
    ns.kubectl(&["wait", "--for=condition=Ready", "pod/box", "--timeout=60s"])?;
    let python = std::env::var("TRIREME_PYTHON").context("TRIREME_PYTHON names a Python with the package kubernetes: ops/test sets it")?;
    let script = repository().join("tests/e2e/python/client.py");
    let output = Command::new(python).arg(script).arg(ns.name()).env("KUBECONFIG", cluster.kubeconfig()).output()?;
    ensure!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Ok(())
}

//! Volumes of a CSI driver that runs on the node's host; the test is its attacher.
//!
//! The driver's volumes are folders, so what a container writes is seen on the host.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use trireme_csi_driver::{Driver, Options};
use trireme_harness::{Cluster, Namespace, eventually};
use trireme_proto::csi::node_service_capability::rpc::Type;

const BOX: &str = "localhost/trireme/box:1";
const LONG: Duration = Duration::from_secs(60);
const DRIVER: &str = "folders.trireme.dev";

fn get(cluster: &Cluster, args: &[&str]) -> anyhow::Result<Value> {
    let args: Vec<&str> = ["get"].into_iter().chain(args.iter().copied()).chain(["-o", "json"]).collect();
    serde_json::from_str(&cluster.kubectl(&args)?).context("kubectl's JSON")
}

/// The only node, and its kubelet's folder.
fn node(cluster: &Cluster) -> anyhow::Result<(String, PathBuf)> {
    let node = get(cluster, &["nodes"])?["items"][0].clone();
    let name = node["metadata"]["name"].as_str().context("a node")?.to_owned();
    let storage = node["metadata"]["annotations"]["trireme.dev/local-path"].as_str().context("where the node keeps volumes")?;
    Ok((name, Path::new(storage).with_file_name("agent")))
}

/// Does what external-attacher does for a driver whose volumes are everywhere. The names of the attachments.
fn attach(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let all = get(cluster, &["volumeattachments"])?;
    let ours = all["items"].as_array().into_iter().flatten().filter(|one| one["spec"]["attacher"] == DRIVER);
    let mut names = Vec::new();
    for one in ours {
        let name = one["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if one["status"]["attached"] != true {
            let patch = r#"{"status":{"attached":true,"attachmentMetadata":{"slot":"3"}}}"#;
            cluster.kubectl(&["patch", "volumeattachment", &name, "--subresource=status", "--type=merge", "-p", patch])?;
        }
        names.push(name);
    }
    Ok(names)
}

fn pod(name: &str, volume: &Value) -> String {
    let mut volume = volume.clone();
    volume["name"] = json!("data");
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "terminationGracePeriodSeconds": 1, "volumes": [volume],
        "containers": [{"name": "c", "image": BOX, "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]}})
    .to_string()
}

fn is_ready(ns: &Namespace, pod: &str) -> anyhow::Result<()> {
    ns.kubectl(&["wait", "--for=condition=Ready", pod, "--timeout=60s"]).map(drop)
}

fn make_objects(cluster: &Cluster, ns: &Namespace, volume: &str) -> anyhow::Result<()> {
    let driver = json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": DRIVER}, "spec": {
        "attachRequired": true, "podInfoOnMount": true, "volumeLifecycleModes": ["Persistent", "Ephemeral"]}});
    cluster.kubectl_with(&["apply", "-f", "-"], &driver.to_string())?;
    let bound = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": volume}, "spec": {
        "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "64Mi"}, "storageClassName": "",
        "claimRef": {"namespace": ns.name(), "name": "data"}, "persistentVolumeReclaimPolicy": "Retain",
        "csi": {"driver": DRIVER, "volumeHandle": volume}}});
    cluster.kubectl_with(&["apply", "-f", "-"], &bound.to_string())?;
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "storageClassName": "", "resources": {"requests": {"storage": "64Mi"}}}});
    ns.kubectl_with(&["apply", "-f", "-"], &claim.to_string()).map(drop)
}

#[test]
fn a_pod_gets_a_drivers_volume_and_gives_it_back() -> anyhow::Result<()> {
    let cluster = Cluster::single()?;
    let ns = cluster.namespace("csi")?;
    let (node, kubelet) = node(&cluster)?;
    let data = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let abilities = vec![Type::StageUnstageVolume, Type::GetVolumeStats];
    let options = Options { node_id: "the-host".into(), abilities, mounts: true, ..Options::new(DRIVER, &kubelet, data.path()) };
    let driver = runtime.block_on(Driver::start(options))?;
    eventually("the node to be said to have the driver", LONG, || {
        let drivers = get(&cluster, &["csinode", &node])?["spec"]["drivers"].clone();
        ensure!(drivers.as_array().into_iter().flatten().any(|one| one["name"] == DRIVER && one["nodeID"] == "the-host"), "{drivers}");
        Ok(())
    })?;
    let volume = ns.name().to_owned();
    make_objects(&cluster, &ns, &volume)?;
    ns.kubectl_with(&["apply", "-f", "-"], &pod("user", &json!({"persistentVolumeClaim": {"claimName": "data"}})))?;
    eventually("the volume to be attached", LONG, || {
        ensure!(attach(&cluster)?.len() == 1);
        Ok(())
    })?;
    is_ready(&ns, "pod/user")?;
    ns.kubectl(&["exec", "user", "--", "sh", "-c", "echo kept > /data/file"])?;
    let file = data.path().join("volumes").join(&volume).join("file");
    ensure!(std::fs::read_to_string(&file)? == "kept\n", "what the container wrote is the driver's");
    let calls = driver.calls();
    let staged = calls.iter().find(|call| call.starts_with("NodeStageVolume")).context("staged")?;
    ensure!(staged.contains("publish=slot=3"), "{staged}");
    let published = calls.iter().find(|call| call.starts_with("NodePublishVolume")).context("published")?;
    ensure!(published.contains("csi.storage.k8s.io/pod.name=user"), "{published}");
    let status = get(&cluster, &["node", &node])?["status"].clone();
    let unique = format!("kubernetes.io/csi/{DRIVER}^{volume}");
    ensure!(status["volumesInUse"].to_string().contains(&unique) && status["volumesAttached"].to_string().contains(&unique), "{status:#}");
    ensure!(ns.kubectl(&["describe", "pod", "user"])?.contains("SuccessfulAttachVolume"), "the pod is told");

    ns.kubectl(&["delete", "pod", "user"])?;
    eventually("the volume to be detached", LONG, || {
        ensure!(attach(&cluster)?.is_empty());
        let status = get(&cluster, &["node", &node])?["status"].clone();
        ensure!(!status["volumesInUse"].to_string().contains(&unique), "{status:#}");
        Ok(())
    })?;
    ensure!(driver.calls().iter().any(|call| call == &format!("NodeUnstageVolume {volume}")), "{:?}", driver.calls());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    ensure!(!mounts.contains(DRIVER), "nothing of it is mounted: {mounts}");
    ensure!(std::fs::read_to_string(&file)? == "kept\n", "the data outlives the pod");

    ns.kubectl_with(&["apply", "-f", "-"], &pod("inline", &json!({"csi": {"driver": DRIVER}})))?;
    is_ready(&ns, "pod/inline")?;
    ensure!(driver.calls().iter().any(|call| call.contains("csi.storage.k8s.io/ephemeral=true")), "{:?}", driver.calls());
    ns.kubectl(&["delete", "pod", "inline"])?;

    // What goes wrong is on the pod.
    driver.faults().fail("NodePublishVolume", "out of folders");
    ns.kubectl_with(&["apply", "-f", "-"], &pod("failing", &json!({"csi": {"driver": DRIVER}})))?;
    eventually("the failure to be told", LONG, || {
        let told = ns.kubectl(&["describe", "pod", "failing"])?;
        ensure!(told.contains("MountVolume.SetUp failed for volume \"data\" : rpc error: code = Internal desc = out of folders"), "{told}");
        Ok(())
    })?;
    ns.kubectl(&["delete", "pod", "failing"])?;
    ns.kubectl(&["delete", "pvc", "data"])?;
    cluster.kubectl(&["delete", "pv", &volume])?;
    cluster.kubectl(&["delete", "csidriver", DRIVER])?;
    drop(driver);
    eventually("the driver to be forgotten", LONG, || {
        let drivers = get(&cluster, &["csinode", &node])?["spec"]["drivers"].clone();
        ensure!(!drivers.to_string().contains(DRIVER), "{drivers}");
        Ok(())
    })
}

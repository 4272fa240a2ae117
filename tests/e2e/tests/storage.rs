//! Claims through kubectl: data that outlives its pod, and goes with its claim.

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use trireme_harness::{Cluster, Namespace, eventually};

const BOX: &str = "localhost/trireme/box:1";
const LONG: Duration = Duration::from_secs(60);

fn claim(name: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: {name}}}\nspec:\n  accessModes: [ReadWriteOnce]\n  {more}\n  \
         resources: {{requests: {{storage: 64Mi}}}}\n"
    )
}

fn pod(name: &str, claim: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  \
         containers:\n  - {{name: c, image: '{BOX}', volumeMounts: [{{name: data, mountPath: /data}}, {{name: data, mountPath: /part, subPath: a/b}}]}}\n  \
         volumes:\n  - {{name: data, persistentVolumeClaim: {{claimName: {claim}}}}}\n"
    )
}

fn is_ready(ns: &Namespace, pod: &str) -> anyhow::Result<()> {
    ns.kubectl(&["wait", "--for=condition=Ready", pod, "--timeout=60s"]).map(drop)
}

fn sh(ns: &Namespace, pod: &str, script: &str) -> anyhow::Result<String> {
    ns.kubectl(&["exec", pod, "--", "sh", "-c", script])
}

#[test]
fn data_outlives_its_pod_and_goes_with_its_claim() -> anyhow::Result<()> {
    let cluster = Cluster::single()?;
    let ns = cluster.namespace("storage")?;
    ns.kubectl_with(&["apply", "-f", "-"], &claim("data", ""))?;
    ensure!(ns.kubectl(&["get", "pvc", "data", "-o", "jsonpath={.spec.storageClassName}"])? == "local-path", "the default class");
    eventually("the claim to say for what it waits", LONG, || {
        ensure!(ns.kubectl(&["describe", "pvc", "data"])?.contains("waiting for first consumer to be created before binding"));
        Ok(())
    })?;
    ns.kubectl_with(&["apply", "-f", "-"], &pod("first", "data"))?;
    is_ready(&ns, "pod/first")?;
    sh(&ns, "first", "echo kept > /data/file && echo part > /part/file")?;
    ns.kubectl(&["delete", "pod", "first"])?;
    ns.kubectl_with(&["apply", "-f", "-"], &pod("second", "data"))?;
    is_ready(&ns, "pod/second")?;
    ensure!(sh(&ns, "second", "cat /data/file /data/a/b/file")? == "kept\npart\n");

    let volume = ns.kubectl(&["get", "pvc", "data", "-o", "jsonpath={.spec.volumeName}"])?;
    let folder = cluster.kubectl(&["get", "pv", &volume, "-o", "jsonpath={.spec.hostPath.path}"])?;
    ensure!(Path::new(&folder).join("file").exists(), "{folder}");
    ns.kubectl(&["delete", "pvc", "data", "--wait=false"])?;
    eventually("the claim to be held by its pod", LONG, || {
        ensure!(ns.kubectl(&["get", "pvc", "data"])?.contains("Terminating") && Path::new(&folder).exists());
        Ok(())
    })?;
    ns.kubectl(&["delete", "pod", "second"])?;
    eventually("claim, volume and data to be gone", LONG, || {
        ensure!(ns.kubectl(&["get", "pvc", "-o", "name"])?.is_empty());
        ensure!(cluster.kubectl(&["get", "pv", &volume, "--ignore-not-found"])?.is_empty());
        ensure!(!Path::new(&folder).exists(), "{folder}");
        Ok(())
    })
}

#[test]
fn each_pod_of_a_stateful_set_keeps_its_own_volume() -> anyhow::Result<()> {
    let cluster = Cluster::single()?;
    let ns = cluster.namespace("stateful-storage")?;
    let set = format!(
        "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {{name: db}}\nspec:\n  replicas: 2\n  serviceName: db\n  \
         podManagementPolicy: Parallel\n  selector: {{matchLabels: {{app: db}}}}\n  template:\n    metadata: {{labels: {{app: db}}}}\n    spec:\n      \
         terminationGracePeriodSeconds: 1\n      containers:\n      - {{name: c, image: '{BOX}', volumeMounts: [{{name: data, mountPath: /data}}]}}\n  \
         volumeClaimTemplates:\n  - metadata: {{name: data}}\n    spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 64Mi}}}}}}\n"
    );
    ns.kubectl_with(&["apply", "-f", "-"], &set)?;
    ns.kubectl(&["rollout", "status", "statefulset/db", "--timeout=90s"])?;
    for pod in ["db-0", "db-1"] {
        sh(&ns, pod, "cat /etc/hostname > /data/name")?;
    }
    ns.kubectl(&["delete", "pod", "db-0", "db-1"])?;
    ns.kubectl(&["rollout", "status", "statefulset/db", "--timeout=90s"])?;
    for pod in ["db-0", "db-1"] {
        is_ready(&ns, &format!("pod/{pod}"))?;
        ensure!(sh(&ns, pod, "cat /data/name")?.trim() == pod);
    }
    Ok(())
}

#[test]
fn a_volume_that_somebody_made_is_bound_at_once_and_retained() -> anyhow::Result<()> {
    let cluster = Cluster::single()?;
    let ns = cluster.namespace("static-storage")?;
    let name = ns.name();
    let folder = format!("/tmp/{name}");
    let volume = format!(
        "apiVersion: v1\nkind: PersistentVolume\nmetadata: {{name: {name}}}\nspec:\n  accessModes: [ReadWriteOnce]\n  \
         capacity: {{storage: 64Mi}}\n  storageClassName: ''\n  claimRef: {{namespace: {name}, name: made}}\n  \
         hostPath: {{path: {folder}, type: DirectoryOrCreate}}\n"
    );
    cluster.kubectl_with(&["apply", "-f", "-"], &volume)?;
    ns.kubectl_with(&["apply", "-f", "-"], &claim("made", "storageClassName: ''"))?;
    eventually("the claim to be bound", LONG, || {
        ensure!(ns.kubectl(&["get", "pvc", "made", "-o", "jsonpath={.status.phase} {.spec.volumeName}"])? == format!("Bound {name}"));
        Ok(())
    })?;
    ns.kubectl_with(&["apply", "-f", "-"], &pod("user", "made"))?;
    is_ready(&ns, "pod/user")?;
    sh(&ns, "user", "echo kept > /data/file")?;
    ns.kubectl(&["delete", "pod/user", "pvc/made"])?;
    eventually("the volume to be released", LONG, || {
        ensure!(cluster.kubectl(&["get", "pv", name, "-o", "jsonpath={.status.phase}"])? == "Released");
        Ok(())
    })?;
    ensure!(std::fs::read_to_string(Path::new(&folder).join("file"))? == "kept\n", "its data stays");
    cluster.kubectl(&["delete", "pv", name])?;
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

#[test]
fn an_ephemeral_volume_goes_with_its_pod() -> anyhow::Result<()> {
    let cluster = Cluster::single()?;
    let ns = cluster.namespace("ephemeral-storage")?;
    let template = "spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 64Mi}}}";
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n  terminationGracePeriodSeconds: 1\n  \
         containers:\n  - {{name: c, image: '{BOX}', volumeMounts: [{{name: scratch, mountPath: /data}}]}}\n  \
         volumes:\n  - {{name: scratch, ephemeral: {{volumeClaimTemplate: {{ {template} }}}}}}\n"
    );
    ns.kubectl_with(&["apply", "-f", "-"], &pod)?;
    is_ready(&ns, "pod/p")?;
    sh(&ns, "p", "echo x > /data/file")?;
    ensure!(ns.kubectl(&["get", "pvc", "-o", "name"])?.trim() == "persistentvolumeclaim/p-scratch");
    ns.kubectl(&["delete", "pod", "p"])?;
    eventually("the claim to go", LONG, || {
        ensure!(ns.kubectl(&["get", "pvc", "-o", "name"])?.is_empty());
        Ok(())
    })
}

/// The reason of the pod's end, once it has failed.
fn end_of(ns: &Namespace, pod: &str) -> anyhow::Result<String> {
    let shown = "jsonpath={.status.phase} {.status.reason}: {.status.message}{.status.conditions[?(@.type=='DisruptionTarget')].reason}";
    let mut text = String::new();
    eventually("the pod to be evicted", LONG, || {
        text = ns.kubectl(&["get", "pod", pod, "-o", shown])?;
        ensure!(text.starts_with("Failed"), "{text}");
        Ok(())
    })?;
    Ok(text)
}

#[test]
fn a_pod_that_fills_its_disk_beyond_its_limits_is_evicted() -> anyhow::Result<()> {
    let cluster = Cluster::single()?;
    let ns = cluster.namespace("evicted")?;
    let pod = |name: &str, resources: &str, path: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  containers:\n  - name: c\n    image: '{BOX}'\n    resources: {resources}\n    \
             command: [sh, -c, 'head -c 8000000 /dev/urandom > {path}/file; sleep 3600']\n    volumeMounts: [{{name: scratch, mountPath: /scratch}}]\n  \
             volumes:\n  - {{name: scratch, emptyDir: {{sizeLimit: 4Mi}}}}\n---\n"
        )
    };
    let pods = pod("volume", "{}", "/scratch")
        + &pod("layer", "{limits: {ephemeral-storage: 4Mi}}", "/tmp")
        + &pod("fits", "{limits: {ephemeral-storage: 64Mi}}", "/tmp");
    ns.kubectl_with(&["apply", "-f", "-"], &pods)?;
    let ended = end_of(&ns, "volume")?;
    ensure!(ended == "Failed Evicted: Usage of EmptyDir volume \"scratch\" exceeds the limit \"4Mi\". TerminationByKubelet", "{ended}");
    let ended = end_of(&ns, "layer")?;
    ensure!(
        ended == "Failed Evicted: Pod ephemeral local storage usage exceeds the total limit of containers 4Mi. TerminationByKubelet",
        "{ended}"
    );
    ensure!(ns.kubectl(&["get", "pod", "fits", "-o", "jsonpath={.status.phase}"])? == "Running");
    Ok(())
}

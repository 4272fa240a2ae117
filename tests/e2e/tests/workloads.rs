//! StatefulSets, DaemonSets and autoscaling through kubectl, one story each.

use std::time::Duration;

use anyhow::ensure;
use trireme_harness::{Cluster, Namespace, eventually};

const BOX: &str = "localhost/trireme/box:1";
const LONG: Duration = Duration::from_secs(90);

fn manifest(kind: &str, name: &str, more: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n  {more}\n  selector: {{matchLabels: {{app: {name}}}}}\n  \
         template:\n    metadata: {{labels: {{app: {name}}}}}\n    spec:\n      terminationGracePeriodSeconds: 1\n      \
         containers:\n      - {{name: c, image: '{BOX}', env: [{{name: VERSION, value: v1}}]}}\n"
    )
}

fn rolled_out(ns: &Namespace, what: &str) -> anyhow::Result<()> {
    ns.kubectl(&["rollout", "status", what, "--timeout=90s"])?;
    Ok(())
}

/// How many revisions `kubectl rollout history` shows.
fn revisions(ns: &Namespace, what: &str) -> anyhow::Result<usize> {
    let history = ns.kubectl(&["rollout", "history", what])?;
    Ok(history.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit())).count())
}

const VERSION: &str = "jsonpath={.spec.template.spec.containers[0].env[0].value}";

#[test]
fn a_stateful_set_keeps_its_names_scales_and_rolls_back() -> anyhow::Result<()> {
    let cluster = Cluster::single()?;
    let ns = cluster.namespace("stateful")?;
    let set = "statefulset/db";
    ns.kubectl_with(&["apply", "-f", "-"], &manifest("StatefulSet", "db", "replicas: 2\n  serviceName: db"))?;
    rolled_out(&ns, set)?;
    ensure!(ns.kubectl(&["get", "pods", "-o", "name"])? == "pod/db-0\npod/db-1\n");
    ensure!(ns.kubectl(&["exec", "db-1", "--", "cat", "/etc/hostname"])?.trim() == "db-1");
    let uid = |pod: &str| ns.kubectl(&["get", "pod", pod, "-o", "jsonpath={.metadata.uid}"]);
    let first = uid("db-0")?;
    ns.kubectl(&["delete", "pod", "db-0"])?;
    rolled_out(&ns, set)?;
    eventually("the pod to be back under its name", LONG, || {
        ensure!(uid("db-0")? != first);
        Ok(())
    })?;
    ns.kubectl(&["scale", set, "--replicas=3"])?;
    rolled_out(&ns, set)?;
    ensure!(ns.kubectl(&["get", set])?.contains("3/3"));
    ns.kubectl(&["set", "env", set, "VERSION=v2"])?;
    rolled_out(&ns, set)?;
    ensure!(revisions(&ns, set)? == 2);
    ns.kubectl(&["rollout", "undo", set])?;
    rolled_out(&ns, set)?;
    ensure!(ns.kubectl(&["get", set, "-o", VERSION])? == "v1" && revisions(&ns, set)? == 2);
    ensure!(ns.kubectl(&["describe", set])?.contains("SuccessfulCreate"), "events are shown");
    ns.kubectl(&["delete", set])?;
    eventually("the garbage collector to remove pods and revisions", LONG, || {
        ensure!(ns.kubectl(&["get", "pods,controllerrevisions", "-o", "name"])?.is_empty());
        Ok(())
    })
}

#[test]
fn a_daemon_set_runs_on_every_node_and_rolls_back() -> anyhow::Result<()> {
    let cluster = Cluster::lab()?;
    let ns = cluster.namespace("daemons")?;
    let set = "daemonset/log";
    ns.kubectl_with(&["apply", "-f", "-"], &manifest("DaemonSet", "log", "minReadySeconds: 0"))?;
    rolled_out(&ns, set)?;
    let nodes = cluster.kubectl(&["get", "nodes", "-o", "name"])?.lines().count();
    let pods = || ns.kubectl(&["get", "pods", "-o", "jsonpath={range .items[*]}{.spec.nodeName}{'\\n'}{end}"]);
    let mut hosts: Vec<String> = pods()?.lines().map(str::to_owned).collect();
    hosts.sort();
    hosts.dedup();
    ensure!(hosts.len() == nodes && pods()?.lines().count() == nodes, "one pod on each of {nodes} nodes: {hosts:?}");
    ns.kubectl(&["set", "env", set, "VERSION=v2"])?;
    rolled_out(&ns, set)?;
    ensure!(revisions(&ns, set)? == 2);
    ns.kubectl(&["rollout", "undo", set])?;
    rolled_out(&ns, set)?;
    ensure!(ns.kubectl(&["get", set, "-o", VERSION])? == "v1");
    ns.kubectl(&["delete", set])?;
    eventually("the garbage collector to remove the pods", LONG, || {
        ensure!(ns.kubectl(&["get", "pods", "-o", "name"])?.is_empty());
        Ok(())
    })
}

/// On a server that is no node, so that kubelets are asked through tunnels.
#[test]
fn what_pods_use_is_shown_and_scales_them() -> anyhow::Result<()> {
    let cluster = Cluster::lab()?;
    let ns = cluster.namespace("autoscaling")?;
    let busy = format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: busy}}\nspec:\n  replicas: 1\n  selector: {{matchLabels: {{app: busy}}}}\n  \
         template:\n    metadata: {{labels: {{app: busy}}}}\n    spec:\n      terminationGracePeriodSeconds: 1\n      containers:\n      \
         - {{name: c, image: '{BOX}', command: [sh, -c, 'while :; do :; done'], resources: {{requests: {{cpu: 20m}}, limits: {{cpu: 60m}}}}}}\n"
    );
    ns.kubectl_with(&["apply", "-f", "-"], &busy)?;
    rolled_out(&ns, "deployment/busy")?;
    eventually("the pod's use to be shown", LONG, || {
        let shown = ns.kubectl(&["top", "pods", "--no-headers"])?;
        ensure!(shown.starts_with("busy-") && shown.contains('m') && shown.contains("Mi"), "{shown}");
        Ok(())
    })?;
    let nodes = cluster.kubectl(&["top", "nodes", "--no-headers"])?;
    ensure!(nodes.lines().count() == cluster.kubectl(&["get", "nodes", "-o", "name"])?.lines().count(), "{nodes}");
    ns.kubectl(&["autoscale", "deployment", "busy", "--min=1", "--max=2", "--cpu-percent=50"])?;
    eventually("the autoscaler to add a pod", LONG, || {
        ensure!(ns.kubectl(&["get", "deployment", "busy", "-o", "jsonpath={.spec.replicas}"])? == "2");
        Ok(())
    })?;
    ensure!(ns.kubectl(&["describe", "hpa", "busy"])?.contains("SuccessfulRescale"), "events are shown");
    let status = "jsonpath={.status.conditions[?(@.type==\"ScalingActive\")].reason}";
    ensure!(ns.kubectl(&["get", "hpa", "busy", "-o", status])? == "ValidMetricFound");
    Ok(())
}

#[test]
fn a_static_pod_runs_from_its_manifest_and_is_reached_by_its_mirror() -> anyhow::Result<()> {
    let cluster = Cluster::single()?;
    let node = cluster.kubectl(&["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"])?;
    let (name, folder) = (format!("hello-{node}"), "/var/lib/trireme/agent/pod-manifests");
    let manifest = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: hello}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  \
         - {{name: c, image: '{BOX}', command: [sh, -c, 'echo from a manifest; sleep 3600']}}\n"
    );
    let file = std::path::Path::new(folder).join("hello.yaml");
    std::fs::write(&file, manifest)?;
    let result = (|| {
        eventually("the mirror", LONG, || cluster.kubectl(&["get", "pod", &name]))?;
        cluster.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=90s"])?;
        ensure!(cluster.kubectl(&["logs", &name])?.contains("from a manifest"));
        ensure!(cluster.kubectl(&["exec", &name, "--", "cat", "/etc/hostname"])?.trim() == name);
        let uid = || cluster.kubectl(&["get", "pod", &name, "-o", "jsonpath={.metadata.uid}"]);
        let first = uid()?;
        cluster.kubectl(&["delete", "pod", &name, "--wait=false"])?;
        eventually("the mirror to be back", LONG, || {
            ensure!(uid()? != first);
            Ok(())
        })?;
        let started = cluster.kubectl(&["get", "pod", &name, "-o", "jsonpath={.status.containerStatuses[0].restartCount}"])?;
        ensure!(started == "0", "the container was not touched: {started}");
        Ok(())
    })();
    std::fs::remove_file(&file)?;
    result?;
    eventually("the pod to go with its manifest", LONG, || cluster.kubectl_fails(&["get", "pod", &name]))?;
    Ok(())
}

//! NetworkPolicies between pods of two nodes, through kubectl.

use std::time::Duration;

use anyhow::{Context, ensure};
use trireme_harness::{Cluster, Namespace, eventually};

const BOX: &str = "localhost/trireme/box:1";
const LONG: Duration = Duration::from_secs(90);

fn pod(ns: &Namespace, name: &str, app: &str, node: &str, more: &str) -> anyhow::Result<()> {
    let manifest = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {app}}}}}\nspec:\n  nodeName: {node}\n  \
         terminationGracePeriodSeconds: 1\n  containers:\n  - {{name: c, image: '{BOX}'{more}}}\n"
    );
    ns.kubectl_with(&["apply", "-f", "-"], &manifest).map(drop)
}

fn address(ns: &Namespace, name: &str) -> anyhow::Result<String> {
    ns.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=60s"])?;
    ns.kubectl(&["get", "pod", name, "-o", "jsonpath={.status.podIP}"])
}

/// Whether a pod gets an answer.
fn reaches(ns: &Namespace, from: &str, to: &str) -> bool {
    ns.kubectl(&["exec", from, "--", "wget", "-q", "-T", "2", "-O", "/dev/null", to]).is_ok()
}

fn policy(ns: &Namespace, name: &str, spec: &str) -> anyhow::Result<()> {
    let manifest = format!("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}}}\nspec: {spec}\n");
    ns.kubectl_with(&["apply", "-f", "-"], &manifest).map(drop)
}

/// The nodes that run ordinary pods.
fn nodes(cluster: &Cluster) -> anyhow::Result<[String; 2]> {
    let names = cluster.kubectl(&["get", "nodes", "-o", "jsonpath={range .items[?(@.spec.podCIDR)]}{.metadata.name}{'\\n'}{end}"])?;
    let two: Vec<String> = names.lines().map(str::to_owned).take(2).collect();
    two.try_into().ok().context("two nodes")
}

#[test]
fn policies_isolate_pods_on_the_same_and_on_other_nodes_until_they_are_deleted() -> anyhow::Result<()> {
    let cluster = Cluster::lab()?;
    let ns = cluster.namespace("policies")?;
    let [near, far] = nodes(&cluster)?;
    pod(&ns, "web", "web", &near, ", ports: [{name: http, containerPort: 8080}]")?;
    for (name, app, node) in
        [("friend-near", "friend", &near), ("friend-far", "friend", &far), ("other-near", "other", &near), ("other-far", "other", &far)]
    {
        pod(&ns, name, app, node, "")?;
    }
    let web = format!("http://{}:8080/", address(&ns, "web")?);
    for name in ["friend-near", "friend-far", "other-near", "other-far"] {
        address(&ns, name)?;
        ensure!(reaches(&ns, name, &web), "{name}: without a policy all is open");
    }
    ns.kubectl(&["expose", "pod", "web", "--port=80", "--target-port=8080"])?;
    policy(
        &ns,
        "web",
        "{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: friend}}}], ports: [{port: http}]}]}",
    )?;
    for name in ["other-near", "other-far"] {
        eventually("a pod that is not allowed to be cut off", LONG, || {
            ensure!(!reaches(&ns, name, &web), "{name}");
            Ok(())
        })?;
    }
    for name in ["friend-near", "friend-far"] {
        ensure!(reaches(&ns, name, &web), "{name} is allowed");
        ensure!(reaches(&ns, name, "http://web/"), "{name}, through the Service");
    }
    ensure!(!reaches(&ns, "other-far", "http://web/"), "a Service is no way around");
    // A label is all that makes a friend.
    ns.kubectl(&["label", "pod", "other-far", "app=friend", "--overwrite"])?;
    eventually("the pod with the new label to be let in", LONG, || {
        ensure!(reaches(&ns, "other-far", &web));
        Ok(())
    })?;
    ns.kubectl(&["delete", "networkpolicy", "web"])?;
    policy(&ns, "caged", "{podSelector: {matchLabels: {app: caged}}, policyTypes: [Egress]}")?;
    // By its path: the shell's own wget is busybox'.
    let attempt = format!(", command: [sh, -c, '/bin/wget -q -T 3 -O /dev/null {web} && echo out || echo in; sleep 3600']");
    for (name, app, expected) in [("caged", "caged", "in"), ("free", "free", "out")] {
        pod(&ns, name, app, &near, &attempt)?;
        let said = eventually("the pod to have tried", LONG, || {
            let said = ns.kubectl(&["logs", name])?;
            ensure!(said.lines().any(|line| matches!(line, "in" | "out")), "nothing yet: {said}");
            Ok(said)
        })?;
        ensure!(said.lines().any(|line| line == expected), "{name}, with its first packet: {said}");
    }
    ns.kubectl(&["delete", "networkpolicy", "--all"])?;
    for name in ["caged", "other-near"] {
        eventually("all to be open again", LONG, || {
            ensure!(reaches(&ns, name, &web), "{name}");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn nodes_read_addresses_of_pods_and_not_pods() -> anyhow::Result<()> {
    let cluster = Cluster::single()?;
    let node = ["--as=system:node:another", "--as-group=system:nodes", "--as-group=system:authenticated"];
    let ask = |args: &[&str]| cluster.kubectl(&[args, &node[..]].concat());
    let list = "/apis/network.trireme.io/v1/podaddresses";
    let seen: serde_json::Value = serde_json::from_str(&ask(&["get", "--raw", list])?)?;
    ensure!(seen["kind"] == "PodAddressList", "{seen}");
    ensure!(ask(&["get", "pods", "-A"]).is_err(), "pods hold what a node must not know");
    ensure!(!cluster.kubectl(&["api-versions"])?.contains("network.trireme.io"), "it is no part of the API that people see");
    ensure!(
        cluster
            .kubectl_fails(&["delete", "--raw", &list.replace("podaddresses", "namespaces/default/podaddresses/x")])?
            .contains("does not allow")
    );
    ensure!(cluster.kubectl_fails(&["get", "--raw", list, "--as=somebody"])?.contains("forbidden"));
    Ok(())
}

//! kubectl's verbs against the real thing, one story each.

use std::time::Duration;

use anyhow::{Context, ensure};
use trireme_harness::{Cluster, Namespace, eventually};

const BOX: &str = "localhost/trireme/box:1";
const LONG: Duration = Duration::from_secs(90);

fn deployment(name: &str, replicas: u32) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n  replicas: {replicas}\n  \
         selector: {{matchLabels: {{app: {name}}}}}\n  template:\n    metadata: {{labels: {{app: {name}}}}}\n    spec:\n      \
         terminationGracePeriodSeconds: 1\n      containers:\n      - {{name: web, image: '{BOX}', env: [{{name: VERSION, value: v1}}]}}\n"
    )
}

fn rolled_out(ns: &Namespace, name: &str) -> anyhow::Result<String> {
    ns.kubectl(&["rollout", "status", &format!("deployment/{name}"), "--timeout=90s"])
}

#[test]
fn objects_are_created_read_changed_and_deleted() -> anyhow::Result<()> {
    let cluster = Cluster::single()?;
    let ns = cluster.namespace("crud")?;
    ns.kubectl(&["create", "configmap", "a", "--from-literal=k=v"])?;
    ns.kubectl(&["label", "configmap", "a", "tier=one"])?;
    ns.kubectl(&["annotate", "configmap", "a", "note=x"])?;
    ensure!(ns.kubectl(&["get", "configmap", "-l", "tier=one", "-o", "name"])? == "configmap/a\n");
    ensure!(ns.kubectl(&["get", "configmap", "--field-selector", "metadata.name=a", "-o", "jsonpath={.items[0].data.k}"])? == "v");
    ensure!(ns.kubectl(&["get", "configmap", "a", "-o", "custom-columns=N:.metadata.name,T:.metadata.labels.tier"])?.contains("one"));
    ensure!(ns.kubectl(&["get", "configmap", "a", "-o", "yaml"])?.contains("note: x"));
    let json: serde_json::Value = serde_json::from_str(&ns.kubectl(&["get", "configmap", "a", "-o", "json"])?)?;
    ensure!(json["kind"] == "ConfigMap" && json["metadata"]["annotations"]["note"] == "x" && json["data"]["k"] == "v", "{json}");
    for (kind, patch) in [("merge", r#"{"data":{"k":"m"}}"#), ("strategic", r#"{"data":{"s":"t"}}"#)] {
        ns.kubectl(&["patch", "configmap", "a", "--type", kind, "-p", patch])?;
    }
    ns.kubectl(&["patch", "configmap", "a", "--type", "json", "-p", r#"[{"op":"replace","path":"/data/k","value":"j"}]"#])?;
    ensure!(ns.kubectl(&["get", "configmap", "a", "-o", "jsonpath={.data.k}{.data.s}"])? == "jt");
    let manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {k: replaced}\n";
    ns.kubectl_with(&["replace", "-f", "-"], manifest)?;
    ensure!(ns.kubectl(&["get", "configmap", "a", "-o", "jsonpath={.data}"])? == r#"{"k":"replaced"}"#);
    ns.kubectl_with(&["apply", "-f", "-"], "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\ndata: {x: '1', y: '2'}\n")?;
    ns.kubectl_with(&["apply", "-f", "-"], "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\ndata: {x: '1'}\n")?;
    ensure!(ns.kubectl(&["get", "configmap", "b", "-o", "jsonpath={.data}"])? == r#"{"x":"1"}"#, "apply removes what was dropped");
    let edited = ns.command(&["edit", "configmap", "b"]).env("KUBE_EDITOR", "sed -i s/\\\"1\\\"/\\\"9\\\"/").output()?;
    ensure!(edited.status.success(), "{}", String::from_utf8_lossy(&edited.stderr));
    ensure!(ns.kubectl(&["get", "configmap", "b", "-o", "jsonpath={.data.x}"])? == "9");
    ns.kubectl(&["delete", "configmap", "a", "b"])?;
    ensure!(ns.kubectl_fails(&["get", "configmap", "a"])?.contains(r#"configmaps "a" not found"#));
    Ok(())
}

#[test]
fn a_deployment_rolls_out_scales_and_rolls_back() -> anyhow::Result<()> {
    let cluster = Cluster::single()?;
    let ns = cluster.namespace("roll")?;
    ns.kubectl_with(&["apply", "-f", "-"], &deployment("web", 2))?;
    rolled_out(&ns, "web")?;
    ensure!(ns.kubectl(&["get", "deployment", "web"])?.contains("2/2"));
    ensure!(ns.kubectl(&["get", "pods", "-o", "wide"])?.contains("Running"));
    ensure!(ns.kubectl(&["describe", "deployment", "web"])?.contains("ScalingReplicaSet"), "events are shown");
    ns.kubectl(&["scale", "deployment/web", "--replicas=3"])?;
    rolled_out(&ns, "web")?;
    ns.kubectl(&["set", "env", "deployment/web", "VERSION=v2"])?;
    rolled_out(&ns, "web")?;
    ns.kubectl(&["rollout", "restart", "deployment/web"])?;
    rolled_out(&ns, "web")?;
    ensure!(
        ns.kubectl(&["rollout", "history", "deployment/web"])?.lines().filter(|l| l.starts_with(|c: char| c.is_ascii_digit())).count() == 3
    );
    ns.kubectl(&["rollout", "undo", "deployment/web", "--to-revision=1"])?;
    rolled_out(&ns, "web")?;
    let version = "jsonpath={.spec.template.spec.containers[0].env[0].value}";
    ensure!(ns.kubectl(&["get", "deployment", "web", "-o", version])? == "v1");
    ns.kubectl(&["wait", "--for=condition=Available", "deployment/web", "--timeout=60s"])?;
    ns.kubectl(&["delete", "deployment", "web"])?;
    eventually("the garbage collector to remove the pods", LONG, || {
        ensure!(ns.kubectl(&["get", "pods", "-o", "name"])?.is_empty());
        Ok(())
    })
}

#[test]
fn logs_exec_and_run_reach_the_container() -> anyhow::Result<()> {
    let cluster = Cluster::single()?;
    let ns = cluster.namespace("exec")?;
    let script = "echo first; echo second; sleep 600";
    ns.kubectl(&["run", "talker", "--image", BOX, "--restart=Never", "--", "sh", "-c", script])?;
    ns.kubectl(&["wait", "--for=condition=Ready", "pod/talker", "--timeout=60s"])?;
    eventually("both lines of the log", LONG, || {
        ensure!(ns.kubectl(&["logs", "talker"])? == "first\nsecond\n");
        Ok(())
    })?;
    ensure!(ns.kubectl(&["logs", "talker", "--tail=1"])? == "second\n");
    ensure!(ns.kubectl(&["exec", "talker", "--", "cat", "/etc/hostname"])?.trim() == "talker");
    ensure!(ns.kubectl_with(&["exec", "-i", "talker", "--", "cat"], "through\n")? == "through\n");
    let failed = ns.command(&["exec", "talker", "--", "sh", "-c", "exit 7"]).output()?;
    ensure!(failed.status.code() == Some(7), "the exit code travels: {failed:?}");
    let run = ns.kubectl_with(&["run", "once", "--image", BOX, "--rm", "-i", "--restart=Never", "--", "cat"], "typed\n")?;
    ensure!(run.contains("typed"), "{run}");
    ensure!(ns.kubectl(&["describe", "pod", "talker"])?.contains("Started"));
    Ok(())
}

#[test]
fn a_watch_shows_changes_as_they_happen() -> anyhow::Result<()> {
    use std::{
        io::{BufRead, BufReader},
        process::Stdio,
    };
    let cluster = Cluster::single()?;
    let ns = cluster.namespace("watch")?;
    let mut watch = ns.command(&["get", "configmap", "-w", "-o", "name"]).stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(watch.stdout.take().context("stdout")?).lines();
    ns.kubectl(&["create", "configmap", "seen"])?;
    let found = lines.any(|line| line.is_ok_and(|l| l == "configmap/seen"));
    watch.kill()?;
    watch.wait()?;
    ensure!(found);
    Ok(())
}

#[test]
fn access_is_asked_for_and_tokens_are_made() -> anyhow::Result<()> {
    let cluster = Cluster::single()?;
    let ns = cluster.namespace("auth")?;
    ensure!(ns.kubectl(&["auth", "can-i", "create", "pods"])?.trim() == "yes");
    eventually("the default service account", LONG, || ns.kubectl(&["get", "serviceaccount", "default"]))?;
    let account = format!("--as=system:serviceaccount:{}:default", ns.name());
    ensure!(ns.kubectl_fails(&["auth", "can-i", "list", "secrets", &account]).is_ok());
    ns.kubectl(&["create", "role", "reader", "--verb=get,list", "--resource=secrets"])?;
    ns.kubectl(&["create", "rolebinding", "reader", "--role=reader", &format!("--serviceaccount={}:default", ns.name())])?;
    eventually("the binding to count", LONG, || ns.kubectl(&["auth", "can-i", "list", "secrets", &account]))?;
    let token = ns.kubectl(&["create", "token", "default"])?;
    ensure!(token.trim().split('.').count() == 3);
    let forbidden = ns.kubectl_fails(&["--token", token.trim(), "--client-certificate=", "get", "nodes", &account])?;
    ensure!(forbidden.contains("cannot list resource \"nodes\""), "{forbidden}");
    Ok(())
}

#[test]
fn nodes_are_cordoned_and_drained() -> anyhow::Result<()> {
    let cluster = Cluster::lab()?;
    let ns = cluster.namespace("drain")?;
    ns.kubectl_with(&["apply", "-f", "-"], &deployment("web", 4))?;
    rolled_out(&ns, "web")?;
    cluster.kubectl(&["cordon", "a1"])?;
    ensure!(cluster.kubectl(&["get", "node", "a1"])?.contains("SchedulingDisabled"));
    cluster.kubectl(&["drain", "a1", "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=90s"])?;
    rolled_out(&ns, "web")?;
    let nodes = ns.kubectl(&["get", "pods", "--field-selector=status.phase=Running", "-o", "jsonpath={.items[*].spec.nodeName}"])?;
    cluster.kubectl(&["uncordon", "a1"])?;
    ensure!(!nodes.contains("a1"), "{nodes}");
    Ok(())
}

#[test]
fn certificates_are_requested_approved_and_denied() -> anyhow::Result<()> {
    let cluster = Cluster::single()?;
    let name = request_certificate(&cluster, "anna")?;
    cluster.kubectl(&["certificate", "approve", &name])?;
    eventually("the signed certificate", LONG, || {
        ensure!(!cluster.kubectl(&["get", "csr", &name, "-o", "jsonpath={.status.certificate}"])?.is_empty());
        Ok(())
    })?;
    ensure!(cluster.kubectl(&["get", "csr", &name])?.contains("Approved,Issued"));
    cluster.kubectl(&["delete", "csr", &name])?;

    let name = request_certificate(&cluster, "bob")?;
    cluster.kubectl(&["certificate", "deny", &name])?;
    ensure!(cluster.kubectl(&["get", "csr", &name])?.contains("Denied"));
    ensure!(cluster.kubectl(&["get", "csr", &name, "-o", "jsonpath={.status.certificate}"])?.is_empty());
    let both = cluster.kubectl_fails(&["certificate", "approve", &name])?;
    ensure!(both.contains("already Denied"), "{both}");
    cluster.kubectl(&["delete", "csr", &name]).map(drop)
}

/// Asks for a client certificate; the request's name.
fn request_certificate(cluster: &Cluster, user: &str) -> anyhow::Result<String> {
    let folder = tempfile::tempdir()?;
    let key = folder.path().join("k");
    let name = format!("{user}-{}", std::process::id());
    let csr = std::process::Command::new("openssl")
        .args(["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj"])
        .arg(format!("/CN={user}/O=team"))
        .arg("-keyout")
        .arg(&key)
        .output()
        .context("run openssl")?;
    ensure!(csr.status.success());
    let encoded = cluster.kubectl_with(
        &["create", "secret", "generic", "x", "--dry-run=client", "--from-file=csr=/dev/stdin", "-o", "jsonpath={.data.csr}"],
        &String::from_utf8_lossy(&csr.stdout),
    )?;
    cluster.kubectl_with(
        &["apply", "-f", "-"],
        &format!(
            "apiVersion: certificates.k8s.io/v1\nkind: CertificateSigningRequest\nmetadata: {{name: {name}}}\nspec:\n  request: {encoded}\n  \
             signerName: kubernetes.io/kube-apiserver-client\n  usages: [client auth]\n"
        ),
    )?;
    Ok(name)
}

#[test]
fn the_api_describes_itself() -> anyhow::Result<()> {
    let cluster = Cluster::single()?;
    let resources = cluster.kubectl(&["api-resources"])?;
    for expected in ["deployments", "leases", "poddisruptionbudgets", "customresourcedefinitions"] {
        ensure!(resources.contains(expected), "{expected} is missing in api-resources");
    }
    ensure!(cluster.kubectl(&["explain", "pod.spec.containers"])?.contains("image"));
    ensure!(cluster.kubectl(&["version"])?.contains("v1.36"));
    Ok(())
}

#[test]
fn a_pod_that_cannot_start_says_why() -> anyhow::Result<()> {
    let cluster = Cluster::single()?;
    let ns = cluster.namespace("broken")?;
    ns.kubectl(&["run", "nowhere", "--image=localhost:1/none/none:1", "--restart=Never"])?;
    ns.kubectl(&["run", "crasher", "--image", BOX, "--", "sh", "-c", "exit 3"])?;
    ns.kubectl(&[
        "run",
        "huge",
        "--image",
        BOX,
        "--overrides",
        r#"{"spec":{"containers":[{"name":"huge","image":"localhost/trireme/box:1","resources":{"requests":{"cpu":"900"}}}]}}"#,
    ])?;
    eventually("the words that kubectl users know", LONG, || {
        let pods = ns.kubectl(&["get", "pods"])?;
        ensure!(pods.contains("ErrImagePull") || pods.contains("ImagePullBackOff"), "{pods}");
        ensure!(pods.contains("CrashLoopBackOff"), "{pods}");
        let events = ns.kubectl(&["describe", "pod", "huge"])?;
        ensure!(events.contains("Insufficient cpu"), "{events}");
        Ok(())
    })
}

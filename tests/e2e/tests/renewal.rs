//! A node's certificates are renewed on order while it works: what runs through its kubelet goes on, what comes later sees the new
//! ones, and its process is the same.

use std::{
    io::{BufRead, BufReader, Lines, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, ensure};
use serde_json::Value;
use trireme_e2e::process::binary;
use trireme_harness::{Cluster, Host, Namespace, eventually};

const NODE: &str = "a1";
const LONG: Duration = Duration::from_secs(90);
const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: talker}
spec:
  nodeName: a1
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: localhost/trireme/box:1
    imagePullPolicy: IfNotPresent
    command: [sh, -c, 'n=0; while true; do n=$((n + 1)); echo $n; usleep 100000; done']
";

/// A kubectl that runs until it is dropped.
struct Running {
    child: Child,
    input: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(ns: &Namespace, args: &[&str]) -> anyhow::Result<Self> {
        let mut child = ns.command(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let lines = BufReader::new(child.stdout.take().context("stdout")?).lines();
        Ok(Self { input: child.stdin.take(), child, lines })
    }

    fn line(&mut self) -> anyhow::Result<String> {
        Ok(self.lines.next().context("the output ended")??)
    }

    /// Says a line, and hears it again.
    fn echoes(&mut self, line: &str) -> anyhow::Result<()> {
        self.input.as_mut().context("stdin")?.write_all(format!("{line}\n").as_bytes())?;
        let heard = self.line()?;
        ensure!(heard == line, "{line:?} comes back as {heard:?}");
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `trireme certificate VERB` for this node: its certificates by name.
fn certificates(cluster: &Cluster, args: &[&str]) -> anyhow::Result<Vec<Value>> {
    let output =
        Command::new(binary()?).arg("certificate").args(args).args(["-o", "json", "--kubeconfig"]).arg(cluster.kubeconfig()).output()?;
    ensure!(output.status.success(), "certificate {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    let lists: Value = serde_json::from_slice(&output.stdout)?;
    let lists = lists.as_array().context("lists")?;
    let list = lists.iter().find(|list| list["holder"] == NODE).with_context(|| format!("no certificates of {NODE}: {lists:?}"))?;
    Ok(list["certificates"].as_array().context("certificates")?.clone())
}

/// What a host's agent keeps: its client certificate, and its serving certificate.
fn kept(host: &Host) -> anyhow::Result<[String; 2]> {
    let identity: Value = serde_json::from_slice(&std::fs::read(host.directory().join("data/agent/tls/identity.json"))?)?;
    let pem = |name: &str| {
        let pem = identity[name]["certificate_pem"].as_str().with_context(|| format!("no {name} certificate"));
        pem.map(|pem| pem.trim().to_owned())
    };
    Ok([pem("client")?, pem("serving")?])
}

/// The certificate that its kubelet's port shows to a new client.
fn shown(host: &Host) -> anyhow::Result<String> {
    let port = format!("{}:10250", host.address()?);
    let output = Command::new("openssl").args(["s_client", "-connect", &port]).stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let (begin, end) = ("-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----");
    let from = said.find(begin).with_context(|| format!("no certificate: {said}"))?;
    let to = said.find(end).context("half a certificate")? + end.len();
    Ok(said[from..to].to_owned())
}

fn renewed_at(cluster: &Cluster) -> anyhow::Result<String> {
    cluster.kubectl(&["get", "lease", NODE, "-n", "kube-node-lease", "-o", "jsonpath={.spec.renewTime}"])
}

#[test]
fn a_node_renews_its_certificates_while_logs_and_exec_go_on() -> anyhow::Result<()> {
    let (cluster, host) = (Cluster::lab()?, Host::named(NODE));
    let ns = cluster.namespace("renewal")?;
    ns.kubectl_with(&["apply", "-f", "-"], POD)?;
    ns.kubectl(&["wait", "--for=condition=Ready", "pod/talker", "--timeout=60s"])?;
    let mut logs = Running::start(&ns, &["logs", "-f", "talker"])?;
    let mut exec = Running::start(&ns, &["exec", "-i", "talker", "--", "cat"])?;
    ensure!(logs.line()? == "1", "the log from its beginning");
    exec.echoes("before")?;
    let (process, before) = (host.pid("trireme")?, kept(&host)?);
    ensure!(before[1].contains(&shown(&host)?), "the port shows what is kept");

    for round in 0..2 {
        let old = kept(&host)?;
        let names: Vec<Value> = certificates(&cluster, &["rotate", NODE])?.iter().map(|c| c["name"].clone()).collect();
        ensure!(names == ["kubelet-client", "kubelet-serving"], "{names:?}");
        let new = kept(&host)?;
        ensure!(old[0] != new[0] && old[1] != new[1], "both are new");
        ensure!(new[1].contains(&shown(&host)?), "the port shows the new one");
        // Connections from before stay open, however they were opened.
        exec.echoes(&format!("round {round}"))?;
        let mut number: u32 = logs.line()?.parse()?;
        for _ in 0..20 {
            let next = logs.line()?.parse()?;
            ensure!(next == number + 1, "a line is missing between {number} and {next}");
            number = next;
        }
        // New connections use the new certificates: the API server's to the kubelet, and the agent's to the API server.
        ensure!(ns.kubectl(&["logs", "talker", "--tail=1"])?.trim().parse::<u32>().is_ok(), "logs");
        ensure!(ns.kubectl(&["exec", "talker", "--", "echo", "hello"])?.trim() == "hello", "exec");
        let lease = eventually("the node's Lease", LONG, || renewed_at(&cluster))?;
        eventually("the node's Lease to be renewed", LONG, || {
            ensure!(renewed_at(&cluster)? != lease, "it is the one of {lease}");
            Ok(())
        })?;
    }
    let checked = certificates(&cluster, &["check"])?;
    ensure!(checked.len() == 2, "{checked:?}");
    ensure!(host.pid("trireme")? == process, "it is the same process");
    // And it still starts pods, for which it asks the API server for tokens.
    ns.kubectl(&["run", "later", "--image", "localhost/trireme/box:1", "--overrides", r#"{"spec":{"nodeName":"a1"}}"#])?;
    ns.kubectl(&["wait", "--for=condition=Ready", "pod/later", "--timeout=60s"]).map(drop)
}

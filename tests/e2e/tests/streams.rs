//! Bytes through the API server to pods and back: port-forward, cp, and logs that go on.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpStream},
    process::{Child, ChildStdout, Stdio},
    time::Duration,
};

use anyhow::{Context, ensure};
use trireme_harness::{Cluster, Host, Namespace, eventually};

const BOX: &str = "localhost/trireme/box:1";
const LONG: Duration = Duration::from_secs(90);

/// A kubectl that runs until it is dropped.
struct Running {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(ns: &Namespace, args: &[&str]) -> anyhow::Result<Self> {
        let mut child = ns.command(args).stdout(Stdio::piped()).spawn()?;
        let lines = BufReader::new(child.stdout.take().context("stdout")?).lines();
        Ok(Self { child, lines })
    }

    fn line(&mut self) -> anyhow::Result<String> {
        Ok(self.lines.next().context("the output ended")??)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pod(ns: &Namespace, name: &str, script: &str) -> anyhow::Result<()> {
    ns.kubectl(&["run", name, "--image", BOX, "--", "sh", "-c", script])?;
    ns.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=60s"]).map(drop)
}

/// The port that kubectl chose, out of `Forwarding from 127.0.0.1:4711 -> 9000`.
fn forwarded(forward: &mut Running) -> anyhow::Result<u16> {
    let line = forward.line()?;
    let port = line.strip_prefix("Forwarding from 127.0.0.1:").and_then(|rest| rest.split(' ').next());
    port.with_context(|| format!("no port in {line:?}"))?.parse().context("a port")
}

#[test]
fn port_forward_carries_bytes_both_ways() -> anyhow::Result<()> {
    let cluster = Cluster::single()?;
    let ns = cluster.namespace("forward")?;
    pod(&ns, "echo", "nc -ll -p 9000 -e cat")?;
    let mut forward = Running::start(&ns, &["port-forward", "pod/echo", ":9000"])?;
    let port = forwarded(&mut forward)?;
    eventually("the echo to listen", LONG, || ns.kubectl(&["exec", "echo", "--", "nc", "-w", "1", "127.0.0.1", "9000"]))?;
    // Connections at the same time, each with bytes of its own, more than any buffer on the way holds.
    let talks: Vec<_> = (0..4_u8)
        .map(|talk| {
            std::thread::spawn(move || -> anyhow::Result<bool> {
                let sent: Vec<u8> = (0..1_500_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8 ^ talk).collect();
                let mut out = TcpStream::connect(("127.0.0.1", port))?;
                out.set_read_timeout(Some(LONG))?;
                let (mut back, content) = (out.try_clone()?, sent.clone());
                let writer = std::thread::spawn(move || out.write_all(&content));
                let mut got = vec![0; sent.len()];
                back.read_exact(&mut got)?;
                ensure!(writer.join().is_ok_and(|written| written.is_ok()), "write");
                back.shutdown(Shutdown::Both)?;
                Ok(got == sent)
            })
        })
        .collect();
    for talk in talks {
        ensure!(talk.join().map_err(|_| anyhow::anyhow!("a talk panicked"))??, "what came back is not what was sent");
    }
    // A port without a listener ends that connection alone.
    let mut other = Running::start(&ns, &["port-forward", "pod/echo", ":9001"])?;
    let mut refused = TcpStream::connect(("127.0.0.1", forwarded(&mut other)?))?;
    refused.set_read_timeout(Some(LONG))?;
    ensure!(refused.read(&mut [0; 1]).unwrap_or(0) == 0, "bytes from nowhere");
    let mut again = TcpStream::connect(("127.0.0.1", port))?;
    again.set_read_timeout(Some(LONG))?;
    again.write_all(b"still here")?;
    let mut got = [0; 10];
    again.read_exact(&mut got)?;
    ensure!(&got == b"still here");
    Ok(())
}

#[test]
fn port_forward_finds_the_pod_of_a_service() -> anyhow::Result<()> {
    let cluster = Cluster::single()?;
    let ns = cluster.namespace("svc")?;
    ns.kubectl(&["run", "web", "--image", BOX, "--port=8080", "--labels=app=web"])?;
    ns.kubectl(&["expose", "pod", "web", "--port=80", "--target-port=8080"])?;
    ns.kubectl(&["wait", "--for=condition=Ready", "pod/web", "--timeout=60s"])?;
    let mut forward = Running::start(&ns, &["port-forward", "service/web", ":80"])?;
    let port = forwarded(&mut forward)?;
    eventually("the page", LONG, || {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(LONG))?;
        stream.write_all(b"GET / HTTP/1.0\r\nHost: web\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        ensure!(page.starts_with("HTTP/1.") && page.ends_with("trireme\n"), "{page:?}");
        Ok(())
    })
}

#[test]
fn cp_moves_files_in_and_out() -> anyhow::Result<()> {
    let cluster = Cluster::single()?;
    let ns = cluster.namespace("cp")?;
    pod(&ns, "store", "sleep 1000")?;
    let folder = tempfile::tempdir()?;
    let content: Vec<u8> = (0..3_000_001_u32).map(|n| (n.wrapping_mul(40_503) >> 8) as u8).collect();
    std::fs::create_dir(folder.path().join("there"))?;
    std::fs::write(folder.path().join("there/large"), &content)?;
    std::fs::write(folder.path().join("there/small"), "few words\n")?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    ns.kubectl(&["cp", &path("there"), "store:/tmp/there"])?;
    ensure!(ns.kubectl(&["exec", "store", "--", "cat", "/tmp/there/small"])? == "few words\n");
    ns.kubectl(&["cp", "store:/tmp/there", &path("back")])?;
    ensure!(std::fs::read(folder.path().join("back/large"))? == content, "the large file changed on its way");
    ensure!(std::fs::read_to_string(folder.path().join("back/small"))? == "few words\n");
    Ok(())
}

#[test]
fn logs_go_on_and_reach_back() -> anyhow::Result<()> {
    let cluster = Cluster::single()?;
    let ns = cluster.namespace("logs")?;
    // Says a line whenever the pipe asks for one, and ends when it says so. It holds both ends of the pipe: a writer that closes late would
    // else end the next read.
    let script = "exec 3<>/tmp/say; echo begin; while read -r line <&3; do echo \"$line\"; [ \"$line\" != end ] || exit 3; done";
    pod(&ns, "talker", &format!("mkfifo /tmp/say; {script}"))?;
    let say = |line: &str| ns.kubectl(&["exec", "talker", "--", "sh", "-c", &format!("echo {line} > /tmp/say")]);
    let mut follow = Running::start(&ns, &["logs", "-f", "talker"])?;
    ensure!(follow.line()? == "begin");
    for line in ["one", "two"] {
        say(line)?;
        ensure!(follow.line()? == line);
    }
    ensure!(ns.kubectl(&["logs", "talker", "--tail=2"])? == "one\ntwo\n");
    ensure!(ns.kubectl(&["logs", "talker", "--since=1h"])? == "begin\none\ntwo\n");
    ensure!(ns.kubectl(&["logs", "talker", "--since-time=2200-01-01T00:00:00Z"])?.is_empty());
    let stamped = ns.kubectl(&["logs", "talker", "--timestamps", "--tail=1"])?;
    let (stamp, line) = stamped.trim_end().split_once(' ').context("a time and a line")?;
    ensure!(line == "two" && stamp.ends_with('Z') && stamp.contains('T'), "{stamped}");
    ensure!(ns.kubectl(&["logs", "talker", "--limit-bytes=7"])? == "begin\no");
    ensure!(
        ns.kubectl_fails(&["logs", "talker", "--previous"])?
            .contains("previous terminated container \"talker\" in pod \"talker\" not found")
    );
    // The container ends: the stream that follows its log ends too, and the log is the previous container's now.
    // The container's end may kill the command that asked for it before that has ended itself.
    let _killed_with_it = say("end");
    ensure!(follow.line()? == "end");
    ensure!(follow.lines.next().is_none() && follow.child.wait()?.success());
    eventually("the container to be started again", LONG, || {
        ensure!(ns.kubectl(&["get", "pod", "talker", "-o", "jsonpath={.status.containerStatuses[0].restartCount}"])? == "1");
        Ok(())
    })?;
    ensure!(ns.kubectl(&["logs", "talker", "--previous"])? == "begin\none\ntwo\nend\n");
    eventually("the second container's words", LONG, || {
        // The pipe is there already: mkfifo complains, and that is all the new container says beside its beginning.
        ensure!(ns.kubectl(&["logs", "talker"])?.ends_with("begin\n"));
        Ok(())
    })
}

/// The servers of the lab are no nodes: they have no route to pods, and go through the tunnels that the agents open.
#[test]
fn every_server_reaches_pods_and_services_behind_the_agents() -> anyhow::Result<()> {
    let lab = Cluster::lab()?;
    let ns = lab.namespace("tunnels")?;
    pod(&ns, "web", "mkdir /tmp/w; echo through > /tmp/w/index.html; httpd -f -p 8080 -h /tmp/w")?;
    ns.kubectl(&["expose", "pod", "web", "--port", "80", "--target-port", "8080"])?;
    let base = format!("/api/v1/namespaces/{}", ns.name());
    for name in ["s1", "s2", "s3"] {
        let server = format!("https://{}:6443", Host::named(name).address()?);
        for path in [format!("{base}/pods/web:8080/proxy/"), format!("{base}/services/web:80/proxy/")] {
            let answer = eventually(&format!("{name}: {path}"), LONG, || lab.kubectl(&["--server", &server, "get", "--raw", &path]))?;
            ensure!(answer.trim() == "through", "{name}: {path}: {answer}");
        }
        let log = lab.kubectl(&["--server", &server, "-n", ns.name(), "exec", "web", "--", "echo", "hello"])?;
        ensure!(log.trim() == "hello", "{name}: {log}");
    }
    Ok(())
}

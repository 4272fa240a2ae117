//! Interactive terminals: `exec -it`, `run --rm -it`, `attach -it`, with a window that changes its size.

use std::time::Duration;

use anyhow::ensure;
use trireme_harness::{Cluster, Namespace, Terminal, eventually};

const BOX: &str = "localhost/trireme/box:1";
const LONG: Duration = Duration::from_secs(90);

fn ready_pod(ns: &Namespace, name: &str, options: &str) -> anyhow::Result<()> {
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n  \
         - {{name: main, image: '{BOX}', {options}}}\n"
    );
    ns.kubectl_with(&["apply", "-f", "-"], &pod)?;
    ns.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=60s"]).map(drop)
}

#[test]
fn exec_gives_a_shell_that_follows_the_window() -> anyhow::Result<()> {
    let cluster = Cluster::single()?;
    let ns = cluster.namespace("tty")?;
    ready_pod(&ns, "idle", "command: [sleep, '1000']")?;
    let mut terminal = Terminal::open(&ns.command(&["exec", "-it", "idle", "--", "sh"]), 41, 101)?;
    terminal.types_until("tty", "/dev/pts/0")?;
    terminal.types_until("stty size", "41 101")?;
    terminal.resize(33, 77)?;
    terminal.types_until("stty size", "33 77")?;
    // What is typed while something runs goes to it, and ^C ends it alone.
    terminal.types("sleep 1000; echo slept\n")?;
    terminal.shows("echo slept")?;
    terminal.types("\x03")?;
    terminal.types_until("echo still-$((20 + 2))", "still-22")?;
    ensure!(!terminal.screen().contains("\nslept"), "{:?}", terminal.screen());
    terminal.types("exit 5\n")?;
    let status = terminal.ends()?;
    ensure!(status.code() == Some(5), "the exit code travels: {status}");

    // No terminal asked for, none given; output and errors stay apart, and the exit code travels too.
    let plain = ns.command(&["exec", "idle", "--", "sh", "-c", "tty; echo wrong >&2; exit 6"]).output()?;
    let said = (String::from_utf8_lossy(&plain.stdout), String::from_utf8_lossy(&plain.stderr));
    ensure!(plain.status.code() == Some(6) && said.0 == "not a tty\n" && said.1.starts_with("wrong\n"), "{plain:?}");
    let missing = ns.kubectl_fails(&["exec", "idle", "--", "no-such-program"])?;
    ensure!(missing.contains("no-such-program") && missing.contains("not found"), "{missing}");
    Ok(())
}

#[test]
fn run_gives_a_pod_for_as_long_as_somebody_sits_there() -> anyhow::Result<()> {
    let cluster = Cluster::single()?;
    let ns = cluster.namespace("run")?;
    let run = ["run", "guest", "--rm", "-it", "--image", BOX, "--restart=Never", "--", "sh"];
    let mut terminal = Terminal::open(&ns.command(&run), 24, 80)?;
    terminal.types_until("hostname | tr a-z A-Z", "GUEST")?;
    terminal.types_until("stty size", "24 80")?;
    terminal.types("exit 4\n")?;
    let status = terminal.ends()?;
    ensure!(status.code() == Some(4), "the exit code travels: {status}");
    eventually("the pod to be removed", LONG, || {
        ensure!(ns.kubectl(&["get", "pods", "-o", "name"])?.is_empty());
        Ok(())
    })
}

#[test]
fn attach_reaches_the_process_that_runs() -> anyhow::Result<()> {
    let cluster = Cluster::single()?;
    let ns = cluster.namespace("attach")?;
    ready_pod(
        &ns,
        "shell",
        "stdin: true, tty: true, command: [sh, -c, 'n=1; while read line; do echo \"$n: <$line>\"; n=$((n + 1)); done']",
    )?;
    let mut first = Terminal::open(&ns.command(&["attach", "-it", "shell"]), 24, 80)?;
    first.types_until("hello", "<hello>")?;
    drop(first);
    // Detaching ends nothing: the same process answers the next client.
    let mut second = Terminal::open(&ns.command(&["attach", "-it", "shell"]), 24, 80)?;
    second.types_until("again", "<again>")?;
    ensure!(!second.screen().contains("1: <again>"), "{:?}", second.screen());
    ensure!(ns.kubectl(&["get", "pod", "shell", "-o", "jsonpath={.status.containerStatuses[0].restartCount}"])? == "0");
    // The end of the process is the end of the attachment.
    ns.kubectl(&["delete", "pod", "shell", "--wait=false"])?;
    second.ends().map(drop)
}

//! How the release's install script installs and removes Trireme, and what `check-host` says of a machine that is not fit.
//!
//! The machine is this one under an overlay, in namespaces of its own (`installation/machine.sh`): what is written there goes with it.
//! With a real systemd, and with the package: `ops/test vm`.

use std::process::{Command, Output, Stdio};

use anyhow::ensure;
use trireme_e2e::process::binary;

/// Runs a shell script on a new machine.
fn on_a_machine(script: &str) -> anyhow::Result<Output> {
    let folder = tempfile::tempdir()?;
    let repository = trireme_harness::repository();
    let machine = repository.join("tests/e2e/tests/installation/machine.sh");
    let output = Command::new("unshare")
        .args(["--mount", "--net", "--pid", "--fork", "sh"])
        .arg(machine)
        .arg(folder.path())
        .arg(&repository)
        .arg(binary()?)
        .arg(script)
        .stdin(Stdio::null())
        .output()?;
    Ok(output)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A script whose every line must succeed.
fn must_hold(script: &str) -> anyhow::Result<()> {
    let output = on_a_machine(&format!("set -ex\n{script}"))?;
    ensure!(output.status.success(), "{}: {}{}", output.status, text(&output.stdout), text(&output.stderr));
    Ok(())
}

#[test]
fn the_install_script_needs_no_configuration_file_and_the_uninstall_script_takes_everything_away() -> anyhow::Result<()> {
    must_hold(
        r#"
        sh /release/install.sh
        grep -x 'ExecStart=/usr/local/bin/trireme server' /etc/systemd/system/trireme-server.service
        grep -x 'restart trireme-server' /systemctl.log
        grep /var/lib/trireme/agent/cni /etc/containerd/config.toml
        [ -f /var/lib/trireme/agent/images/trireme-pause.tar ]
        TRIREME_SERVER=https://192.0.2.1:6443 TRIREME_TOKEN='a"b\c' sh /release/install.sh
        grep -x 'TRIREME_TOKEN="a\\"b\\\\c"' /etc/trireme/agent.env
        [ "$(stat -c %a /etc/trireme/agent.env)" = 600 ]
        grep -x 'restart trireme-agent' /systemctl.log
        trireme-uninstall.sh
        [ "$(cat /etc/containerd/config.toml)" = '# somebody wrote this' ]
        [ -z "$(ls -d /etc/trireme /var/lib/trireme /etc/systemd/system/trireme* /usr/local/bin/trireme* 2> /dev/null)" ]
        "#,
    )
}

#[test]
fn a_configuration_that_is_wrong_ends_the_installation_before_anything_is_installed() -> anyhow::Result<()> {
    must_hold(
        r#"
        echo 'nope: 1' > /config.yaml
        if INSTALL_TRIREME_CONFIG=/config.yaml sh /release/install.sh 2> /said; then exit 1; fi
        grep -- "'--nope'" /said
        [ ! -e /usr/local/bin/trireme ] && [ ! -e /systemctl.log ]
        "#,
    )
}

#[test]
fn what_keeps_a_machine_from_running_a_node_is_named_with_the_way_out() -> anyhow::Result<()> {
    let output = on_a_machine(
        r#"
        busybox nc -l -p 10250 &
        until ss -lnt | grep -q ':10250 '; do sleep 0.1; done
        PATH=/nowhere /release/bin/trireme check-host --role agent
        "#,
    )?;
    let said = text(&output.stdout) + &text(&output.stderr);
    ensure!(output.status.code() == Some(1), "{}: {said}", output.status);
    for words in ["in use: 10250/tcp (kubelet)", "ss -lntup", "apt-get install nftables", "start containerd", "problems: see the table"] {
        ensure!(said.contains(words), "nothing is said of {words:?}: {said}");
    }
    Ok(())
}

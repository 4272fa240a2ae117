//! Starts that must fail, and how: one line on standard error that begins with `trireme:`, says what is wrong and what would be
//! right; exit code 2 where the command line or configuration is to blame, 1 for everything else. Log lines may stand before it.

use std::{
    fs,
    net::TcpListener,
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use trireme_e2e::process::Place;

const HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path in UTF-8")
}

#[test]
fn wrong_options_are_named_with_what_would_be_right() -> anyhow::Result<()> {
    let place = Place::new()?;
    for (args, words) in [
        (&["server", "--https-listen-port", "abc"][..], &["--https-listen-port", "'abc'", "1 to 65535"][..]),
        (&["server", "--https-listen-port", "99999"], &["--https-listen-port", "'99999'", "1 to 65535"]),
        (&["server", "--peer-port", "0"], &["--peer-port", "'0'", "1 to 65535"]),
        (&["server", "--node-ip", "here"], &["--node-ip", "'here'", "expected an IP address"]),
        (&["server", "--node-name", "A_b"], &["--node-name", "'A_b'", "lower-case"]),
        (&["server", "--cluster-cidr", "10.0.0.0"], &["--cluster-cidr", "'10.0.0.0'", "10.42.0.0/16"]),
        (&["server", "--service-cidr", "10.42.9.0/24"], &["--service-cidr", "10.42.9.0/24", "--cluster-cidr"]),
        (&["server", "--cluster-dns", "9.9.9.9"], &["--cluster-dns", "9.9.9.9", "10.43.0.0/16"]),
        (&["server", "--flannel-backend", "ipip"], &["--flannel-backend", "'ipip'", "vxlan", "host-gw", "none"]),
        (&["server", "--disable", "traefik"], &["--disable", "'traefik'", "coredns"]),
        (&["server", "--write-kubeconfig-mode", "9"], &["--write-kubeconfig-mode", "'9'", "600"]),
        (&["server", "--log-level", "a=b=c"], &["--log-level", "'a=b=c'", "info"]),
        (&["server", "--container-runtime-endpoint", "tcp"], &["--container-runtime-endpoint", "'tcp'", "absolute path"]),
        (&["server", "--server", "http://a"], &["--server", "'http://a'", "https://HOST:PORT"]),
        (&["server", "--token-file", "/nonexistent"], &["--token-file", "/nonexistent", "No such file"]),
        (&["server", "--disable-agent", "--server", "https://127.0.0.1:1"], &["--token"]),
        (&["server", "--nope"], &["'--nope'"]),
        // D16: a flag of upstream's acts or ends the start.
        (&["server", "--kube-apiserver-arg", "oidc-issuer-url=https://a"], &["--kube-apiserver-arg", "oidc-issuer-url"]),
        (&["server", "--kube-apiserver-arg", "enable-admission-plugins=ImagePolicyWebhook"], &["ImagePolicyWebhook"]),
        (&["server", "--kube-controller-manager-arg", "leader-elect=false"], &["--kube-controller-manager-arg", "leader-elect"]),
        (&["server", "--kube-controller-manager-arg", "controllers=*,-jobs"], &["\"jobs\" is no controller", "job-controller"]),
        (&["server", "--disable-controller", "jobs"], &["--disable-controller", "'jobs'", "job-controller"]),
        (&["server", "--kube-scheduler-arg", "config=/x"], &["--kube-scheduler-arg", "config"]),
        // Security 23: a secret that can be guessed.
        (&["server", "--disable-agent", "--token", "hunter2"], &["--token", "at least 16"]),
        (&["agent", "--node-taint", "a=b:Never"], &["--node-taint", "'a=b:Never'", "NoExecute"]),
        (&["agent", "--node-label", "a"], &["--node-label", "'a'", "KEY=VALUE"]),
        (&["frobnicate"], &["'frobnicate'"]),
        (&["completion", "tcsh"], &["'tcsh'", "bash", "zsh"]),
    ] {
        place.run(args)?.must_say(2, words).with_context(|| args.join(" "))?;
    }
    let mut command = place.command(&["server"])?;
    command.env("TRIREME_PEER_PORT", "x");
    place.run_command(command)?.must_say(2, &["--peer-port", "'x'", "1 to 65535"])?;
    ensure!(!place.data().join("server/cred").exists(), "a wrong option founds nothing");
    Ok(())
}

#[test]
fn a_wrong_configuration_file_is_named_with_the_place() -> anyhow::Result<()> {
    let place = Place::new()?;
    let file = place.path("config.yaml");
    let name = text(&file)?.to_owned();
    for (content, words) in [
        ("a: [\n", &["line 1"][..]),
        ("- a\n", &["expected a mapping"]),
        ("https-listen-port: abc\n", &["--https-listen-port", "'abc'", "1 to 65535"]),
        ("nope: 1\n", &["'--nope'"]),
        ("kube-apiserver-arg: [tls-min-version=VersionTLS13]\n", &["tls-min-version"]),
        ("node-name: {a: b}\n", &["node-name", "expected a text"]),
    ] {
        fs::write(&file, content)?;
        let mut all = vec![name.as_str()];
        all.extend(words);
        // The environment would win over the file.
        for args in [&["check-config", "--config", &name][..], &["server", "--config", &name]] {
            let mut command = place.command(args)?;
            command.env_remove("TRIREME_HTTPS_LISTEN_PORT").env_remove("TRIREME_NODE_NAME");
            place.run_command(command)?.must_say(2, &all).with_context(|| format!("{content:?} with {args:?}"))?;
        }
    }
    fs::write(&file, [0xff, 0xfe, 0x00])?;
    place.run(&["check-config", "--config", &name])?.must_say(2, &[&name])?;
    place.run(&["server", "--config", "/nonexistent"])?.must_say(2, &["/nonexistent", "No such file"])?;
    fs::write(&file, "node-name: a\ntls-san: [x, y]\n")?;
    let good = place.run(&["check-config", "--config", &name])?;
    ensure!(good.code == Some(0) && good.stdout.contains("no error") && good.stderr.is_empty(), "{good:?}");
    Ok(())
}

#[test]
fn what_needs_no_cluster_answers_on_standard_output() -> anyhow::Result<()> {
    let place = Place::new()?;
    for (args, word) in [
        (&["version"][..], "v1.36"),
        (&["--version"], "v1.36"),
        (&["--help"], "Usage: trireme"),
        (&["server", "--help"], "--https-listen-port"),
        (&["agent", "--help"], "--server"),
        (&["completion", "bash"], "complete -F"),
        (&["completion", "zsh"], "#compdef trireme"),
        (&["completion", "fish"], "complete -c trireme"),
    ] {
        let ended = place.run(args)?;
        ensure!(ended.code == Some(0) && ended.stdout.contains(word) && ended.stderr.is_empty(), "{args:?}: {ended:?}");
    }
    Ok(())
}

#[test]
fn a_taken_port_founds_no_cluster() -> anyhow::Result<()> {
    let place = Place::new()?;
    for (port, option) in [(place.https_port, "--https-listen-port"), (place.peer_port, "--peer-port"), (place.etcd_port, "--etcd-port")] {
        let taken = TcpListener::bind(("127.0.0.1", port))?;
        place.run(&["server", "--disable-agent"])?.must_say(1, &[option, &port.to_string(), "in use"])?;
        drop(taken);
        ensure!(!place.data().join("server/cred").exists(), "{option}: something was founded");
    }
    place.run(&["server", "--disable-agent", "--bind-address", "192.0.2.77"])?.must_say(1, &["--bind-address", "192.0.2.77"])?;
    // And nothing of it is in the way of a good start.
    place.server(&[])?.stop()?;
    Ok(())
}

#[test]
fn a_folder_that_is_not_ours_is_left_alone() -> anyhow::Result<()> {
    let place = Place::new()?;
    let server = ["server", "--disable-agent"];
    fs::write(place.data(), "a file")?;
    place.run(&server)?.must_say(1, &["--data-dir", "data"])?;
    fs::remove_file(place.data())?;
    // Another product's, at each level.
    for strange in ["member/wal", "server/kine.sock", "server/db/state.db"] {
        let path = place.data().join(strange);
        fs::create_dir_all(&path)?;
        place
            .run(&server)?
            .must_say(1, &["--data-dir", "not a data directory of Trireme", strange.split("/wal").next().unwrap_or_default()])?;
        fs::remove_dir_all(place.data())?;
    }
    // A place where no user can write, root included.
    place.run(&["server", "--disable-agent", "--data-dir", "/proc/trireme"])?.must_say(1, &["--data-dir", "/proc/trireme"])?;
    place.run(&["agent", "--data-dir", "/proc/trireme"])?.must_say(1, &["--data-dir", "/proc/trireme"])?;
    Ok(())
}

#[test]
fn a_folder_of_another_cluster_of_the_future_or_damaged_is_refused() -> anyhow::Result<()> {
    let place = Place::new()?;
    let server = ["server", "--disable-agent"];
    let running = place.server(&[])?;
    // In use: by this one.
    let other = Place::new()?;
    let data = place.data();
    other.run(&["server", "--disable-agent", "--data-dir", text(&data)?])?.must_say(1, &["data directory", "in use"])?;
    ensure!(running.is_ready(), "the first one is unharmed");
    running.stop()?;

    let token = fs::read_to_string(place.data().join("server/token"))?;
    let foreign = format!("K10{HASH}::server:{}", token.trim().rsplit(':').next().unwrap_or_default());
    for wrong in ["other-secret", foreign.as_str()] {
        place.run(&["server", "--disable-agent", "--token", wrong])?.must_say(2, &["--token", "another cluster"])?;
    }
    place.run(&["server", "--disable-agent", "--cluster-cidr", "10.99.0.0/16"])?.must_say(2, &["--cluster-cidr", "10.42.0.0/16"])?;

    let member = place.data().join("server/db/member");
    let good = fs::read_to_string(&member)?;
    fs::write(&member, good.replace("\"format\": 2", "\"format\": 99"))?;
    place.run(&server)?.must_say(1, &["data directory", "format 99"])?;
    fs::write(&member, "{")?;
    place.run(&server)?.must_say(1, &["member"])?;
    fs::write(&member, good)?;

    // One flipped bit in what is written of each segment of the log: never a shorter history, always a refusal.
    let log = place.data().join("server/db/log/segments");
    let mut damaged = 0;
    for entry in fs::read_dir(&log)? {
        let path = entry?.path();
        let mut bytes = fs::read(&path)?;
        if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
            bytes[last / 2] ^= 0x40;
            fs::write(&path, bytes)?;
            damaged += 1;
        }
    }
    ensure!(damaged > 0, "no segment to damage in {}", log.display());
    place.run(&server)?.must_say(1, &["db/log"])?;

    fs::remove_dir_all(place.data().join("server/db"))?;
    place.run(&server)?.must_say(2, &["--data-dir", "--server"])?;
    Ok(())
}

#[test]
fn a_cluster_whose_founder_was_killed_half_way_is_founded_at_the_next_start() -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut command = place.command(&["server", "--disable-agent"])?;
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    // The keys are written last before the store is opened.
    let keys = place.data().join("server/cred/cluster-keys.json");
    let end = Instant::now() + Duration::from_secs(30);
    while !keys.exists() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill()?;
    child.wait()?;
    ensure!(keys.exists(), "no keys within 30 s");
    place.server(&[])?.stop()?;
    Ok(())
}

#[test]
fn wrong_tokens_and_hashes_end_a_join_and_a_missing_server_is_waited_for() -> anyhow::Result<()> {
    let place = Place::new()?;
    let server = place.server(&[])?;
    let (url, joiner) = (server.url(), Place::new()?);
    // The runtime's socket is there; joining fails before any request is made of the runtime.
    let socket = joiner.path("runtime.sock");
    let _runtime = UnixListener::bind(&socket)?;
    let endpoint = text(&socket)?.to_owned();
    let node_token = fs::read_to_string(server.file("node-token"))?;
    let node_token = node_token.trim();
    let wrong_secret = format!("{}wrong", node_token);
    let wrong_hash = format!("K10{HASH}::{}", node_token.split("::").nth(1).context("a full token")?);
    for (token, words) in [
        (wrong_secret.as_str(), &["refuses the token"][..]),
        (wrong_hash.as_str(), &[HASH, "wrong token"]),
        ("K10abc::node:x", &["token", "K10<64 hex digits>"]),
    ] {
        let args = ["agent", "--server", &url, "--token", token, "--container-runtime-endpoint", &endpoint];
        joiner.run(&args)?.must_say(1, words).with_context(|| format!("agent with {token}"))?;
        let second = Place::new()?;
        let args = ["server", "--disable-agent", "--server", &url, "--token", token];
        second.run(&args)?.must_say(1, words).with_context(|| format!("server with {token}"))?;
    }
    joiner.run(&["agent"])?.must_say(1, &["--server", "--token"])?;
    joiner.run(&["agent", "--server", &url, "--token", node_token])?.must_say(1, &["--container-runtime-endpoint", "no-runtime.sock"])?;
    joiner.run(&["server"])?.must_say(1, &["--container-runtime-endpoint", "no-runtime.sock"])?;
    ensure!(!joiner.data().join("server/cred").exists(), "founded without a runtime");

    fs::write(joiner.data().join("agent/journal"), "link cni0\nli")?;
    joiner.run(&["agent", "--server", &url, "--token", node_token])?.must_say(1, &["--data-dir", "journal", "\"li\""])?;
    fs::remove_file(joiner.data().join("agent/journal"))?;

    // No server is there: the agent waits, says so once, and stops when told to.
    let unused = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let log = fs::File::create(joiner.path("log"))?;
    let nobody = format!("https://{unused}");
    let args = ["agent", "--server", &nobody, "--token", node_token, "--container-runtime-endpoint", &endpoint];
    let mut waiting = joiner.command(&args)?.stdout(Stdio::null()).stderr(log).spawn()?;
    // Several attempts' time: the point is what does not happen.
    std::thread::sleep(Duration::from_secs(3));
    let running = waiting.try_wait()?.is_none();
    // A second one on the same folder would take over its sockets and rules.
    let second = joiner.run(&["agent"])?;
    let second_clean_up =
        joiner.run(&["cleanup", "--container-runtime-endpoint", text(&joiner.path("nowhere.sock"))?, "--cgroup-root", "/trireme-test"])?;
    trireme_harness::signal(waiting.id(), "TERM")?;
    let status = waiting.wait()?;
    let said = fs::read_to_string(joiner.path("log"))?;
    ensure!(running && status.success(), "{status}: {said}");
    ensure!(said.matches("can't be reached").count() == 1, "{said}");
    second.must_say(1, &["--data-dir", "in use by another process"])?;
    second_clean_up.must_say(1, &["--data-dir", "in use by another process"])?;
    server.stop()?;
    Ok(())
}

#[test]
fn secrets_are_for_their_owner_only() -> anyhow::Result<()> {
    let place = Place::new()?;
    let server = place.server(&[])?;
    for name in ["token", "node-token", "tls/admin.key", "cred/cluster-keys.json", "cred/cluster.json"] {
        let mode = fs::metadata(server.file(name))?.permissions().mode() & 0o777;
        ensure!(mode == 0o600, "{name} has mode {mode:o}");
    }
    let mode = fs::metadata(place.path("kubeconfig.yaml"))?.permissions().mode() & 0o777;
    ensure!(mode == 0o600, "the kubeconfig has mode {mode:o}");
    Ok(())
}

//! Debian's `etcdctl` against a server: what an operator of etcd types works, and strangers are not let in.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use trireme_e2e::process::{Place, Server};

const PATIENCE: Duration = Duration::from_secs(60);

/// `etcdctl` with the certificates of the server's host.
fn etcdctl(place: &Place, server: &Server<'_>, args: &[&str]) -> Command {
    let mut command = Command::new("etcdctl");
    command
        .env("ETCDCTL_API", "3")
        .arg(format!("--endpoints=https://127.0.0.1:{}", place.etcd_port))
        .arg(format!("--cacert={}", server.file("tls/etcd/ca.crt").display()))
        .arg(format!("--cert={}", server.file("tls/etcd/client.crt").display()))
        .arg(format!("--key={}", server.file("tls/etcd/client.key").display()))
        .args(args)
        .stdin(Stdio::null());
    command
}

/// A place, its server, and what is said to it.
struct Etcd<'a> {
    place: &'a Place,
    server: Server<'a>,
}

impl Etcd<'_> {
    /// Runs to its end; what it said on standard output.
    fn run(&self, args: &[&str]) -> anyhow::Result<String> {
        let output = etcdctl(self.place, &self.server, args).output().context("etcdctl (Debian: etcd-client)")?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "etcdctl {args:?}: {out}{err}");
        Ok(out.into_owned())
    }

    /// Runs to a failure that says `words`.
    fn must_fail(&self, args: &[&str], words: &str) -> anyhow::Result<()> {
        let output = etcdctl(self.place, &self.server, args).output()?;
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(!output.status.success() && said.contains(words), "etcdctl {args:?} did not fail with {words:?}: {said}");
        Ok(())
    }

    /// Runs with this text as its input.
    fn run_with(&self, args: &[&str], input: &str) -> anyhow::Result<String> {
        use std::io::Write;
        let mut child = etcdctl(self.place, &self.server, args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        child.stdin.take().context("stdin")?.write_all(input.as_bytes())?;
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "etcdctl {args:?}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn json(&self, args: &[&str]) -> anyhow::Result<serde_json::Value> {
        let mut all = args.to_vec();
        all.push("--write-out=json");
        Ok(serde_json::from_str(&self.run(&all)?)?)
    }
}

#[test]
fn what_operators_of_etcd_type_works() -> anyhow::Result<()> {
    let place = Place::new()?;
    let etcd = Etcd { place: &place, server: place.server(&[])? };
    keys(&etcd)?;
    transactions_and_compaction(&etcd)?;
    leases(&etcd)?;
    members_and_maintenance(&etcd)?;
    snapshot(&etcd, &place)?;
    kubernetes_is_hidden(&etcd)?;
    strangers(&etcd, &place)?;
    etcd.server.stop()?;
    Ok(())
}

fn keys(etcd: &Etcd<'_>) -> anyhow::Result<()> {
    ensure!(etcd.run(&["put", "k/a", "1"])? == "OK\n");
    ensure!(etcd.run(&["put", "k/a", "2", "--prev-kv"])? == "OK\nk/a\n1\n");
    etcd.run(&["put", "k/b", "3"])?;
    ensure!(etcd.run(&["get", "k/", "--prefix"])? == "k/a\n2\nk/b\n3\n");
    ensure!(etcd.run(&["get", "k/", "--prefix", "--keys-only", "--order=DESCEND", "--sort-by=KEY"])? == "k/b\n\nk/a\n\n");
    ensure!(etcd.run(&["get", "k/", "--prefix", "--limit=1", "--print-value-only", "--consistency=s"])? == "2\n");
    let watched = etcd.run(&["watch", "k/a", "--rev=2", "--prev-kv", "--", "sh", "-c", "kill $PPID"]);
    // It was ended by its own command, upon the first event.
    ensure!(watched.is_err(), "the watch saw nothing");
    ensure!(etcd.run(&["del", "k/b"])? == "1\n");
    etcd.must_fail(&["put", "", "x"], "key is not provided")
}

fn transactions_and_compaction(etcd: &Etcd<'_>) -> anyhow::Result<()> {
    let said = etcd.run_with(&["txn"], "value(\"k/a\") = \"2\"\n\nput k/a 4\nget k/a\n\nput k/a no\n\n")?;
    ensure!(said == "SUCCESS\n\nOK\n\nk/a\n4\n", "{said:?}");
    let said = etcd.run_with(&["txn"], "mod(\"k/a\") = \"1\"\n\nput k/a no\n\nget k/a\n\n")?;
    ensure!(said == "FAILURE\n\nk/a\n4\n", "{said:?}");
    // Kubernetes writes meanwhile: the store's revision is further on.
    let revision = etcd.json(&["get", "k/a"])?["kvs"][0]["mod_revision"].as_i64().context("revision")?;
    let text = revision.to_string();
    ensure!(etcd.run(&["compaction", "--physical", &text])?.contains(&format!("compacted revision {text}")));
    // History that is this recent stays: Kubernetes may resume from it.
    ensure!(etcd.run(&["get", "k/a", "--rev", &(revision - 1).to_string()])? == "k/a\n2\n");
    etcd.must_fail(&["compaction", &(revision + 1_000_000).to_string()], "required revision is a future revision")
}

fn leases(etcd: &Etcd<'_>) -> anyhow::Result<()> {
    let granted = etcd.run(&["lease", "grant", "600"])?;
    let id = granted.split_whitespace().nth(1).context("an id")?.to_owned();
    etcd.run(&["put", "leased", "x", &format!("--lease={id}")])?;
    ensure!(etcd.run(&["lease", "list"])?.contains(&id));
    let left = etcd.run(&["lease", "timetolive", &id, "--keys"])?;
    ensure!(left.contains("granted with TTL(600s)") && left.contains("attached keys([leased])"), "{left}");
    ensure!(etcd.run(&["lease", "keep-alive", "--once", &id])?.contains("keepalived with TTL(600)"));
    etcd.run(&["lease", "revoke", &id])?;
    ensure!(etcd.run(&["get", "leased"])?.is_empty());
    etcd.must_fail(&["lease", "revoke", &id], "requested lease not found")
}

fn members_and_maintenance(etcd: &Etcd<'_>) -> anyhow::Result<()> {
    let members = etcd.json(&["member", "list"])?;
    let [member] = members["members"].as_array().context("members")?.as_slice() else { anyhow::bail!("{members}") };
    ensure!(member["name"] == "test" && member["clientURLs"][0] == format!("https://127.0.0.1:{}", etcd.place.etcd_port), "{members}");
    let id = format!("{:x}", member["ID"].as_u64().context("an id")?);
    etcd.run(&["endpoint", "health"])?;
    let status = etcd.json(&["endpoint", "status"])?;
    let status = &status[0]["Status"];
    ensure!(status["leader"] == member["ID"] && status["dbSize"].as_i64() > Some(0) && status["errors"].is_null(), "{status}");
    ensure!(etcd.json(&["endpoint", "hashkv"])?[0]["HashKV"]["hash"].as_u64() > Some(0));
    ensure!(etcd.run(&["alarm", "list"])?.trim().is_empty());
    etcd.run(&["defrag"])?;
    etcd.must_fail(&["member", "remove", &id], "not enough started members")?;
    etcd.must_fail(&["member", "add", "x", "--peer-urls=https://127.0.0.1:1"], "join by themselves")?;
    etcd.must_fail(&["move-leader", "9"], "bad leader transferee")?;
    etcd.run(&["move-leader", &id])?;
    etcd.run(&["lock", "l", "true"])?;
    // A candidate that was elected stays the leader until it is told to stop.
    let mut elected = etcdctl(etcd.place, &etcd.server, &["elect", "e", "me"]).stdout(Stdio::null()).spawn()?;
    let end = Instant::now() + PATIENCE;
    let mut leader = String::new();
    while !leader.ends_with("\nme\n") && Instant::now() < end {
        leader = etcd.run(&["get", "e/", "--prefix"])?;
    }
    elected.kill()?;
    elected.wait()?;
    ensure!(leader.starts_with("e/") && leader.ends_with("\nme\n"), "{leader:?}");
    Ok(())
}

fn snapshot(etcd: &Etcd<'_>, place: &Place) -> anyhow::Result<()> {
    let file = place.path("snapshot.db");
    let path = file.to_str().context("a path")?;
    etcd.run(&["snapshot", "save", path])?;
    let bytes = std::fs::read(&file)?;
    ensure!(bytes.len() % 512 == 32 && bytes.starts_with(b"TRIREMEB"), "{} bytes", bytes.len());
    Ok(())
}

fn kubernetes_is_hidden(etcd: &Etcd<'_>) -> anyhow::Result<()> {
    etcd.must_fail(&["get", "/registry/", "--prefix"], "permission denied")?;
    etcd.must_fail(&["put", "/registry/core/pods/default/x", "y"], "permission denied")?;
    etcd.must_fail(&["del", "/registry-alloc/", "--prefix"], "permission denied")?;
    let all = etcd.run(&["get", "", "--from-key", "--keys-only"])?;
    ensure!(all.contains("k/a") && !all.contains("/registry"), "{all}");
    ensure!(etcd.run(&["del", "", "--from-key"])?.trim().parse::<u32>()? > 0);
    ensure!(etcd.server.admin(&["/api/v1/namespaces/default"])?.code == 200, "everything was deleted indeed");
    Ok(())
}

/// Certificates of other authorities, and none, do not open the port; nor does the API server take these.
fn strangers(etcd: &Etcd<'_>, place: &Place) -> anyhow::Result<()> {
    let url = format!("https://127.0.0.1:{}/health", place.etcd_port);
    let curl = |pair: Option<&str>| -> anyhow::Result<(bool, String)> {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--max-time", "30", "--cacert"]).arg(etcd.server.file("tls/etcd/ca.crt"));
        if let Some(pair) = pair {
            command.arg("--cert").arg(etcd.server.file(&format!("tls/{pair}.crt")));
            command.arg("--key").arg(etcd.server.file(&format!("tls/{pair}.key")));
        }
        let output = command.arg(&url).output()?;
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        Ok((output.status.success(), said))
    };
    let (ok, said) = curl(Some("etcd/client"))?;
    ensure!(ok && said.contains("\"health\":\"true\""), "{said}");
    for pair in [None, Some("admin"), Some("peer"), Some("apiserver-kubelet-client")] {
        let (ok, said) = curl(pair)?;
        ensure!(!ok, "{pair:?} opened the etcd API: {said}");
    }
    let (certificate, key) = (etcd.server.file("tls/etcd/client.crt"), etcd.server.file("tls/etcd/client.key"));
    let path = |path: &std::path::Path| path.to_str().map(str::to_owned).context("a path");
    let refused = etcd.server.curl(&["--cert", &path(&certificate)?, "--key", &path(&key)?, "/api/v1/namespaces"])?;
    ensure!(refused.code == 401, "an etcd client is somebody to the API server: {refused:?}");
    for (file, mode) in [("tls/etcd/client.key", 0o600), ("tls/etcd/server.key", 0o600), ("tls/etcd", 0o700)] {
        use std::os::unix::fs::PermissionsExt;
        let found = std::fs::metadata(etcd.server.file(file))?.permissions().mode() & 0o777;
        ensure!(found == mode, "{file} has mode {found:o}");
    }
    Ok(())
}

#[test]
fn a_mirror_and_metrics() -> anyhow::Result<()> {
    let (from, to) = (Place::new()?, Place::new()?);
    let (source, target) = (Etcd { place: &from, server: from.server(&[])? }, Etcd { place: &to, server: to.server(&[])? });
    source.run(&["put", "m/1", "one"])?;
    let dest = |name: &str| format!("--dest-{name}");
    let mut mirror = etcdctl(&from, &source.server, &["make-mirror", "--prefix=m/", &format!("127.0.0.1:{}", to.etcd_port)])
        .arg(format!("{}={}", dest("cacert"), target.server.file("tls/etcd/ca.crt").display()))
        .arg(format!("{}={}", dest("cert"), target.server.file("tls/etcd/client.crt").display()))
        .arg(format!("{}={}", dest("key"), target.server.file("tls/etcd/client.key").display()))
        .stdout(Stdio::null())
        .spawn()?;
    let mirrored = |expected: &str| -> anyhow::Result<()> {
        let end = Instant::now() + PATIENCE;
        while target.run(&["get", "m/", "--prefix"])? != expected {
            ensure!(Instant::now() < end, "not mirrored: {expected:?}");
        }
        Ok(())
    };
    let done = mirrored("m/1\none\n").and_then(|()| {
        source.run(&["put", "m/2", "two"])?;
        source.run(&["del", "m/1"])?;
        mirrored("m/2\ntwo\n")
    });
    mirror.kill()?;
    mirror.wait()?;
    done?;
    metrics(&source)
}

/// Prometheus' own check has nothing to say.
fn metrics(etcd: &Etcd<'_>) -> anyhow::Result<()> {
    let page = Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--cacert"])
        .arg(etcd.server.file("tls/etcd/ca.crt"))
        .arg("--cert")
        .arg(etcd.server.file("tls/etcd/client.crt"))
        .arg("--key")
        .arg(etcd.server.file("tls/etcd/client.key"))
        .arg(format!("https://127.0.0.1:{}/metrics", etcd.place.etcd_port))
        .output()?;
    ensure!(page.status.success(), "{}", String::from_utf8_lossy(&page.stderr));
    let mut check = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("promtool (Debian: prometheus)")?;
    std::io::Write::write_all(&mut check.stdin.take().context("stdin")?, &page.stdout)?;
    let said = check.wait_with_output()?;
    let text = format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    // Names that etcd chose before the conventions were; they stay as dashboards know them.
    let known = ["etcd_server_proposals_", "etcd_debugging_mvcc_"];
    let new: Vec<&str> = text.lines().filter(|line| !line.is_empty() && !known.iter().any(|known| line.starts_with(known))).collect();
    ensure!(new.is_empty(), "{new:?}");
    Ok(())
}

/// Filled to its quota, a store refuses what would make it larger, says so as etcd does, and goes on by itself when there is room.
#[test]
fn a_full_store_says_so_and_goes_on_when_there_is_room() -> anyhow::Result<()> {
    let place = Place::new()?;
    let etcd = Etcd { place: &place, server: place.server(&["--quota-backend-bytes=33554432"])? };
    let mut random = std::fs::File::open("/dev/urandom")?;
    let mut full = false;
    for number in 0..100 {
        // Content that does not compress.
        let mut bytes = vec![0; 400 << 10];
        std::io::Read::read_exact(&mut random, &mut bytes)?;
        let text: String = bytes.iter().map(|byte| char::from(b'0' + byte % 64)).collect();
        full = etcd.run_with(&["put", &format!("big/{number:03}")], &text).is_err();
        if full {
            break;
        }
    }
    ensure!(full, "40 MiB fit into 32");
    etcd.must_fail(&["put", "another", "x"], "etcdserver: mvcc: database space exceeded")?;
    ensure!(etcd.run(&["alarm", "list"])?.contains("alarm:NOSPACE"));
    let status = etcd.json(&["endpoint", "status"])?;
    ensure!(status[0]["Status"]["errors"].to_string().contains("alarm:NOSPACE"), "{status}");
    etcd.run(&["alarm", "disarm"])?;
    ensure!(etcd.run(&["alarm", "list"])?.contains("alarm:NOSPACE"), "it was disarmed and is as full as before");
    etcd.run(&["del", "big/", "--prefix"])?;
    let end = Instant::now() + 2 * PATIENCE;
    while !etcd.run(&["alarm", "list"])?.trim().is_empty() {
        ensure!(Instant::now() < end, "no room after everything was deleted");
        std::thread::sleep(Duration::from_millis(200));
    }
    etcd.run(&["put", "another", "x"])?;
    etcd.server.stop()?;
    Ok(())
}

/// The lab's three servers, by their etcd endpoints.
#[test]
fn three_members_agree_and_hand_the_lead_over() -> anyhow::Result<()> {
    let hosts = ["s1", "s2", "s3"].map(trireme_harness::Host::named);
    let endpoints: Vec<String> = hosts.iter().map(|host| Ok(format!("https://{}:2379", host.address()?))).collect::<anyhow::Result<_>>()?;
    let tls = hosts[0].directory().join("data/server/tls/etcd");
    let etcdctl = |endpoints: &[String], args: &[&str]| -> anyhow::Result<serde_json::Value> {
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={}", endpoints.join(",")))
            .arg(format!("--cacert={}", tls.join("ca.crt").display()))
            .arg(format!("--cert={}", tls.join("client.crt").display()))
            .arg(format!("--key={}", tls.join("client.key").display()))
            .args(args)
            .arg("--write-out=json")
            .output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "etcdctl {args:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
        // Not everything has a JSON form.
        Ok(serde_json::from_str(&said).unwrap_or_default())
    };
    let members = etcdctl(&endpoints[..1], &["member", "list"])?;
    let members = members["members"].as_array().context("members")?.clone();
    let mut clients: Vec<_> = members.iter().filter_map(|member| member["clientURLs"][0].as_str().map(str::to_owned)).collect();
    clients.sort();
    ensure!(clients == endpoints, "{members:?}");
    // Written through one server, read through the others at once.
    for (i, endpoint) in endpoints.iter().enumerate() {
        etcdctl(std::slice::from_ref(endpoint), &["put", "etcdctl/lab", &format!("{i}")])?;
        for other in &endpoints {
            let read = etcdctl(std::slice::from_ref(other), &["get", "etcdctl/lab"])?;
            // Base64 of the digit.
            ensure!(read["kvs"][0]["value"] == ["MA==", "MQ==", "Mg=="][i], "written at {endpoint}, read at {other}: {read}");
        }
    }
    let revision = etcdctl(&endpoints[..1], &["get", "etcdctl/lab"])?["header"]["revision"].as_i64().context("revision")?;
    // A read on each of them waits until it has that revision.
    for endpoint in &endpoints {
        etcdctl(std::slice::from_ref(endpoint), &["get", "etcdctl/lab"])?;
    }
    let hashes = etcdctl(&endpoints, &["endpoint", "hashkv", "--rev", &revision.to_string()])?;
    let hashes: Vec<_> = hashes.as_array().context("hashes")?.iter().map(|one| one["HashKV"]["hash"].clone()).collect();
    ensure!(hashes.len() == 3 && hashes[0] == hashes[1] && hashes[1] == hashes[2], "{hashes:?}");
    let leader = || -> anyhow::Result<u64> {
        etcdctl(&endpoints[..1], &["endpoint", "status"])?[0]["Status"]["leader"].as_u64().context("a leader")
    };
    let before = leader()?;
    let next = members.iter().filter_map(|member| member["ID"].as_u64()).find(|id| *id != before).context("another member")?;
    etcdctl(&endpoints, &["move-leader", &format!("{next:x}")])?;
    let end = Instant::now() + PATIENCE;
    while leader()? != next {
        ensure!(Instant::now() < end, "the lead went elsewhere");
    }
    etcdctl(&endpoints[..1], &["del", "etcdctl/lab"])?;
    Ok(())
}

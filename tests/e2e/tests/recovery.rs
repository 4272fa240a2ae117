//! Most servers lost, and all servers lost: what `docs/backup-and-recovery.md` describes, with its commands.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use trireme_e2e::process::{Ended, Place, Server};

const TOKEN: &str = "recovery-test-of-trireme";
const PATIENCE: Duration = Duration::from_secs(60);
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path in UTF-8")
}

fn until(what: &str, mut condition: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let end = Instant::now() + PATIENCE;
    while !condition()? {
        ensure!(Instant::now() < end, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn get(server: &Server<'_>, path: &str) -> anyhow::Result<Value> {
    let answer = server.admin(&[path])?;
    ensure!(answer.code == 200, "GET {path}: {answer:?}");
    Ok(serde_json::from_str(&answer.body)?)
}

fn create(server: &Server<'_>, path: &str, object: &Value) -> anyhow::Result<()> {
    let answer = server.admin(&["--header", "Content-Type: application/json", "--data", &object.to_string(), path])?;
    ensure!(answer.code == 201, "POST {path}: {answer:?}");
    Ok(())
}

fn create_map(server: &Server<'_>, name: &str) -> anyhow::Result<()> {
    create(server, MAPS, &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"from": "before"}}))
}

fn has_map(server: &Server<'_>, name: &str) -> anyhow::Result<bool> {
    Ok(server.admin(&[&format!("{MAPS}/{name}")])?.code == 200)
}

/// A server that joins, and has its vote.
fn join<'a>(place: &'a Place, first: &Server<'_>, voters: usize) -> anyhow::Result<Server<'a>> {
    let server = place.server(&["--server", &first.url(), "--token", TOKEN])?;
    until("its vote", || {
        let members = get(&server, "/trireme/v1/members")?;
        let roles = members["members"].as_array().cloned().unwrap_or_default();
        Ok(roles.iter().filter(|member| member["role"] != "learner").count() == voters)
    })?;
    Ok(server)
}

fn three(names: [&str; 3], net: &str) -> anyhow::Result<[Place; 3]> {
    let [a, b, c] = names;
    Ok([Place::at(a, &format!("{net}1"))?, Place::at(b, &format!("{net}2"))?, Place::at(c, &format!("{net}3"))?])
}

fn must_work(ended: Ended) -> anyhow::Result<String> {
    ensure!(ended.code == Some(0), "{ended:?}");
    Ok(ended.stdout)
}

/// A `trireme` command that works on this place's data directory or its cluster.
fn trireme(place: &Place, args: &[&str]) -> anyhow::Result<Ended> {
    let kubeconfig = place.path("kubeconfig.yaml");
    let mut command = place.command(args)?;
    command.env("KUBECONFIG", kubeconfig);
    place.run_command(command)
}

#[test]
fn two_of_three_servers_are_lost_and_the_third_is_reset() -> anyhow::Result<()> {
    let [a, b, c] = three(["a", "b", "c"], "127.0.24.1")?;
    let (d, e) = (Place::at("d", "127.0.24.14")?, Place::at("e", "127.0.24.15")?);
    let first = a.server(&["--cluster-init", "--token", TOKEN])?;
    let second = join(&b, &first, 2)?;
    let third = join(&c, &first, 3)?;
    let names: Vec<String> = (0..20).map(|n| format!("kept-{n}")).collect();
    for name in &names {
        create_map(&first, name)?;
    }
    ensure!(has_map(&third, "kept-19")?, "a linearizable read anywhere");

    let reset = |args: &[&str]| trireme(&c, &[&["cluster", "reset"], args].concat());
    reset(&["--yes"])?.must_say(1, &["in use"])?;
    drop(third);
    reset(&["--yes"])?.must_say(1, &["lives without this server", "a at 127.0.24.11"])?;
    drop(first);
    reset(&["--yes"])?.must_say(1, &["start this server instead"])?;
    drop(second);
    reset(&[])?.must_say(2, &["--yes"])?;
    let said = must_work(reset(&["--yes"])?)?;
    ensure!(said.contains("Kept: everything up to revision") && said.contains("Lost: every revision after"), "{said}");

    let survivor = c.server(&[])?;
    for name in &names {
        ensure!(has_map(&survivor, name)?, "{name} was acknowledged");
    }
    let fourth = join(&d, &survivor, 2)?;
    let fifth = join(&e, &survivor, 3)?;
    create_map(&fifth, "after")?;
    for name in names.iter().map(String::as_str).chain(["after"]) {
        ensure!(has_map(&fourth, name)?, "{name} on a server that joined");
    }

    // One of the lost ones comes back as it was.
    let lost = a.start(&[])?;
    until("the refusal", || Ok(fs::read_to_string(a.path("server.log"))?.contains("empty its data directory and let it join again")))?;
    ensure!(!lost.is_ready(), "it serves nothing");
    drop(lost);
    fs::remove_dir_all(a.data())?;
    let back = join(&a, &survivor, 4)?;
    ensure!(has_map(&back, "after")?, "it has joined the new cluster");
    Ok(())
}

/// Changes a byte in the middle of the written part of each log segment. Returns the number of segments.
fn damage_log(place: &Place) -> anyhow::Result<usize> {
    let mut damaged = 0;
    for entry in fs::read_dir(place.data().join("server/db/log/segments"))? {
        let path = entry?.path();
        let mut bytes = fs::read(&path)?;
        if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
            bytes[last / 2] ^= 0x10;
            fs::write(&path, bytes)?;
            damaged += 1;
        }
    }
    Ok(damaged)
}

/// No operator acts: the member is started as always, says what it found, and is back under a new id.
#[test]
fn a_member_whose_log_is_damaged_joins_again_by_itself() -> anyhow::Result<()> {
    let [a, b, c] = three(["a", "b", "c"], "127.0.24.3")?;
    let first = a.server(&["--cluster-init", "--token", TOKEN])?;
    let second = join(&b, &first, 2)?;
    let third = join(&c, &first, 3)?;
    create_map(&first, "kept")?;
    ensure!(has_map(&third, "kept")?, "a linearizable read anywhere");
    must_work(trireme(&c, &["snapshot", "save", "--name", "before"])?)?;
    drop(third);
    ensure!(damage_log(&c)? > 0, "nothing was damaged");
    create_map(&second, "meanwhile")?;

    let third = c.server(&[])?;
    until("its vote", || {
        let members = get(&first, "/trireme/v1/members")?;
        let members = members["members"].as_array().cloned().unwrap_or_default();
        let ids: Vec<u64> = members.iter().filter_map(|member| member["id"].as_u64()).collect();
        let voters = members.iter().filter(|member| member["role"] != "learner").count();
        Ok(voters == 3 && ids.len() == 3 && !ids.contains(&3))
    })?;
    for name in ["kept", "meanwhile"] {
        ensure!(has_map(&third, name)?, "{name} on the server that is back");
    }
    ensure!(fs::read_to_string(c.path("server.log"))?.contains("cannot be trusted"), "it says why");
    let metrics = third.admin(&["/metrics"])?.body;
    ensure!(metrics.contains("trireme_store_damage_total{part=\"log\"} 1"), "{metrics}");
    ensure!(c.data().join("server/db-damaged/log").is_dir(), "what was damaged is kept to be looked at");
    let listed = must_work(trireme(&c, &["snapshot", "list"])?)?;
    ensure!(listed.contains("before-c-"), "its backups are where they were: {listed}");
    Ok(())
}

#[test]
fn all_servers_are_lost_and_a_snapshot_is_restored_elsewhere() -> anyhow::Result<()> {
    let [a, b, c] = three(["a", "b", "c"], "127.0.24.2")?;
    let first = a.server(&["--cluster-init", "--token", TOKEN, "--cluster-cidr", "10.52.0.0/16", "--service-cidr", "10.53.0.0/16"])?;
    let second = join(&b, &first, 2)?;
    let third = join(&c, &first, 3)?;
    create_map(&first, "kept")?;
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"password": "correct-horse-battery"}});
    create(&second, "/api/v1/namespaces/default/secrets", &secret)?;

    // On the server's own disk, by its name; and as a file, from a follower.
    let said = must_work(trireme(&b, &["snapshot", "save", "--name", "before"])?)?;
    ensure!(said.contains("saved before-b-") && said.contains("proven by restoring it"), "{said}");
    let listed = must_work(trireme(&b, &["snapshot", "list"])?)?;
    ensure!(listed.starts_with("NAME") && listed.contains("before-b-") && listed.contains("KiB"), "{listed}");
    let file = c.path("cluster.snapshot");
    must_work(trireme(&c, &["snapshot", "save", "--file", text(&file)?])?)?;
    let bytes = fs::read(&file)?;
    for clear in ["correct-horse-battery", "Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5", "PRIVATE KEY", TOKEN] {
        ensure!(!bytes.windows(clear.len()).any(|window| window == clear.as_bytes()), "{clear:?} is in the snapshot");
    }
    ensure!(bytes.windows(4).any(|window| window == b"kept"), "names are not sealed, so the search would find one");
    use std::os::unix::fs::PermissionsExt;
    ensure!(fs::metadata(&file)?.permissions().mode() & 0o777 == 0o600, "for its owner alone");

    create_map(&first, "too-late")?;
    let stale = get(&first, MAPS)?["metadata"]["resourceVersion"].as_str().context("resourceVersion")?.to_owned();
    drop((first, second, third));

    let new = Place::at("elsewhere", "127.0.24.25")?;
    let restore = |file: &Path, token: &str| trireme(&new, &["snapshot", "restore", text(file)?, "--token", token]);
    restore(&file, "another")?.must_say(2, &["--token", "does not open"])?;
    let cut = new.path("cut.snapshot");
    fs::write(&cut, &bytes[..bytes.len() - 1])?;
    restore(&cut, TOKEN)?.must_say(1, &["ends in the middle"])?;
    ensure!(!new.data().join("server").exists(), "a refusal writes nothing");
    must_work(restore(&file, TOKEN)?)?;
    restore(&file, TOKEN)?.must_say(2, &["--force"])?;

    let server = new.server(&[])?;
    ensure!(has_map(&server, "kept")? && !has_map(&server, "too-late")?, "as of the snapshot");
    let secret = get(&server, "/api/v1/namespaces/default/secrets/s")?;
    ensure!(secret["data"]["password"] == "Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5", "{secret}");
    let service = get(&server, "/api/v1/namespaces/default/services/kubernetes")?;
    ensure!(service["spec"]["clusterIP"] == "10.53.0.1", "the networks are the snapshot's: {service}");

    // Its certificate is good for the Service's address and this machine's, though no flag names the former.
    let here = format!("127.0.24.25:{}", new.https_port);
    let ca = server.file("tls/server-ca.crt");
    for url in [format!("https://{here}/readyz"), "https://10.53.0.1/readyz".to_owned()] {
        let connect = format!("10.53.0.1:443:{here}");
        let curl = Command::new("curl").args(["--silent", "--fail", "--cacert", text(&ca)?, "--connect-to", &connect, &url]).output()?;
        ensure!(curl.stdout == b"ok", "{url}: {curl:?}");
    }

    // A client that has seen more than was saved must list again.
    let watch = server.admin(&[&format!("{MAPS}?watch=true&timeoutSeconds=5&resourceVersion={stale}")])?;
    ensure!(watch.body.contains("\"code\":410"), "{watch:?}");
    let exact = server.admin(&[&format!("{MAPS}?resourceVersionMatch=Exact&resourceVersion={stale}")])?;
    ensure!(exact.code == 410, "{exact:?}");

    let members = get(&server, "/trireme/v1/members")?;
    let members = members["members"].as_array().context("members")?;
    let addresses: Vec<&str> = members.iter().filter_map(|member| member["peerAddress"].as_str()).collect();
    ensure!(addresses == [format!("127.0.24.25:{}", new.peer_port)], "the lost servers are no members: {addresses:?}");
    let other = Place::at("other", "127.0.24.26")?;
    let joined = join(&other, &server, 2)?;
    ensure!(has_map(&joined, "kept")?, "who joins has what was restored");
    Ok(())
}

#[test]
fn snapshots_are_listed_and_pruned_and_taken_by_the_clock() -> anyhow::Result<()> {
    let place = Place::new()?;
    for (args, words) in [
        (&["server", "--snapshot-schedule-cron", "often"][..], &["--snapshot-schedule-cron", "0 */12 * * *"][..]),
        (&["server", "--cluster-reset-restore-path", "x"], &["--cluster-reset"]),
        (&["snapshot", "restore", "/nonexistent"], &["/nonexistent"]),
    ] {
        place.run(args)?.must_say(2, words)?;
    }
    let server = place.server(&[])?;
    trireme(&place, &["snapshot", "save", "--name", "../x"])?.must_say(1, &["letters, digits"])?;
    for name in ["one", "two", "three"] {
        must_work(trireme(&place, &["snapshot", "save", "--name", name])?)?;
    }
    let removed = must_work(trireme(&place, &["snapshot", "prune", "--retention", "1"])?)?;
    ensure!(removed.contains("one-test-") && removed.contains("two-test-") && !removed.contains("three-test-"), "{removed}");
    let folder = server.file("db/snapshots");
    fs::write(folder.join("notes.txt"), "mine")?;
    let listed = must_work(trireme(&place, &["snapshot", "list", "--dir", text(&folder)?, "-o", "json"])?)?;
    let listed: Value = serde_json::from_str(&listed)?;
    let names: Vec<&str> = listed["snapshots"].as_array().context("snapshots")?.iter().filter_map(|s| s["name"].as_str()).collect();
    ensure!(names.len() == 2 && names.contains(&"notes.txt") && names.iter().any(|name| name.starts_with("three-test-")), "{names:?}");
    ensure!(fs::read_dir(&folder)?.count() == 2, "nothing unfinished is left");

    // Every second, and the newest two stay: when the first is gone, there were three. What was saved by hand is not counted.
    server.stop()?;
    let _server = place.server(&["--etcd-snapshot-schedule-cron", "* * * * * *", "--etcd-snapshot-retention", "2"])?;
    let scheduled = || -> anyhow::Result<Vec<String>> {
        let names = fs::read_dir(&folder)?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        Ok(names.filter(|name| name.starts_with("etcd-snapshot-test-")).collect())
    };
    until("a scheduled snapshot", || Ok(!scheduled()?.is_empty()))?;
    let first = scheduled()?;
    until("its end", || Ok(!scheduled()?.contains(&first[0])))?;
    ensure!(folder.join("notes.txt").exists() && !scheduled()?.is_empty(), "only its own are removed");
    Ok(())
}

//! The operator's commands against three servers, each a process of its own: members come and go, tokens and certificates change
//! while clients watch.

use std::{
    io::Read,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use serde_json::Value;
use trireme_e2e::process::{Place, Server};

/// Nothing here takes longer, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a command against the server of `place` and reads the document that it prints.
fn ask(place: &Place, args: &[&str]) -> anyhow::Result<Value> {
    let kubeconfig = place.path("kubeconfig.yaml");
    let mut all = args.to_vec();
    all.extend(["-o", "json", "--kubeconfig", kubeconfig.to_str().context("a path in UTF-8")?]);
    let ended = place.run(&all)?;
    ensure!(ended.code == Some(0), "{args:?}: {ended:?}");
    serde_json::from_str(&ended.stdout).with_context(|| format!("{args:?}: {ended:?}"))
}

fn eventually<T>(what: &str, mut look: impl FnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        ensure!(Instant::now() < end, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Waits until these servers, and no others, vote; the members by then.
fn voters(place: &Place, names: &[&str]) -> anyhow::Result<Value> {
    eventually(&format!("{names:?} vote"), || {
        let list = ask(place, &["member", "list"])?;
        let members = list["members"].as_array().context("members")?;
        let votes = |name: &&str| members.iter().any(|m| m["name"] == *name && m["role"] != "learner");
        Ok((members.len() == names.len() && names.iter().all(votes)).then_some(list))
    })
}

fn id_of(list: &Value, name: &str) -> Option<u64> {
    list["members"].as_array()?.iter().find(|m| m["name"] == name)?["id"].as_u64()
}

fn leader_of(list: &Value) -> Option<String> {
    Some(list["members"].as_array()?.iter().find(|m| m["role"] == "leader")?["name"].as_str()?.to_owned())
}

fn read(server: &Server<'_>, file: &str) -> anyhow::Result<String> {
    let path = server.file(file);
    Ok(std::fs::read_to_string(&path).with_context(|| path.display().to_string())?.trim().to_owned())
}

#[test]
fn members_tokens_and_certificates_change_under_a_running_cluster() -> anyhow::Result<()> {
    let (home_a, home_b, home_c) = (Place::new()?, Place::new()?, Place::new()?);
    let a = home_a.server(&["--cluster-init", "--node-name", "a"])?;
    let url = a.url();

    // Two more: one by a token made for it, one by the servers' own.
    let made = ask(&home_a, &["token", "create", "--usages", "server", "--ttl", "1h", "--description", "for b"])?;
    let made_token = made["token"].as_str().context("a token")?;
    let b = home_b.server(&["--server", &url, "--node-name", "b", "--token", made_token])?;
    let token = read(&a, "token")?;
    ensure!(read(&b, "token")? == token, "b knows the servers' token");
    let c = home_c.server(&["--server", &url, "--node-name", "c", "--token", &token])?;
    // What every member can do is known once each has said so, which is after it votes.
    let list = eventually("a feature level", || {
        let list = voters(&home_c, &["a", "b", "c"])?;
        Ok((list["featureLevel"].as_u64() >= Some(1)).then_some(list))
    })?;
    let old_c = id_of(&list, "c").context("c")?;

    // A table for people, no wider than a terminal.
    let kubeconfig = home_a.path("kubeconfig.yaml").display().to_string();
    let table = home_a.run(&["member", "list", "--kubeconfig", &kubeconfig])?.stdout;
    ensure!(
        table.starts_with("ID  NAME  ROLE") && table.lines().count() == 4 && table.lines().all(|l| l.chars().count() <= 100),
        "{table}"
    );

    ask(&home_a, &["member", "transfer-leader", "b"])?;
    eventually("b leads", || Ok((leader_of(&ask(&home_a, &["member", "list"])?).as_deref() == Some("b")).then_some(())))?;

    // Another server token: on every server's disk, and the old one ends.
    let list = ask(&home_a, &["token", "list"])?;
    ensure!(list["tokens"][0]["description"] == "for b" && !list.to_string().contains(made_token), "{list}");
    let rotated = ask(&home_c, &["token", "rotate"])?;
    let new_token = rotated["serverToken"].as_str().context("a token")?.to_owned();
    for server in [&a, &b, &c] {
        eventually("the new token's file", || Ok((read(server, "token")? == new_token).then_some(())))?;
    }
    let stranger = Place::new()?;
    let late = ["server", "--disable-agent", "--server", &url, "--node-name", "d", "--token", &token];
    stranger.run(&late)?.must_say(1, &["refuses the token"])?;

    certificates_change_under_a_watch(&home_a, &a)?;

    // A removed member is told that it was removed, stays away, and comes back as another one with an empty folder.
    ask(&home_a, &["member", "remove", "c"])?;
    voters(&home_a, &["a", "b"])?;
    eventually("c is told", || {
        let log = std::fs::read_to_string(home_c.path("server.log"))?;
        Ok(log.contains(&format!("member {old_c} was removed from the cluster")).then_some(()))
    })?;
    ensure!(!c.is_ready(), "a removed member is not ready");
    c.stop()?;
    let again = ["server", "--disable-agent", "--node-name", "c"];
    home_c.run(&again)?.must_say(1, &["was removed from the cluster", "empty"])?;
    std::fs::remove_dir_all(home_c.data().join("server/db"))?;
    let c = home_c.server(&["--server", &url, "--node-name", "c", "--token", &new_token])?;
    let list = voters(&home_a, &["a", "b", "c"])?;
    ensure!(id_of(&list, "c") > Some(old_c), "{list}");

    // The leader hands over before it goes.
    ask(&home_a, &["member", "remove", "b"])?;
    let list = voters(&home_a, &["a", "c"])?;
    ensure!(leader_of(&list).is_some(), "{list}");
    drop((a, b, c));
    Ok(())
}

/// Renews every certificate of three servers; a watch that began before sees what is written after.
fn certificates_change_under_a_watch(home: &Place, a: &Server<'_>) -> anyhow::Result<()> {
    let before = (read(a, "tls/apiserver.crt")?, read(a, "tls/peer.crt")?, read(a, "tls/peer.key")?);
    let mut watch = Command::new("curl")
        .args(["--silent", "--no-buffer", "--insecure", "--max-time", "60", "--cert"])
        .arg(a.file("tls/admin.crt"))
        .arg("--key")
        .arg(a.file("tls/admin.key"))
        .arg(format!("{}/api/v1/namespaces?watch=1", a.url()))
        .stdout(Stdio::piped())
        .spawn()?;
    let mut seen = watch.stdout.take().context("a pipe")?;
    let mut first = [0_u8; 1];
    seen.read_exact(&mut first)?;

    let rotated = ask(home, &["certificate", "rotate"])?;
    let holders: Vec<&str> = rotated.as_array().context("lists")?.iter().filter_map(|list| list["holder"].as_str()).collect();
    ensure!(holders == ["a", "b", "c"], "{rotated}");
    let after = (read(a, "tls/apiserver.crt")?, read(a, "tls/peer.crt")?, read(a, "tls/peer.key")?);
    ensure!(
        before.0 != after.0 && before.1 != after.1 && before.2 == after.2,
        "serving and peer certificates are new, the member's key is not"
    );
    // New handshakes show the new one: the kubeconfig of the server is rewritten, too, and works.
    let served =
        Command::new("openssl").args(["s_client", "-connect", a.url().trim_start_matches("https://")]).stdin(Stdio::null()).output()?;
    let shown = String::from_utf8_lossy(&served.stdout).into_owned();
    let end = after.0.lines().nth(3).context("a certificate")?;
    ensure!(shown.contains(end), "the listener shows the renewed certificate");
    ensure!(ask(home, &["certificate", "check"])?.as_array().map(Vec::len) == Some(3), "check");
    let metrics = a.admin(&["/metrics"])?.body;
    ensure!(metrics.contains("trireme_certificate_expiration_timestamp_seconds{name=\"apiserver\"}"), "no expiry in the metrics");

    let body = r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"after-rotation"}}"#;
    let made = a.admin(&["-X", "POST", "-H", "content-type: application/json", "-d", body, "/api/v1/namespaces"])?;
    ensure!(made.code == 201, "{made:?}");
    let mut text = Vec::new();
    let mut piece = [0_u8; 4096];
    while !String::from_utf8_lossy(&text).contains("after-rotation") {
        let length = seen.read(&mut piece)?;
        ensure!(length > 0, "the watch ended: {}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&piece[..length]);
    }
    watch.kill()?;
    watch.wait()?;
    Ok(())
}

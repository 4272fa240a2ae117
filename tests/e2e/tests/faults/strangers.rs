//! Connections to the peer port, and data directories, that are not of this cluster.

use std::{fs, process::Command};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use trireme_e2e::process::{Place, Server};
use trireme_harness::eventually;

use super::{
    LIMIT,
    three::{get, send},
};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Runs openssl in the place's folder, as if it were so long ago.
fn openssl(place: &Place, when: &str, args: &[&str]) -> anyhow::Result<()> {
    let output =
        Command::new("faketime").args([when, "openssl"]).args(args).current_dir(place.path("")).output().context("run faketime")?;
    ensure!(output.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// A certificate for a day from then on in `<name>.crt`, signed by the authority in `<ca>.crt`.
fn certificate(place: &Place, name: &str, ca: &str, when: &str) -> anyhow::Result<()> {
    let (key, request, certificate) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.crt"));
    let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    openssl(place, when, &[&["req"], &curve[..], &["-keyout", &key, "-out", &request, "-subj", "/CN=peer"]].concat())?;
    // Without an extension it would be of version 1, which is refused for that alone.
    fs::write(place.path("extensions"), "basicConstraints=CA:FALSE\nextendedKeyUsage=clientAuth,serverAuth\n")?;
    let (ca_certificate, ca_key) = (format!("{ca}.crt"), format!("{ca}.key"));
    let signed =
        ["-CA", &ca_certificate, "-CAkey", &ca_key, "-CAcreateserial", "-extfile", "extensions", "-days", "1", "-out", &certificate];
    openssl(place, when, &[&["x509", "-req", "-in", &request], &signed[..]].concat())
}

/// The peer authority of a server, as files `<name>.crt` and `<name>.key`.
fn authority(place: &Place, server: &Server<'_>, name: &str) -> anyhow::Result<()> {
    let keys: Value = serde_json::from_slice(&fs::read(server.file("cred/cluster-keys.json"))?)?;
    let peer = &keys["peer_ca"];
    for (file, field) in [("crt", "certificate_pem"), ("key", "key_pem")] {
        fs::write(place.path(&format!("{name}.{file}")), peer[field].as_str().with_context(|| format!("no {field}"))?)?;
    }
    Ok(())
}

/// Tries to speak to a server's peer port under a certificate of these names; what came of it.
fn knock(place: &Place, server: &Server<'_>, name: Option<&str>) -> anyhow::Result<String> {
    let url = format!("https://{}:{}/trireme.peer.v1.Peer/Vote", server.place().address, server.place().peer_port);
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--insecure", "--http2", "--tlsv1.3", "--max-time", "10", "--request", "POST"]);
    curl.args(["--header", "Content-Type: application/grpc", "--dump-header", "-"]);
    if let Some(name) = name {
        curl.args(["--cert", &format!("{name}.crt"), "--key", &format!("{name}.key")]);
    }
    let output = curl.arg(&url).current_dir(place.path("")).output().context("run curl")?;
    Ok(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn strangers_at_the_peer_port_are_refused_and_told_of_once() -> anyhow::Result<()> {
    let (home, elsewhere, tools) = (Place::at("a", "127.0.53.1")?, Place::at("b", "127.0.53.2")?, Place::new()?);
    let ours = home.server(&["--cluster-init"])?;
    let theirs = elsewhere.server(&["--cluster-init"])?;
    authority(&tools, &ours, "ours")?;
    authority(&tools, &theirs, "theirs")?;
    certificate(&tools, "expired", "ours", "3 days ago")?;
    certificate(&tools, "unknown", "ours", "1 hour ago")?;
    certificate(&tools, "other", "theirs", "1 hour ago")?;
    let before = get(&ours, "/trireme/v1/members")?;

    let refused = |log: &str| log.lines().filter(|line| line.contains("a connection to the peer port is refused")).count();
    for name in [Some("expired"), Some("other"), None] {
        for _ in 0..5 {
            let said = knock(&tools, &ours, name)?;
            ensure!(!said.contains("HTTP/2 200"), "{name:?} is let in: {said}");
        }
    }
    eventually("a line about them", LIMIT, || {
        ensure!(refused(&ours.log()?) > 0, "{}", ours.log()?);
        Ok(())
    })?;
    ensure!(refused(&ours.log()?) == 1, "one line for one host: {}", ours.log()?);
    ensure!(ours.log()?.contains("127.0.0.1"), "the line names the host: {}", ours.log()?);
    // Certified by this cluster, but its key is no member's: it gets an answer, which is a refusal.
    let said = knock(&tools, &ours, Some("unknown"))?;
    ensure!(said.contains("grpc-status: ") && !said.contains("grpc-status: 0"), "{said}");

    let after = get(&ours, "/trireme/v1/members")?;
    ensure!(before["members"] == after["members"] && before["leader"] == after["leader"], "{before} is now {after}");
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "unharmed"}});
    send(&ours, "POST", MAPS, &map)?;
    ensure!(ours.is_ready(), "unharmed");
    Ok(())
}

#[test]
fn a_store_of_another_cluster_is_refused_on_start() -> anyhow::Result<()> {
    let (home, elsewhere) = (Place::at("a", "127.0.53.3")?, Place::at("b", "127.0.53.4")?);
    home.server(&["--cluster-init"])?.stop()?;
    elsewhere.server(&["--cluster-init"])?.stop()?;
    let (store, kept) = (home.data().join("server/db"), home.path("kept"));
    fs::rename(&store, &kept)?;
    fs::rename(elsewhere.data().join("server/db"), &store)?;
    home.run(&["server", "--disable-agent"])?.must_say(1, &["server/db", "another server's or another cluster's"])?;
    // The whole folder, with a token that is not its cluster's.
    fs::rename(&store, elsewhere.data().join("server/db"))?;
    fs::rename(&kept, &store)?;
    let token = fs::read_to_string(home.data().join("server/token"))?;
    elsewhere.run(&["server", "--disable-agent", "--token", token.trim()])?.must_say(2, &["--token", "another cluster"])?;
    // Put right, both start.
    for place in [&home, &elsewhere] {
        ensure!(place.server(&[])?.is_ready(), "its own store");
    }
    Ok(())
}

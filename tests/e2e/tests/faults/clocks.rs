//! Wall clocks that jump, by libfaketime in front of one server's calls: leases keep their durations, and leaders stay.

use std::{fs, time::Duration};

use anyhow::{Context, ensure};
use serde_json::json;
use tokio::task::block_in_place;
use tonic::transport::Channel;
use trireme_e2e::process::{Place, Server};
use trireme_harness::eventually;
use trireme_proto::etcd::{
    LeaseGrantRequest, LeaseTimeToLiveRequest, PutRequest, RangeRequest, kv_client::KvClient, lease_client::LeaseClient,
};

use super::{
    LIMIT,
    clients::Clients,
    three::{Three, get, homes, send},
};

const HOUR_SECS: i64 = 3600;
const LONG_TTL_SECS: i64 = 600;
const EVENTS: &str = "/api/v1/namespaces/default/events";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_ends_no_lease_and_no_leadership() -> anyhow::Result<()> {
    let library = library()?;
    let mut homes = homes("127.0.52.1")?;
    for home in &mut homes {
        // Certificates must be older than the clock that is set back.
        set_clock(home, -2 * HOUR_SECS)?;
        let file = home.path("clock").display().to_string();
        home.environment = [
            ("LD_PRELOAD", library.as_str()),
            ("FAKETIME_TIMESTAMP_FILE", &file),
            ("FAKETIME_CACHE_DURATION", "1"),
            // A jump of the wall clock leaves the monotonic one alone.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
    }
    let mut three = Three::start(&homes)?;
    let clients = Clients::start(&three).await?;
    let mut leases = LeaseClient::new(three.channel(0)?);
    let long = leases.lease_grant(LeaseGrantRequest { ttl: LONG_TTL_SECS, id: 0 }).await?.into_inner().id;
    let mut keys = KvClient::new(three.channel(0)?);
    put(&mut keys, "lease/long", long).await?;
    let event = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "involvedObject": {"namespace": "default"}});
    block_in_place(|| send(&three.servers[0], "POST", EVENTS, &event))?;

    let (leader, term) = three.leader().await?;
    for home in &homes {
        set_clock(home, 0)?;
    }
    for (server, jump) in [(leader, HOUR_SECS), (leader, 0), (leader, -HOUR_SECS), (three.but(leader)[0], HOUR_SECS)] {
        let what = format!("the clock of server {server} (leader {leader}) by {jump} s");
        set_clock(&homes[server], jump)?;
        block_in_place(|| eventually(&what, LIMIT, || shows(&three.servers[server], jump))).with_context(|| what.clone())?;
        let short = leases.lease_grant(LeaseGrantRequest { ttl: 2, id: 0 }).await?.into_inner().id;
        put(&mut keys, "lease/short", short).await?;
        clients.go_on(&[0, 1, 2], 20).await.with_context(|| what.clone())?;
        ends(&mut keys, "lease/short").await.with_context(|| what.clone())?;
        let left = leases.lease_time_to_live(LeaseTimeToLiveRequest { id: long, keys: true }).await?.into_inner();
        ensure!(left.keys.len() == 1 && left.ttl > 0 && left.ttl <= LONG_TTL_SECS, "{what}: {left:?}");
        for server in &three.servers {
            block_in_place(|| get(server, &format!("{EVENTS}/e"))).with_context(|| what.clone())?;
        }
        three.all_well().await.with_context(|| what.clone())?;
    }
    let (_, later) = three.leader().await?;
    // One election may happen on a busy machine; repeated elections may not.
    ensure!(later <= term + 2, "leaders do not stay: term {term} before the clocks jumped, {later} after");
    println!("{}", clients.judge(&three).await?);
    Ok(())
}

/// libfaketime, from Debian's package of that name.
fn library() -> anyhow::Result<String> {
    let folders = fs::read_dir("/usr/lib")?.flatten().map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    let library = folders.into_iter().find(|path| path.exists()).context("libfaketime is missing: apt-get install faketime")?;
    Ok(library.display().to_string())
}

fn set_clock(home: &Place, offset_secs: i64) -> anyhow::Result<()> {
    let (file, fresh) = (home.path("clock"), home.path("clock.new"));
    fs::write(&fresh, format!("{offset_secs:+}"))?;
    Ok(fs::rename(fresh, file)?)
}

/// Whether objects made at a server bear that time.
fn shows(server: &Server<'_>, offset_secs: i64) -> anyhow::Result<()> {
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "clock-"}});
    let made = send(server, "POST", MAPS, &map)?;
    let shown = made["metadata"]["creationTimestamp"].as_str().context("creationTimestamp")?.to_owned();
    let output = std::process::Command::new("date").args(["-d", &shown, "+%s"]).output()?;
    let shown: i64 = String::from_utf8_lossy(&output.stdout).trim().parse()?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs() as i64;
    ensure!((shown - now - offset_secs).abs() < HOUR_SECS / 2, "it shows {} s", shown - now);
    Ok(())
}

async fn put(keys: &mut KvClient<Channel>, key: &'static str, lease: i64) -> anyhow::Result<()> {
    keys.put(PutRequest { key: key.into(), value: "x".into(), lease, ..Default::default() }).await?;
    Ok(())
}

/// Waits until a key is gone with its lease.
async fn ends(keys: &mut KvClient<Channel>, key: &'static str) -> anyhow::Result<()> {
    let end = tokio::time::Instant::now() + LIMIT;
    while !keys.range(RangeRequest { key: key.into(), ..Default::default() }).await?.into_inner().kvs.is_empty() {
        ensure!(tokio::time::Instant::now() < end, "{key} outlives its lease");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

//! Networks that are cut between servers, while clients reach all of them.

use std::time::Duration;

use anyhow::{Context, ensure};
use rand::Rng;
use serde_json::json;
use tokio::task::block_in_place;
use trireme_e2e::process::{Pending, Place};
use trireme_harness::{Cut, Link, eventually};

use super::{
    LIMIT,
    clients::Clients,
    rounds,
    three::{Three, homes},
};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minority_refuses_and_a_majority_goes_on_and_all_heals_without_a_restart() -> anyhow::Result<()> {
    let mut homes = homes("10.77.0.5")?;
    let links =
        block_in_place(|| homes.iter().map(|home| Link::new(&format!("f{}", home.name), &home.address)).collect::<Result<Vec<_>, _>>())?;
    for (home, link) in homes.iter_mut().zip(&links) {
        home.network = Some(link.namespace());
    }
    let mut three = Three::start(&homes)?;
    let clients = Clients::start(&three).await?;
    for round in 0..rounds(1)? {
        for cut in [Cut::Both, Cut::Incoming, Cut::Outgoing] {
            clients.go_on(&[0, 1, 2], 10).await?;
            let (leader, term) = three.leader().await?;
            let others = three.but(leader);
            links[leader].cut(cut, &addresses(&homes, &others))?;
            // A refusal comes only after a request's deadline; meanwhile the others elect a leader.
            let asked = if cut == Cut::Both { refusals(&three, leader)?.into() } else { Vec::new() };
            let (successor, later) = three.agreed(&others, term).await.with_context(|| format!("{cut:?} of leader {leader}"))?;
            clients.go_on(&others, 20).await?;
            for (what, pending) in asked {
                must_refuse(what, pending)?;
            }
            let server = &three.servers[leader];
            block_in_place(|| {
                eventually("the server that was cut off to say that it is not ready", LIMIT, || {
                    ensure!(!server.is_ready(), "{cut:?}: it says it is");
                    Ok(())
                })
            })?;
            ensure!(block_in_place(|| server.curl(&["/livez"]))?.code == 200, "{cut:?}: it lives");
            links[leader].heal()?;
            three.all_well().await.with_context(|| format!("{cut:?} of leader {leader}, healed"))?;
            println!("round {round}: {cut:?} of leader {leader} in term {term}: server {successor} led term {later}");
        }
        // A follower that was alone does not depose the leader when it is back.
        let (leader, term) = three.leader().await?;
        let alone = three.but(leader)[0];
        links[alone].cut(Cut::Both, &addresses(&homes, &three.but(alone)))?;
        clients.go_on(&three.but(alone), 20).await?;
        flap(&links[alone], &addresses(&homes, &three.but(alone))).await?;
        three.all_well().await.context("after a network that came and went")?;
        let (leads, later) = three.leader().await?;
        println!("round {round}: follower {alone} cut and flapping in term {term} of leader {leader}: server {leads} leads term {later}");
        flap(&links[leads], &addresses(&homes, &three.but(leads))).await?;
        three.all_well().await.context("after the leader's network came and went")?;
    }
    clients.go_on(&[0, 1, 2], 10).await?;
    println!("{}", clients.judge(&three).await?);
    Ok(())
}

fn addresses(homes: &[Place; 3], of: &[usize]) -> Vec<String> {
    of.iter().map(|server| homes[*server].address.clone()).collect()
}

/// Cut and healed again and again, for longer and for shorter than an election.
async fn flap(link: &Link, others: &[String]) -> anyhow::Result<()> {
    for _ in 0..5 {
        link.cut(Cut::Both, others)?;
        let pause = Duration::from_millis(rand::rng().random_range(50..700));
        tokio::time::sleep(pause).await;
        link.heal()?;
        let pause = Duration::from_millis(rand::rng().random_range(50..400));
        tokio::time::sleep(pause).await;
    }
    Ok(())
}

/// A write and a read that a server without a quorum must refuse.
fn refusals(three: &Three<'_>, server: usize) -> anyhow::Result<[(&'static str, Pending); 2]> {
    let server = &three.servers[server];
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "cut-"}}).to_string();
    let write = server.admin_later(&["--header", "Content-Type: application/json", "--data", &map, MAPS])?;
    let read = server.admin_later(&[MAPS])?;
    Ok([("a write", write), ("a read", read)])
}

/// An error of the server's kind, said in a Status.
fn must_refuse(what: &str, pending: Pending) -> anyhow::Result<()> {
    let answer = block_in_place(|| pending.answer())?;
    ensure!(matches!(answer.code, 500 | 503 | 504), "{what} at a server that is cut off: {answer:?}");
    let status: serde_json::Value = serde_json::from_str(&answer.body).with_context(|| format!("{what}: {answer:?}"))?;
    ensure!(status["kind"] == "Status" && status["message"].as_str().is_some_and(|message| !message.is_empty()), "{what}: {status}");
    Ok(())
}

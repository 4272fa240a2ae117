//! Lists of many objects: whole and in pages, in each form.

use std::time::Duration;

use tokio::time::Instant;

use crate::kube::{Connection, Form, Protocol, Server, Write, objects};
use crate::latency::Latencies;
use crate::requests::fill;
use crate::table::{Beside, figure};

/// How a list is asked for.
struct Case {
    resource: &'static str,
    form: Form,
    query: &'static str,
    title: &'static str,
    /// Lists at the same time.
    clients: usize,
    /// The peer's milliseconds.
    peer: Option<f64>,
}

const GOAL: f64 = 9.0;
const PODS_GOAL_MS: f64 = 40.0;
const MEMORY_GOAL_MIB: f64 = 8.0;
const ROUNDS: usize = 20;
const NAMESPACE: &str = "bench-lists";

const CASES: &[Case] = &[
    Case { resource: "configmaps", form: Form::Json, query: "", title: "whole", clients: 1, peer: Some(87.0) },
    Case { resource: "configmaps", form: Form::Json, query: "resourceVersion=0", title: "whole, version 0", clients: 1, peer: Some(69.0) },
    Case { resource: "configmaps", form: Form::Json, query: "limit=500", title: "pages of 500", clients: 1, peer: Some(146.0) },
    Case { resource: "configmaps", form: Form::Protobuf, query: "", title: "whole", clients: 1, peer: None },
    Case { resource: "configmaps", form: Form::Table, query: "", title: "whole", clients: 1, peer: None },
    Case { resource: "configmaps", form: Form::Json, query: "", title: "whole, 16 at once", clients: 16, peer: None },
    Case { resource: "pods", form: Form::Json, query: "", title: "whole", clients: 1, peer: None },
    Case { resource: "pods", form: Form::Json, query: "limit=500", title: "pages of 500", clients: 1, peer: None },
    Case { resource: "pods", form: Form::Protobuf, query: "", title: "whole", clients: 1, peer: None },
    Case { resource: "pods", form: Form::Table, query: "", title: "whole", clients: 1, peer: None },
    Case { resource: "pods", form: Form::Table, query: "limit=500", title: "pages of 500", clients: 1, peer: None },
];

/// Fills a namespace, and lists it.
pub async fn run(server: &Server, count: usize) -> anyhow::Result<()> {
    let mut connection = server.connect(Protocol::Http1).await?;
    connection.write(Write::create("/api/v1/namespaces", objects::namespace(NAMESPACE))).await?;
    account(&mut connection, NAMESPACE).await?;
    let all = |resource: &str| format!("/api/v1/namespaces/{NAMESPACE}/{resource}");
    fill(server, &all("configmaps"), count, |name| objects::config_map(name, 0)).await?;
    fill(server, &all("pods"), count, |name| objects::pod(name, "nobody")).await?;
    println!(
        "{:<40} {:>7} {:>7} {:>7} {:>6} {:>6} {:>7} {:>7}",
        format!("lists of {count}"),
        "p50 ms",
        "p99 ms",
        "peer",
        "ratio",
        "goal",
        "CPU ms*",
        "MiB**"
    );
    for case in CASES {
        println!("{}", row(server, case, &all(case.resource)).await?);
    }
    println!(
        "* CPU of the server for each list; ** memory beyond what it had (goal: {MEMORY_GOAL_MIB}); goal of pods: {PODS_GOAL_MS} ms\n"
    );
    Ok(())
}

/// Waits until the namespace has its service account: pods are refused before.
pub async fn account(connection: &mut Connection, namespace: &str) -> anyhow::Result<()> {
    const PATIENCE: Duration = Duration::from_secs(30);
    let began = Instant::now();
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/default");
    while let Err(error) = connection.read(&path, Form::Json).await {
        anyhow::ensure!(began.elapsed() < PATIENCE, error.context("wait for the service account"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

async fn row(server: &Server, case: &Case, path: &str) -> anyhow::Result<String> {
    let connections = server.connections(Protocol::Http1, case.clients).await?;
    let rounds = (ROUNDS / case.clients).max(2);
    let before = server.processes.resident_mib()?;
    server.processes.forget_peak()?;
    let cpu = server.processes.cpu_seconds()?;
    let tasks = connections.into_iter().map(|mut connection| {
        let (path, form, query) = (path.to_owned(), case.form, case.query);
        tokio::spawn(async move {
            let mut latencies = Latencies::default();
            for _ in 0..rounds {
                let began = Instant::now();
                list(&mut connection, &path, form, query).await?;
                latencies.note(began.elapsed());
            }
            anyhow::Ok(latencies)
        })
    });
    let mut all = Latencies::default();
    for latencies in futures::future::join_all(tasks).await {
        all.merge(latencies??);
    }
    let cpu_ms = (server.processes.cpu_seconds()? - cpu) * 1000.0 / (rounds * case.clients) as f64;
    let memory = (server.processes.peak_mib()? - before).max(0.0);
    let beside = Beside { ours: all.millis(0.5), peer: case.peer, goal: GOAL, more: false };
    let title = format!("{}, {}, {}", case.resource, case.form.title(), case.title);
    let (p50, p99) = (figure(all.millis(0.5)), figure(all.millis(0.99)));
    Ok(format!("{title:<40} {p50:>7} {p99:>7} {} {:>7} {:>7}", beside.columns(), figure(cpu_ms), figure(memory)))
}

/// Reads all pages.
async fn list(connection: &mut Connection, path: &str, form: Form, query: &str) -> anyhow::Result<()> {
    let mut page = connection.read(&format!("{path}?{query}"), form).await?;
    while query.starts_with("limit")
        && let Some(token) = continuation(&page)
    {
        page = connection.read(&format!("{path}?{query}&continue={token}"), form).await?;
    }
    Ok(())
}

/// The token of the next page: it is in the head of a list, or in its tail. Parsing the list would cost more than to make it.
fn continuation(page: &[bytes::Bytes]) -> Option<String> {
    const FIELD: &[u8] = b"\"continue\":\"";
    const REACH: usize = 2048;
    let of = |part: &[u8]| {
        let start = part.windows(FIELD.len()).position(|window| window == FIELD)? + FIELD.len();
        let length = part.get(start..)?.iter().position(|byte| *byte == b'"')?;
        (length > 0).then(|| String::from_utf8_lossy(&part[start..start + length]).into_owned())
    };
    let (head, tail) = (page.first()?, page.last()?);
    of(&head[..head.len().min(REACH)]).or_else(|| of(&tail[tail.len().saturating_sub(REACH)..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_found_in_head_or_tail() {
        let page = |text: &'static str| vec![bytes::Bytes::from_static(text.as_bytes())];
        assert_eq!(continuation(&page(r#"{"metadata":{"resourceVersion":"3","continue":"abc"},"items":[]}"#)), Some("abc".to_owned()));
        assert_eq!(continuation(&page(r#"{"metadata":{"resourceVersion":"3"},"items":[]}"#)), None);
        assert_eq!(continuation(&page(r#"{"metadata":{"continue":""},"items":[]}"#)), None);
    }
}

//! Many watchers of ConfigMaps while sixteen clients create some: how long until every watcher has seen all of them.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::kube::{Connection, Form, Options, Protocol, Server, Write, objects};
use crate::table::{Beside, figure};

/// How many.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    server: Options,
    /// Watchers, in turn
    #[arg(long, value_delimiter = ',', default_value = "100,1000")]
    watchers: Vec<usize>,
    /// Objects that are created
    #[arg(long, default_value_t = 2_000)]
    objects: usize,
    /// Protocols
    #[arg(long, value_delimiter = ',', value_enum, default_value = "http1,http2")]
    protocols: Vec<Protocol>,
}

/// Which watches are opened: protocol, form, watches of one connection.
const CASES: &[(Protocol, Form, usize)] = &[
    (Protocol::Http1, Form::Json, 1),
    (Protocol::Http1, Form::Protobuf, 1),
    (Protocol::Http2, Form::Json, 1),
    (Protocol::Http2, Form::Protobuf, 1),
    (Protocol::Http2, Form::Json, 100),
    (Protocol::Http2, Form::Protobuf, 100),
];

const WRITERS: usize = 16;
const PATIENCE: Duration = Duration::from_secs(60);
/// 100 watchers, 2,000 creates, HTTP/1.1, JSON: until all was delivered.
const PEER_SECONDS: f64 = 5.06;
const PEER_CASE: (usize, usize) = (100, 2_000);
const GOAL: f64 = 5.0;
const CPU_GOAL_MICROS: f64 = 2.0;

/// All rows.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let server = Server::open(&args.server)?;
    println!(
        "{:<38} {:>7} {:>8} {:>7} {:>6} {:>6} {:>7} {:>7}",
        format!("{} creates, 16 clients", args.objects),
        "all, s",
        "events/s",
        "peer",
        "ratio",
        "goal",
        "CPU s",
        "us/ev*"
    );
    // What the creates cost by themselves; the first run warms up.
    let mut alone = 0.0;
    for round in 0..2 {
        let outcome = measure(&server, &format!("bench-watch-{round}"), args.objects, Vec::new()).await?;
        alone = outcome.cpu_seconds;
        if round == 1 {
            let (seconds, cpu) = (figure(outcome.seconds), figure(alone));
            println!("{:<38} {seconds:>7} {:>8} {:>7} {:>6} {:>6} {cpu:>7} {:>7}", "nobody watches", "-", "-", "-", "-", "-");
        }
    }
    let mut number = 2;
    for watchers in &args.watchers {
        for (protocol, form, shared) in CASES.iter().filter(|case| args.protocols.contains(&case.0)) {
            let namespace = format!("bench-watch-{number}");
            number += 1;
            let connections = open(&server, *protocol, *watchers, *shared).await?;
            let watches = connections.into_iter().map(|connection| (connection, *form)).collect();
            let outcome = measure(&server, &namespace, args.objects, watches).await?;
            let events = (*watchers * args.objects) as f64;
            let peer = ((*watchers, args.objects) == PEER_CASE).then_some(PEER_SECONDS);
            let beside = Beside { ours: outcome.seconds, peer, goal: GOAL, more: false };
            let each = if *shared > 1 { format!(", {shared} a connection") } else { String::new() };
            println!(
                "{:<38} {:>7} {:>8} {} {:>7} {:>7}",
                format!("{watchers}, {}, {}{each}", protocol.title(), form.title()),
                figure(outcome.seconds),
                figure(events / outcome.seconds),
                beside.columns(),
                figure(outcome.cpu_seconds),
                figure((outcome.cpu_seconds - alone).max(0.0) * 1e6 / events)
            );
        }
    }
    println!("* CPU of the server for each delivered event, without that of the creates (goal: {CPU_GOAL_MICROS} us)\n");
    Ok(())
}

struct Outcome {
    seconds: f64,
    cpu_seconds: f64,
}

async fn open(server: &Server, protocol: Protocol, watchers: usize, shared: usize) -> anyhow::Result<Vec<Connection>> {
    let connections = server.connections(protocol, watchers.div_ceil(shared)).await?;
    if shared == 1 {
        return Ok(connections);
    }
    Ok((0..watchers).filter_map(|number| connections[number % connections.len()].share()).collect())
}

/// Creates objects in a fresh namespace while they are watched.
async fn measure(server: &Server, namespace: &str, count: usize, watches: Vec<(Connection, Form)>) -> anyhow::Result<Outcome> {
    let mut first = server.connect(Protocol::Http1).await?;
    first.write(Write::create("/api/v1/namespaces", objects::namespace(namespace))).await?;
    let all = format!("/api/v1/namespaces/{namespace}/configmaps");
    // The namespace's own ConfigMap comes first.
    let own = format!("{all}/kube-root-ca.crt");
    while first.read(&own, Form::Json).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let list = first.object(&all).await?;
    let version = list["metadata"]["resourceVersion"].as_str().unwrap_or_default();
    let mut watchers = Vec::new();
    for (mut connection, form) in watches {
        let body = connection.stream(&format!("{all}?watch=true&resourceVersion={version}"), form).await?;
        watchers.push(tokio::spawn(async move {
            // The connection ends with its sender.
            let _connection = connection;
            tokio::time::timeout(PATIENCE, watch(body, form, count)).await
        }));
    }
    let writers = server.connections(Protocol::Http1, WRITERS).await?;
    let cpu = server.processes.cpu_seconds()?;
    let began = Instant::now();
    let writers = writers.into_iter().enumerate().map(|(writer, mut connection)| {
        let all = all.clone();
        tokio::spawn(async move {
            for number in (writer..count).step_by(WRITERS) {
                connection.write(Write::create(&all, objects::config_map(&format!("object-{number:06}"), 0))).await?;
            }
            anyhow::Ok(())
        })
    });
    for writer in futures::future::join_all(writers).await {
        writer??;
    }
    for watcher in futures::future::join_all(watchers).await {
        watcher???;
    }
    Ok(Outcome { seconds: began.elapsed().as_secs_f64(), cpu_seconds: server.processes.cpu_seconds()? - cpu })
}

/// Reads until so many events have come.
async fn watch(mut body: Incoming, form: Form, count: usize) -> anyhow::Result<()> {
    let mut frames = Frames::default();
    let mut events = 0;
    while events < count {
        let Some(frame) = body.frame().await else { anyhow::bail!("the watch ended after {events} of {count} events") };
        let Ok(data) = frame?.into_data() else { continue };
        events += match form {
            Form::Protobuf => frames.count(&data),
            Form::Json | Form::Table => data.iter().filter(|byte| **byte == b'\n').count(),
        };
    }
    Ok(())
}

/// Frames of a protobuf stream: four bytes of length before each.
#[derive(Default)]
struct Frames {
    head: Vec<u8>,
    rest: usize,
}

impl Frames {
    /// How many frames end in the next piece of the stream.
    fn count(&mut self, mut data: &[u8]) -> usize {
        let mut ended = 0;
        while !data.is_empty() {
            if self.rest > 0 {
                let taken = self.rest.min(data.len());
                self.rest -= taken;
                data = &data[taken..];
                ended += usize::from(self.rest == 0);
                continue;
            }
            self.head.push(data[0]);
            data = &data[1..];
            if let Ok(length) = <[u8; 4]>::try_from(self.head.as_slice()) {
                self.rest = u32::from_be_bytes(length) as usize;
                self.head.clear();
            }
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_counted_however_they_are_cut() {
        let stream = [&[0, 0, 0, 3, 1, 2, 3], &[0, 0, 0, 1, 9][..]].concat();
        for cut in 0..=stream.len() {
            let mut frames = Frames::default();
            assert_eq!(frames.count(&stream[..cut]) + frames.count(&stream[cut..]), 2, "cut at {cut}");
        }
    }
}

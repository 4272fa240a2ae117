//! The kubelet's metrics under upstream's names: its own, the containers' (as far as CRI tells them), and the resource metrics that
//! metrics-server reads.

use std::{collections::BTreeMap, fmt::Write, sync::Arc};

use axum::{
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use trireme_proto::cri;

use super::{context::Api, request::refuse, stats};
use crate::csi::InUse;

fn text(body: String) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], body).into_response()
}

/// Appends a family with its samples.
fn family(out: &mut String, name: &str, kind: &str, help: &str, samples: &[(String, f64)]) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for (labels, value) in samples {
        let _ = writeln!(out, "{name}{labels} {value}");
    }
}

/// What the kubelet says of itself.
pub(crate) async fn kubelet(State(api): State<Arc<Api>>) -> Response {
    let mut out = String::new();
    let node = format!("{{node=\"{}\"}}", api.core.options.node_name);
    family(&mut out, "kubelet_node_name", "gauge", "[ALPHA] The node's name. The count is always 1.", &[(node, 1.0)]);
    let (mut running_pods, mut states) = (0_f64, [0_f64; 4]);
    if let Ok(sandboxes) = api.core.runtime.list_sandboxes(None).await {
        running_pods = sandboxes.iter().filter(|s| s.state == cri::PodSandboxState::SandboxReady as i32).count() as f64;
    }
    if let Ok(containers) = api.core.runtime.list_containers(None).await {
        for container in containers {
            if let Some(count) = usize::try_from(container.state).ok().and_then(|s| states.get_mut(s)) {
                *count += 1.0;
            }
        }
    }
    family(
        &mut out,
        "kubelet_running_pods",
        "gauge",
        "[BETA] Number of pods that have a running pod sandbox",
        &[(String::new(), running_pods)],
    );
    let named = ["created", "running", "exited", "unknown"]
        .iter()
        .zip(states)
        .map(|(state, n)| (format!("{{container_state=\"{state}\"}}"), n))
        .collect::<Vec<_>>();
    family(&mut out, "kubelet_running_containers", "gauge", "[BETA] Number of containers currently running", &named);
    let up = if *api.pods.runtime_up.borrow() { 1.0 } else { 0.0 };
    family(&mut out, "trireme_kubelet_runtime_up", "gauge", "Whether the container runtime answers", &[(String::new(), up)]);
    let desired = api.core.pods.list().len() as f64;
    let kind = "{static=\"false\"}".to_owned();
    family(
        &mut out,
        "kubelet_desired_pods",
        "gauge",
        "[ALPHA] The number of pods the kubelet is being instructed to run.",
        &[(kind, desired)],
    );
    volumes(&mut out, &api.core.csi.usage());
    for registry in std::iter::once(&api.core.metrics.registry).chain(&api.core.options.requests) {
        out.push_str(&String::from_utf8_lossy(&trireme_client::metrics::render(registry)));
    }
    text(out)
}

/// One number of a volume, where its driver tells it.
type UseOf = fn(&InUse) -> Option<u64>;

/// How full the volumes of claims are, as their drivers tell. A claim that several pods use is shown once.
fn volumes(out: &mut String, used: &[InUse]) {
    let by_claim: BTreeMap<_, _> = used.iter().filter_map(|used| Some((used.claim.as_ref()?, used))).collect();
    let samples = |of: UseOf| -> Vec<(String, f64)> {
        let labels = |(namespace, name): &(String, String)| format!("{{namespace=\"{namespace}\",persistentvolumeclaim=\"{name}\"}}");
        by_claim.iter().filter_map(|(claim, used)| Some((labels(claim), of(used)? as f64))).collect()
    };
    let shown: [(&str, &str, UseOf); 7] = [
        ("available_bytes", "Number of available bytes in the volume", |used| used.usage.bytes.map(|bytes| bytes.available)),
        ("capacity_bytes", "Capacity in bytes of the volume", |used| used.usage.bytes.map(|bytes| bytes.total)),
        ("used_bytes", "Number of used bytes in the volume", |used| used.usage.bytes.map(|bytes| bytes.used)),
        ("inodes", "Maximum number of inodes in the volume", |used| used.usage.inodes.map(|inodes| inodes.total)),
        ("inodes_free", "Number of free inodes in the volume", |used| used.usage.inodes.map(|inodes| inodes.available)),
        ("inodes_used", "Number of used inodes in the volume", |used| used.usage.inodes.map(|inodes| inodes.used)),
        ("health_status_abnormal", "Abnormal volume health status. The count is either 1 or 0.", |used| used.usage.abnormal.map(u64::from)),
    ];
    for (name, help, of) in shown {
        let samples = samples(of);
        if !samples.is_empty() {
            family(out, &format!("kubelet_volume_stats_{name}"), "gauge", &format!("[ALPHA] {help}"), &samples);
        }
    }
}

/// How probes end.
pub(crate) async fn probes(State(api): State<Arc<Api>>) -> Response {
    text(String::from_utf8_lossy(&trireme_client::metrics::render(&api.core.metrics.probes_registry)).into_owned())
}

type Sample = fn(&cri::ContainerStats) -> f64;

fn cpu_seconds(stats: &cri::ContainerStats) -> f64 {
    stats.cpu.as_ref().and_then(|c| c.usage_core_nano_seconds.as_ref()).map_or(0.0, |v| v.value as f64 / 1e9)
}

fn working_set(stats: &cri::ContainerStats) -> f64 {
    stats.memory.as_ref().and_then(|m| m.working_set_bytes.as_ref()).map_or(0.0, |v| v.value as f64)
}

fn usage(stats: &cri::ContainerStats) -> f64 {
    stats.memory.as_ref().and_then(|m| m.usage_bytes.as_ref()).map_or(0.0, |v| v.value as f64)
}

fn rss(stats: &cri::ContainerStats) -> f64 {
    stats.memory.as_ref().and_then(|m| m.rss_bytes.as_ref()).map_or(0.0, |v| v.value as f64)
}

/// cAdvisor's names for what CRI tells of containers.
pub(crate) async fn containers(State(api): State<Arc<Api>>) -> Response {
    let stats = match api.core.runtime.container_stats().await {
        Ok(stats) => stats,
        Err(error) => return refuse(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    let pods = stats::by_pod(&stats);
    let collect = |of: Sample| -> Vec<(String, f64)> {
        pods.iter()
            .flat_map(|((namespace, pod, _), containers)| {
                containers.iter().map(move |(name, stats)| {
                    let id = stats.attributes.as_ref().map(|a| a.id.as_str()).unwrap_or_default();
                    (format!("{{container=\"{name}\",id=\"{id}\",namespace=\"{namespace}\",pod=\"{pod}\"}}"), of(stats))
                })
            })
            .collect()
    };
    let mut out = String::new();
    family(&mut out, "container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed in seconds.", &collect(cpu_seconds));
    family(&mut out, "container_memory_working_set_bytes", "gauge", "Current working set in bytes.", &collect(working_set));
    family(
        &mut out,
        "container_memory_usage_bytes",
        "gauge",
        "Current memory usage in bytes, including all memory regardless of when it was accessed",
        &collect(usage),
    );
    family(&mut out, "container_memory_rss", "gauge", "Size of RSS in bytes.", &collect(rss));
    family(&mut out, "machine_cpu_cores", "gauge", "Number of logical CPU cores.", &[(String::new(), api.core.machine.cpus as f64)]);
    family(
        &mut out,
        "machine_memory_bytes",
        "gauge",
        "Amount of memory installed on the machine.",
        &[(String::new(), api.core.machine.memory_bytes as f64)],
    );
    text(out)
}

/// What metrics-server reads.
pub(crate) async fn resource(State(api): State<Arc<Api>>) -> Response {
    let stats = match api.core.runtime.container_stats().await {
        Ok(stats) => stats,
        Err(error) => return refuse(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    let pods = stats::by_pod(&stats);
    let of_containers = |of: Sample| -> Vec<(String, f64)> {
        pods.iter()
            .flat_map(|((ns, pod, _), all)| {
                all.iter().map(move |(name, s)| (format!("{{container=\"{name}\",namespace=\"{ns}\",pod=\"{pod}\"}}"), of(s)))
            })
            .collect()
    };
    let of_pods = |of: Sample| -> Vec<(String, f64)> {
        pods.iter()
            .map(|((ns, pod, _), all)| (format!("{{namespace=\"{ns}\",pod=\"{pod}\"}}"), all.iter().map(|(_, s)| of(s)).sum()))
            .collect()
    };
    let starts: Vec<(String, f64)> = pods
        .iter()
        .flat_map(|((ns, pod, _), all)| {
            let object = api.core.pods.get(ns, pod);
            all.iter()
                .filter_map(|(name, _)| {
                    let statuses = object.as_ref()?.status.as_ref()?;
                    let listed = statuses.container_statuses.iter().chain(&statuses.init_container_statuses).flatten();
                    let started: Timestamp = listed
                        .filter(|s| &s.name == name)
                        .find_map(|s| s.state.as_ref()?.running.as_ref()?.started_at.as_ref().map(|t| t.0))?;
                    Some((format!("{{container=\"{name}\",namespace=\"{ns}\",pod=\"{pod}\"}}"), started.as_second() as f64))
                })
                .collect::<Vec<_>>()
        })
        .collect();
    let available = crate::machine::memory_available();
    let node_memory = api.core.machine.memory_bytes.saturating_sub(available) as f64;
    let mut out = String::new();
    family(
        &mut out,
        "container_cpu_usage_seconds_total",
        "counter",
        "[STABLE] Cumulative cpu time consumed by the container in core-seconds",
        &of_containers(cpu_seconds),
    );
    family(
        &mut out,
        "container_memory_working_set_bytes",
        "gauge",
        "[STABLE] Current working set of the container in bytes",
        &of_containers(working_set),
    );
    family(&mut out, "container_start_time_seconds", "gauge", "[STABLE] Start time of the container since unix epoch in seconds", &starts);
    family(
        &mut out,
        "node_cpu_usage_seconds_total",
        "counter",
        "[STABLE] Cumulative cpu time consumed by the node in core-seconds",
        &[(String::new(), stats::node_cpu_nanos() as f64 / 1e9)],
    );
    family(
        &mut out,
        "node_memory_working_set_bytes",
        "gauge",
        "[STABLE] Current working set of the node in bytes",
        &[(String::new(), node_memory)],
    );
    family(
        &mut out,
        "pod_cpu_usage_seconds_total",
        "counter",
        "[STABLE] Cumulative cpu time consumed by the pod in core-seconds",
        &of_pods(cpu_seconds),
    );
    family(&mut out, "pod_memory_working_set_bytes", "gauge", "[STABLE] Current working set of the pod in bytes", &of_pods(working_set));
    family(
        &mut out,
        "resource_scrape_error",
        "gauge",
        "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise",
        &[(String::new(), 0.0)],
    );
    text(out)
}

//! `/stats/summary`: what node, pods and containers use. Answers to
//! <https://kubernetes.io/docs/reference/instrumentation/node-metrics/>.

use std::{collections::BTreeMap, sync::Arc};

use axum::{extract::State, http::StatusCode, response::Response};
use jiff::Timestamp;
use serde_json::{Value, json};
use trireme_proto::cri;

use super::{
    context::Api,
    request::{answer_json, refuse},
};
use crate::{
    csi::InUse,
    machine::{self, Disk, Space},
    runtime::keys,
};

fn time(nanos: i64) -> String {
    Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or_default().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn value(wrapped: &Option<cri::UInt64Value>) -> u64 {
    wrapped.as_ref().map_or(0, |v| v.value)
}

/// Busy time of all processors since boot, in nanoseconds.
pub(crate) fn node_cpu_nanos() -> u64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = text.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = first.split_whitespace().skip(1).filter_map(|t| t.parse().ok()).collect();
    // All but idle and iowait; a tick is 10 ms.
    let busy: u64 = ticks.iter().enumerate().filter(|(index, _)| !matches!(index, 3 | 4) && *index < 8).map(|(_, t)| t).sum();
    busy * 10_000_000
}

fn container(stats: &cri::ContainerStats, name: &str) -> Value {
    let mut out = json!({"name": name, "startTime": null});
    if let Some(cpu) = &stats.cpu {
        out["cpu"] = json!({"time": time(cpu.timestamp), "usageCoreNanoSeconds": value(&cpu.usage_core_nano_seconds), "usageNanoCores": value(&cpu.usage_nano_cores)});
    }
    if let Some(memory) = &stats.memory {
        out["memory"] = json!({"time": time(memory.timestamp), "workingSetBytes": value(&memory.working_set_bytes), "usageBytes": value(&memory.usage_bytes), "rssBytes": value(&memory.rss_bytes)});
    }
    if let Some(rootfs) = &stats.writable_layer {
        out["rootfs"] =
            json!({"time": time(rootfs.timestamp), "usedBytes": value(&rootfs.used_bytes), "inodesUsed": value(&rootfs.inodes_used)});
    }
    out
}

/// Namespace, name and UID.
pub(crate) type PodRef = (String, String, String);

/// Containers of the runtime by pod.
pub(crate) fn by_pod(all: &[cri::ContainerStats]) -> BTreeMap<PodRef, Vec<(String, &cri::ContainerStats)>> {
    let mut pods: BTreeMap<PodRef, Vec<_>> = BTreeMap::new();
    for stats in all {
        let Some(attributes) = &stats.attributes else { continue };
        let label = |key: &str| attributes.labels.get(key).cloned().unwrap_or_default();
        let key = (label(keys::POD_NAMESPACE), label(keys::POD_NAME), label(keys::POD_UID));
        if !key.2.is_empty() {
            pods.entry(key).or_default().push((label(keys::CONTAINER_NAME), stats));
        }
    }
    pods
}

/// A file system as the summary shows it.
fn file_system(disk: Disk, now: &str) -> Value {
    let used = |space: Space| space.total.saturating_sub(space.free);
    json!({
        "time": now,
        "availableBytes": disk.bytes.free, "capacityBytes": disk.bytes.total, "usedBytes": used(disk.bytes),
        "inodesFree": disk.inodes.free, "inodes": disk.inodes.total, "inodesUsed": used(disk.inodes),
    })
}

/// A volume as the summary shows it, as far as its driver tells.
fn volume(used: &InUse, now: &str) -> Value {
    let mut out = json!({"name": used.volume, "time": now});
    if let Some(bytes) = used.usage.bytes {
        out["availableBytes"] = bytes.available.into();
        out["capacityBytes"] = bytes.total.into();
        out["usedBytes"] = bytes.used.into();
    }
    if let Some(inodes) = used.usage.inodes {
        out["inodesFree"] = inodes.available.into();
        out["inodes"] = inodes.total.into();
        out["inodesUsed"] = inodes.used.into();
    }
    if let Some((namespace, name)) = &used.claim {
        out["pvcRef"] = json!({"name": name, "namespace": namespace});
    }
    if let Some(abnormal) = used.usage.abnormal {
        out["volumeHealthStats"] = json!({"abnormal": abnormal});
    }
    out
}

pub(crate) async fn summary(State(api): State<Arc<Api>>) -> Response {
    let stats = match api.core.runtime.container_stats().await {
        Ok(stats) => stats,
        Err(error) => return refuse(StatusCode::INTERNAL_SERVER_ERROR, format!("failed to list pod stats: {error}")),
    };
    let now = api.core.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let available = machine::memory_available();
    let disk = machine::disk(&api.core.options.data_dir);
    let volumes = api.core.csi.usage();
    let used = api.core.machine.memory_bytes.saturating_sub(available);
    let pods: Vec<Value> = by_pod(&stats)
        .into_iter()
        .map(|((namespace, name, uid), containers)| {
            let sum = |of: fn(&cri::ContainerStats) -> u64| containers.iter().map(|(_, s)| of(s)).sum::<u64>();
            let start = api.core.pods.get(&namespace, &name).and_then(|p| p.status.as_ref().and_then(|s| s.start_time.clone()));
            let of_pod: Vec<Value> = volumes.iter().filter(|used| used.pod_uid == uid).map(|used| volume(used, &now)).collect();
            let mut shown = json!({
                "podRef": {"name": name, "namespace": namespace, "uid": uid},
                "startTime": start,
                "containers": containers.iter().map(|(name, s)| container(s, name)).collect::<Vec<_>>(),
                "cpu": {
                    "time": now,
                    "usageCoreNanoSeconds": sum(|s| s.cpu.as_ref().map_or(0, |c| value(&c.usage_core_nano_seconds))),
                    "usageNanoCores": sum(|s| s.cpu.as_ref().map_or(0, |c| value(&c.usage_nano_cores))),
                },
                "memory": {"time": now, "workingSetBytes": sum(|s| s.memory.as_ref().map_or(0, |m| value(&m.working_set_bytes)))},
            });
            if !of_pod.is_empty() {
                shown["volume"] = of_pod.into();
            }
            shown
        })
        .collect();
    answer_json(&json!({
        "node": {
            "nodeName": api.core.options.node_name,
            "cpu": {"time": now, "usageCoreNanoSeconds": node_cpu_nanos()},
            "memory": {"time": now, "availableBytes": available, "usageBytes": used, "workingSetBytes": used},
            "fs": disk.map(|disk| file_system(disk, &now)),
        },
        "pods": pods,
    }))
}

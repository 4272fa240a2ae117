//! How many replicas a metric asks for. Pure.
//!
//! Answers to upstream's `pkg/controller/podautoscaler/replica_calculator.go`: pods that are not ready yet, or of which nothing is known,
//! never make a target grow or shrink by more than what is certain.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use trireme_api::quantity::Quantity;
use trireme_client::Object;

use crate::runtime::clock::seconds_since;

/// A pod that started this long ago may still be loading: its use of processors counts once it is ready.
const CPU_INITIALIZATION_SECS: i64 = 300;
/// A pod that became unready within this time of its start has never been ready.
const INITIAL_READINESS_SECS: i64 = 30;

/// What one pod uses, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) milli: i64,
    pub(super) time: Timestamp,
    pub(super) window_secs: i64,
}

/// By how much a ratio may differ from 1 before something is done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tolerances {
    pub(super) down: f64,
    pub(super) up: f64,
}

/// The pods of a target, and what is known of them.
pub(super) struct Pods<'a> {
    pub(super) pods: &'a [Arc<Pod>],
    pub(super) samples: HashMap<String, Sample>,
    pub(super) is_cpu: bool,
    pub(super) now: Timestamp,
}

/// What a metric asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Proposal {
    pub(super) replicas: i32,
    /// The average use of a pod, in thousandths.
    pub(super) average_milli: i64,
    /// The use as a share of what was requested.
    pub(super) utilization: Option<i32>,
}

#[derive(Debug, Default)]
struct Groups {
    ready: usize,
    unready: HashSet<String>,
    missing: HashSet<String>,
    ignored: HashSet<String>,
}

// === impl Tolerances ===

impl Tolerances {
    fn allow(self, ratio: f64) -> bool {
        (1.0 - self.down..=1.0 + self.up).contains(&ratio)
    }
}

// === impl Pods ===

impl Pods<'_> {
    /// For a target that is a share of what the pods request.
    pub(super) fn by_utilization(
        mut self,
        current: i32,
        target_percent: i32,
        requests: &HashMap<String, i64>,
        tolerances: Tolerances,
    ) -> Result<Proposal, String> {
        let groups = self.known()?;
        let used = |samples: &HashMap<String, Sample>| -> Result<(f64, i32, i64), String> {
            let counted: Vec<(i64, i64)> = samples.iter().filter_map(|(pod, sample)| Some((sample.milli, *requests.get(pod)?))).collect();
            let total: i64 = counted.iter().map(|(milli, _)| milli).sum();
            let requested: i64 = counted.iter().map(|(_, request)| request).sum();
            if requested == 0 {
                return Err("no metrics returned matched known pods".to_owned());
            }
            let utilization = i32::try_from(total.saturating_mul(100) / requested).unwrap_or(i32::MAX);
            let average = total / i64::try_from(counted.len()).unwrap_or(i64::MAX);
            Ok((f64::from(utilization) / f64::from(target_percent), utilization, average))
        };
        let (ratio, utilization, average_milli) = used(&self.samples)?;
        let fallback = i64::from(target_percent.max(100));
        let full = |pod: &str| requests.get(pod).map_or(0, |request| request.saturating_mul(fallback) / 100);
        let replicas = self.settle(current, &groups, ratio, tolerances, full, |samples| used(samples).map(|(ratio, _, _)| ratio))?;
        Ok(Proposal { replicas, average_milli, utilization: Some(utilization) })
    }

    /// For a target that is an average over the pods.
    pub(super) fn by_average(mut self, current: i32, target_milli: i64, tolerances: Tolerances) -> Result<Proposal, String> {
        let groups = self.known()?;
        let average = |samples: &HashMap<String, Sample>| {
            samples.values().map(|sample| sample.milli).sum::<i64>() / i64::try_from(samples.len().max(1)).unwrap_or(i64::MAX)
        };
        let ratio = |samples: &HashMap<String, Sample>| average(samples) as f64 / target_milli as f64;
        let (first, average_milli) = (ratio(&self.samples), average(&self.samples));
        let replicas = self.settle(current, &groups, first, tolerances, |_| target_milli, |samples| Ok(ratio(samples)))?;
        Ok(Proposal { replicas, average_milli, utilization: None })
    }

    /// Sorts the pods, and takes out the samples that do not count.
    fn known(&mut self) -> Result<Groups, String> {
        if self.pods.is_empty() {
            return Err("no pods returned by selector while calculating replica count".to_owned());
        }
        let groups = self.group();
        self.samples.retain(|pod, _| !groups.ignored.contains(pod) && !groups.unready.contains(pod));
        if self.samples.is_empty() {
            return Err("did not receive metrics for targeted pods (pods might be unready)".to_owned());
        }
        Ok(groups)
    }

    fn group(&self) -> Groups {
        let mut groups = Groups::default();
        for pod in self.pods {
            let name = pod.name().to_owned();
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
            if pod.metadata.deletion_timestamp.is_some() || phase == "Failed" {
                groups.ignored.insert(name);
            } else if phase == "Pending" {
                groups.unready.insert(name);
            } else {
                match self.samples.get(&name) {
                    None => _ = groups.missing.insert(name),
                    Some(sample) if self.is_cpu && is_starting(pod, sample, self.now) => _ = groups.unready.insert(name),
                    Some(_) => groups.ready += 1,
                }
            }
        }
        groups
    }

    /// From a first ratio to a number: what is not known counts against the change.
    fn settle(
        &mut self,
        current: i32,
        groups: &Groups,
        ratio: f64,
        tolerances: Tolerances,
        full: impl Fn(&str) -> i64,
        again: impl Fn(&HashMap<String, Sample>) -> Result<f64, String>,
    ) -> Result<i32, String> {
        let grows_with_unready = !groups.unready.is_empty() && ratio > 1.0;
        if !grows_with_unready && groups.missing.is_empty() {
            return Ok(if tolerances.allow(ratio) { current } else { ceil(ratio * groups.ready as f64) });
        }
        let assumed = |milli| Sample { milli, time: self.now, window_secs: 0 };
        let missing: Vec<(String, Sample)> = match ratio {
            ratio if ratio < 1.0 => groups.missing.iter().map(|pod| (pod.clone(), assumed(full(pod)))).collect(),
            ratio if ratio > 1.0 => groups.missing.iter().map(|pod| (pod.clone(), assumed(0))).collect(),
            _ => Vec::new(),
        };
        let unready: Vec<(String, Sample)> =
            if grows_with_unready { groups.unready.iter().map(|pod| (pod.clone(), assumed(0))).collect() } else { Vec::new() };
        self.samples.extend(missing.into_iter().chain(unready));
        let with_all = again(&self.samples)?;
        if tolerances.allow(with_all) || (ratio < 1.0 && with_all > 1.0) || (ratio > 1.0 && with_all < 1.0) {
            return Ok(current);
        }
        let replicas = ceil(with_all * self.samples.len() as f64);
        let is_contrary = (with_all < 1.0 && replicas > current) || (with_all > 1.0 && replicas < current);
        Ok(if is_contrary { current } else { replicas })
    }
}

/// For a metric of something else than the pods: `ratio` is its value by its target.
pub(super) fn by_ratio(current: i32, ratio: f64, pods: &[Arc<Pod>], tolerances: Tolerances) -> Result<i32, String> {
    if current == 0 {
        return Ok(ceil(ratio));
    }
    if tolerances.allow(ratio) {
        return Ok(current);
    }
    if pods.is_empty() {
        return Err("unable to calculate ready pods: no pods returned by selector while calculating replica count".to_owned());
    }
    let is_running = |pod: &&Arc<Pod>| pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
    let ready = pods.iter().filter(is_running).filter(|pod| ready_condition(pod).is_some_and(|(status, _)| status == "True")).count();
    Ok(ceil(ratio * ready as f64))
}

/// For a metric whose value is to be shared by the replicas. The replicas, and the share of one.
pub(super) fn by_share(current: i32, value_milli: i64, target_milli: i64, tolerances: Tolerances) -> (i32, i64) {
    let ratio = value_milli as f64 / (target_milli as f64 * f64::from(current));
    let replicas = if current > 0 && tolerances.allow(ratio) { current } else { ceil(value_milli as f64 / target_milli as f64) };
    let share = if current > 0 { ceil_i64(value_milli as f64 / f64::from(current)) } else { value_milli };
    (replicas, share)
}

/// What each pod requests of a resource, in thousandths; of one container if it is named.
///
/// # Errors
/// A container requests none: no share can be computed.
pub(super) fn requests(pods: &[Arc<Pod>], resource: &str, container: Option<&str>) -> Result<HashMap<String, i64>, String> {
    let request = |one: &Container| one.resources.as_ref()?.requests.as_ref()?.get(resource)?.0.parse::<Quantity>().ok();
    let of_pod = |pod: &Arc<Pod>| -> Result<(String, i64), String> {
        let spec = pod.spec.as_ref();
        let sidecars = spec.and_then(|spec| spec.init_containers.as_ref()).into_iter().flatten();
        let sidecars = sidecars.filter(|one| one.restart_policy.as_deref() == Some("Always"));
        let mut sum: i64 = 0;
        for one in spec.iter().flat_map(|spec| &spec.containers).chain(sidecars) {
            if container.is_none_or(|wanted| wanted == one.name) {
                let milli = request(one)
                    .ok_or_else(|| format!("missing request for {resource} in container {} of Pod {}", one.name, pod.name()))?;
                sum = sum.saturating_add(milli.milli_value());
            }
        }
        Ok((pod.name().to_owned(), sum))
    };
    pods.iter().map(of_pod).collect()
}

fn ready_condition(pod: &Pod) -> Option<(&str, Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>)> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready")?;
    Some((&ready.status, ready.last_transition_time.as_ref()))
}

/// Whether the sample may be of the work that a pod does before it is ready.
fn is_starting(pod: &Pod, sample: &Sample, now: Timestamp) -> bool {
    let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
    let (Some((ready, changed)), Some(started)) = (ready_condition(pod), started) else { return true };
    let changed_secs_ago = changed.map_or(i64::MAX, |changed| seconds_since(changed, now));
    let started_secs_ago = seconds_since(started, now);
    if started_secs_ago < CPU_INITIALIZATION_SECS {
        let sampled_secs_ago = now.as_second() - sample.time.as_second();
        return ready == "False" || sampled_secs_ago > changed_secs_ago.saturating_sub(sample.window_secs);
    }
    ready == "False" && started_secs_ago - INITIAL_READINESS_SECS < changed_secs_ago
}

fn ceil(number: f64) -> i32 {
    // Saturates, and is 0 for what is no number.
    number.ceil() as i32
}

fn ceil_i64(number: f64) -> i64 {
    number.ceil() as i64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    const TENTH: Tolerances = Tolerances { down: 0.1, up: 0.1 };

    fn now() -> Timestamp {
        "2026-01-01T12:00:00Z".parse().unwrap()
    }

    /// Pods that have been ready for long, with what they use; each requests a core.
    fn pods(names: &[&str]) -> Vec<Arc<Pod>> {
        names.iter().map(|name| pod(name, "Running", "True", "2026-01-01T10:00:00Z", "2026-01-01T10:00:10Z")).collect()
    }

    fn pod(name: &str, phase: &str, ready: &str, started: &str, changed: &str) -> Arc<Pod> {
        let pod = json!({"metadata": {"name": name, "namespace": "a"},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]},
            "status": {"phase": phase, "startTime": started, "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": changed}]}});
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn samples(of: &[(&str, i64)]) -> HashMap<String, Sample> {
        of.iter().map(|(name, milli)| ((*name).to_owned(), Sample { milli: *milli, time: now(), window_secs: 15 })).collect()
    }

    fn utilization(pods: &[Arc<Pod>], used: &[(&str, i64)], current: i32, target: i32) -> Result<Proposal, String> {
        let requests = requests(pods, "cpu", None)?;
        Pods { pods, samples: samples(used), is_cpu: true, now: now() }.by_utilization(current, target, &requests, TENTH)
    }

    #[test]
    fn replicas_follow_the_ratio_beyond_the_tolerance() {
        let three = pods(&["a", "b", "c"]);
        let scaled = |used: i64| utilization(&three, &[("a", used), ("b", used), ("c", used)], 3, 50).unwrap();
        assert_eq!(scaled(1000), Proposal { replicas: 6, average_milli: 1000, utilization: Some(100) });
        assert_eq!((scaled(540).replicas, scaled(460).replicas, scaled(100).replicas), (3, 3, 1));
    }

    #[test]
    fn what_is_not_known_counts_against_the_change() {
        let three = pods(&["a", "b", "c"]);
        // To grow: a missing pod is assumed idle. (1.0 + 1.0 + 0) / 3 of 50 %: 1.33 × 3.
        assert_eq!(utilization(&three, &[("a", 1000), ("b", 1000)], 3, 50).unwrap().replicas, 4);
        // To shrink: it is assumed to use all of its request.
        assert_eq!(utilization(&three, &[("a", 100), ("b", 100)], 3, 50).unwrap().replicas, 3);
        let mut starting = three.clone();
        starting[2] = pod("c", "Running", "False", "2026-01-01T11:59:30Z", "2026-01-01T11:59:30Z");
        let used = [("a", 1000), ("b", 1000), ("c", 5000)];
        assert_eq!(utilization(&starting, &used, 3, 50).unwrap().replicas, 4, "what it uses to start is not counted");
        starting[2] = pod("c", "Failed", "False", "2026-01-01T10:00:00Z", "2026-01-01T10:00:00Z");
        assert_eq!(utilization(&starting, &used, 3, 50).unwrap().replicas, 4, "a failed pod is none");
        assert!(utilization(&[], &used, 3, 50).is_err() && utilization(&three, &[], 3, 50).is_err());
    }

    #[test]
    fn averages_need_no_request() {
        let two = pods(&["a", "b"]);
        let average =
            |used: &[(&str, i64)]| Pods { pods: &two, samples: samples(used), is_cpu: false, now: now() }.by_average(2, 100, TENTH);
        assert_eq!(average(&[("a", 300), ("b", 100)]).unwrap(), Proposal { replicas: 4, average_milli: 200, utilization: None });
        assert_eq!(average(&[("a", 20)]).unwrap().replicas, 2, "the other one may use its whole target");
    }

    #[test]
    fn other_metrics_are_ratios_or_shares() {
        let two = pods(&["a", "b"]);
        assert_eq!((by_ratio(2, 1.05, &two, TENTH), by_ratio(2, 2.0, &two, TENTH), by_ratio(0, 2.4, &two, TENTH)), (Ok(2), Ok(4), Ok(3)));
        assert!(by_ratio(2, 2.0, &[], TENTH).is_err());
        assert_eq!(
            (by_share(2, 1000, 100, TENTH), by_share(2, 205, 100, TENTH), by_share(0, 150, 100, TENTH)),
            ((10, 500), (2, 103), (2, 150))
        );
    }

    #[test]
    fn a_container_without_a_request_is_named() {
        assert_eq!(requests(&pods(&["a"]), "memory", None).unwrap_err(), "missing request for memory in container c of Pod a");
        assert_eq!(requests(&pods(&["a"]), "cpu", Some("other")).unwrap()["a"], 0);
    }
}

//! Two samples of a node's counters, and what was used between them. Pure but for the clock.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio::time::Instant;

/// Samples are used for this long.
const FRESH: Duration = Duration::from_secs(10);
/// The time between two samples, at least.
const APART: Duration = Duration::from_secs(1);
/// An older sample says nothing about the use now.
const STALE: Duration = Duration::from_secs(90);

/// Counters of a node and its containers.
#[derive(Clone, Debug)]
pub struct Sample {
    at: Instant,
    time: Timestamp,
    node: Counters,
    pods: HashMap<(String, String), HashMap<String, Counters>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counters {
    cpu_nanos: u64,
    memory_bytes: u64,
}

/// The newest two samples of a node.
#[derive(Debug, Default)]
pub struct Window {
    earlier: Option<Sample>,
    later: Option<Sample>,
}

/// What was used, on average, in a window of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Billionths of a core.
    pub nano_cores: u64,
    /// The working set.
    pub memory_bytes: u64,
}

/// What a node and its pods use.
#[derive(Clone, Debug)]
pub struct NodeUsage {
    /// The node.
    pub node: String,
    /// The end of the window.
    pub time: Timestamp,
    /// Its length.
    pub window: Duration,
    /// The node as a whole.
    pub total: Usage,
    /// Containers by name, by namespace and name of their pod. A pod with a container that has just started is not there yet.
    pub pods: HashMap<(String, String), Vec<(String, Usage)>>,
}

// === impl Sample ===

impl Sample {
    /// Reads a kubelet's summary.
    ///
    /// # Errors
    /// It does not say what the node uses.
    pub fn parse(summary: &Value, at: Instant, time: Timestamp) -> Result<Sample, String> {
        let text = |value: &Value, field: &str| value.get(field).and_then(Value::as_str).map(str::to_owned);
        let mut pods = HashMap::new();
        for pod in summary.get("pods").and_then(Value::as_array).into_iter().flatten() {
            let Some(reference) = pod.get("podRef") else { continue };
            let (Some(namespace), Some(name)) = (text(reference, "namespace"), text(reference, "name")) else { continue };
            let containers = pod.get("containers").and_then(Value::as_array).into_iter().flatten();
            let containers = containers.filter_map(|one| Some((text(one, "name")?, Counters::parse(one)?)));
            pods.insert((namespace, name), containers.collect());
        }
        let node = summary.get("node").and_then(Counters::parse).ok_or("the summary does not say what the node uses")?;
        Ok(Sample { at, time, node, pods })
    }
}

// === impl Counters ===

impl Counters {
    fn parse(object: &Value) -> Option<Counters> {
        let cpu_nanos = object.get("cpu")?.get("usageCoreNanoSeconds")?.as_u64()?;
        let memory_bytes = object.get("memory")?.get("workingSetBytes")?.as_u64()?;
        Some(Counters { cpu_nanos, memory_bytes })
    }

    /// The use since `earlier`; none if the counter began anew.
    fn since(self, earlier: Counters, window: Duration) -> Option<Usage> {
        let used = u128::from(self.cpu_nanos.checked_sub(earlier.cpu_nanos)?);
        let nano_cores = used.checked_mul(1_000_000_000)?.checked_div(window.as_nanos())?;
        Some(Usage { nano_cores: u64::try_from(nano_cores).ok()?, memory_bytes: self.memory_bytes })
    }
}

// === impl Window ===

impl Window {
    /// How long to wait for the next sample; none if those that are here will do.
    pub fn wants(&self) -> Option<Duration> {
        match (&self.earlier, &self.later) {
            (Some(_), Some(later)) if later.at.elapsed() < FRESH => None,
            (_, Some(later)) if later.at.elapsed() < STALE => Some(APART.saturating_sub(later.at.elapsed())),
            _ => Some(Duration::ZERO),
        }
    }

    /// Takes a sample in.
    pub fn add(&mut self, sample: Sample) {
        let before = self.later.replace(sample);
        self.earlier = before.filter(|before| before.at.elapsed() < STALE);
    }

    /// What was used between the samples.
    pub fn usage(&self, node: String) -> Option<NodeUsage> {
        let (earlier, later) = (self.earlier.as_ref()?, self.later.as_ref()?);
        let window = later.at.duration_since(earlier.at);
        let total = later.node.since(earlier.node, window)?;
        let pods = later.pods.iter().filter_map(|(pod, containers)| {
            let before = earlier.pods.get(pod)?;
            let used = |(name, counters): (&String, &Counters)| Some((name.clone(), counters.since(*before.get(name)?, window)?));
            let mut usages: Vec<(String, Usage)> = containers.iter().map(used).collect::<Option<_>>()?;
            usages.sort_by(|a, b| a.0.cmp(&b.0));
            (!usages.is_empty()).then(|| (pod.clone(), usages))
        });
        Some(NodeUsage { node, time: later.time, window, total, pods: pods.collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sample(node: u64, pods: &[(&str, &[(&str, u64)])]) -> Sample {
        let counters =
            |name: &str, cpu: u64| json!({"name": name, "cpu": {"usageCoreNanoSeconds": cpu}, "memory": {"workingSetBytes": 4096}});
        let pods: Vec<Value> = pods
            .iter()
            .map(|(pod, containers)| {
                let containers: Vec<Value> = containers.iter().map(|(name, cpu)| counters(name, *cpu)).collect();
                json!({"podRef": {"namespace": "a", "name": pod}, "containers": containers})
            })
            .collect();
        Sample::parse(&json!({"node": counters("", node), "pods": pods}), Instant::now(), Timestamp::UNIX_EPOCH).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn rates_are_those_between_two_samples() {
        let mut window = Window::default();
        assert_eq!(window.wants(), Some(Duration::ZERO));
        window.add(sample(1_000, &[("p", &[("c", 500), ("d", 0)]), ("restarted", &[("c", 900)]), ("gone", &[("c", 1)])]));
        assert!(window.usage("n".into()).is_none());
        assert_eq!(window.wants(), Some(APART));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(window.wants(), Some(Duration::ZERO));
        window.add(sample(1_000_001_000, &[("p", &[("c", 500_000_500), ("d", 0)]), ("restarted", &[("c", 1)]), ("new", &[("c", 7)])]));
        assert_eq!(window.wants(), None);
        let usage = window.usage("n".into()).unwrap();
        assert_eq!((usage.total.nano_cores, usage.total.memory_bytes, usage.window), (500_000_000, 4096, Duration::from_secs(2)));
        let of = |name: &str| usage.pods.get(&("a".to_owned(), name.to_owned()));
        let used: Vec<_> = of("p").unwrap().iter().map(|(name, usage)| (name.as_str(), usage.nano_cores)).collect();
        assert_eq!(used, [("c", 250_000_000), ("d", 0)]);
        assert!(of("restarted").is_none() && of("new").is_none() && of("gone").is_none());

        tokio::time::advance(Duration::from_secs(30)).await;
        assert_eq!(window.wants(), Some(Duration::ZERO), "the last sample is the earlier one now");
        window.add(sample(31_000_001_000, &[]));
        assert_eq!(window.usage("n".into()).unwrap().total.nano_cores, 1_000_000_000);
        tokio::time::advance(STALE).await;
        window.add(sample(0, &[]));
        assert!(window.usage("n".into()).is_none() && window.wants().is_some());
    }

    #[test]
    fn a_summary_may_hold_anything() {
        for summary in [json!(null), json!({"node": {}}), json!({"node": {"cpu": {"usageCoreNanoSeconds": -1}}})] {
            assert!(Sample::parse(&summary, Instant::now(), Timestamp::UNIX_EPOCH).is_err());
        }
        let node = json!({"cpu": {"usageCoreNanoSeconds": 1}, "memory": {"workingSetBytes": 1}});
        let odd = json!({"node": node, "pods": [1, {}, {"podRef": {"namespace": "a"}}, {"podRef": {"namespace": "a", "name": "b"}, "containers": 1}]});
        assert_eq!(Sample::parse(&odd, Instant::now(), Timestamp::UNIX_EPOCH).unwrap().pods.len(), 1);
    }
}

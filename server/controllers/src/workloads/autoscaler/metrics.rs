//! One metric of an autoscaler: read, compared with its target, and shown in the status.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscalerBehavior, MetricIdentifier, MetricSpec, MetricTarget};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use serde_json::{Value, json};
use trireme_api::quantity::Quantity;
use trireme_client::ResourceType;

use super::readings::Readings;
use super::replicas::{self, Pods, Proposal, Sample, Tolerances};

const TOLERANCE: f64 = 0.1;

/// What the metrics of a target are about.
pub(super) struct Target<'a> {
    pub(super) readings: Readings<'a>,
    pub(super) selector: &'a str,
    pub(super) pods: &'a [Arc<Pod>],
    /// The replicas that are asked for now.
    pub(super) current: i32,
    /// The replicas that there are.
    pub(super) in_status: i32,
    pub(super) behavior: Option<&'a HorizontalPodAutoscalerBehavior>,
    pub(super) now: Timestamp,
}

/// What a metric asks for.
pub(super) struct Evaluated {
    pub(super) replicas: i32,
    /// For the condition, and for an entry in `currentMetrics`.
    pub(super) name: String,
    pub(super) status: Value,
}

/// The reason of a condition, and why.
pub(super) type Failure = (&'static str, String);

// === impl Target ===

impl Target<'_> {
    /// Reads a metric. `object` is the resource of the object that it describes, if it describes one.
    pub(super) async fn evaluate(&self, metric: &MetricSpec, object: Result<Option<ResourceType>, String>) -> Result<Evaluated, Failure> {
        if let Some(resource) = &metric.resource {
            let found = self.resource(&resource.name, None, &resource.target).await;
            let found = found.map_err(|why| ("FailedGetResourceMetric", format!("failed to get {} {why}", resource.name)))?;
            return Ok(found.shown("Resource", "resource", json!({"name": resource.name}), &format!("{} resource", resource.name)));
        }
        if let Some(resource) = &metric.container_resource {
            let found = self.resource(&resource.name, Some(&resource.container), &resource.target).await;
            let found = found.map_err(|why| ("FailedGetContainerResourceMetric", format!("failed to get {} {why}", resource.name)))?;
            let about = json!({"name": resource.name, "container": resource.container});
            return Ok(found.shown("ContainerResource", "containerResource", about, &format!("{} container resource", resource.name)));
        }
        if let Some(pods) = &metric.pods {
            let found = self.of_pods(&pods.metric, &pods.target).await;
            let found = found.map_err(|why| ("FailedGetPodsMetric", format!("failed to get pods metric value: {why}")))?;
            return Ok(found.shown("Pods", "pods", json!({"metric": pods.metric}), &format!("pods metric {}", pods.metric.name)));
        }
        if let Some(described) = &metric.object {
            let (about, target) = (&described.described_object, &described.target);
            let read = async {
                let resource = object?.ok_or("the object is not known")?;
                let value =
                    self.readings.of_object(&resource, &about.name, &described.metric.name, described.metric.selector.as_ref()).await?;
                self.value(value, target)
            };
            let found = read.await.map_err(|why: String| ("FailedGetObjectMetric", format!("failed to get object metric value: {why}")))?;
            let shown = json!({"describedObject": about, "metric": described.metric});
            return Ok(found.shown("Object", "object", shown, &format!("{} metric {}", about.kind, described.metric.name)));
        }
        if let Some(external) = &metric.external {
            let read = async {
                let value = self.readings.external(&external.metric.name, external.metric.selector.as_ref()).await?;
                self.value(value, &external.target)
            };
            let name = &external.metric.name;
            let found =
                read.await.map_err(|why: String| ("FailedGetExternalMetric", format!("failed to get {name} external metric: {why}")))?;
            return Ok(found.shown("External", "external", json!({"metric": external.metric}), &format!("external metric {name}")));
        }
        Err(("InvalidMetricSourceType", format!("unknown metric source type {:?}", metric.type_)))
    }

    async fn resource(&self, resource: &str, container: Option<&str>, target: &MetricTarget) -> Result<Found, String> {
        let what = if target.average_value.is_some() { "usage" } else { "utilization" };
        let failed = |why: String| format!("{what}: {why}");
        let samples = self.readings.resource(resource, container, self.selector).await.map_err(failed)?;
        let pods = self.with(samples, resource == "cpu");
        if let Some(average) = &target.average_value {
            let proposal = pods.by_average(self.current, milli(average)?, self.tolerances()).map_err(failed)?;
            return Ok(Found::average(proposal));
        }
        let percent = target.average_utilization.ok_or("target is neither a utilization nor an average value")?;
        let requests = replicas::requests(self.pods, resource, container).map_err(failed)?;
        let proposal = pods.by_utilization(self.current, percent, &requests, self.tolerances()).map_err(failed)?;
        Ok(Found::average(proposal))
    }

    async fn of_pods(&self, metric: &MetricIdentifier, target: &MetricTarget) -> Result<Found, String> {
        let samples = self.readings.of_pods(&metric.name, self.selector, metric.selector.as_ref()).await?;
        let average = target.average_value.as_ref().ok_or("target is not an average value")?;
        let proposal = self.with(samples, false).by_average(self.current, milli(average)?, self.tolerances())?;
        Ok(Found::average(proposal))
    }

    /// A value that is not one of the pods.
    fn value(&self, value_milli: i64, target: &MetricTarget) -> Result<Found, String> {
        if let Some(average) = &target.average_value {
            let (replicas, share) = replicas::by_share(self.in_status, value_milli, milli(average)?, self.tolerances());
            return Ok(Found { replicas, current: json!({"averageValue": text(share)}), is_utilization: false });
        }
        let wanted = milli(target.value.as_ref().ok_or("target is neither a value nor an average value")?)?;
        let ratio = value_milli as f64 / wanted as f64;
        let replicas = replicas::by_ratio(self.current, ratio, self.pods, self.tolerances())?;
        Ok(Found { replicas, current: json!({"value": text(value_milli)}), is_utilization: false })
    }

    fn with(&self, samples: std::collections::HashMap<String, Sample>, is_cpu: bool) -> Pods<'_> {
        Pods { pods: self.pods, samples, is_cpu, now: self.now }
    }

    fn tolerances(&self) -> Tolerances {
        let of = |rules: Option<&HPAScalingRules>| {
            let given = rules.and_then(|rules| rules.tolerance.as_ref());
            given.and_then(|text| text.0.parse::<Quantity>().ok()).map_or(TOLERANCE, |tolerance| tolerance.as_f64())
        };
        let rules = |side: fn(&HorizontalPodAutoscalerBehavior) -> &Option<HPAScalingRules>| {
            self.behavior.and_then(|behavior| side(behavior).as_ref())
        };
        Tolerances { down: of(rules(|behavior| &behavior.scale_down)), up: of(rules(|behavior| &behavior.scale_up)) }
    }
}

struct Found {
    replicas: i32,
    current: Value,
    is_utilization: bool,
}

// === impl Found ===

impl Found {
    fn average(proposal: Proposal) -> Found {
        let mut current = json!({"averageValue": text(proposal.average_milli)});
        if let Some(utilization) = proposal.utilization {
            current["averageUtilization"] = json!(utilization);
        }
        Found { replicas: proposal.replicas, current, is_utilization: proposal.utilization.is_some() }
    }

    fn shown(self, kind: &str, field: &str, mut about: Value, name: &str) -> Evaluated {
        about["current"] = self.current;
        let name = if self.is_utilization { format!("{name} utilization (percentage of request)") } else { name.to_owned() };
        let mut status = json!({"type": kind});
        status[field] = about;
        Evaluated { replicas: self.replicas, name, status }
    }
}

fn milli(quantity: &Text) -> Result<i64, String> {
    let milli = quantity.0.parse::<Quantity>().map_err(|error| error.to_string())?.milli_value();
    if milli > 0 { Ok(milli) } else { Err(format!("the target {:?} is not positive", quantity.0)) }
}

fn text(milli: i64) -> String {
    Quantity::from_milli(milli).to_string()
}

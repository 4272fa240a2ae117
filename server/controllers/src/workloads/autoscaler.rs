//! HorizontalPodAutoscalers: the replicas of a target follow metrics.
//!
//! Owns the status of autoscalers, and `spec.replicas` of their targets through the scale subresource. What a metric asks for is
//! [`replicas`]' business, what becomes of it [`scaling`]'s; both are pure. What was proposed and done is remembered in memory, as
//! upstream's: a new leader begins with the replicas that it finds.
//!
//! Answers to <https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/>.

mod metrics;
mod readings;
mod replicas;
mod scaling;
mod status;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::autoscaling::v2::{CrossVersionObjectReference, HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec};
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use serde_json::{Value, json};
use trireme_api::selector::LabelSelector;
use trireme_client::{Client, EventKind, EventRecorder, Informer, Object, ObjectKey, ResourceType};

use crate::Error;
use crate::cluster::discovery;
use crate::runtime::{Context, Controller, Next, Watches, clock};
use metrics::Target;
use readings::Readings;
use scaling::{Bounds, History};
use status::Status;

/// Each autoscaler is looked at this often, as upstream.
const PERIOD: Duration = Duration::from_secs(15);
/// Kinds whose plural need not be asked for.
const KNOWN: [(&str, &str, &str); 4] = [
    ("apps", "Deployment", "deployments"),
    ("apps", "StatefulSet", "statefulsets"),
    ("apps", "ReplicaSet", "replicasets"),
    ("", "ReplicationController", "replicationcontrollers"),
];

/// The horizontal pod autoscaler.
pub(crate) struct Autoscalers {
    client: Client,
    recorder: EventRecorder,
    autoscalers: Arc<Informer<HorizontalPodAutoscaler>>,
    pods: Arc<Informer<Pod>>,
    histories: Mutex<HashMap<ObjectKey, History>>,
    resources: Mutex<HashMap<(String, String), ResourceType>>,
}

/// The scale of a target.
struct Scale {
    resource: ResourceType,
    object: Value,
    replicas: i32,
}

impl Controller for Autoscalers {
    const NAME: &'static str = "horizontal-pod-autoscaler";
    const QUEUE: &'static str = "horizontalpodautoscaler";
    type Key = ObjectKey;
    type Reads = (Arc<Informer<HorizontalPodAutoscaler>>, Arc<Informer<Pod>>);

    fn new((autoscalers, pods): Self::Reads, context: &Context) -> Option<Self> {
        Some(Self {
            client: context.client.clone(),
            recorder: context.recorder.clone(),
            autoscalers,
            pods,
            histories: Mutex::default(),
            resources: Mutex::default(),
        })
    }

    fn watch(self: &Arc<Self>, watches: &mut Watches<'_, ObjectKey>) {
        watches.on(&self.autoscalers, |event| {
            let new = event.object();
            // What this controller writes itself is no news.
            let is_news = event.is_deletion() || event.old().is_none_or(|old| old.spec != new.spec);
            is_news.then(|| ObjectKey::of(&**new))
        });
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        let Some(autoscaler) = self.autoscalers.get_key(key).filter(|found| found.metadata.deletion_timestamp.is_none()) else {
            self.histories.lock().remove(key);
            return Ok(Next::Wait);
        };
        let mut status = Status::of(&autoscaler, clock::now());
        self.evaluate(key, &autoscaler, &mut status).await?;
        self.write(&autoscaler, &status).await?;
        Ok(Next::After(PERIOD))
    }
}

impl Autoscalers {
    /// Reads the metrics, and scales the target. What cannot be done is in the status and in events.
    async fn evaluate(&self, key: &ObjectKey, autoscaler: &HorizontalPodAutoscaler, status: &mut Status) -> Result<(), Error> {
        let spec = &autoscaler.spec;
        let scale = match self.scale_of(autoscaler.namespace(), &spec.scale_target_ref).await {
            Ok(scale) => scale,
            Err(why) => {
                self.warn(autoscaler, "FailedGetScale", &why);
                status.set(
                    "AbleToScale",
                    false,
                    "FailedGetScale",
                    format!("the HPA controller was unable to get the target's current scale: {why}"),
                );
                return Ok(());
            }
        };
        status.set("AbleToScale", true, "SucceededGetScale", "the HPA controller was able to get the target's current scale");
        let (current, least) = (scale.replicas, spec.min_replicas.unwrap_or(1));
        self.histories.lock().entry(key.clone()).or_default().begin(current, status.now());
        let (wanted, reason) = if current == 0 && least != 0 {
            status.set("ScalingActive", false, "ScalingDisabled", "scaling is disabled since the replica count of the target is zero");
            (0, String::new())
        } else if current > spec.max_replicas {
            (spec.max_replicas, "Current number of replicas above Spec.MaxReplicas".to_owned())
        } else if current < least {
            (least, "Current number of replicas below Spec.MinReplicas".to_owned())
        } else {
            match self.propose(autoscaler, &scale, status).await {
                Ok((proposed, metric)) => (self.decide(key, spec, current, proposed, status), metric),
                Err(why) => {
                    status.replicas(current, None, false);
                    self.warn(autoscaler, "FailedComputeMetricsReplicas", &why);
                    return Ok(());
                }
            }
        };
        let reason = match reason {
            reason if reason.starts_with("Current") || wanted == current => reason,
            metric if wanted > current => format!("{metric} above target"),
            _ => "All metrics below target".to_owned(),
        };
        let is_scaled = wanted != current && self.rescale(key, autoscaler, scale, wanted, &reason, status).await;
        status.replicas(current, Some(if is_scaled { wanted } else { current }), is_scaled);
        Ok(())
    }

    /// What the metrics ask for, and the one that asks for most.
    async fn propose(&self, autoscaler: &HorizontalPodAutoscaler, scale: &Scale, status: &mut Status) -> Result<(i32, String), String> {
        let spec = &autoscaler.spec;
        let inactive = |status: &mut Status, reason: &'static str, message: String| {
            self.warn(autoscaler, reason, &message);
            status.set("ScalingActive", false, reason, message.clone());
            message
        };
        let selector = scale.object["status"]["selector"].as_str().unwrap_or_default();
        if selector.is_empty() {
            return Err(inactive(status, "InvalidSelector", "the HPA target's scale is missing a selector".to_owned()));
        }
        let parsed = LabelSelector::parse(selector);
        let parsed = parsed.map_err(|error| {
            inactive(status, "InvalidSelector", format!("couldn't convert selector into a corresponding internal selector object: {error}"))
        })?;
        let mut pods = self.pods.list_namespace(autoscaler.namespace());
        pods.retain(|pod| {
            let labels = pod.metadata.labels.as_ref();
            parsed.matches_by(|key| labels?.get(key).map(String::as_str))
        });
        let target = Target {
            readings: Readings { client: &self.client, namespace: autoscaler.namespace() },
            selector,
            pods: &pods,
            current: scale.replicas,
            in_status: scale.object["status"]["replicas"].as_i64().and_then(|number| i32::try_from(number).ok()).unwrap_or(scale.replicas),
            behavior: spec.behavior.as_ref(),
            now: status.now(),
        };
        let mut most: Option<(i32, String)> = None;
        let mut failures: Vec<metrics::Failure> = Vec::new();
        let all = spec.metrics.as_deref().unwrap_or_default();
        for metric in all {
            let object = match metric.object.as_ref().map(|object| &object.described_object) {
                Some(described) => self.resource_of(described).await.map(Some),
                None => Ok(None),
            };
            match target.evaluate(metric, object).await {
                Ok(found) => {
                    status.add_metric(found.status);
                    if most.as_ref().is_none_or(|(replicas, _)| found.replicas > *replicas) {
                        most = Some((found.replicas, found.name));
                    }
                }
                Err(failure) => {
                    self.warn(autoscaler, failure.0, &failure.1);
                    failures.push(failure);
                }
            }
        }
        let wants_fewer = most.as_ref().is_some_and(|(replicas, _)| *replicas < scale.replicas);
        match (most, failures.first()) {
            // With a metric missing the target may grow, but not shrink.
            (Some((replicas, metric)), failure) if failure.is_none() || !wants_fewer => {
                status.set(
                    "ScalingActive",
                    true,
                    "ValidMetricFound",
                    format!("the HPA was able to successfully calculate a replica count from {metric}"),
                );
                Ok((replicas, metric))
            }
            (_, Some((reason, why))) => {
                status.set("ScalingActive", false, reason, format!("the HPA was unable to compute the replica count: {why}"));
                Err(format!("invalid metrics ({} invalid out of {}), first error is: {why}", failures.len(), all.len()))
            }
            _ => Err(inactive(status, "InvalidMetricSourceType", "the autoscaler has no metrics".to_owned())),
        }
    }

    fn decide(&self, key: &ObjectKey, spec: &HorizontalPodAutoscalerSpec, current: i32, proposed: i32, status: &mut Status) -> i32 {
        let bounds = Bounds { min: spec.min_replicas.unwrap_or(1), max: spec.max_replicas, behavior: spec.behavior.as_ref() };
        let decision = self.histories.lock().entry(key.clone()).or_default().decide(current, proposed, &bounds, status.now());
        status.set("AbleToScale", true, decision.stabilized.0, decision.stabilized.1);
        status.set("ScalingLimited", decision.limited.0, decision.limited.1.0, decision.limited.1.1);
        decision.replicas
    }

    /// Whether the target was scaled.
    async fn rescale(
        &self,
        key: &ObjectKey,
        autoscaler: &HorizontalPodAutoscaler,
        scale: Scale,
        wanted: i32,
        reason: &str,
        status: &mut Status,
    ) -> bool {
        let Scale { resource, mut object, replicas } = scale;
        object["spec"]["replicas"] = json!(wanted);
        let name = &autoscaler.spec.scale_target_ref.name;
        match self.client.replace_any::<_, Value>(&resource, Some(autoscaler.namespace()), name, Some("scale"), &object).await {
            Ok(_) => {
                let message = format!("the HPA controller was able to update the target scale to {wanted}");
                status.set("AbleToScale", true, "SucceededRescale", message);
                self.recorder.record(autoscaler, EventKind::Normal, "SuccessfulRescale", format!("New size: {wanted}; reason: {reason}"));
                self.histories.lock().entry(key.clone()).or_default().scaled(replicas, wanted, status.now());
                true
            }
            Err(error) => {
                self.warn(autoscaler, "FailedRescale", &format!("New size: {wanted}; reason: {reason}; error: {error}"));
                status.set(
                    "AbleToScale",
                    false,
                    "FailedUpdateScale",
                    format!("the HPA controller was unable to update the target scale: {error}"),
                );
                false
            }
        }
    }

    async fn scale_of(&self, namespace: &str, target: &CrossVersionObjectReference) -> Result<Scale, String> {
        let resource = self.resource_of(target).await?;
        let path = resource.path(Some(namespace), Some(&target.name), Some("scale"));
        let object = self.client.get_path::<Value>(&path, "application/json").await.map_err(|error| error.to_string())?;
        let replicas = object["spec"]["replicas"].as_i64().and_then(|number| i32::try_from(number).ok()).unwrap_or(0);
        Ok(Scale { resource, object, replicas })
    }

    /// The resource of a kind, in the version that the reference names.
    async fn resource_of(&self, target: &CrossVersionObjectReference) -> Result<ResourceType, String> {
        let api_version = target.api_version.as_deref().unwrap_or("v1");
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let in_version = |resource: ResourceType| ResourceType { version: version.to_owned().into(), ..resource };
        if let Some((_, _, plural)) = KNOWN.iter().find(|(known, kind, _)| *known == group && *kind == target.kind) {
            return Ok(ResourceType {
                group: group.to_owned().into(),
                version: version.to_owned().into(),
                plural: (*plural).into(),
                kind: target.kind.clone().into(),
                namespaced: true,
            });
        }
        let kind = (group.to_owned(), target.kind.clone());
        if let Some(resource) = self.resources.lock().get(&kind) {
            return Ok(in_version(resource.clone()));
        }
        let served = discovery::discover(&self.client).await.map_err(|error| error.to_string())?.served;
        let found =
            served.into_iter().map(|served| served.resource).find(|resource| resource.group == group && resource.kind == target.kind);
        let found = found.ok_or_else(|| format!("no matches for kind {:?} in group {group:?}", target.kind))?;
        self.resources.lock().insert(kind, found.clone());
        Ok(in_version(found))
    }

    fn warn(&self, autoscaler: &HorizontalPodAutoscaler, reason: &str, message: &str) {
        self.recorder.record(autoscaler, EventKind::Warning, reason, message);
    }

    async fn write(&self, autoscaler: &HorizontalPodAutoscaler, status: &Status) -> Result<(), Error> {
        let mut object = serde_json::to_value(autoscaler).map_err(|error| Error::Invalid(error.to_string()))?;
        let wanted = status.to_value();
        if object["status"] == wanted {
            return Ok(());
        }
        object["status"] = wanted;
        // The account may update a status, not patch it.
        let resource = ResourceType::of::<HorizontalPodAutoscaler>();
        let (namespace, name) = (Some(autoscaler.namespace()), autoscaler.name());
        match self.client.replace_any::<_, Value>(&resource, namespace, name, Some("status"), &object).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

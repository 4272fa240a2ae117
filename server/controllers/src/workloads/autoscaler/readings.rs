//! Metrics of pods and other objects, as the three metrics APIs give them.
//!
//! Answers to <https://github.com/kubernetes/metrics>: `metrics.k8s.io`, `custom.metrics.k8s.io`, `external.metrics.k8s.io`. A cluster
//! serves the last two only where an adapter is installed.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value;
use trireme_api::quantity::{self, Quantity};
use trireme_client::{Client, ResourceType};

use super::replicas::Sample;

/// Window of a metric that does not give its own.
const WINDOW_SECS: i64 = 60;
const JSON: &str = "application/json";
const CUSTOM_VERSIONS: [&str; 2] = ["v1beta2", "v1beta1"];

/// Reads metrics in one namespace.
pub(super) struct Readings<'a> {
    pub(super) client: &'a Client,
    pub(super) namespace: &'a str,
}

// === impl Readings ===

impl Readings<'_> {
    /// What pods use of a resource; only of one container if it is named.
    pub(super) async fn resource(
        &self,
        resource: &str,
        container: Option<&str>,
        selector: &str,
    ) -> Result<HashMap<String, Sample>, String> {
        let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{}/pods?labelSelector={}", self.namespace, escaped(selector));
        let list = self.get(&path).await.map_err(|why| format!("unable to get metrics for resource {resource}: {why}"))?;
        let of_pod = |item: &Value| {
            let containers = item.get("containers").and_then(Value::as_array)?;
            let mut counted = containers.iter().filter(|one| container.is_none_or(|wanted| one["name"] == wanted)).peekable();
            counted.peek()?;
            // A container without the metric: nothing is known of the pod.
            let milli = counted.map(|one| one.get("usage")?.get(resource).and_then(milli)).sum::<Option<i64>>()?;
            Some((item["metadata"]["name"].as_str()?.to_owned(), sample(item, milli, item["window"].as_str().and_then(go_seconds))?))
        };
        let found: HashMap<String, Sample> = items(&list).filter_map(of_pod).collect();
        if found.is_empty() { Err(format!("no metrics returned from resource metrics API for {resource}")) } else { Ok(found) }
    }

    /// A metric of each pod.
    pub(super) async fn of_pods(
        &self,
        metric: &str,
        selector: &str,
        metric_selector: Option<&LabelSelector>,
    ) -> Result<HashMap<String, Sample>, String> {
        let query = format!("?labelSelector={}{}", escaped(selector), metric_query("&metricLabelSelector", metric_selector)?);
        let path = format!("namespaces/{}/pods/*/{}{query}", self.namespace, escaped(metric));
        let list = self.custom(&path).await.map_err(|why| format!("unable to fetch metrics from custom metrics API: {why}"))?;
        let of_pod = |item: &Value| {
            let name = item["describedObject"]["name"].as_str()?.to_owned();
            Some((name, sample(item, milli(item.get("value")?)?, item["windowSeconds"].as_i64())?))
        };
        let found: HashMap<String, Sample> = items(&list).filter_map(of_pod).collect();
        if found.is_empty() { Err("no metrics returned from custom metrics API".to_owned()) } else { Ok(found) }
    }

    /// A metric of one object, in thousandths.
    pub(super) async fn of_object(
        &self,
        resource: &ResourceType,
        name: &str,
        metric: &str,
        metric_selector: Option<&LabelSelector>,
    ) -> Result<i64, String> {
        let query = metric_query("?metricLabelSelector", metric_selector)?;
        let plural =
            if resource.group.is_empty() { resource.plural.to_string() } else { format!("{}.{}", resource.plural, resource.group) };
        let place = match (plural.as_str(), resource.namespaced) {
            // The metrics of a namespace are below it.
            ("namespaces", _) => format!("namespaces/{}/metrics", escaped(name)),
            (_, true) => format!("namespaces/{}/{plural}/{}", self.namespace, escaped(name)),
            (_, false) => format!("{plural}/{}", escaped(name)),
        };
        let list = self.custom(&format!("{place}/{}{query}", escaped(metric))).await;
        let list = list.map_err(|why| format!("unable to fetch metrics from custom metrics API: {why}"))?;
        let value = items(&list).next().and_then(|item| milli(item.get("value")?));
        value.ok_or_else(|| format!("custom metrics API returned no value of {metric}"))
    }

    /// The sum of a metric of something outside the cluster, in thousandths.
    pub(super) async fn external(&self, metric: &str, metric_selector: Option<&LabelSelector>) -> Result<i64, String> {
        let query = metric_query("?labelSelector", metric_selector)?;
        let path = format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{}/{}{query}", self.namespace, escaped(metric));
        let list = self.get(&path).await.map_err(|why| format!("unable to fetch metrics from external metrics API: {why}"))?;
        let values: Vec<i64> = items(&list).filter_map(|item| milli(item.get("value")?)).collect();
        if values.is_empty() { Err("no metrics returned from external metrics API".to_owned()) } else { Ok(values.iter().sum()) }
    }

    async fn custom(&self, rest: &str) -> Result<Value, String> {
        let mut failure = String::new();
        for version in CUSTOM_VERSIONS {
            match self.client.get_path::<Value>(&format!("/apis/custom.metrics.k8s.io/{version}/{rest}"), JSON).await {
                Ok(list) => return Ok(list),
                Err(error) => {
                    failure = error.to_string();
                    if !error.is_not_found() {
                        break;
                    }
                }
            }
        }
        Err(failure)
    }

    async fn get(&self, path: &str) -> Result<Value, String> {
        self.client.get_path::<Value>(path, JSON).await.map_err(|error| error.to_string())
    }
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.get("items").and_then(Value::as_array).into_iter().flatten()
}

fn sample(item: &Value, milli: i64, window_secs: Option<i64>) -> Option<Sample> {
    let time: Timestamp = item.get("timestamp")?.as_str()?.parse().ok()?;
    Some(Sample { milli, time, window_secs: window_secs.unwrap_or(WINDOW_SECS) })
}

fn milli(value: &Value) -> Option<i64> {
    quantity::from_json(value).ok().as_ref().map(Quantity::milli_value)
}

/// `1m5.5s` in whole seconds.
fn go_seconds(text: &str) -> Option<i64> {
    let text = text.strip_suffix('s')?;
    let (minutes, seconds) = text.split_once('m').unwrap_or(("0", text));
    let (minutes, seconds): (i64, f64) = (minutes.parse().ok()?, seconds.parse().ok()?);
    minutes.checked_mul(60)?.checked_add(seconds.round() as i64)
}

/// A selector as a parameter; nothing for none.
fn metric_query(name: &str, selector: Option<&LabelSelector>) -> Result<String, String> {
    let Some(selector) = selector else { return Ok(String::new()) };
    let mut parts: Vec<String> = selector.match_labels.iter().flatten().map(|(key, value)| format!("{key}={value}")).collect();
    for requirement in selector.match_expressions.iter().flatten() {
        let values = requirement.values.iter().flatten().cloned().collect::<Vec<_>>().join(",");
        parts.push(match requirement.operator.as_str() {
            "In" => format!("{} in ({values})", requirement.key),
            "NotIn" => format!("{} notin ({values})", requirement.key),
            "Exists" => requirement.key.clone(),
            "DoesNotExist" => format!("!{}", requirement.key),
            other => return Err(format!("{other:?} is not a valid label selector operator")),
        });
    }
    Ok(if parts.is_empty() { String::new() } else { format!("{name}={}", escaped(&parts.join(","))) })
}

fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn windows_and_values_are_read() {
        assert_eq!(["15s", "10.062s", "1m5.5s", "x"].map(go_seconds), [Some(15), Some(10), Some(66), None]);
        assert_eq!(
            [json!("250m"), json!("3"), json!("1500000n"), json!("x")].map(|value| milli(&value)),
            [Some(250), Some(3000), Some(2), None]
        );
    }

    #[test]
    fn selectors_become_parameters() {
        let selector: LabelSelector = serde_json::from_value(json!({"matchLabels": {"a": "b"},
            "matchExpressions": [{"key": "c", "operator": "In", "values": ["d", "e"]}, {"key": "f", "operator": "Exists"}]}))
        .unwrap();
        assert_eq!(metric_query("?labelSelector", Some(&selector)).unwrap(), "?labelSelector=a%3Db%2Cc%20in%20%28d%2Ce%29%2Cf");
        assert_eq!((metric_query("?x", None), metric_query("?x", Some(&LabelSelector::default()))), (Ok(String::new()), Ok(String::new())));
    }
}

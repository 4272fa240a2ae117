//! The downward API: fields of a pod and resources of its containers, as text. Answers to
//! <https://kubernetes.io/docs/concepts/workloads/pods/downward-api/>.

use std::{collections::BTreeMap, fmt::Write};

use k8s_openapi::api::core::v1::{Pod, ResourceFieldSelector};

use super::resources;
use crate::{
    amount::{self, Amount},
    error::{Error, Result},
    pod::spec,
};

/// What the pod cannot know of itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    pub(crate) host_ips: Vec<String>,
    pub(crate) pod_ips: Vec<String>,
    pub(crate) allocatable: BTreeMap<String, Amount>,
}

/// `metadata.name`, `metadata.labels['a']`, `status.podIP`, ...
pub(crate) fn field(pod: &Pod, place: &Place, path: &str) -> Result<String> {
    if let Some((map, key)) = path.strip_suffix("']").and_then(|p| p.split_once("['")) {
        let map = match map {
            "metadata.labels" => &pod.metadata.labels,
            "metadata.annotations" => &pod.metadata.annotations,
            _ => return Err(unsupported(path)),
        };
        return Ok(map.as_ref().and_then(|m| m.get(key)).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => spec::name(pod).into(),
        "metadata.namespace" => spec::namespace(pod).into(),
        "metadata.uid" => spec::uid(pod).into(),
        "metadata.labels" => lines(pod.metadata.labels.as_ref()),
        "metadata.annotations" => lines(pod.metadata.annotations.as_ref()),
        "spec.nodeName" => spec::pod_spec(pod).node_name.clone().unwrap_or_default(),
        "spec.serviceAccountName" => spec::pod_spec(pod).service_account_name.clone().unwrap_or_default(),
        "status.hostIP" => place.host_ips.first().cloned().unwrap_or_default(),
        "status.hostIPs" => place.host_ips.join(","),
        "status.podIP" => place.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => place.pod_ips.join(","),
        _ => return Err(unsupported(path)),
    })
}

fn unsupported(path: &str) -> Error {
    Error::Config(format!("unsupported fieldPath: {path}"))
}

/// `key="value"`, one a line, sorted, with Go's quoting.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let mut out = String::new();
    for (key, value) in map.into_iter().flatten() {
        if !out.is_empty() {
            out.push('\n');
        }
        let _ = write!(out, "{key}={}", quote(value));
    }
    out
}

fn quote(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() && (c as u32) < 0x80 => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// `limits.cpu`, `requests.memory`, ... of a container. A missing limit is what the node has to give.
pub(crate) fn resource(pod: &Pod, place: &Place, selector: &ResourceFieldSelector, container: Option<&str>) -> Result<String> {
    let name = selector.container_name.as_deref().filter(|n| !n.is_empty()).or(container).unwrap_or_default();
    let (_, container) = spec::container(pod, name).ok_or_else(|| Error::Config(format!("container {name} not found")))?;
    let (which, resource) = selector
        .resource
        .split_once('.')
        .ok_or_else(|| Error::Config(format!("unsupported container resource : {}", selector.resource)))?;
    let value = match which {
        "limits" => resources::limit(&container, resource)
            .or_else(|| resources::whole_limit(pod, resource))
            .or_else(|| place.allocatable.get(resource).copied())
            .unwrap_or_default(),
        "requests" => resources::request(&container, resource).unwrap_or_default(),
        _ => return Err(Error::Config(format!("unsupported container resource : {}", selector.resource))),
    };
    let divisor = selector.divisor.as_ref().and_then(amount::of).filter(|d| !d.is_zero()).unwrap_or(Amount::from_units(1));
    // As upstream: processors by thousandths, everything else by whole units.
    let divided =
        if resource == "cpu" { amount::divided(value.milli(), divisor.milli()) } else { amount::divided(value.units(), divisor.units()) };
    Ok(divided.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_and_resources_as_text() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "labels": {"b": "x \"y\"", "a": "1"}},
            "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "1500m"}}}]}}))
        .unwrap();
        let place = Place { allocatable: BTreeMap::from([("memory".into(), Amount::from_units(1 << 30))]), ..Place::default() };
        assert_eq!(field(&pod, &place, "metadata.labels").unwrap(), "a=\"1\"\nb=\"x \\\"y\\\"\"");
        assert_eq!(field(&pod, &place, "metadata.labels['a']").unwrap(), "1");
        assert!(field(&pod, &place, "spec.nope").is_err());
        let get = |resource: &str, divisor: Option<&str>| {
            let selector: ResourceFieldSelector = serde_json::from_value(json!({"resource": resource, "divisor": divisor})).unwrap();
            super::resource(&pod, &place, &selector, Some("c")).unwrap()
        };
        assert_eq!(
            (get("limits.cpu", None).as_str(), get("limits.cpu", Some("1m")).as_str(), get("limits.memory", Some("1Mi")).as_str()),
            ("2", "1500", "1024")
        );
    }
}

//! Conversions between the versions of a kind.

use serde_json::json;

use crate::gvk::GroupVersionKind;
use crate::kinds::find;

#[test]
fn hpa_round_trips() {
    let autoscalers = find("autoscaling", "horizontalpodautoscalers").unwrap();
    let kind = |version: &str| GroupVersionKind::new("autoscaling", version.to_owned(), "HorizontalPodAutoscaler");
    let (v1, v2) = (kind("v1"), kind("v2"));
    let object = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
        "spec": {"maxReplicas": 3, "behavior": {"scaleUp": {}}, "metrics": [
            {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}},
            {"type": "Pods", "pods": {"metric": {"name": "m"}}}]},
        "status": {"conditions": [{"type": "x"}],
            "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 5}}}]}
    });
    let old = autoscalers.convert(object.clone(), &v2, &v1).unwrap();
    assert_eq!(old["spec"]["targetCPUUtilizationPercentage"], 70);
    assert_eq!(old["status"], json!({"currentCPUUtilizationPercentage": 5}));
    assert_eq!(autoscalers.convert(old, &v1, &v2).unwrap(), object);
}

#[test]
fn an_event_has_other_names_in_its_other_group() {
    let events = find("", "events").unwrap();
    let (core, new) = (GroupVersionKind::new("", "v1", "Event"), GroupVersionKind::new("events.k8s.io", "v1", "Event"));
    let object = json!({"apiVersion": "v1", "kind": "Event", "message": "m", "involvedObject": {"name": "a"}, "reportingComponent": "c"});
    let shown = events.convert(object.clone(), &core, &new).unwrap();
    assert_eq!(
        shown,
        json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "note": "m", "regarding": {"name": "a"}, "reportingController": "c"})
    );
    assert_eq!(events.convert(shown, &new, &core).unwrap(), object);
    let configmaps = find("", "configmaps").unwrap();
    assert!(configmaps.convert(object, &core, &new).is_err());
}

use http::Method;
use serde_json::{Value, json};
use trireme_api::bootstrap;

use super::*;
use crate::flowcontrol::level::Seat;
use crate::metrics::Metrics;

fn level(name: &str, shares: u32, lendable: u32, response: &Value) -> Value {
    json!({"metadata": {"name": name, "uid": format!("level-{name}")}, "spec": {"type": "Limited", "limited": {
        "nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response,
    }}})
}

fn schema(name: &str, level: &str, user: &str) -> Value {
    json!({"metadata": {"name": name, "uid": format!("schema-{name}")}, "spec": {
        "priorityLevelConfiguration": {"name": level}, "matchingPrecedence": 100, "distinguisherMethod": {"type": "ByUser"},
        "rules": [{"subjects": [{"kind": "User", "user": {"name": user}}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}],
    }})
}

fn configuration(schemas: &[Value], levels: &[Value]) -> Configuration {
    let (mandatory_schemas, mandatory_levels) = (bootstrap::flow_schemas(), bootstrap::priority_levels());
    let is_mandatory = |one: &&Value| one["metadata"]["name"] == "exempt" || one["metadata"]["name"] == "catch-all";
    let schemas = mandatory_schemas.iter().filter(is_mandatory).chain(schemas);
    Configuration::of(schemas, mandatory_levels.iter().filter(is_mandatory).chain(levels))
}

fn control() -> (FlowControl, Registry) {
    let control = FlowControl::new([60, 40], Metrics::new().inflight);
    let registry = Registry::new();
    control.register(&registry);
    (control, registry)
}

fn class(control: &FlowControl, user: &str) -> Class {
    let info = RequestInfo::parse(&Method::GET, "/version", "").unwrap();
    control.classify(&UserInfo::new(user, &["system:authenticated"]), &info).unwrap()
}

/// Takes as many seats as there are.
fn fill(class: &Class) -> Vec<Seat> {
    let enter = || class.enter(Work::ONE, None, RequestKind::ReadOnly);
    std::iter::from_fn(|| if let Some(Entry::Seated(seat)) = enter() { Some(seat) } else { None }).collect()
}

fn text(registry: &Registry) -> String {
    prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_level_that_is_busy_borrows_from_one_that_is_not() {
    let (control, registry) = control();
    let reject = json!({"type": "Reject"});
    let levels = [level("a", 20, 50, &reject), level("b", 75, 50, &reject)];
    control.configure(configuration(&[schema("a", "a", "alice"), schema("b", "b", "bob")], &levels));
    let seats = fill(&class(&control, "alice"));
    assert_eq!(seats.len(), 20, "its nominal part of 100 seats");
    for _ in 0..50 {
        tokio::time::advance(std::time::Duration::from_secs(10)).await;
        control.divide();
    }
    let more = fill(&class(&control, "alice"));
    let borrowed = seats.len() + more.len() - 20;
    assert!((10..=38).contains(&borrowed), "what b lends: {borrowed}");
    assert!(fill(&class(&control, "bob")).len() >= 37, "b keeps what it does not lend");
    let shown = text(&registry);
    for line in [
        r#"apiserver_flowcontrol_nominal_limit_seats{priority_level="a"} 20"#,
        r#"apiserver_flowcontrol_lower_limit_seats{priority_level="b"} 37"#,
        r#"apiserver_flowcontrol_rejected_requests_total{flow_schema="a",priority_level="a",reason="concurrency-limit"} 2"#,
        r#"apiserver_flowcontrol_demand_seats_high_watermark{priority_level="a"} 20"#,
        r#"apiserver_flowcontrol_priority_level_seat_utilization_bucket{phase="executing",priority_level="a",le="1"}"#,
    ] {
        assert!(shown.contains(line), "{line} is not in\n{shown}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_objects_keeps_the_requests_of_a_level() {
    let (control, registry) = control();
    let reject = json!({"type": "Reject"});
    control.configure(configuration(&[schema("a", "a", "alice")], &[level("a", 95, 0, &reject)]));
    let before = class(&control, "alice");
    assert_eq!(before.uids().map(|uid| uid.unwrap()), ["schema-a", "level-a"]);
    let seats = fill(&before);
    control.configure(configuration(&[schema("a", "a", "alice"), schema("c", "a", "carol")], &[level("a", 95, 10, &reject)]));
    assert!(fill(&class(&control, "carol")).is_empty(), "the seats are taken already");
    drop(seats);
    assert_eq!(fill(&class(&control, "carol")).len(), 95);

    let held = fill(&class(&control, "alice"));
    control.configure(configuration(&[], &[]));
    assert_eq!((class(&control, "alice").names(), held.len()), (("catch-all", "catch-all"), 95));
    drop(held);
    assert!(!text(&registry).contains(r#"flow_schema="a""#), "what is gone is shown no more");
}

#[tokio::test(start_paused = true)]
async fn exempt_requests_never_wait() {
    let (control, _) = control();
    let info = RequestInfo::parse(&Method::GET, "/version", "").unwrap();
    let admin = control.classify(&UserInfo::new("a", &["system:masters"]), &info).unwrap();
    let seats: Vec<_> = (0..5000).map(|_| admin.enter(Work { seats: 10, ..Work::ONE }, None, RequestKind::ReadOnly)).collect();
    assert!(seats.iter().all(|seat| matches!(seat, Some(Entry::Seated(_)))));
}

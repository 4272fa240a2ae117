//! What applying guarantees, whatever is applied.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{Builtin, Custom, entry, schema, writer};
use crate::apply::compare::{Side, compare};
use crate::apply::conflict::ApplyError;
use crate::apply::fields::fields_of;
use crate::apply::topology::Node;

const V1: &str = "example.com/v1";

fn object(spec: Value) -> Value {
    json!({"apiVersion": V1, "kind": "Thing", "metadata": {"name": "n"}, "spec": spec})
}

fn optional(name: &'static str, value: impl Strategy<Value = Value> + 'static) -> BoxedStrategy<Option<(String, Value)>> {
    proptest::option::of(value.prop_map(move |value| (name.to_owned(), value))).boxed()
}

fn map(fields: Vec<BoxedStrategy<Option<(String, Value)>>>) -> impl Strategy<Value = Value> {
    fields.prop_map(|fields| Value::Object(fields.into_iter().flatten().collect::<Map<_, _>>()))
}

/// Keyed items, each key once.
fn items() -> impl Strategy<Value = Value> {
    let inner = map(vec![optional("p", "[a-b]".prop_map(Value::from)), optional("q", "[a-b]".prop_map(Value::from))]);
    let item = map(vec![
        optional("port", (80_i64..82).prop_map(Value::from)),
        optional("x", (0_i64..3).prop_map(Value::from)),
        optional("inner", inner.prop_filter("not empty", |inner| inner != &json!({}))),
    ]);
    proptest::collection::vec(("[a-c]", item), 1..4).prop_map(|items| {
        let mut known = std::collections::BTreeSet::new();
        let items = items.into_iter().filter_map(|(name, mut item)| {
            item["name"] = json!(name);
            known.insert((name, item["port"].as_i64().unwrap_or(80))).then_some(item)
        });
        items.collect()
    })
}

/// A configuration: everything in it may be there or not, and no list or map of it is empty.
fn configurations() -> impl Strategy<Value = Value> {
    let texts = |most| proptest::collection::btree_map("[a-c]", "[x-y]".prop_map(Value::from), 1..most);
    let tags = proptest::sample::subsequence(vec!["t", "u", "v"], 1..=3).prop_shuffle();
    map(vec![
        optional("a", (0_i64..3).prop_map(Value::from)),
        optional("b", "[x-z]".prop_map(Value::from)),
        optional("labels", texts(4).prop_map(|map| map.into_iter().collect::<Map<_, _>>().into())),
        optional("tags", tags.prop_map(|tags| json!(tags))),
        optional("raw", proptest::collection::vec(0_i64..3, 1..3).prop_map(Value::from)),
        optional("whole", proptest::collection::btree_map("[a-b]", 0_i64..2, 1..3).prop_map(|map| json!(map))),
        optional("free", texts(3).prop_map(|map| json!({"deep": map, "list": [1]}))),
        optional("items", items()),
    ])
    .prop_filter("not empty", |spec| spec != &json!({}))
    .prop_map(object)
}

/// Managers left out.
fn content(object: &Value) -> Value {
    let mut object = object.clone();
    crate::meta::remove(&mut object, "managedFields");
    object
}

fn apply(live: Option<&Value>, applied: &Value, manager: &str, force: bool, time: &str) -> Result<Value, ApplyError> {
    let versions = Custom(schema());
    writer(&versions, V1, time).apply(live, applied, manager, force)
}

proptest! {
    #[test]
    fn applying_twice_changes_nothing(a in configurations(), b in configurations()) {
        let first = apply(None, &a, "one", false, "1").unwrap();
        prop_assert_eq!(&apply(Some(&first), &a, "one", false, "2").unwrap(), &first);
        let second = apply(Some(&first), &b, "two", true, "3").unwrap();
        prop_assert_eq!(&apply(Some(&second), &b, "two", false, "4").unwrap(), &second);
    }

    #[test]
    fn what_a_manager_leaves_out_goes_if_it_alone_had_it(a in configurations(), b in configurations()) {
        let first = apply(None, &a, "one", false, "1").unwrap();
        prop_assert_eq!(content(&first), a);
        let second = apply(Some(&first), &b, "one", false, "2").unwrap();
        prop_assert_eq!(content(&second), b);
    }

    #[test]
    fn what_others_have_changes_by_force_alone(a in configurations(), b in configurations(), c in configurations()) {
        let schema = schema();
        let node = Node::of_custom(&schema);
        let (of_a, first) = (fields_of(node, &a), apply(None, &a, "one", false, "1").unwrap());
        let with_force = apply(Some(&first), &b, "two", true, "2").unwrap();
        let in_place = |object: &Value, of: &Value| {
            let comparison = compare(node, Side::Is(of), Side::Is(object));
            comparison.modified.is_empty() && comparison.removed.is_empty()
        };
        prop_assert!(in_place(&with_force, &b), "force applies everything");
        match apply(Some(&first), &b, "two", false, "2") {
            Ok(second) => {
                prop_assert_eq!(&second, &with_force);
                prop_assert!(in_place(&second, &a) && in_place(&second, &b));
                // Fields that the second manager no longer applies are removed unless the first one has them; the rest stays.
                if let Ok(third) = apply(Some(&second), &c, "two", false, "3") {
                    prop_assert!(in_place(&third, &a) && in_place(&third, &c));
                    let expected = of_a.union(&fields_of(node, &c));
                    prop_assert_eq!(fields_of(node, &content(&third)), expected);
                }
            }
            Err(ApplyError::Conflicts(conflicts)) => {
                prop_assert!(!conflicts.is_empty());
                prop_assert!(conflicts.iter().all(|conflict| conflict.manager.manager == "one" && of_a.contains(&conflict.path)));
            }
            Err(other) => prop_assert!(false, "{:?}", other),
        }
    }
}

#[test]
fn items_of_a_list_have_an_order() {
    let list = |names: &[&str]| object(json!({"tags": names}));
    let live = apply(None, &list(&["a", "b", "c"]), "one", false, "1").unwrap();
    for (applied, merged) in [
        (&["c", "a"][..], &["b", "c", "a"][..]),
        (&["x", "b"], &["a", "x", "b", "c"]),
        (&["b", "x"], &["a", "b", "c", "x"]),
        (&["x"], &["a", "b", "c", "x"]),
    ] {
        let object = apply(Some(&live), &list(applied), "two", false, "2").unwrap();
        assert_eq!(object["spec"]["tags"], json!(merged), "{applied:?}");
    }
}

#[test]
fn conflicts_are_worded_as_upstreams() {
    let versions = Builtin("Deployment");
    let mut live =
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": 1, "paused": true}});
    writer(&versions, "apps/v1", "1").update(None, &mut live, "kubectl");
    let apply = |spec: Value| {
        let applied = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec});
        writer(&versions, "apps/v1", "2").apply(Some(&live), &applied, "other", false)
    };
    let one = apply(json!({"replicas": 2})).unwrap_err().to_status();
    assert_eq!(one.message, r#"Apply failed with 1 conflict: conflict with "kubectl" using apps/v1: .spec.replicas"#);
    assert_eq!((one.code(), one.reason.as_str()), (409, "Conflict"));
    let cause = &one.details.as_ref().unwrap().causes[0];
    assert_eq!(
        (cause.reason.as_str(), cause.message.as_str(), cause.field.as_str()),
        ("FieldManagerConflict", r#"conflict with "kubectl" using apps/v1"#, ".spec.replicas")
    );
    let two = apply(json!({"replicas": 2, "paused": false})).unwrap_err().to_status();
    assert_eq!(two.message, "Apply failed with 2 conflicts: conflicts with \"kubectl\" using apps/v1:\n- .spec.paused\n- .spec.replicas");
    let shared = apply(json!({"replicas": 1})).unwrap();
    assert_eq!(entry(&shared, "other").unwrap()["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}), "the same value is shared");
    assert!(entry(&shared, "kubectl").is_some());
}

#[test]
fn what_does_not_fit_is_worded_as_upstreams() {
    let versions = Builtin("Deployment");
    let refused = |spec: Value| {
        let applied = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "namespace": "n"}, "spec": spec});
        writer(&versions, "apps/v1", "1").apply(None, &applied, "m", false).unwrap_err().to_status()
    };
    let head = "failed to create typed patch object (n/d; apps/v1, Kind=Deployment): ";
    let twice = json!({"template": {"spec": {"containers": [{"name": "a"}, {"name": "a"}]}}});
    for (spec, why) in [
        (json!({"nope": 1}), ".spec.nope: field not declared in schema"),
        (json!({"replicas": "x"}), ".spec.replicas: expected numeric (int or float), got string"),
        (json!({"template": 5}), ".spec.template: expected map, got &{5}"),
        (
            json!({"selector": {"matchLabels": {"a": 1}}}),
            ".spec.selector.matchLabels.a: expected string, got &value.valueUnstructured{Value:1}",
        ),
        (twice, ".spec.template.spec.containers: duplicate entries for key [name=\"a\"]"),
        (
            json!({"template": {"spec": {"containers": ["a"]}}}),
            ".spec.template.spec.containers: element 0: associative list with keys may not have non-map elements",
        ),
    ] {
        let status = refused(spec);
        assert_eq!((status.code(), status.message), (500, format!("{head}{why}")));
    }
    let applied = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "managedFields": []}});
    let status = writer(&versions, "apps/v1", "1").apply(None, &applied, "m", false).unwrap_err().to_status();
    assert_eq!((status.code(), status.message.as_str()), (400, "metadata.managedFields must be nil"));
}

#[test]
fn kubectl_goes_on_with_what_it_applied_in_the_client() {
    let versions = Builtin("ConfigMap");
    let config = |data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data});
    let mut live = config(json!({"a": "1", "b": "1"}));
    let annotation = config(json!({"a": "1", "b": "1"})).to_string();
    live["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": annotation});
    writer(&versions, "v1", "1").update(None, &mut live, "kubectl-client-side-apply");
    let wanted = config(json!({"a": "2"}));
    assert!(writer(&versions, "v1", "2").apply(Some(&live), &wanted, "other", false).is_err());
    let applied = writer(&versions, "v1", "2").apply(Some(&live), &wanted, "kubectl", false).unwrap();
    assert_eq!(applied["data"], json!({"a": "2", "b": "1"}));
    let annotation = applied["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"].as_str().unwrap();
    assert_eq!(annotation, format!("{wanted}\n"));
    // A field that another manager changed since then is a conflict.
    let mut changed = live.clone();
    changed["data"]["a"] = json!("9");
    writer(&versions, "v1", "2").update(Some(&live), &mut changed, "editor");
    let conflict = writer(&versions, "v1", "3").apply(Some(&changed), &wanted, "kubectl", false).unwrap_err().to_status();
    assert_eq!(conflict.message, r#"Apply failed with 1 conflict: conflict with "editor" using v1: .data.a"#);
}

#[test]
fn the_first_configuration_meets_an_object_without_managers() {
    let versions = Builtin("ConfigMap");
    let live = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "uid": "u"}, "data": {"a": "1"}});
    let applied = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"b": "1"}});
    let object = writer(&versions, "v1", "2").apply(Some(&live), &applied, "m", false).unwrap();
    assert_eq!(object["data"], json!({"a": "1", "b": "1"}));
    assert_eq!(entry(&object, "before-first-apply").unwrap()["fieldsV1"], json!({"f:data": {".": {}, "f:a": {}}}));
    assert_eq!(entry(&object, "m").unwrap()["fieldsV1"], json!({"f:data": {"f:b": {}}}));
}

#[test]
fn security_long_lists_merge_in_time() {
    let long = |count: usize| object(json!({"tags": (0..count).map(|n| format!("t{n}")).collect::<Vec<_>>()}));
    let mut live = long(20_000);
    live["spec"]["tags"].as_array_mut().unwrap().reverse();
    let started = std::time::Instant::now();
    let first = apply(None, &live, "one", false, "1").unwrap();
    let second = apply(Some(&first), &long(20_001), "two", false, "2").unwrap();
    assert_eq!(second["spec"]["tags"].as_array().unwrap().len(), 20_001);
    assert!(started.elapsed().as_secs() < 30, "{:?}", started.elapsed());
}

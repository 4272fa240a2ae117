//! Laws of sets, and their encoding.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::apply::element::{PathElement, Scalar};
use crate::apply::fields_v1::{decode, encode};
use crate::apply::set::Set;

fn scalars() -> impl Strategy<Value = Scalar> {
    prop_oneof![
        (-3_i64..3).prop_map(Scalar::Int),
        any::<i64>().prop_map(Scalar::Int),
        // Not any float: serde_json does not read back the last digit of each.
        proptest::sample::select(vec![-2.5, 0.25, 1.0, 1e18, -1e20, 2e30]).prop_map(|float| Scalar::of(&Value::from(float)).unwrap()),
        "[a-c\"\\\\:.]{0,3}".prop_map(|text| Scalar::Text(text.into())),
        any::<bool>().prop_map(Scalar::Bool),
        Just(Scalar::Null),
    ]
}

fn elements() -> impl Strategy<Value = PathElement> {
    prop_oneof![
        4 => "[a-c.:]{0,2}".prop_map(|name| PathElement::field(&name)),
        2 => proptest::collection::btree_map("[a-b]", scalars(), 0..3).prop_map(|fields| {
            PathElement::Key(fields.into_iter().map(|(name, value)| (name.into(), value)).collect())
        }),
        1 => scalars().prop_map(PathElement::Value),
        1 => (-2_i64..3).prop_map(PathElement::Index),
    ]
}

fn paths() -> impl Strategy<Value = Vec<PathElement>> {
    proptest::collection::vec(elements(), 1..4)
}

fn sets() -> impl Strategy<Value = Set> {
    proptest::collection::vec(paths(), 0..12).prop_map(|paths| {
        let mut set = Set::default();
        paths.iter().for_each(|path| set.insert(path));
        set
    })
}

fn all(set: &Set) -> Vec<Vec<PathElement>> {
    let mut paths = Vec::new();
    set.visit(&mut |path| paths.push(path.iter().map(|element| (*element).clone()).collect()));
    paths
}

/// Whether branches are in order, and none is empty.
fn is_sound(set: &Set) -> bool {
    set.branches().is_sorted_by(|a, b| a.element < b.element)
        && set.branches().iter().all(|branch| (branch.is_member || !branch.below.is_empty()) && is_sound(&branch.below))
}

proptest! {
    #[test]
    fn a_set_is_read_as_it_was_written(set in sets()) {
        let text = encode(&set).to_string();
        prop_assert_eq!(decode(&serde_json::from_str(&text).unwrap()).unwrap(), set);
    }

    #[test]
    fn the_order_of_elements_is_one(a in elements(), b in elements(), c in elements()) {
        prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
        prop_assert!(!(a <= b && b <= c) || a <= c);
    }

    #[test]
    fn operations_do_what_their_names_say(a in sets(), b in sets(), path in paths()) {
        let (union, both, rest, cut) = (a.union(&b), a.intersection(&b), a.difference(&b), a.recursive_difference(&b));
        for path in all(&union).iter().chain([&path]) {
            let (in_a, in_b) = (a.contains(path), b.contains(path));
            prop_assert_eq!(union.contains(path), in_a || in_b);
            prop_assert_eq!(both.contains(path), in_a && in_b);
            prop_assert_eq!(rest.contains(path), in_a && !in_b);
            let is_cut = (1..=path.len()).any(|end| b.contains(&path[..end]));
            prop_assert_eq!(cut.contains(path), in_a && !is_cut);
        }
        prop_assert!([&union, &both, &rest, &cut].iter().all(|set| is_sound(set)));
        prop_assert_eq!(&union, &b.union(&a));
        prop_assert_eq!(rest.union(&both), a.clone());
        prop_assert_eq!(union.len(), a.len() + b.len() - both.len());
    }
}

#[test]
fn fields_v1_is_upstreams() {
    let written = json!({
        "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
        "f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}, "f:args": {"i:0": {}}},
        "f:finalizers": {"v:\"a/b\"": {}},
    });
    let set = decode(&written).unwrap();
    assert_eq!(encode(&set), written);
    let texts: Vec<String> = all(&set).iter().map(|path| path.iter().map(ToString::to_string).collect()).collect();
    assert_eq!(
        texts,
        [
            ".finalizers[=\"a/b\"]",
            ".metadata.labels",
            ".metadata.labels.app",
            ".spec.args[0]",
            ".spec.ports[port=80,protocol=\"TCP\"]",
            ".spec.ports[port=80,protocol=\"TCP\"].port"
        ]
    );
    assert_eq!(
        encode(&decode(&json!({"z:later": {}, "f:a": {"z:later": {}}})).unwrap()),
        json!({"f:a": {}}),
        "what is not known is left out"
    );
}

#[test]
fn what_is_no_set_is_refused() {
    for wrong in [
        json!([]),
        json!({"a": {}}),
        json!({"f:a": 1}),
        json!({"k:[]": {}}),
        json!({"k:{\"a\":{}}": {}}),
        json!({"v:x": {}}),
        json!({"i:x": {}}),
    ] {
        assert!(decode(&wrong).is_err(), "{wrong}");
    }
    let mut deep = json!({});
    for _ in 0..1000 {
        deep = json!({"f:a": deep});
    }
    assert!(decode(&deep).unwrap_err().contains("too deeply"));
}

//! The annotation in which client-side `kubectl apply` keeps the last applied configuration.

use serde_json::Value;

use super::check::check;
use super::compare::{Side, compare};
use super::fields::fields_of;
use super::set::Set;
use super::topology::Node;
use crate::meta;

const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The limit on the size of all annotations of an object together.
const ANNOTATIONS_MAX_BYTES: usize = 256 * 1024;

/// The fields that the annotation has and the object still has with the same values: they are kubectl's. None: there is no
/// annotation of this version.
pub fn unchanged_fields(node: Node<'_>, live: &Value, api_version: &str) -> Option<Set> {
    let text = meta::annotation(live, ANNOTATION).filter(|text| !text.is_empty())?;
    let applied: Value = serde_json::from_str(text).ok()?;
    if meta::api_version(&applied) != api_version || check(node, &applied).is_err() {
        return None;
    }
    let comparison = compare(node, Side::Is(&applied), Side::Is(live));
    let changed = comparison.written().union(&comparison.removed);
    Some(fields_of(node, &applied).difference(&changed))
}

/// Sets the annotation, if the object has one, to the configuration that is applied now. If it would be too big, it is removed.
pub fn refresh(object: &mut Value, applied: &Value) {
    if meta::annotation(object, ANNOTATION).is_none_or(str::is_empty) {
        return;
    }
    let mut configuration = applied.clone();
    without(&mut configuration);
    let text = format!("{configuration}\n");
    let others = meta::annotations(object).into_iter().flatten().filter(|(key, _)| *key != ANNOTATION);
    let bytes = |value: &Value| value.as_str().map_or(0, str::len);
    let total: usize = others.map(|(key, value)| key.len() + bytes(value)).sum::<usize>() + ANNOTATION.len() + text.len();
    if total > ANNOTATIONS_MAX_BYTES {
        without(object);
    } else {
        meta::set_annotation(object, ANNOTATION, &text);
    }
}

fn without(object: &mut Value) {
    if let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(ANNOTATION);
    }
}

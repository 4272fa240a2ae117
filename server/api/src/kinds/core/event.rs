//! Events: two API groups over one storage, in the form of the core group.
//!
//! Upstream: `pkg/apis/events/v1/conversion.go`, `pkg/registry/core/event`.

use serde_json::{Value, json};

use crate::default::{Lit::*, Set, fill};
use crate::gvk::GroupVersionKind;
use crate::kinds::text::plain;
use crate::meta;
use crate::names;
use crate::resource::{Cells, Column, Dependents, Kind, SelectableField};
use crate::validate::{At, NameRule};

/// How long events are kept after their last change.
const TTL_SECS: i64 = 3600;

/// An event as the core group shows it.
pub(crate) struct Event;

/// An event as events.k8s.io shows it.
pub(crate) struct EventV1;

const EVENT: &[Set] = &[
    Set("", "involvedObject", Obj),
    Set("", "source", Obj),
    Set("", "firstTimestamp", Null),
    Set("", "lastTimestamp", Null),
    Set("", "eventTime", Null),
    Set("", "reportingComponent", Empty),
    Set("", "reportingInstance", Empty),
];

const EVENTS_V1: &[Set] = &[
    Set("", "eventTime", Null),
    Set("", "regarding", Obj),
    Set("", "deprecatedSource", Obj),
    Set("", "deprecatedFirstTimestamp", Null),
    Set("", "deprecatedLastTimestamp", Null),
];

impl Kind for Event {
    fn has_status(&self) -> bool {
        false
    }

    fn counts_generation(&self) -> bool {
        false
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn unconditional_update(&self) -> bool {
        true
    }

    fn name_rule(&self) -> NameRule {
        names::is_path_segment_name
    }

    fn ttl_secs(&self) -> Option<i64> {
        Some(TTL_SECS)
    }

    fn missing_behaviour(&self) -> &'static str {
        "the newer API's required fields and its immutability on update"
    }

    fn default(&self, _version: &str, object: &mut Value) {
        fill(object, EVENT);
    }

    fn validate_create(&self, object: &At<'_>) {
        event(object);
    }

    fn validate_update(&self, _object: &At<'_>, _old: &At<'_>) {}

    fn convert(&self, mut object: Value, from: &GroupVersionKind, to: &GroupVersionKind) -> Result<Value, String> {
        rename(&mut object, &EVENT_FIELDS, !from.group.is_empty() && to.group.is_empty());
        Ok(object)
    }

    fn dependents(&self) -> Dependents {
        Dependents::None
    }

    fn columns(&self) -> Vec<Column> {
        columns()
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        table_cells(cells)
    }

    fn selectable_fields(&self) -> Vec<SelectableField> {
        let mut fields = about("involvedObject");
        fields.push(SelectableField::new("reportingComponent"));
        // A selector's `source` is the deprecated source, or the component that replaced it.
        fields.push(SelectableField::new("source").at(&["source.component", "reportingComponent"]));
        fields
    }
}

impl Kind for EventV1 {
    fn has_status(&self) -> bool {
        false
    }

    fn counts_generation(&self) -> bool {
        false
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn unconditional_update(&self) -> bool {
        true
    }

    fn name_rule(&self) -> NameRule {
        names::is_path_segment_name
    }

    fn default(&self, _version: &str, object: &mut Value) {
        fill(object, EVENTS_V1);
    }

    fn validate_create(&self, object: &At<'_>) {
        event(object);
    }

    fn columns(&self) -> Vec<Column> {
        columns()
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        table_cells(cells)
    }

    fn selectable_fields(&self) -> Vec<SelectableField> {
        let mut fields = about("regarding");
        fields.push(SelectableField::new("reportingController").at(&["reportingComponent"]));
        fields
    }
}

fn columns() -> Vec<Column> {
    Column::parse("Last Seen|Type|Reason|Object|+Subobject|+Source|Message|+First Seen|+Count|+Name#")
}

/// The fields of the object that an event is about, under the name `prefix`, and those that both groups share.
fn about(prefix: &str) -> Vec<SelectableField> {
    let mut fields = vec![SelectableField::new("reason"), SelectableField::new("type")];
    for (key, path) in [
        ("kind", "involvedObject.kind"),
        ("namespace", "involvedObject.namespace"),
        ("name", "involvedObject.name"),
        ("uid", "involvedObject.uid"),
        ("apiVersion", "involvedObject.apiVersion"),
        ("resourceVersion", "involvedObject.resourceVersion"),
        ("fieldPath", "involvedObject.fieldPath"),
    ] {
        fields.push(SelectableField::new(format!("{prefix}.{key}")).at(&[path]));
    }
    fields
}

/// Events name something in their own namespace, or nothing that has one.
fn event(object: &At<'_>) {
    let (involved, meta) = (object.at("involvedObject"), object.at("metadata"));
    let regarding = object.at("regarding");
    let about = if regarding.is_set() { regarding } else { involved };
    let (theirs, ours) = (about.at("namespace"), meta.at("namespace").text());
    if theirs.text().is_empty() {
        if !matches!(ours, "default" | "kube-system") {
            theirs.invalid_as("", "does not match event.namespace");
        }
    } else if theirs.text() != ours {
        theirs.invalid("does not match event.namespace");
    }
}

/// An event of either group; its name is the last cell.
fn table_cells(cells: &Cells<'_>) -> Vec<Value> {
    let first_of = |paths: &[&[&str]]| paths.iter().map(|path| cells.text(path)).find(|text| !text.is_empty());
    let about = match cells.at(&["involvedObject"]) {
        Value::Null => cells.at(&["regarding"]),
        object => object,
    };
    let event_time = cells.text(&["eventTime"]);
    let first = first_of(&[&["firstTimestamp"], &["deprecatedFirstTimestamp"]]).unwrap_or(event_time);
    let mut last = first_of(&[&["lastTimestamp"], &["deprecatedLastTimestamp"]]).unwrap_or(first);
    let mut count = cells.int(&["count"]).max(cells.int(&["deprecatedCount"])).max(1);
    if cells.at(&["series"]).is_object() {
        last = cells.text(&["series", "lastObservedTime"]);
        count = cells.int(&["series", "count"]);
    }
    let kind = plain(&about["kind"]).to_lowercase();
    let target = match plain(&about["name"]) {
        name if name.is_empty() => kind,
        name => format!("{kind}/{name}"),
    };
    let component =
        first_of(&[&["source", "component"], &["deprecatedSource", "component"], &["reportingComponent"], &["reportingController"]]);
    let host = first_of(&[&["source", "host"], &["deprecatedSource", "host"], &["reportingInstance"]]);
    let source = [component, host].into_iter().flatten().collect::<Vec<_>>().join(", ");
    vec![
        json!(cells.since(last)),
        json!(cells.text(&["type"])),
        json!(cells.text(&["reason"])),
        json!(target),
        json!(plain(&about["fieldPath"])),
        json!(source),
        json!(first_of(&[&["message"], &["note"]]).unwrap_or_default().trim()),
        json!(cells.since(first)),
        json!(count),
        json!(meta::name(cells.object)),
    ]
}

/// Core name and events.k8s.io name.
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

fn rename(object: &mut Value, fields: &[(&str, &str)], back: bool) {
    let Some(map) = object.as_object_mut() else { return };
    for (core, new) in fields {
        let (from, to) = if back { (new, core) } else { (core, new) };
        if let Some(value) = map.remove(*from) {
            map.insert((*to).to_owned(), value);
        }
    }
}

//! Showing objects in other forms: another served version, a Table, only their metadata.
//!
//! Made on demand; the common case (storage version, JSON) never comes here.

use bytes::BytesMut;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use trireme_api::meta;
use trireme_api::resource::RowCondition;
use trireme_api::status::Status;

use crate::catalog::rows::View;
use crate::error::Answer;
use crate::http::negotiate::{Form, Transform};
use crate::http::query::IncludeObject;

/// Shows one object of `view` in `version`. Where a webhook converts, the object is in it already.
pub fn to_version(view: &View, version: &str, mut object: Value) -> Answer<Value> {
    let Some(want) = view.resource.gvk(version) else { return Ok(object) };
    if let Some(row) = &view.row {
        let stored = row.storage_gvk();
        if stored != want && row.webhook.is_none() {
            object = row.definition.convert(object, &stored, &want).map_err(Status::internal)?;
        }
    }
    meta::set_gvk(&mut object, &want);
    Ok(object)
}

/// Only the metadata of an object.
pub fn partial_metadata(object: &Value, form: Form) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": form.meta_api_version(),
        "metadata": object.get("metadata").cloned().unwrap_or_else(|| json!({})),
    })
}

/// Appends what [`partial_metadata`] makes of an object with this metadata.
pub fn push_partial_metadata(out: &mut BytesMut, metadata: &[u8], form: Form) {
    out.extend_from_slice(b"{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"");
    out.extend_from_slice(form.meta_api_version().as_bytes());
    out.extend_from_slice(b"\",\"metadata\":");
    out.extend_from_slice(if metadata.is_empty() { b"{}" } else { metadata });
    out.extend_from_slice(b"}");
}

/// A list of only metadata.
pub fn partial_metadata_list(objects: &[Value], metadata: Value, form: Form) -> Value {
    // Items of a list carry no kind of their own, as in typed lists.
    let items: Vec<Value> = objects.iter().map(|o| partial_metadata(o, form)).collect();
    json!({"kind": "PartialObjectMetadataList", "apiVersion": form.meta_api_version(), "metadata": metadata, "items": items})
}

/// A Table of objects; `columns` is off for all but the first event of a watch.
pub fn table_of(
    view: &View,
    objects: &[Value],
    metadata: Value,
    form: Form,
    include: IncludeObject,
    columns: bool,
    now: Timestamp,
) -> Value {
    let rows: Vec<Value> = objects.iter().map(|object| table_row(view, object, form, include, now)).collect();
    let definitions = if columns { column_definitions(view) } else { Value::Null };
    json!({
        "kind": "Table",
        "apiVersion": form.meta_api_version(),
        "metadata": metadata,
        "columnDefinitions": definitions,
        "rows": rows,
    })
}

/// One row of a Table.
pub fn table_row(view: &View, object: &Value, form: Form, include: IncludeObject, now: Timestamp) -> Value {
    let mut row = Map::new();
    row.insert("cells".to_owned(), Value::Array(view.definition.cells(object, now)));
    let conditions = view.definition.row_conditions(object);
    if !conditions.is_empty() {
        let shown = |c: &RowCondition| json!({"type": c.type_, "status": "True", "reason": c.reason, "message": c.message});
        row.insert("conditions".to_owned(), conditions.iter().map(shown).collect());
    }
    match include {
        IncludeObject::None => {}
        IncludeObject::Metadata => {
            row.insert("object".to_owned(), partial_metadata(object, form));
        }
        IncludeObject::Object => {
            row.insert("object".to_owned(), object.clone());
        }
    }
    Value::Object(row)
}

/// The columns of a Table.
pub fn column_definitions(view: &View) -> Value {
    view.definition
        .columns
        .iter()
        .map(|c| json!({"name": c.name, "type": c.type_, "format": c.format, "description": c.description, "priority": c.priority}))
        .collect()
}

/// One object in the negotiated form.
pub fn single(view: &View, object: Value, form: Form, include: IncludeObject, now: Timestamp) -> Value {
    match form.transform {
        Transform::None => object,
        Transform::PartialMetadata => partial_metadata(&object, form),
        Transform::PartialMetadataList => {
            let metadata = json!({"resourceVersion": meta::resource_version(&object)});
            partial_metadata_list(&[object], metadata, form)
        }
        Transform::Table => {
            let metadata = json!({"resourceVersion": meta::resource_version(&object)});
            table_of(view, &[object], metadata, form, include, true, now)
        }
    }
}

/// Removes kind and apiVersion: items of a typed list carry none.
pub fn strip_type(object: &mut Value) {
    if let Some(map) = object.as_object_mut() {
        map.remove("kind");
        map.remove("apiVersion");
    }
}

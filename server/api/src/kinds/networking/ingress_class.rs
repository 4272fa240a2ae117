//! IngressClasses.

use serde_json::{Value, json};

use crate::default::{Lit::*, Set, fill};
use crate::kinds::text::{NONE, plain};
use crate::names;
use crate::resource::{Cells, Column, Kind};
use crate::validate::{At, same};

/// Who implements ingresses.
pub(crate) struct IngressClass;

impl Kind for IngressClass {
    fn has_status(&self) -> bool {
        false
    }

    fn unconditional_update(&self) -> bool {
        true
    }

    fn default(&self, _version: &str, object: &mut Value) {
        fill(object, &[Set("", "spec", Obj), Set("spec.parameters", "scope", S("Cluster"))]);
    }

    fn validate(&self, object: &At<'_>) {
        ingress_class(object);
    }

    fn validate_update(&self, object: &At<'_>, old: &At<'_>) {
        ingress_class(object);
        ingress_class_update(object, old);
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|Controller|Parameters|Age")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        let parameters = cells.at(&["spec", "parameters"]);
        let shown = match (parameters.is_object(), plain(&parameters["apiGroup"])) {
            (false, _) => NONE.to_owned(),
            (true, group) if group.is_empty() => format!("{}/{}", plain(&parameters["kind"]), plain(&parameters["name"])),
            (true, group) => format!("{}.{group}/{}", plain(&parameters["kind"]), plain(&parameters["name"])),
        };
        vec![cells.name(), json!(cells.text(&["spec", "controller"])), json!(shown), cells.age()]
    }
}

fn ingress_class(object: &At<'_>) {
    const MAX_BYTES: usize = 250;
    let spec = object.at("spec");
    let controller = spec.at("controller");
    if controller.len() > MAX_BYTES {
        controller.too_long(MAX_BYTES);
    }
    match controller.text().split_once('/') {
        _ if controller.text().is_empty() => controller.required(""),
        Some((host, path)) if !host.is_empty() && !path.is_empty() => {
            names::is_dns1123_subdomain(host).into_iter().for_each(|message| controller.invalid_as(host, message));
        }
        _ => controller.invalid("must be a domain-prefixed path (such as \"acme.io/foo\")"),
    }
    let parameters = spec.at("parameters");
    if !parameters.is_set() {
        return;
    }
    for field in ["kind", "name"] {
        parameters.at(field).must_obey(names::is_path_segment_name);
    }
    parameters.at("apiGroup").may_obey(names::is_dns1123_subdomain);
    parameters.at("scope").one_of(&["Cluster", "Namespace"]);
    let namespace = parameters.at("namespace");
    match parameters.at("scope").text() {
        "Namespace" if !namespace.is_set() => namespace.required("`parameters.scope` is set to 'Namespace'"),
        "Namespace" => namespace.must_obey(names::is_dns1123_label),
        "Cluster" if namespace.is_set() => namespace.forbidden("`parameters.scope` is set to 'Cluster'"),
        _ => {}
    }
}

fn ingress_class_update(object: &At<'_>, old: &At<'_>) {
    let (now, then) = (object.at("spec").at("controller"), old.at("spec").at("controller"));
    if !same(now.value, then.value) {
        now.invalid("field is immutable");
    }
}

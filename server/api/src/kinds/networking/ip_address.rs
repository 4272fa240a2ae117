//! IPAddresses.

use serde_json::{Value, json};

use crate::default::{Lit::Obj, Set, fill};
use crate::kinds::text::{NONE, or, plain};
use crate::names;
use crate::resource::{Cells, Column, Kind};
use crate::validate::{At, NameRule};

/// An address and what holds it.
pub(crate) struct IpAddress;

impl Kind for IpAddress {
    fn has_status(&self) -> bool {
        false
    }

    fn counts_generation(&self) -> bool {
        false
    }

    fn unconditional_update(&self) -> bool {
        true
    }

    fn name_rule(&self) -> NameRule {
        ip_address_name
    }

    fn default(&self, _version: &str, object: &mut Value) {
        fill(object, &[Set("", "spec", Obj)]);
    }

    fn validate(&self, object: &At<'_>) {
        ip_address(object);
    }

    fn validate_update(&self, object: &At<'_>, old: &At<'_>) {
        ip_address(object);
        object.at("spec").at("parentRef").immutable(&old.at("spec").at("parentRef"));
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|ParentRef")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        let parent = cells.at(&["spec", "parentRef"]);
        let mut name = plain(&parent["resource"]).to_lowercase();
        for (separator, key) in [(".", "group"), ("/", "namespace"), ("/", "name")] {
            let part = plain(&parent[key]);
            if !part.is_empty() {
                name.push_str(separator);
                name.push_str(&part);
            }
        }
        vec![cells.name(), json!(or(name, NONE))]
    }
}

/// `spec.parentRef` of an IPAddress, whose name is the address itself.
fn ip_address(object: &At<'_>) {
    let parent = object.at("spec").at("parentRef");
    if !parent.is_set() {
        parent.required("");
        return;
    }
    for field in ["resource", "name"] {
        parent.at(field).must_obey(names::is_path_segment_name);
    }
    parent.at("group").may_obey(names::is_dns1123_subdomain);
    parent.at("namespace").may_obey(names::is_path_segment_name);
}

/// The canonical text of an address.
fn ip_address_name(name: &str) -> Vec<String> {
    match name.parse::<std::net::IpAddr>() {
        Ok(address) if address.to_string() == name => Vec::new(),
        _ => vec!["must be a canonical form IP address".to_owned()],
    }
}

//! ServiceCIDRs.

use serde_json::{Value, json};

use crate::default::{Lit::Obj, Set, fill};
use crate::kinds::text::strings;
use crate::resource::{Cells, Column, Kind, carry_own_metadata};
use crate::time::Timestamp;
use crate::validate::{At, net};

/// A range of service addresses.
pub(crate) struct ServiceCidr;

impl Kind for ServiceCidr {
    fn counts_generation(&self) -> bool {
        false
    }

    fn unconditional_update(&self) -> bool {
        true
    }

    fn missing_actor(&self) -> Option<&'static str> {
        Some("service CIDR controller")
    }

    fn default(&self, _version: &str, object: &mut Value) {
        fill(object, &[Set("", "spec", Obj), Set("", "status", Obj)]);
    }

    fn prepare_for_status_update(&self, object: &mut Value, old: &Value, _now: Timestamp) {
        carry_own_metadata(object, old);
    }

    fn kept_by_status(&self) -> &'static [&'static str] {
        &["metadata", "spec"]
    }

    fn validate(&self, object: &At<'_>) {
        service_cidr(object);
    }

    /// A second range may be added; those that are there stay.
    fn validate_update(&self, object: &At<'_>, old: &At<'_>) {
        service_cidr(object);
        let (ranges, before) = (object.at("spec").at("cidrs"), old.at("spec").at("cidrs"));
        let (new, old) = (ranges.strings(), before.strings());
        if new.len() != old.len() && (old.len(), new.len()) != (1, 2) {
            ranges.invalid("field is immutable");
            return;
        }
        for index in (0..old.len()).filter(|index| new[*index] != old[*index]) {
            ranges.named(ranges.path.index(index)).invalid("field is immutable");
        }
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|CIDRs|Age")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        vec![cells.name(), json!(strings(cells.at(&["spec", "cidrs"])).join(",")), cells.age()]
    }
}

fn service_cidr(object: &At<'_>) {
    let ranges = object.at("spec").at("cidrs");
    match ranges.len() {
        0 => ranges.required("at least one CIDR required"),
        1 | 2 => {}
        _ => ranges.invalid("may only hold up to 2 values"),
    }
    ranges.items().for_each(|range| net::cidr(&range));
    let v6 = ranges.strings().iter().filter(|range| range.contains(':')).count();
    if ranges.len() == 2 && v6 != 1 {
        ranges.invalid("may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64");
    }
}

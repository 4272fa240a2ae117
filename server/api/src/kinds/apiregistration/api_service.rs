//! APIServices.

use serde_json::{Value, json};

use crate::default::{Lit::*, Set, fill};
use crate::kinds::text::{condition, plain};
use crate::names;
use crate::resource::{Cells, Column, Kind};
use crate::validate::{At, NameRule};

/// A group and version that another server answers.
pub(crate) struct ApiService;

impl Kind for ApiService {
    fn counts_generation(&self) -> bool {
        false
    }

    fn missing_behaviour(&self) -> &'static str {
        "objects for the groups that the server itself answers; documents of extension servers in /openapi/v2"
    }

    fn accepts_bare_finalizers(&self) -> bool {
        true
    }

    fn name_rule(&self) -> NameRule {
        names::is_path_segment_name
    }

    fn default(&self, _version: &str, object: &mut Value) {
        fill(object, &[Set("", "spec", Obj), Set("", "status", Obj), Set("spec.service", "port", I(443))]);
    }

    fn kept_by_status(&self) -> &'static [&'static str] {
        &["metadata", "spec"]
    }

    fn validate(&self, object: &At<'_>) {
        api_service(object);
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|Service|Available|Age")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        let mut row = vec![cells.name()];
        row.extend(table_cells(cells));
        row
    }
}

/// Group and version name an APIService.
fn api_service(object: &At<'_>) {
    let (meta, spec) = (object.at("metadata"), object.at("spec"));
    let (group, version) = (spec.at("group"), spec.at("version"));
    let wanted = format!("{}.{}", version.text(), group.text());
    if meta.at("name").text() != wanted {
        meta.at("name").invalid(format!("must be `spec.version+\".\"+spec.group`: {wanted:?}"));
    }
    if group.text().is_empty() {
        if version.text() != "v1" {
            group.required("only v1 may have an empty group and it better be legacy kube");
        }
    } else {
        group.obeys(names::is_dns1123_subdomain);
    }
    if version.text().is_empty() {
        version.required("");
    } else {
        version.obeys(names::is_dns1035_label);
    }
    for (field, most) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
        let priority = spec.at(field);
        let value = priority.int().unwrap_or(0);
        if value <= 0 || value > most {
            priority.invalid_as(value, format!("must be positive and less than {most}"));
        }
    }
    let service = spec.at("service");
    if service.is_set() {
        for field in ["namespace", "name"] {
            if service.at(field).text().is_empty() {
                service.at(field).required("");
            }
        }
        service.at("port").in_range(1, 65_535);
        let insecure = spec.at("insecureSkipTLSVerify");
        if insecure.flag() && spec.at("caBundle").is_full() {
            insecure.invalid("may not be true if caBundle is present");
        }
    } else if spec.at("insecureSkipTLSVerify").flag() {
        spec.at("insecureSkipTLSVerify").invalid("may not be true if service is nil");
    }
}

fn table_cells(cells: &Cells<'_>) -> Vec<Value> {
    let service = cells.at(&["spec", "service"]);
    let service = match service.is_object() {
        true => format!("{}/{}", plain(&service["namespace"]), plain(&service["name"])),
        false => "Local".to_owned(),
    };
    let available = match condition(cells.object, "Available") {
        None => "Unknown".to_owned(),
        Some(condition) if condition["status"] == "True" => "True".to_owned(),
        Some(condition) => format!("{} ({})", plain(&condition["status"]), plain(&condition["reason"])),
    };
    vec![json!(service), json!(available), cells.age()]
}

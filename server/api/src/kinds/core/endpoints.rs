//! Endpoints.

use serde_json::{Value, json};

use crate::default::{Lit::S, Set, fill};
use crate::kinds::text::{NONE, or, some};
use crate::meta;
use crate::names;
use crate::resource::{Cells, Column, Kind};
use crate::validate::{At, net};

/// The endpoints of a service in one object.
pub(crate) struct Endpoints;

impl Kind for Endpoints {
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

    fn deprecation(&self, _version: &str) -> Option<crate::gvk::Name> {
        Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice".into())
    }

    fn default(&self, _version: &str, object: &mut Value) {
        fill(object, &[Set("subsets[].ports[]", "protocol", S("TCP"))]);
    }

    fn validate(&self, object: &At<'_>) {
        endpoints(object);
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|Endpoints|Age")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        vec![cells.name(), json!(addresses(cells)), cells.age()]
    }
}

fn endpoints(object: &At<'_>) {
    for subset in object.at("subsets").items() {
        let (ready, waiting, ports) = (subset.at("addresses"), subset.at("notReadyAddresses"), subset.at("ports"));
        if ready.is_empty() && waiting.is_empty() {
            subset.required("must specify `addresses` or `notReadyAddresses`");
        }
        for address in ready.items().chain(waiting.items()) {
            net::ip(&address.at("ip"));
            address.at("hostname").may_obey(names::is_dns1123_label);
            if address.at("nodeName").is_set() {
                address.at("nodeName").obeys(names::is_dns1123_subdomain);
            }
            net::not_special(&address.at("ip"));
        }
        for port in ports.items() {
            let name = port.at("name");
            if name.text().is_empty() && ports.len() > 1 {
                name.required("");
            }
            name.may_obey(names::is_dns1123_label);
            let number = port.at("port").int().unwrap_or(0);
            names::is_port_num(number).into_iter().for_each(|message| port.at("port").invalid_as(number, message));
            port.at("protocol").one_of(&["SCTP", "TCP", "UDP"]);
            port.at("appProtocol").may_obey(names::is_qualified_name);
        }
    }
}

/// The first three of address and port; without ports (headless) the addresses alone.
fn addresses(cells: &Cells<'_>) -> String {
    let mut all = Vec::new();
    for subset in cells.list(&["subsets"]) {
        let addresses: Vec<&str> = meta::list_at(subset, &["addresses"]).iter().filter_map(|address| address["ip"].as_str()).collect();
        let ports = meta::list_at(subset, &["ports"]);
        if ports.is_empty() {
            all.extend(addresses.iter().map(|address| (*address).to_owned()));
        }
        for port in ports {
            all.extend(addresses.iter().map(|address| match address.contains(':') {
                true => format!("[{address}]:{}", port["port"]),
                false => format!("{address}:{}", port["port"]),
            }));
        }
    }
    or(some(&all, 3, ","), NONE)
}

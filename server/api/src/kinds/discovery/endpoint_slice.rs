//! EndpointSlices.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::{Value, json};

use crate::default::{Lit::*, Set, fill};
use crate::field::FieldError;
use crate::kinds::text::{UNSET, or, some, strings};
use crate::names;
use crate::resource::{Cells, Column, Kind};
use crate::validate::{At, metadata, net};

/// A part of a service's endpoints.
pub(crate) struct EndpointSlice;

impl Kind for EndpointSlice {
    fn has_status(&self) -> bool {
        false
    }

    fn generation_metadata(&self) -> &'static [&'static str] {
        &["labels"]
    }

    fn unconditional_update(&self) -> bool {
        true
    }

    fn missing_behaviour(&self) -> &'static str {
        "hints for nodes"
    }

    fn default(&self, _version: &str, object: &mut Value) {
        fill(
            object,
            &[
                Set("", "endpoints", Null),
                Set("endpoints[]", "conditions", Obj),
                Set("", "ports", Null),
                Set("ports[]", "name", Empty),
                Set("ports[]", "protocol", S("TCP")),
            ],
        );
    }

    fn validate(&self, object: &At<'_>) {
        endpoint_slice(object);
    }

    fn validate_update(&self, object: &At<'_>, old: &At<'_>) {
        endpoint_slice(object);
        object.at("addressType").immutable(&old.at("addressType"));
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|AddressType|Ports|Endpoints|Age")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        let mut row = vec![cells.name()];
        row.extend(table_cells(cells));
        row
    }
}

fn endpoint_slice(object: &At<'_>) {
    const MAX_ENDPOINTS: usize = 1000;
    const MAX_PORTS: usize = 20_000;
    const MAX_ADDRESSES: usize = 100;
    object.at("addressType").one_of(&["FQDN", "IPv4", "IPv6"]);
    let (endpoints, ports) = (object.at("endpoints"), object.at("ports"));
    if endpoints.len() > MAX_ENDPOINTS {
        endpoints.errors.push(FieldError::too_many(&endpoints.path, endpoints.len(), MAX_ENDPOINTS));
    } else {
        for endpoint in endpoints.items() {
            let addresses = endpoint.at("addresses");
            if addresses.is_empty() {
                addresses.required("must contain at least 1 address");
            } else if addresses.len() > MAX_ADDRESSES {
                addresses.errors.push(FieldError::too_many(&addresses.path, addresses.len(), MAX_ADDRESSES));
            }
            addresses.items().for_each(|address| slice_address(&address, object.at("addressType").text()));
            if endpoint.at("nodeName").is_set() {
                endpoint.at("nodeName").obeys(names::is_dns1123_subdomain);
            }
            metadata::labels(&endpoint.at("deprecatedTopology"));
            if endpoint.at("hostname").is_set() {
                endpoint.at("hostname").obeys(names::is_dns1123_label);
            }
            for zone in endpoint.at("hints").at("forZones").items() {
                zone.at("name").must_obey(names::is_label_value);
            }
        }
    }
    if ports.len() > MAX_PORTS {
        ports.errors.push(FieldError::too_many(&ports.path, ports.len(), MAX_PORTS));
        return;
    }
    let mut seen = BTreeSet::new();
    for port in ports.items() {
        port.at("name").may_obey(names::is_dns1123_label);
        if !seen.insert(port.at("name").text()) {
            port.at("name").duplicate();
        }
        if port.at("port").is_set() {
            port.at("port").in_range(1, 65_535);
        }
        port.at("protocol").one_of(&["SCTP", "TCP", "UDP"]);
        port.at("appProtocol").may_obey(names::is_qualified_name);
    }
}

fn slice_address(address: &At<'_>, kind: &str) {
    let parsed = address.text().parse::<IpAddr>();
    match kind {
        "IPv4" | "IPv6" => {
            let fits = matches!((kind, &parsed), ("IPv4", Ok(IpAddr::V4(_))) | ("IPv6", Ok(IpAddr::V6(_))));
            if !fits {
                address.invalid(format!("must be a valid {kind} address"));
            }
            net::not_special(address);
        }
        "FQDN" => {
            let bare = address.text().strip_suffix('.').unwrap_or(address.text());
            let messages = names::is_dns1123_subdomain(bare);
            if bare.is_empty() {
                address.required("");
            } else if !messages.is_empty() {
                address.invalid_as(bare, messages.join(","));
            } else if !bare.contains('.') {
                address.invalid_as(bare, "should be a domain with at least two segments separated by dots");
            }
        }
        _ => {}
    }
}

fn table_cells(cells: &Cells<'_>) -> Vec<Value> {
    let ports: Vec<String> = cells
        .list(&["ports"])
        .iter()
        .map(|port| match (port["port"].as_i64(), port["name"].as_str()) {
            (Some(number), _) => number.to_string(),
            (None, Some(name)) => name.to_owned(),
            (None, None) => "*".to_owned(),
        })
        .collect();
    let addresses: Vec<String> = cells.list(&["endpoints"]).iter().flat_map(|endpoint| strings(&endpoint["addresses"])).collect();
    vec![
        json!(cells.text(&["addressType"])),
        json!(or(some(&ports, 3, ","), UNSET)),
        json!(or(some(&addresses, 3, ","), UNSET)),
        cells.age(),
    ]
}

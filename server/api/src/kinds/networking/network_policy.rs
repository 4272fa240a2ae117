//! NetworkPolicies.

use serde_json::{Value, json};

use crate::default::{Lit::*, Set, each, fill, unset};
use crate::kinds::core::pod::handler;
use crate::kinds::text::selector;
use crate::resource::{Cells, Column, Kind};
use crate::validate::{At, metadata, net::cidr};

/// Which traffic reaches and leaves pods.
pub(crate) struct NetworkPolicy;

impl Kind for NetworkPolicy {
    fn has_status(&self) -> bool {
        false
    }

    fn unconditional_update(&self) -> bool {
        true
    }

    fn default(&self, _version: &str, object: &mut Value) {
        fill(object, &[Set("", "spec", Obj), Set("spec", "podSelector", Obj)]);
        default(object);
    }

    fn validate(&self, object: &At<'_>) {
        network_policy(object);
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|Pod-Selector|Age")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        vec![cells.name(), json!(selector(cells.at(&["spec", "podSelector"]))), cells.age()]
    }
}

fn default(object: &mut Value) {
    fill(object, &[Set("spec.ingress[].ports[]", "protocol", S("TCP")), Set("spec.egress[].ports[]", "protocol", S("TCP"))]);
    each(object, "spec", &mut |spec| {
        if unset(spec, "policyTypes") {
            let types = if unset(spec, "egress") { json!(["Ingress"]) } else { json!(["Ingress", "Egress"]) };
            spec.insert("policyTypes".to_owned(), types);
        }
    });
}

fn network_policy(object: &At<'_>) {
    let spec = object.at("spec");
    metadata::selector(&spec.at("podSelector"));
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for rule in spec.at(direction).items() {
            rule.at("ports").items().for_each(|port| policy_port(&port));
            rule.at(peers).items().for_each(|peer| policy_peer(&peer));
        }
    }
    let types = spec.at("policyTypes");
    if types.len() > 2 {
        types.invalid("may not specify more than two policyTypes");
        return;
    }
    types.items().for_each(|kind| {
        if !matches!(kind.text(), "Ingress" | "Egress") {
            kind.not_supported(&["Ingress", "Egress"]);
        }
    });
}

fn policy_port(port: &At<'_>) {
    port.at("protocol").may_be_one_of(&["TCP", "UDP", "SCTP"]);
    let (start, end) = (port.at("port"), port.at("endPort"));
    match start.value {
        Value::Null => {
            if end.is_set() {
                end.invalid("may not be specified when `port` is not specified");
            }
        }
        Value::Number(number) => {
            handler::port(&start);
            if let Some(last) = end.int() {
                if last < number.as_i64().unwrap_or(0) {
                    end.invalid("must be greater than or equal to `port`");
                }
                end.in_range(1, 65_535);
            }
        }
        _ => {
            if end.is_set() {
                end.invalid("may not be specified when `port` is non-numeric");
            }
            handler::port(&start);
        }
    }
}

fn policy_peer(peer: &At<'_>) {
    let mut count = 0;
    for selector in ["podSelector", "namespaceSelector"] {
        if peer.at(selector).is_set() {
            count += 1;
            metadata::selector(&peer.at(selector));
        }
    }
    let block = peer.at("ipBlock");
    if block.is_set() {
        count += 1;
        ip_block(&block);
    }
    if count == 0 {
        peer.required("must specify a peer");
    } else if count > 1 && block.is_set() {
        peer.forbidden("may not specify both ipBlock and another peer");
    }
}

fn ip_block(block: &At<'_>) {
    let range = block.at("cidr");
    if range.text().is_empty() {
        range.required("");
        return;
    }
    cidr(&range);
    let Ok(whole) = range.text().parse::<ipnet::IpNet>() else { return };
    for except in block.at("except").items() {
        cidr(&except);
        let Ok(part) = except.text().parse::<ipnet::IpNet>() else { continue };
        if !whole.contains(&part.network()) || whole.prefix_len() >= part.prefix_len() {
            except.invalid("must be a strict subset of `cidr`");
        }
    }
}

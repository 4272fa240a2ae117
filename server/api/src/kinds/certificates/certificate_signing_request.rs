//! CertificateSigningRequests. Upstream: `pkg/registry/certificates/certificates/strategy.go`.

mod conditions;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::apply::Untracked;
use crate::certificate_request::CertificateRequest;
use crate::default::{Lit::Obj, Set, fill};
use crate::kinds::text::{NONE, condition};
use crate::names;
use crate::resource::{Cells, Column, Kind, SelectableField, carry};
use crate::time::Timestamp;
use crate::validate::{At, NameRule, same};

/// A request for a certificate.
pub(crate) struct CertificateSigningRequest;

impl Kind for CertificateSigningRequest {
    fn counts_generation(&self) -> bool {
        false
    }

    fn name_rule(&self) -> NameRule {
        names::is_path_segment_name
    }

    fn unconditional_update(&self) -> bool {
        true
    }

    fn missing_behaviour(&self) -> &'static str {
        "the request's PEM and signature; the certificate's PEM"
    }

    fn default(&self, _version: &str, object: &mut Value) {
        fill(object, &[Set("", "spec", Obj), Set("", "status", Obj)]);
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value) {
        carry(object, old, "spec");
    }

    fn prepare_for_status_update(&self, object: &mut Value, old: &Value, now: Timestamp) {
        conditions::keep_decisions(object, old);
        conditions::stamp(object, old, now);
    }

    /// `approval` changes the conditions and metadata alone.
    fn prepare_for_subresource(&self, _subresource: &str, object: &mut Value, old: &Value, now: Timestamp) {
        conditions::stamp(object, old, now);
        let wanted = object["status"].get("conditions").cloned();
        carry(object, old, "spec");
        carry(object, old, "status");
        conditions::set(object, wanted);
    }

    fn untracked(&self, subresource: &str) -> Untracked {
        Untracked::Only(match subresource {
            "status" => &["spec", "status.conditions"],
            "approval" => &["spec", "status.certificate"],
            _ => &["spec", "status"],
        })
    }

    fn validate(&self, object: &At<'_>) {
        signing_request(object);
    }

    fn validate_update(&self, object: &At<'_>, old: &At<'_>) {
        signing_request(object);
        conditions::unchanged(object, old, &["Approved", "Denied", "Failed"], &["Approved", "Denied"]);
        certificate(object, old);
    }

    /// Who may sign may not approve: a decision is made through `approval`.
    fn validate_status(&self, object: &At<'_>, old: &At<'_>) {
        self.validate_update(object, old);
    }

    fn validate_subresource(&self, _subresource: &str, object: &At<'_>, old: &At<'_>) {
        signing_request(object);
        conditions::unchanged(object, old, &["Approved", "Denied", "Failed"], &[]);
        certificate(object, old);
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|Age|SignerName|Requestor|RequestedDuration|Condition")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        let mut row = vec![cells.name()];
        row.extend(table_cells(cells));
        row
    }

    fn selectable_fields(&self) -> Vec<SelectableField> {
        vec![SelectableField::new("spec.signerName")]
    }
}

const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

fn signing_request(object: &At<'_>) {
    const MIN_SECS: i64 = 600;
    let spec = object.at("spec");
    if let Err(why) = CertificateRequest::of_object(object.value) {
        spec.at("request").invalid_as(Value::Null, why);
    }
    let usages = spec.at("usages");
    if usages.is_empty() {
        usages.required("");
    }
    let mut seen = BTreeSet::new();
    for usage in usages.items() {
        if !USAGES.contains(&usage.text()) {
            usage.not_supported(&USAGES);
        }
        if !seen.insert(usage.text()) {
            usage.duplicate();
        }
    }
    signer_name(&spec.at("signerName"));
    if spec.at("expirationSeconds").int().is_some_and(|seconds| seconds < MIN_SECS) {
        spec.at("expirationSeconds").invalid("may not specify a duration less than 600 seconds (10 minutes)");
    }
    valid_conditions(object);
}

fn signer_name(name: &At<'_>) {
    if name.text().is_empty() {
        name.required("");
        return;
    }
    match name.text().split_once('/') {
        None => name.invalid("must be a fully qualified domain and path of the form 'example.com/signer-name'"),
        Some((domain, path)) => {
            names::is_dns1123_subdomain(domain)
                .into_iter()
                .for_each(|message| name.invalid(format!("validating label {domain:?}: {message}")));
            if !domain.contains('.') {
                name.invalid("should be a domain with at least two segments separated by dots");
            }
            names::is_dns1123_subdomain(path).into_iter().for_each(|message| name.invalid(format!("validating label {path:?}: {message}")));
        }
    }
}

fn valid_conditions(object: &At<'_>) {
    let conditions = object.at("status").at("conditions");
    let mut seen = BTreeSet::new();
    for condition in conditions.items() {
        let kind = condition.at("type");
        if kind.text().is_empty() {
            kind.required("");
        }
        let status = condition.at("status");
        match kind.text() {
            "Approved" | "Denied" | "Failed" => {
                if status.text().is_empty() {
                    status.required("");
                } else if status.text() != "True" {
                    status.not_supported(&["True"]);
                }
            }
            _ => status.one_of(&["False", "True", "Unknown"]),
        }
        if !seen.insert(kind.text()) {
            kind.duplicate();
        }
    }
    if seen.contains("Approved") && seen.contains("Denied") {
        conditions.invalid("Approved and Denied conditions are mutually exclusive");
    }
}

/// An issued certificate stays.
fn certificate(object: &At<'_>, old: &At<'_>) {
    let (certificate, before) = (object.at("status").at("certificate"), old.at("status").at("certificate"));
    if before.is_full() && !same(certificate.value, before.value) {
        certificate.forbidden("updates may not change or remove certificate content");
    }
}

fn table_cells(cells: &Cells<'_>) -> Vec<Value> {
    let is = |kind: &str| condition(cells.object, kind).is_some();
    let mut status = if is("Denied") {
        "Denied"
    } else if is("Approved") {
        "Approved"
    } else {
        "Pending"
    }
    .to_owned();
    if is("Failed") {
        status.push_str(",Failed");
    }
    if !cells.text(&["status", "certificate"]).is_empty() {
        status.push_str(",Issued");
    }
    let wanted = cells.at(&["spec", "expirationSeconds"]).as_u64();
    let duration = wanted.map_or_else(|| NONE.to_owned(), |secs| crate::time::human_duration(std::time::Duration::from_secs(secs)));
    vec![
        cells.age(),
        cells.text_or(&["spec", "signerName"], NONE),
        json!(cells.text(&["spec", "username"])),
        json!(duration),
        json!(status),
    ]
}

//! The rules of a definition. Upstream: `apiextensions-apiserver/pkg/apis/apiextensions/validation/validation.go`.
//!
//! Upstream validates an internal form in which fields that all versions share are at the top level: an error about the only schema is
//! reported at `spec.validation`, not below `spec.versions`. Clients know those paths, so they are kept.

use std::collections::{BTreeSet, HashSet};

use serde_json::Value;

use crate::custom::approval::{self, Approval};
use crate::custom::{schema_rules, structural::Structural};
use crate::field::FieldPath;
use crate::names;
use crate::validate::{At, same};

const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
const SELECTABLE_MAX: usize = 8;
const WARNING_MAX_BYTES: usize = 256;

/// Checks a new definition, or a change of `old`.
pub(super) fn check(object: &At<'_>, old: Option<&At<'_>>) {
    let spec = object.at("spec");
    let wanted = format!("{}.{}", spec.at("names").at("plural").text(), spec.at("group").text());
    if object.at("metadata").at("name").text() != wanted {
        object.at("metadata").at("name").invalid("must be spec.names.plural+\".\"+spec.group");
    }
    group_and_scope(&spec);
    versions(&spec);
    spec_names(&spec.at("names"));
    shared(&spec);
    conversion(&spec.at("conversion"));
    if let Some(old) = old {
        immutable(&spec, old);
    }
    check_status(object);
    stored_versions(&object.at("status").at("storedVersions"), &spec.at("versions"));
    approval(object, old);
    if spec.at("preserveUnknownFields").flag() {
        spec.at("preserveUnknownFields")
            .invalid("cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead");
    }
}

/// Checks the status of a definition.
pub(super) fn check_status(object: &At<'_>) {
    names_of(&object.at("status").at("acceptedNames"));
}

fn group_and_scope(spec: &At<'_>) {
    let group = spec.at("group");
    let messages = names::is_dns1123_subdomain(group.text());
    if group.text().is_empty() {
        group.required("");
    } else if !messages.is_empty() {
        group.invalid(messages.join(","));
    } else if !group.text().contains('.') {
        group.invalid("should be a domain with at least one dot");
    }
    spec.at("scope").one_of(&["Cluster", "Namespaced"]);
}

/// Whether all versions say the same about `key`.
fn is_shared(versions: &At<'_>, key: &str) -> bool {
    let mut values = versions.items().map(|version| version.at(key).value);
    let Some(first) = values.next() else { return false };
    values.all(|value| same(first, value))
}

fn versions(spec: &At<'_>) {
    let versions = spec.at("versions");
    let shares = |key: &str| is_shared(&versions, key);
    for version in versions.items() {
        let schema = version.at("schema").at("openAPIV3Schema");
        if !schema.is_set() {
            schema.required("");
        }
    }
    let mut seen = HashSet::new();
    let mut unique = true;
    for version in versions.items() {
        unique &= seen.insert(version.at("name").text());
        let messages = names::is_dns1035_label(version.at("name").text());
        if !messages.is_empty() {
            version.at("name").invalid_as(version.at("name").text(), messages.join(","));
        }
        deprecation_warning(&version);
        let (schema, subresources) = (version.at("schema").at("openAPIV3Schema"), version.at("subresources"));
        if !shares("schema") && schema.is_set() {
            schema_rules::check(&schema, subresources.at("status").is_set());
        }
        if !shares("subresources") {
            scale(&subresources.at("scale"));
        }
        if !shares("additionalPrinterColumns") {
            version.at("additionalPrinterColumns").items().for_each(|column| printer_column(&column));
        }
        if !shares("selectableFields") {
            selectable_fields(&version.at("selectableFields"), schema.value);
        }
    }
    if !unique {
        versions.invalid("must contain unique version names");
    }
    if versions.items().filter(|version| version.at("storage").flag()).count() != 1 {
        versions.invalid("must have exactly one version marked as storage version");
    }
}

/// What all versions share, at its place above them.
fn shared(spec: &At<'_>) {
    let versions = spec.at("versions");
    let Some(first) = versions.items().next() else { return };
    let moved = |key: &str, name: &str| is_shared(&versions, key).then(|| first.at(key).named(spec.path.child(name)));
    let status = versions.items().any(|version| version.at("subresources").at("status").is_set());
    if let Some(schema) = moved("schema", "validation").map(|schema| schema.at("openAPIV3Schema")).filter(At::is_set) {
        schema_rules::check(&schema, status);
    }
    if let Some(subresources) = moved("subresources", "subresources") {
        scale(&subresources.at("scale"));
    }
    if let Some(columns) = moved("additionalPrinterColumns", "additionalPrinterColumns") {
        columns.items().for_each(|column| printer_column(&column));
    }
    if let Some(fields) = moved("selectableFields", "selectableFields") {
        selectable_fields(&fields, first.at("schema").at("openAPIV3Schema").value);
    }
}

fn deprecation_warning(version: &At<'_>) {
    let warning = version.at("deprecationWarning");
    if !warning.is_set() {
        return;
    }
    if !version.at("deprecated").flag() {
        warning.invalid("can only be set for deprecated versions");
        return;
    }
    let text = warning.text();
    if text.len() > WARNING_MAX_BYTES {
        warning.invalid(format!("must be <= {WARNING_MAX_BYTES} characters long"));
    }
    if text.is_empty() {
        warning.invalid("must not be an empty string");
    }
    if let Some((index, _)) = text.char_indices().find(|(_, sign)| sign.is_control() || (sign.is_whitespace() && *sign != ' ')) {
        warning.invalid(format!("must only contain printable UTF-8 characters; non-printable character found at index {index}"));
    }
}

fn spec_names(names: &At<'_>) {
    for key in ["plural", "singular", "kind", "listKind"] {
        if names.at(key).text().is_empty() {
            names.at(key).required("");
        }
    }
    names_of(names);
}

fn names_of(names: &At<'_>) {
    let label = |name: &At<'_>| {
        let messages = names::is_dns1035_label(name.text());
        if !name.text().is_empty() && !messages.is_empty() {
            name.invalid(messages.join(","));
        }
    };
    label(&names.at("plural"));
    label(&names.at("singular"));
    for key in ["kind", "listKind"] {
        let kind = names.at(key);
        let messages = names::is_dns1035_label(&kind.text().to_lowercase());
        if !kind.text().is_empty() && !messages.is_empty() {
            kind.invalid(format!("may have mixed case, but should otherwise match: {}", messages.join(",")));
        }
    }
    names.at("shortNames").items().for_each(|name| label(&name));
    if names.at("kind").is_full() && names.at("kind").text() == names.at("listKind").text() {
        names.at("listKind").invalid("kind and listKind may not be the same");
    }
    names.at("categories").items().for_each(|name| label(&name));
}

/// A path of fields that begins with a dot.
fn simple_path(path: &At<'_>, place: FieldPath, roots: &[&str], wanted: &str) {
    let path = path.named(place);
    if !path.text().starts_with('.') {
        path.invalid("must be a simple json path starting with .");
    } else if !roots.is_empty() && !roots.iter().any(|root| path.text().starts_with(root)) {
        path.invalid(wanted);
    }
}

fn scale(scale: &At<'_>) {
    if !scale.is_set() {
        return;
    }
    for (key, root) in [("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")] {
        let path = scale.at(key);
        if path.text().is_empty() {
            path.required("");
        } else {
            simple_path(&path, path.path.clone(), &[root], &format!("should be a json path under {}", root.trim_end_matches('.')));
        }
    }
    let selector = scale.at("labelSelectorPath");
    if selector.is_full() {
        simple_path(&selector, selector.path.clone(), &[".spec.", ".status."], "should be a json path under either .spec or .status");
    }
}

fn printer_column(column: &At<'_>) {
    if column.at("name").text().is_empty() {
        column.at("name").required("");
    }
    let (type_, format, path) = (column.at("type"), column.at("format"), column.at("jsonPath"));
    let types = format!("must be one of {}", COLUMN_TYPES.join(","));
    if type_.text().is_empty() {
        type_.required(&types);
    } else if !COLUMN_TYPES.contains(&type_.text()) {
        type_.invalid(types);
    }
    if format.is_full() && !COLUMN_FORMATS.contains(&format.text()) {
        format.invalid(format!("must be one of {}", COLUMN_FORMATS.join(",")));
    }
    // Upstream's internal name.
    let place = column.path.child("JSONPath");
    if path.text().is_empty() {
        path.named(place).required("");
    } else {
        simple_path(&path, place, &[], "");
    }
}

fn selectable_fields(fields: &At<'_>, schema: &Value) {
    let parsed = if fields.is_empty() { None } else { Structural::parse(schema).ok() };
    let mut seen = BTreeSet::new();
    for field in fields.items() {
        let path = field.at("jsonPath");
        if path.text().is_empty() {
            path.required("");
            continue;
        }
        if path.text().contains('[') {
            path.invalid("is an invalid path: array notation is not allowed");
            continue;
        }
        let Some(found) = parsed.as_ref().and_then(|schema| schema.at_path(path.text())) else {
            path.invalid("is an invalid path: does not refer to a valid field");
            continue;
        };
        if path.text() == ".metadata" || path.text().starts_with(".metadata.") {
            path.invalid("must not point to fields in metadata");
        }
        if !matches!(found.type_.as_str(), "string" | "boolean" | "integer") {
            path.invalid(
                "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.",
            );
        }
        if !seen.insert(path.text()) {
            path.duplicate();
        }
    }
    if seen.len() > SELECTABLE_MAX {
        fields.errors.push(crate::field::FieldError::too_many(&fields.path, seen.len(), SELECTABLE_MAX));
    }
}

fn conversion(conversion: &At<'_>) {
    if !conversion.is_set() {
        return;
    }
    conversion.at("strategy").one_of(&["None", "Webhook"]);
    // Upstream's internal names.
    let client = conversion.at("webhook").at("clientConfig").named(conversion.path.child("webhookClientConfig"));
    let versions = conversion.at("webhook").at("conversionReviewVersions").named(conversion.path.child("conversionReviewVersions"));
    if conversion.at("strategy").text() != "Webhook" {
        for field in [client, versions].iter().filter(|field| field.is_full()) {
            field.forbidden("should not be set when strategy is not set to Webhook");
        }
        return;
    }
    if !client.is_set() {
        client.required("required when strategy is set to Webhook");
    } else {
        match (client.at("url").is_set(), client.at("service").is_set()) {
            (true, false) => {
                if !client.at("url").text().starts_with("https://") {
                    client.at("url").invalid("'https' is the only allowed URL scheme");
                }
            }
            (false, true) => {
                for key in ["name", "namespace"] {
                    if client.at("service").at(key).text().is_empty() {
                        client.at("service").at(key).required(&format!("service {key} is required"));
                    }
                }
                client.at("service").at("port").in_range(1, 65_535);
            }
            _ => client.required("exactly one of url or service is required"),
        }
    }
    if versions.is_empty() {
        versions.required("");
        return;
    }
    let mut seen = HashSet::new();
    for version in versions.items() {
        if !seen.insert(version.text()) {
            version.invalid("duplicate version");
        } else {
            version.obeys(names::is_dns1035_label);
        }
    }
    if !seen.contains("v1") && !seen.contains("v1beta1") {
        versions.invalid("must include at least one of v1, v1beta1");
    }
}

fn immutable(spec: &At<'_>, old: &At<'_>) {
    let before = old.at("spec");
    let established = old
        .at("status")
        .at("conditions")
        .items()
        .any(|condition| condition.at("type").text() == "Established" && condition.at("status").text() == "True");
    if established {
        spec.at("scope").immutable(&before.at("scope"));
        spec.at("names").at("kind").immutable(&before.at("names").at("kind"));
    }
    spec.at("group").immutable(&before.at("group"));
    spec.at("names").at("plural").immutable(&before.at("names").at("plural"));
}

fn stored_versions(stored: &At<'_>, versions: &At<'_>) {
    if stored.is_empty() {
        stored.invalid("must have at least one stored version");
        return;
    }
    let names = stored.strings();
    let known: HashSet<&str> = versions.items().map(|version| version.at("name").text()).collect();
    for version in versions.items().filter(|version| version.at("storage").flag()) {
        let name = version.at("name").text();
        if !names.contains(&name) {
            stored.invalid(format!("must have the storage version {name}"));
        }
    }
    for version in stored.items().filter(|version| !known.contains(version.text())) {
        let name = version.text();
        version.invalid(format!(
            "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a storage \
             migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
        ));
    }
}

/// Groups of the Kubernetes community need the word of their reviewers.
fn approval(object: &At<'_>, old: Option<&At<'_>>) {
    if !approval::is_protected(object.at("spec").at("group").text()) {
        return;
    }
    let annotation = |object: &At<'_>| object.at("metadata").at("annotations").at(approval::ANNOTATION).text().to_owned();
    let given = object.at("metadata").at("annotations").at(approval::ANNOTATION);
    let state = Approval::of(given.text());
    if old.is_some_and(|old| Approval::of(&annotation(old)) == state) {
        return;
    }
    let place = given.named(FieldPath::new("metadata").child("annotations").key(approval::ANNOTATION));
    match state {
        Approval::Missing => place.required(&state.message("")),
        Approval::Malformed => place.invalid(state.message(given.text())),
        Approval::Given | Approval::Bypassed => {}
    }
}

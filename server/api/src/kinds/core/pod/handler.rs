//! Validation of probes and lifecycle hooks.

use serde_json::Value;

use crate::names;
use crate::validate::At;

/// One of `livenessProbe`, `readinessProbe`, `startupProbe`.
pub(crate) fn probe(probe: &At<'_>, kind: &str, grace_period_secs: Option<i64>) {
    check(probe, grace_period_secs);
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        probe.at(field).non_negative();
    }
    let grace = probe.at("terminationGracePeriodSeconds");
    if grace.int().is_some_and(|seconds| seconds <= 0) {
        grace.invalid("must be greater than 0");
    }
    if kind == "readinessProbe" {
        if grace.is_set() {
            grace.invalid("must not be set for readinessProbes");
        }
    } else if probe.at("successThreshold").int().unwrap_or(0) != 1 {
        probe.at("successThreshold").invalid("must be 1");
    }
}

/// Exactly one way of asking or telling a container something.
pub(crate) fn check(handler: &At<'_>, grace_period_secs: Option<i64>) {
    let mut count = 0;
    for kind in ["exec", "httpGet", "tcpSocket", "grpc", "sleep"] {
        let action = handler.at(kind);
        if !action.is_set() {
            continue;
        }
        count += 1;
        if count > 1 {
            action.forbidden("may not specify more than 1 handler type");
            continue;
        }
        match kind {
            "exec" => {
                if action.at("command").is_empty() {
                    action.at("command").required("");
                }
            }
            "httpGet" => http_get(&action),
            "sleep" => sleep(&action, grace_period_secs),
            _ => port(&action.at("port")),
        }
    }
    if count == 0 {
        handler.required("must specify a handler type");
    }
}

fn http_get(action: &At<'_>) {
    if action.at("path").text().is_empty() {
        action.at("path").required("");
    }
    port(&action.at("port"));
    if !matches!(action.at("scheme").text(), "HTTP" | "HTTPS") {
        action.at("scheme").not_supported(&["HTTP", "HTTPS"]);
    }
    for header in action.at("httpHeaders").items() {
        let name = header.at("name").text();
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            action.at("httpHeaders").invalid_as(
                name,
                names::regex_error(
                    "a valid HTTP header must consist of alphanumeric characters or '-'",
                    "[-A-Za-z0-9]+",
                    &["X-Header-Name"],
                ),
            );
        }
    }
}

fn sleep(action: &At<'_>, grace_period_secs: Option<i64>) {
    let seconds = action.at("seconds").int().unwrap_or(0);
    if let Some(grace) = grace_period_secs
        && !(0..=grace).contains(&seconds)
    {
        action.invalid_as(seconds, format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})"));
    }
}

/// A port number or the name of a port.
pub(crate) fn port(port: &At<'_>) {
    match port.value {
        Value::String(name) => names::is_port_name(name).into_iter().for_each(|message| port.invalid(message)),
        other => {
            let number = other.as_i64().unwrap_or(0);
            names::is_port_num(number).into_iter().for_each(|message| port.invalid_as(number, message));
        }
    }
}

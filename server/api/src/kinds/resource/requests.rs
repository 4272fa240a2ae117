//! Defaults of device requests, in claims and in templates of claims.

use serde_json::Value;

use crate::default::{Lit::*, each, set, text};

pub(crate) fn device_requests(object: &mut Value, path: &str) {
    for request in ["requests[].exactly", "requests[].firstAvailable[]"] {
        let at = format!("{path}.{request}");
        each(object, &at, &mut |request| {
            set(request, "allocationMode", S("ExactCount"));
            if text(request, "allocationMode") == "ExactCount" {
                set(request, "count", Z(1));
            }
        });
        each(object, &format!("{at}.tolerations[]"), &mut |toleration| set(toleration, "operator", S("Equal")));
    }
}

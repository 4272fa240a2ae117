//! DenyServiceExternalIPs: no Service takes an external address that it did not have.
//!
//! Whoever may write `externalIPs` can draw traffic for any address to itself. Addresses that a Service has may stay and go. Answers to
//! <https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#denyserviceexternalips>.

use futures::future::BoxFuture;
use serde_json::Value;
use trireme_api::meta;

use crate::admission::effects::Effects;
use crate::admission::forbid;
use crate::admission::plugin::{Phase, Plugin};
use crate::admission::request::{AdmissionRequest, Operation};
use crate::error::Answer;

/// The plugin.
pub struct DenyServiceExternalIps;

impl Plugin for DenyServiceExternalIps {
    fn name(&self) -> &'static str {
        "DenyServiceExternalIPs"
    }

    fn phases(&self) -> &'static [Phase] {
        &[Phase::Validate]
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        matches!(request.operation, Operation::Create | Operation::Update) && request.is_on("", "services", "")
    }

    fn validate<'a>(&'a self, request: &'a AdmissionRequest, _effects: &'a mut Effects) -> BoxFuture<'a, Answer<()>> {
        let addresses =
            |service: Option<&'a Value>| service.map(|service| meta::list_at(service, &["spec", "externalIPs"])).unwrap_or_default();
        let (new, old) = (addresses(request.object()), addresses(request.old_object.as_deref()));
        let refusal = new.iter().any(|address| !old.contains(address));
        Box::pin(std::future::ready(match refusal {
            true => Err(forbid(request, "Use of external IPs is denied by admission control")),
            false => Ok(()),
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::admission::tests::on;

    #[tokio::test]
    async fn addresses_may_stay_and_go() {
        let service = |addresses: &[&str]| json!({"metadata": {"name": "s"}, "spec": {"externalIPs": addresses}});
        for (old, new, allowed) in [
            (None, &[][..], true),
            (None, &["1.1.1.1"], false),
            (Some(&["1.1.1.1", "2.2.2.2"][..]), &["2.2.2.2"], true),
            (Some(&["1.1.1.1"]), &["1.1.1.1", "2.2.2.2"], false),
            (Some(&["1.1.1.1"]), &[], true),
        ] {
            let operation = if old.is_some() { Operation::Update } else { Operation::Create };
            let mut request = on("", "services", "a", operation, service(new));
            request.old_object = old.map(|old| Arc::new(service(old)));
            assert!(DenyServiceExternalIps.handles(&request));
            let outcome = DenyServiceExternalIps.validate(&request, &mut Effects::default()).await;
            assert_eq!(outcome.is_ok(), allowed, "{old:?} {new:?}");
            if let Err(status) = outcome {
                assert_eq!(status.message, "services \"s\" is forbidden: Use of external IPs is denied by admission control");
            }
        }
    }
}

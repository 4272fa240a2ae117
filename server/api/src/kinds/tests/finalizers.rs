//! Finalizers: names without a domain, by kind.

use serde_json::json;

use super::now;
use crate::kinds::builtin;

#[test]
fn case_21_a_finalizer_without_a_domain_has_a_standard_name() {
    let words = "name is neither a standard finalizer name nor is it fully qualified";
    for definition in builtin().iter().filter(|definition| definition.resource.is_stored()) {
        let mut object = json!({"metadata": {"name": "a", "finalizers": ["nodomain", "kubernetes", "example.com/x"]}});
        definition.default(&mut object);
        definition.prepare_for_create(&mut object, now());
        let refused = |errors: Vec<crate::field::FieldError>| {
            errors.into_iter().any(|error| error.detail == words && error.path == "metadata.finalizers[0]")
        };
        let kind = &definition.resource.kind;
        // Upstream checks these with the rules of apimachinery alone.
        let bare = matches!(
            kind.as_ref(),
            "Lease"
                | "PodDisruptionBudget"
                | "RuntimeClass"
                | "CustomResourceDefinition"
                | "APIService"
                | "ValidatingAdmissionPolicy"
                | "ValidatingAdmissionPolicyBinding"
                | "MutatingAdmissionPolicy"
                | "MutatingAdmissionPolicyBinding"
                | "ValidatingWebhookConfiguration"
                | "MutatingWebhookConfiguration"
        );
        assert_eq!(refused(definition.validate_create(&object)), !bare, "create {kind}");
        assert_eq!(refused(definition.validate_update(&object, &object)), !bare, "update {kind}");
        assert_eq!(refused(definition.validate_subresource("status", &object, &object)), !bare, "status {kind}");
    }
}

//! ValidatingAdmissionPolicy: expressions of the cluster's operator refuse requests, or warn about them.
//!
//! Answers to <https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/>. The action
//! `Audit` and audit annotations add to the request's audit events.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::{Value, json};
use trireme_api::status::Status;

use crate::admission::cel::Inputs;
use crate::admission::effects::Effects;
use crate::admission::plugin::{Environment, Phase, Plugin};
use crate::admission::policies::binding::Binding;
use crate::admission::policies::configuration::{Bound, Configuration};
use crate::admission::policies::params;
use crate::admission::policies::validation::{Decision, Refusal, ValidatingPolicy};
use crate::admission::policies::{self, is_policy};
use crate::admission::request::AdmissionRequest;
use crate::admission::{forbid, rules};
use crate::authz::Authorizer;
use crate::error::Answer;
use crate::storage::lookup::ObjectReader;

/// The plugin.
pub struct ValidatingAdmissionPolicy {
    configuration: Configuration<ValidatingPolicy>,
    reader: Arc<dyn ObjectReader>,
    authorizer: Authorizer,
}

/// What the policies say to the audit log.
#[derive(Default)]
struct AuditNotes {
    failures: Vec<Value>,
    /// The values of each key, each once.
    annotations: BTreeMap<String, Vec<String>>,
}

/// The first refusal and who refused.
struct Denial {
    policy: String,
    binding: Option<String>,
    refusal: Refusal,
}

// === impl ValidatingAdmissionPolicy ===

impl ValidatingAdmissionPolicy {
    /// Made from `environment`.
    pub fn new(environment: &Environment) -> ValidatingAdmissionPolicy {
        let reader = environment.reader.clone();
        let plurals = ["validatingadmissionpolicies", "validatingadmissionpolicybindings"];
        let configuration = Configuration::new(plurals, ValidatingPolicy::parse, reader.clone());
        ValidatingAdmissionPolicy { configuration, reader, authorizer: environment.authorizer.clone() }
    }

    async fn run(&self, request: &AdmissionRequest, effects: &mut Effects) -> Answer<()> {
        let bound = self.configuration.bound();
        let namespace = rules::namespace_of(&*self.reader, request).await;
        let mut denial = None;
        let mut notes = AuditNotes::default();
        for bound in bound.iter() {
            let base = &bound.policy.base;
            let mut deny = |binding: Option<&Binding>, refusal: Refusal| {
                let binding = binding.map(|binding| binding.name.clone());
                denial.get_or_insert_with(|| Denial { policy: base.name.clone(), binding, refusal });
            };
            let version = match base.constraints.matches(request, namespace.as_deref()) {
                Ok(None) => continue,
                Ok(Some(version)) => version,
                Err(why) if base.ignores_failure => {
                    tracing::warn!(policy = base.name, why, "a policy cannot be matched, and its failure is ignored");
                    continue;
                }
                Err(why) => {
                    deny(None, misconfigured("policy", &why));
                    continue;
                }
            };
            for binding in &bound.bindings {
                match self.evaluate(bound, binding, request, &version, namespace.as_deref()).await {
                    Ok(decision) => {
                        notes.add(&base.name, decision.annotations);
                        for refusal in decision.refusals {
                            let acts = |action: &str| refusal.by_validation && binding.actions.iter().any(|own| own == action);
                            if acts("Audit") {
                                notes.fail(&base.name, binding, &refusal);
                            }
                            if acts("Warn") {
                                effects.warn(warning(&base.name, &binding.name, &refusal.message));
                            }
                            if !refusal.by_validation || acts("Deny") {
                                deny(Some(binding), refusal);
                            }
                        }
                    }
                    Err(why) if base.ignores_failure => {
                        tracing::warn!(policy = base.name, binding = binding.name, why, "a policy's failure is ignored");
                    }
                    Err(why) => deny(Some(binding), misconfigured("binding", &why)),
                }
            }
        }
        notes.hand_over(effects);
        denial.map_or(Ok(()), |denial| Err(denial.into_status(request)))
    }

    /// What a policy has against the request under one binding.
    async fn evaluate(
        &self,
        bound: &Bound<ValidatingPolicy>,
        binding: &Binding,
        request: &AdmissionRequest,
        version: &str,
        namespace: Option<&Value>,
    ) -> Result<Decision, String> {
        if let Some(resources) = &binding.resources
            && resources.matches(request, namespace)?.is_none()
        {
            return Ok(Decision::default());
        }
        let kind = bound.policy.base.param_kind.as_ref();
        let found = params::collect(&*self.reader, kind, binding.param_ref.as_ref(), &request.namespace)?;
        let shown = namespace.filter(|_| !request.is_on("", "namespaces", ""));
        let inputs = Inputs::new(request, version, shown).await.map_err(|why| format!("failed to convert object version: {why}"))?;
        let inputs = inputs.with_authorizer(&self.authorizer, request);
        let mut all = Decision::default();
        for params in &found {
            let inputs = if kind.is_some() { inputs.clone().with_params(params.as_ref()) } else { inputs.clone() };
            let policy = bound.policy.clone();
            let one = policies::off_the_reactor(move || policy.evaluate(&inputs)).await?;
            all.refusals.extend(one.refusals);
            all.annotations.extend(one.annotations);
        }
        Ok(all)
    }
}

impl Plugin for ValidatingAdmissionPolicy {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionPolicy"
    }

    fn phases(&self) -> &'static [Phase] {
        &[Phase::Validate]
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        !is_policy(request) && self.configuration.bound().iter().any(|bound| bound.policy.base.constraints.version(request).is_some())
    }

    fn validate<'a>(&'a self, request: &'a AdmissionRequest, effects: &'a mut Effects) -> BoxFuture<'a, Answer<()>> {
        Box::pin(self.run(request, effects))
    }
}

fn misconfigured(what: &str, why: &str) -> Refusal {
    Refusal { message: format!("failed to configure {what}: {why}"), reason: String::new(), by_validation: false, index: 0 }
}

fn warning(policy: &str, binding: &str, message: &str) -> String {
    format!("Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{binding}': {message}")
}

// === impl AuditNotes ===

impl AuditNotes {
    fn add(&mut self, policy: &str, annotations: Vec<(String, String)>) {
        for (key, value) in annotations {
            let values = self.annotations.entry(format!("{policy}/{key}")).or_default();
            if !values.contains(&value) {
                values.push(value);
            }
        }
    }

    fn fail(&mut self, policy: &str, binding: &Binding, refusal: &Refusal) {
        self.failures.push(json!({
            "message": refusal.message, "policy": policy, "binding": binding.name,
            "expressionIndex": refusal.index, "validationActions": binding.actions,
        }));
    }

    fn hand_over(self, effects: &mut Effects) {
        if !self.failures.is_empty() {
            effects.annotate("validation.policy.admission.k8s.io/validation_failure", Value::from(self.failures).to_string());
        }
        for (key, values) in self.annotations {
            effects.annotate(key, values.join(", "));
        }
    }
}

// === impl Denial ===

impl Denial {
    fn into_status(self, request: &AdmissionRequest) -> Box<Status> {
        let why = &self.refusal.message;
        let message = match &self.binding {
            Some(binding) => format!("ValidatingAdmissionPolicy '{}' with binding '{binding}' denied request: {why}", self.policy),
            None => format!("ValidatingAdmissionPolicy '{}' denied request: {why}", self.policy),
        };
        let mut status = forbid(request, &message).with_cause("", message, "");
        (status.code, status.reason) = match self.refusal.reason.as_str() {
            "Forbidden" => (403, "Forbidden".to_owned()),
            "Unauthorized" => (401, "Unauthorized".to_owned()),
            "RequestEntityTooLarge" => (413, "RequestEntityTooLarge".to_owned()),
            _ => (422, "Invalid".to_owned()),
        };
        Box::new(status)
    }
}

//! MutatingAdmissionPolicy: expressions of the cluster's operator change objects.
//!
//! Answers to <https://kubernetes.io/docs/reference/access-authn-authz/mutating-admission-policy/>.

use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::Value;
use trireme_api::meta;
use trireme_api::status::Status;

use crate::admission::cel::Inputs;
use crate::admission::effects::Effects;
use crate::admission::plugin::{Environment, Phase, Plugin};
use crate::admission::policies::binding::Binding;
use crate::admission::policies::configuration::Configuration;
use crate::admission::policies::mutation::{MutatingPolicy, Subject};
use crate::admission::policies::{is_policy, off_the_reactor, params};
use crate::admission::request::{AdmissionRequest, Operation};
use crate::admission::{forbid, rules};
use crate::authz::Authorizer;
use crate::error::Answer;
use crate::storage::lookup::ObjectReader;

/// The plugin.
pub struct MutatingAdmissionPolicy {
    configuration: Configuration<MutatingPolicy>,
    reader: Arc<dyn ObjectReader>,
    authorizer: Authorizer,
}

/// A policy with a binding and a parameter that match a request.
struct Invocation {
    policy: Arc<MutatingPolicy>,
    binding: Arc<Binding>,
    params: Option<Value>,
    version: String,
}

/// What a policy could not do.
struct Failure {
    message: String,
    ignored: bool,
}

// === impl MutatingAdmissionPolicy ===

impl MutatingAdmissionPolicy {
    /// Made from `environment`.
    pub fn new(environment: &Environment) -> MutatingAdmissionPolicy {
        let reader = environment.reader.clone();
        let plurals = ["mutatingadmissionpolicies", "mutatingadmissionpolicybindings"];
        let configuration = Configuration::new(plurals, MutatingPolicy::parse, reader.clone());
        MutatingAdmissionPolicy { configuration, reader, authorizer: environment.authorizer.clone() }
    }

    async fn run(&self, request: &mut AdmissionRequest, effects: &mut Effects) -> Answer<()> {
        let namespace = rules::namespace_of(&*self.reader, request).await;
        let (invocations, mut failures) = self.invocations(request, namespace.as_deref());
        let input = request.object().cloned();
        request.policies.look_at(input);
        for invocation in invocations {
            if !request.policies.is_due(&invocation.key()) {
                continue;
            }
            match self.invoke(&invocation, request, namespace.as_deref()).await {
                Ok(Some(changed)) => {
                    let (key, again) = (invocation.key(), invocation.policy.reinvoke_if_needed);
                    request.policies.asked(&key, again, changed);
                    if changed {
                        // Plugins before this one, and policies that ask for it, see the object once more.
                        effects.reinvoke();
                    }
                }
                Ok(None) => {}
                Err(why) => failures.push(Failure::of(&invocation.policy, Some(&invocation.binding), &why)),
            }
        }
        let output = request.object().cloned();
        request.policies.remember(output);
        refuse(request, failures)
    }

    /// Policies with bindings and parameters that match, in their order.
    fn invocations(&self, request: &AdmissionRequest, namespace: Option<&Value>) -> (Vec<Invocation>, Vec<Failure>) {
        let (mut invocations, mut failures) = (Vec::new(), Vec::new());
        for bound in self.configuration.bound().iter() {
            let base = &bound.policy.base;
            let version = match base.constraints.matches(request, namespace) {
                Ok(None) => continue,
                Ok(Some(version)) => version,
                Err(why) => {
                    failures.push(Failure::of(&bound.policy, None, &format!("failed to configure policy: {why}")));
                    continue;
                }
            };
            for binding in &bound.bindings {
                let matched = match &binding.resources {
                    Some(resources) => resources.matches(request, namespace).map(|version| version.is_some()),
                    None => Ok(true),
                };
                let params = matched.and_then(|matched| match matched {
                    true => params::collect(&*self.reader, base.param_kind.as_ref(), binding.param_ref.as_ref(), &request.namespace),
                    false => Ok(Vec::new()),
                });
                match params {
                    Ok(params) => invocations.extend(params.into_iter().map(|params| Invocation {
                        policy: bound.policy.clone(),
                        binding: binding.clone(),
                        params,
                        version: version.clone(),
                    })),
                    Err(why) => {
                        failures.push(Failure::of(&bound.policy, Some(binding), &format!("failed to configure binding: {why}")));
                    }
                }
            }
        }
        (invocations, failures)
    }

    /// Runs one policy. Whether it changed the object; None: its match conditions leave the request out.
    async fn invoke(&self, of: &Invocation, request: &mut AdmissionRequest, namespace: Option<&Value>) -> Result<Option<bool>, String> {
        let shown = namespace.filter(|_| !request.is_on("", "namespaces", ""));
        let mut inputs = Inputs::new(request, &of.version, shown).await?.with_authorizer(&self.authorizer, request);
        if of.policy.base.param_kind.is_some() {
            inputs = inputs.with_params(of.params.as_ref());
        }
        let (policy, conditions) = (of.policy.clone(), inputs.clone());
        if !off_the_reactor(move || policy.matches(&conditions)).await?? {
            return Ok(None);
        }
        let mut changed = false;
        for index in 0..of.policy.len() {
            let Some(object) = request.object().cloned() else { return Ok(Some(false)) };
            let (kind, shown) = request.in_version(Some(&object), &of.version).await?;
            inputs.set_object(&shown);
            let (policy, evaluated) = (of.policy.clone(), inputs.clone());
            let patch = off_the_reactor(move || policy.evaluate(index, &evaluated)).await??;
            let definition = request.definition_of_object();
            let mut subject = Subject { object: shown, kind: &kind, definition };
            of.policy.apply(index, &patch, &mut subject)?;
            let mut result = request.from_version(subject.object, &kind).await?;
            if let Some(definition) = request.definition_of_object() {
                definition.default(&mut result);
            }
            if result != object
                && let Some(stored) = request.object_mut()
            {
                *stored = result;
                changed = true;
            }
        }
        Ok(Some(changed))
    }
}

impl Plugin for MutatingAdmissionPolicy {
    fn name(&self) -> &'static str {
        "MutatingAdmissionPolicy"
    }

    fn phases(&self) -> &'static [Phase] {
        &[Phase::Admit]
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.operation != Operation::Delete
            && !is_policy(request)
            && self.configuration.bound().iter().any(|bound| bound.policy.base.constraints.version(request).is_some())
    }

    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest, effects: &'a mut Effects) -> BoxFuture<'a, Answer<()>> {
        Box::pin(self.run(request, effects))
    }
}

// === impl Invocation ===

impl Invocation {
    fn key(&self) -> String {
        let params = self.params.as_ref().map(|params| (meta::namespace(params), meta::name(params))).unwrap_or_default();
        format!("{}/{}/{}/{}", self.policy.base.name, self.binding.name, params.0, params.1)
    }
}

// === impl Failure ===

impl Failure {
    fn of(policy: &MutatingPolicy, binding: Option<&Binding>, why: &str) -> Failure {
        let name = &policy.base.name;
        let message = match binding {
            Some(binding) => format!("policy '{name}' with binding '{}' denied request: {why}", binding.name),
            None => format!("policy {name:?} denied request: {why}"),
        };
        Failure { message, ignored: policy.base.ignores_failure }
    }
}

/// The first failure that counts is the message, all are causes.
fn refuse(request: &AdmissionRequest, failures: Vec<Failure>) -> Answer<()> {
    let mut refused: Option<Status> = None;
    for failure in failures {
        if failure.ignored {
            tracing::warn!(why = failure.message, "a policy's failure is ignored");
            continue;
        }
        let status = refused.take().unwrap_or_else(|| {
            let mut status = *forbid(request, "");
            status.message.clone_from(&failure.message);
            "Invalid".clone_into(&mut status.reason);
            status
        });
        refused = Some(status.with_cause("", failure.message, ""));
    }
    refused.map_or(Ok(()), |status| Err(status.into()))
}

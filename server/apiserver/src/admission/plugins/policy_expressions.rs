//! Checks of policies, bindings and webhook configurations that need more than the object: expressions, and whether the author may read
//! the parameters. Upstream does this in validation and in the kinds' strategies.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::Value;
use trireme_api::field::{FieldError, FieldErrors, FieldPath};
use trireme_api::meta;
use trireme_api::status::Status;

use crate::admission::cel::{self, Declared, Expression, Variables, Wanted};
use crate::admission::effects::Effects;
use crate::admission::forbid;
use crate::admission::plugin::{Environment, Phase, Plugin};
use crate::admission::policies::params::ParamKind;
use crate::admission::policies::{self, GROUP};
use crate::admission::request::{AdmissionRequest, Operation};
use crate::attributes::Attributes;
use crate::authz::Authorizer;
use crate::error::Answer;
use crate::storage::lookup::ObjectReader;
use crate::user::GROUP_MASTERS;

/// The plugin.
pub struct PolicyExpressions {
    reader: Arc<dyn ObjectReader>,
    authorizer: Authorizer,
}

// === impl PolicyExpressions ===

impl PolicyExpressions {
    /// Made from `environment`.
    pub fn new(environment: &Environment) -> PolicyExpressions {
        PolicyExpressions { reader: environment.reader.clone(), authorizer: environment.authorizer.clone() }
    }

    async fn run(&self, request: &AdmissionRequest) -> Answer<()> {
        let Some(object) = request.object() else { return Ok(()) };
        let old = request.old_object.clone().unwrap_or_default();
        if object.get("spec") != old.get("spec") {
            self.check_params(request, object, &old).await?;
        }
        let (plural, checked) = (request.resource.resource.to_string(), object.clone());
        let errors = policies::off_the_reactor(move || errors(&plural, &checked, &old)).await.map_err(Status::internal)?;
        if errors.is_empty() {
            return Ok(());
        }
        Err(Status::invalid(&request.kind.group_kind(), meta::name(object), &errors).into())
    }

    /// Who binds parameters must be able to read them: else a policy's message could tell what is in them.
    async fn check_params(&self, request: &AdmissionRequest, object: &Value, old: &Value) -> Answer<()> {
        if request.user.in_group(GROUP_MASTERS) {
            return Ok(());
        }
        let (spec, old_spec) = (&object["spec"], &old["spec"]);
        let (kind, reference) = (&spec["paramKind"], &spec["paramRef"]);
        if kind.is_object() && *kind != old_spec["paramKind"] {
            let (kind_name, version) = (meta::str_at(kind, &["kind"]), meta::str_at(kind, &["apiVersion"]));
            let refused = format!(
                "user {} must have \"get\" permission on all objects of the referenced paramKind (kind={kind_name}, apiVersion={version})",
                request.user.name
            );
            return self.require(request, "get", Some(kind), ("*", "*"), &refused).await;
        }
        let unchanged = *reference == old_spec["paramRef"] && spec["policyName"] == old_spec["policyName"];
        if reference.is_object() && !unchanged {
            let plural = match &*request.resource.resource {
                "validatingadmissionpolicybindings" => "validatingadmissionpolicies",
                _ => "mutatingadmissionpolicies",
            };
            let policy = self.reader.get(GROUP, plural, "", meta::str_at(spec, &["policyName"]));
            let kind = policy.as_ref().map(|found| &found.object["spec"]["paramKind"]).filter(|kind| kind.is_object());
            let (name, namespace) = (meta::str_at(reference, &["name"]), meta::str_at(reference, &["namespace"]));
            let verb = if name.is_empty() { "list" } else { "get" };
            let refused = format!("user {} does not have {verb:?} permission on the object referenced by paramRef", request.user.name);
            return self.require(request, verb, kind, (name, namespace), &refused).await;
        }
        Ok(())
    }

    async fn require(
        &self,
        request: &AdmissionRequest,
        verb: &str,
        kind: Option<&Value>,
        (name, namespace): (&str, &str),
        refused: &str,
    ) -> Answer<()> {
        let kind = kind.map(ParamKind::parse);
        let gvk = kind.as_ref().and_then(ParamKind::gvk);
        let resource = kind.as_ref().and_then(|kind| kind.resource(&*self.reader));
        let any = || "*".to_owned();
        let attributes = Attributes {
            user: request.user.clone(),
            verb: verb.to_owned(),
            resource_request: true,
            group: gvk.as_ref().map_or_else(any, |gvk| gvk.group.to_string()),
            version: gvk.as_ref().map_or_else(any, |gvk| gvk.version.to_string()),
            resource: resource.map_or_else(any, |resource| resource.plural),
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            ..Attributes::default()
        };
        if self.authorizer.authorize(&attributes).await.allowed { Ok(()) } else { Err(forbid(request, refused)) }
    }
}

impl Plugin for PolicyExpressions {
    fn name(&self) -> &'static str {
        "PolicyExpressions"
    }

    fn phases(&self) -> &'static [Phase] {
        &[Phase::Validate]
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        matches!(request.operation, Operation::Create | Operation::Update)
            && request.resource.group == GROUP
            && request.subresource.is_empty()
    }

    fn validate<'a>(&'a self, request: &'a AdmissionRequest, _effects: &'a mut Effects) -> BoxFuture<'a, Answer<()>> {
        Box::pin(self.run(request))
    }
}

/// The errors in the expressions of an object. Expressions that `old` has too are not checked.
fn errors(plural: &str, object: &Value, old: &Value) -> FieldErrors {
    let mut known = BTreeSet::new();
    collect_texts(old, &mut known);
    let mut found = Found { errors: Vec::new(), known };
    match plural {
        "validatingwebhookconfigurations" | "mutatingwebhookconfigurations" => {
            for (index, hook) in meta::list_at(object, &["webhooks"]).iter().enumerate() {
                let path = FieldPath::new("webhooks").index(index).child("matchConditions");
                found.conditions(&path, &hook["matchConditions"], &Declared::new(false, true));
            }
        }
        "validatingadmissionpolicies" | "mutatingadmissionpolicies" => found.policy(&object["spec"]),
        _ => {}
    }
    found.errors
}

/// All texts of an object: among them those of its expressions.
fn collect_texts<'a>(value: &'a Value, texts: &mut BTreeSet<&'a str>) {
    match value {
        Value::String(text) => {
            texts.insert(text);
        }
        Value::Array(items) => items.iter().for_each(|item| collect_texts(item, texts)),
        Value::Object(fields) => fields.values().for_each(|field| collect_texts(field, texts)),
        _ => {}
    }
}

struct Found<'a> {
    errors: FieldErrors,
    known: BTreeSet<&'a str>,
}

// === impl Found ===

impl Found<'_> {
    fn add(&mut self, path: &FieldPath, text: &str, why: String) {
        if !self.known.contains(text) {
            self.errors.push(FieldError::invalid(path, text, why));
        }
    }

    fn conditions(&mut self, path: &FieldPath, list: &Value, declared: &Declared) {
        for (index, condition) in list.as_array().into_iter().flatten().enumerate() {
            let text = meta::str_at(condition, &["expression"]);
            let path = path.index(index).child("expression");
            self.expression(&path, text.trim(), Wanted::Bool, declared, &Variables::default());
        }
    }

    /// An expression that is required is checked by its kind where it is missing.
    fn expression(&mut self, path: &FieldPath, text: &str, wanted: Wanted, declared: &Declared, variables: &Variables) {
        if text.trim().is_empty() {
            return;
        }
        if let Err(why) = Expression::compile(text, wanted, declared, variables) {
            self.add(path, text, why);
        }
    }

    fn policy(&mut self, spec: &Value) {
        let params = spec["paramKind"].is_object();
        let declared = Declared::new(params, true);
        let root = FieldPath::new("spec");
        self.conditions(&root.child("matchConditions"), &spec["matchConditions"], &declared);
        let variables = self.variables(&root.child("variables"), &spec["variables"], &declared);
        for (index, validation) in meta::list_at(spec, &["validations"]).iter().enumerate() {
            let path = root.child("validations").index(index);
            let text = |field: &str| meta::str_at(validation, &[field]).to_owned();
            self.expression(&path.child("expression"), &text("expression"), Wanted::Bool, &declared, &variables);
            let own = Declared::new(params, false);
            self.expression(&path.child("messageExpression"), &text("messageExpression"), Wanted::Text, &own, &variables);
        }
        for (index, annotation) in meta::list_at(spec, &["auditAnnotations"]).iter().enumerate() {
            let path = root.child("auditAnnotations").index(index).child("valueExpression");
            let text = meta::str_at(annotation, &["valueExpression"]);
            self.expression(&path, text, Wanted::TextOrNull, &declared, &variables);
        }
        let declared = Declared::of_mutation(params);
        for (index, mutation) in meta::list_at(spec, &["mutations"]).iter().enumerate() {
            let path = root.child("mutations").index(index);
            for (field, wanted) in [("applyConfiguration", Wanted::Object), ("jsonPatch", Wanted::Patches)] {
                let text = meta::str_at(mutation, &[field, "expression"]);
                self.expression(&path.child(field).child("expression"), text.trim(), wanted, &declared, &variables);
            }
        }
    }

    fn variables(&mut self, path: &FieldPath, list: &Value, declared: &Declared) -> Variables {
        let mut variables = Variables::default();
        for (index, variable) in list.as_array().into_iter().flatten().enumerate() {
            let (name, text) = (meta::str_at(variable, &["name"]), meta::str_at(variable, &["expression"]));
            if text.trim().is_empty() {
                continue;
            }
            match cel::compile(text, declared, &variables) {
                Ok((node, of)) => variables.add(name, node, of),
                Err(why) => {
                    self.add(&path.index(index).child("expression"), text, why);
                    variables.add_broken(name);
                }
            }
        }
        variables
    }
}

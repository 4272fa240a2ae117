//! A MutatingAdmissionPolicy, compiled, and what it makes of an object.

use serde_json::{Map, Value as Json, json};
use trireme_api::gvk::GroupVersionKind;
use trireme_api::patch::{self, PatchError};
use trireme_api::resource::{Definition, Schema};
use trireme_api::schema::{self, FieldValidation};
use trireme_api::{meta, patch::merge_configuration};

use super::policy::Policy;
use crate::admission::cel::values::{Struct, as_struct, to_json};
use crate::admission::cel::{self, Declared, Evaluation, Expression, Inputs, Value, Variables, Wanted};

/// A compiled policy.
#[derive(Debug)]
pub struct MutatingPolicy {
    /// What all policies have.
    pub base: Policy,
    /// Whether it runs again when others change the object after it.
    pub reinvoke_if_needed: bool,
    mutations: Vec<Mutation>,
}

#[derive(Debug)]
enum Mutation {
    ApplyConfiguration(Result<Expression, String>),
    JsonPatch(Result<Expression, String>),
    /// A kind of patch that this server does not know.
    Unknown(String),
}

/// An object on its way through the mutations: in the version in which the policy sees it.
pub struct Subject<'a> {
    /// The object.
    pub object: Json,
    /// Its kind in that version.
    pub kind: &'a GroupVersionKind,
    /// What is known about its resource; None: it is of none that is stored.
    pub definition: Option<&'a Definition>,
}

// === impl MutatingPolicy ===

impl MutatingPolicy {
    /// Parses and compiles a policy.
    pub fn parse(policy: &Json) -> MutatingPolicy {
        let base = Policy::parse(policy);
        let declared = Declared::of_mutation(base.param_kind.is_some());
        let spec = &policy["spec"];
        let mutations = meta::list_at(spec, &["mutations"]).iter().map(|mutation| Mutation::parse(mutation, &declared, &base.variables));
        MutatingPolicy { mutations: mutations.collect(), reinvoke_if_needed: spec["reinvocationPolicy"] == "IfNeeded", base }
    }

    /// Whether its match conditions hold.
    ///
    /// # Errors
    /// One cannot be evaluated.
    pub fn matches(&self, inputs: &Inputs) -> Result<bool, String> {
        let conditions = self.base.conditions.as_ref().map_err(|why| format!("compilation error: {why}"))?;
        conditions.decide(&mut Evaluation::new(inputs, &self.base.variables, cel::POLICY_STEPS))
    }

    /// How many mutations it has.
    pub fn len(&self) -> usize {
        self.mutations.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.mutations.is_empty()
    }

    /// What the expression of a mutation gives: a configuration or operations.
    ///
    /// # Errors
    /// Upstream's words for why it gives none.
    pub fn evaluate(&self, index: usize, inputs: &Inputs) -> Result<Json, String> {
        let Some(mutation) = self.mutations.get(index) else { return Ok(Json::Null) };
        let (Mutation::ApplyConfiguration(compiled) | Mutation::JsonPatch(compiled)) = mutation else {
            let Mutation::Unknown(kind) = mutation else { return Ok(Json::Null) };
            return Err(format!("unsupported patchType {kind:?}"));
        };
        let expression = compiled.as_ref().map_err(|why| format!("compilation error: {why}"))?;
        let mut evaluation = Evaluation::new(inputs, &self.base.variables, cel::POLICY_STEPS);
        let value = expression.evaluate(&mut evaluation).map_err(|fault| fault.to_string())?;
        let room = evaluation.left();
        match mutation {
            Mutation::ApplyConfiguration(_) => configuration(&value, room),
            _ => operations(&value, room),
        }
    }

    /// Applies what [`MutatingPolicy::evaluate`] gave.
    ///
    /// # Errors
    /// Upstream's words for why it does not apply.
    pub fn apply(&self, index: usize, patch: &Json, subject: &mut Subject<'_>) -> Result<(), String> {
        match self.mutations.get(index) {
            Some(Mutation::ApplyConfiguration(_)) => subject.merge(patch),
            Some(Mutation::JsonPatch(_)) => subject.patch(patch),
            _ => Ok(()),
        }
    }
}

// === impl Mutation ===

impl Mutation {
    fn parse(mutation: &Json, declared: &Declared, variables: &Variables) -> Mutation {
        let compile = |field: &str, wanted| {
            let text = meta::str_at(mutation, &[field, "expression"]).trim();
            Expression::compile(text, wanted, declared, variables)
        };
        match meta::str_at(mutation, &["patchType"]) {
            "ApplyConfiguration" => Mutation::ApplyConfiguration(compile("applyConfiguration", Wanted::Object)),
            "JSONPatch" => Mutation::JsonPatch(compile("jsonPatch", Wanted::Patches)),
            other => Mutation::Unknown(other.to_owned()),
        }
    }
}

// === impl Subject ===

impl Subject<'_> {
    fn merge(&mut self, configuration: &Json) -> Result<(), String> {
        let typed = self.definition.is_none_or(|definition| matches!(definition.schema, Schema::Builtin));
        let ty = schema::type_of(&self.kind.group, &self.kind.version, &self.kind.kind).filter(|_| typed);
        let mut merged = self.object.clone();
        merge_configuration(ty, &mut merged, configuration).map_err(|why| format!("error applying patch: {why}"))?;
        self.settle(merged).map_err(|why| format!("error applying patch: {why}"))
    }

    fn patch(&mut self, operations: &Json) -> Result<(), String> {
        let mut patched = self.object.clone();
        match patch::json_patch(&mut patched, operations) {
            Ok(()) => self.settle(patched).map_err(|why| format!("JSON Patch: {why}")),
            // As upstream: a test that fails leaves the object as it is.
            Err(PatchError::Inapplicable(why)) if why.contains("value did not match") => Ok(()),
            Err(error) => Err(format!("JSON Patch: {error}")),
        }
    }

    /// Takes an object over, if it is still one of its kind.
    fn settle(&mut self, changed: Json) -> Result<(), String> {
        let same = |field: &str| changed.get(field) == self.object.get(field);
        if !same("kind") || !same("apiVersion") {
            return Err("the kind and the apiVersion of an object cannot be changed".to_owned());
        }
        self.object = match self.definition {
            Some(definition) => {
                let decoded = definition.schema.decode_patched(changed, self.kind, FieldValidation::Strict);
                decoded.map_err(|status| status.message)?.object
            }
            None => changed,
        };
        Ok(())
    }
}

/// The configuration that a struct `Object` is.
fn configuration(value: &Value, room: &mut usize) -> Result<Json, String> {
    let made = as_struct(value).filter(|made| made.type_name == "Object");
    let made =
        made.ok_or_else(|| format!("unsupported return type from ApplyConfiguration expression: {}", cel::values::type_name(value)))?;
    check_names(made, "Object").map_err(|why| format!("type mismatch: {why}"))?;
    to_json(value, room).map_err(|fault| fault.to_string())
}

/// Structs must be named for the fields that they are in.
fn check_names(made: &Struct, expected: &str) -> Result<(), String> {
    if made.type_name != expected {
        let found = &made.type_name;
        return Err(format!("unexpected type name {found:?}, expected {expected:?}, which matches field name path from root Object type"));
    }
    made.fields.iter().try_for_each(|(name, value)| check_value(value, &format!("{expected}.{name}")))
}

fn check_value(value: &Value, expected: &str) -> Result<(), String> {
    match value {
        Value::List(items) => items.iter().try_for_each(|item| check_value(item, expected)),
        Value::Map(map) => map.map.values().try_for_each(|item| check_value(item, expected)),
        other => as_struct(other).map_or(Ok(()), |made| check_names(made, expected)),
    }
}

/// The operations that a list of structs `JSONPatch` is.
fn operations(value: &Value, room: &mut usize) -> Result<Json, String> {
    let Value::List(items) = value else {
        return Err("type mismatch: JSONPatchType.expression should evaluate to array".to_owned());
    };
    let mut operations = Vec::with_capacity(items.len());
    for item in items.iter() {
        let made = as_struct(item).filter(|made| made.type_name == "JSONPatch");
        let made = made.ok_or("type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch")?;
        let mut operation = Map::new();
        for field in ["op", "path", "from"] {
            match made.fields.get(field) {
                Some(Value::String(text)) if field != "from" || !text.is_empty() => {
                    operation.insert(field.to_owned(), json!(text.as_str()));
                }
                None | Some(Value::String(_)) => {}
                Some(_) => return Err(format!("type mismatch: the field {field} of a JSONPatch is a string")),
            }
        }
        if let Some(value) = made.fields.get("value") {
            if let Some(object) = as_struct(value) {
                check_names(object, &object.type_name).map_err(|why| format!("type mismatch: {why}"))?;
            }
            operation.insert("value".to_owned(), to_json(value, room).map_err(|fault| fault.to_string())?);
        }
        operations.push(Json::Object(operation));
    }
    Ok(Json::Array(operations))
}

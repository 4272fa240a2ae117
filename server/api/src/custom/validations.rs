//! Rules of schemas, written in CEL (`x-kubernetes-validations`): compiled with the schema, evaluated on objects.
//!
//! Owns which values rules see, with which types and names, when they are evaluated, and what their refusals say. An evaluation is bounded
//! by steps for each rule and for each object; what a rule may cost is counted, not estimated when it is written.
//!
//! Upstream: `apiextensions-apiserver/pkg/apiserver/schema/cel`.
//!
//! <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#validation-rules>

pub mod definition;
mod evaluate;
pub mod field_path;
mod names;
mod ratchet;
mod rule;
mod types;
mod values;

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::structural::Structural;
use crate::cel::Type;
use crate::field::FieldErrors;

pub use evaluate::Findings;

use evaluate::Evaluator;
use ratchet::Ratchet;
use rule::Rule;

/// The compiled rules of a schema and of all that is below it.
#[derive(Debug, Default)]
pub struct Validations {
    rules: Vec<Rule>,
    properties: BTreeMap<String, Validations>,
    values: Option<Box<Validations>>,
    items: Option<Box<Validations>>,
}

impl Validations {
    /// Compiles the rules of a schema that has been accepted; None: it has none. `root`: it is that of an object with type and metadata.
    pub fn compile(schema: &Structural, root: bool) -> Option<Validations> {
        compile(schema, types::of(schema, root).as_ref())
    }

    /// Evaluates the rules on an object, or on an update of one.
    pub fn check(&self, object: &Json, old: Option<&Json>, schema: &Structural) -> Findings {
        let ratchet = old.map(|old| Ratchet::of(object, old)).unwrap_or_default();
        Evaluator::default().run(self, schema, object, old, ratchet)
    }

    /// Evaluates the rules on a default, first as an unchanged value of an existing object, then as the value of a new one.
    pub fn check_default(&self, default: &Json, schema: &Structural) -> FieldErrors {
        let kept = Evaluator::default().run(self, schema, default, Some(default), Ratchet::default()).errors;
        if kept.is_empty() { Evaluator::default().run(self, schema, default, None, Ratchet::default()).errors } else { kept }
    }
}

fn compile(schema: &Structural, of: Option<&Type>) -> Option<Validations> {
    let of = of?;
    let below = |name: &str, inner: &Structural| compile(inner, types::of_field(of, name, inner).as_ref());
    let properties = schema.properties.iter().filter_map(|(name, inner)| Some((name.clone(), below(name, inner)?)));
    let compiled = Validations {
        rules: schema.rules.iter().map(|rule| Rule::compile(rule, schema, of)).collect(),
        properties: properties.collect(),
        values: schema.values().and_then(|inner| below("", inner)).map(Box::new),
        items: schema.items.as_deref().and_then(|inner| compile(inner, types::of_items(of).as_ref())).map(Box::new),
    };
    let empty = compiled.rules.is_empty() && compiled.properties.is_empty() && compiled.values.is_none() && compiled.items.is_none();
    (!empty).then_some(compiled)
}

#[cfg(test)]
mod tests;

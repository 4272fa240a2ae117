//! Evaluates the tree of an expression. Each node takes a step from the budget.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kube_cel::cel::Value;
use kube_cel::cel::objects::{Key, KeyRef};

use super::ast::{Access, Kind, Loop, LoopKind, Node};
use super::budget::{Budget, EXPRESSION_STEPS};
use super::fault::Fault;
use super::library::{self, Regexes};
use super::listed::plain;
use super::operate;
use super::receiver::as_receiver;
use super::values::{self, Struct, as_optional, as_struct};
use super::variables::Variables;

/// How deep evaluations may nest: those of variables in those of others, and of their nodes.
const MAX_DEPTH: usize = 400;

/// What the variables of an expression are.
pub trait Bindings {
    /// The value of a variable.
    fn get(&self, name: &str) -> Option<Value>;

    /// `authorizer.requestResource`.
    fn request_resource(&self) -> Option<Value> {
        None
    }
}

/// The evaluation of expressions on one input. Variables are evaluated once, when the first expression refers to them.
pub struct Evaluation<'a> {
    inputs: &'a dyn Bindings,
    variables: &'a Variables,
    known: HashMap<&'a str, Result<Value, Fault>>,
    locals: Vec<(&'a str, Value)>,
    budget: Budget,
    total: usize,
    depth: usize,
    regexes: Regexes,
}

// === impl Evaluation ===

impl<'a> Evaluation<'a> {
    /// On `inputs`, with `variables`, for no more than `total` steps.
    pub fn new(inputs: &'a dyn Bindings, variables: &'a Variables, total: usize) -> Evaluation<'a> {
        Evaluation {
            inputs,
            variables,
            known: HashMap::new(),
            locals: Vec::new(),
            budget: Budget::new(0),
            total,
            depth: 0,
            regexes: Regexes::default(),
        }
    }

    /// The value of one expression.
    pub fn run(&mut self, node: &'a Node) -> Result<Value, Fault> {
        let granted = EXPRESSION_STEPS.min(self.total);
        self.budget = Budget::new(granted);
        (self.locals, self.depth) = (Vec::new(), 0);
        let outcome = self.value(node);
        self.total -= granted - self.budget.left();
        outcome
    }

    /// With regular expressions that were compiled before, by an evaluation of the same expressions on other inputs.
    #[must_use]
    pub fn with_regexes(mut self, regexes: Regexes) -> Evaluation<'a> {
        self.regexes = regexes;
        self
    }

    /// The regular expressions that were compiled.
    pub fn into_regexes(self) -> Regexes {
        self.regexes
    }

    /// The steps that are left, for work on the values outside the evaluation.
    pub fn left(&mut self) -> &mut usize {
        &mut self.total
    }

    fn value(&mut self, node: &'a Node) -> Result<Value, Fault> {
        self.budget.spend(1)?;
        if self.depth >= MAX_DEPTH {
            return Err(Fault::error("expressions nest too deep"));
        }
        self.depth += 1;
        let outcome = self.of_kind(&node.kind);
        self.depth -= 1;
        outcome
    }

    fn of_kind(&mut self, kind: &'a Kind) -> Result<Value, Fault> {
        match kind {
            Kind::Literal(value) => Ok(value.clone()),
            Kind::Ident(name) => self.ident(name),
            Kind::Select(operand, field, access) => self.select(operand, field, *access),
            Kind::Index(operand, index, access) => {
                let (operand, index) = (self.value(operand)?, self.value(index)?);
                let optional = *access == Access::Optional;
                through_optional(operand, optional, |operand| element(&plain(operand), &index))
            }
            Kind::Call(target, name, args) => self.call(target.as_deref(), name, args),
            Kind::Not(operand) => self.bool(operand).map(|value| Value::Bool(!value)),
            Kind::Negate(operand) => operate::negate(&self.value(operand)?),
            Kind::Binary(operator, left, right) => {
                let (left, right) = (self.value(left)?, self.value(right)?);
                operate::binary(*operator, left, right, &mut self.budget)
            }
            Kind::And(terms) => self.joined(terms, false),
            Kind::Or(terms) => self.joined(terms, true),
            Kind::Conditional(parts) => {
                let [condition, yes, no] = &**parts;
                if self.bool(condition)? { self.value(yes) } else { self.value(no) }
            }
            Kind::List(elements) => self.list(elements),
            Kind::Map(entries) => self.map(entries),
            Kind::Struct(type_name, fields) => self.structure(type_name, fields),
            Kind::Loop(of) => self.looped(of),
            Kind::OptionalMap { target, name, body, flat } => self.optional_map(target, name, body, *flat),
        }
    }

    fn bool(&mut self, node: &'a Node) -> Result<bool, Fault> {
        match self.value(node)? {
            Value::Bool(value) => Ok(value),
            _ => Err(Fault::no_overload()),
        }
    }

    /// `decisive` is the value that makes up for errors: true of `||`, false of `&&`.
    fn joined(&mut self, terms: &'a [Node], decisive: bool) -> Result<Value, Fault> {
        let mut first_fault = None;
        for term in terms {
            match self.bool(term) {
                Ok(value) if value == decisive => return Ok(Value::Bool(decisive)),
                Ok(_) => {}
                Err(Fault::OutOfBudget) => return Err(Fault::OutOfBudget),
                Err(fault) => first_fault = first_fault.or(Some(fault)),
            }
        }
        first_fault.map_or(Ok(Value::Bool(!decisive)), Err)
    }

    // === names ===

    fn ident(&self, name: &str) -> Result<Value, Fault> {
        if let Some((_, value)) = self.locals.iter().rev().find(|(known, _)| *known == name) {
            return Ok(value.clone());
        }
        if values::TYPE_NAMES.contains(&name) {
            return Ok(values::text(name));
        }
        self.inputs.get(name).ok_or_else(|| Fault::Error(format!("no such attribute: {name}")))
    }

    fn is_input(&self, node: &Node, wanted: &str) -> bool {
        matches!(&node.kind, Kind::Ident(name) if name == wanted) && !self.locals.iter().any(|(known, _)| *known == wanted)
    }

    fn select(&mut self, operand: &'a Node, field: &'a str, access: Access) -> Result<Value, Fault> {
        if self.is_input(operand, "variables") {
            let known = self.variables.get(field).is_some();
            return match access {
                Access::Test => Ok(Value::Bool(known)),
                Access::Optional => Ok(values::optional(if known { Some(self.variable(field)?) } else { None })),
                Access::Plain => self.variable(field),
            };
        }
        if self.is_input(operand, "authorizer") && field == "requestResource" {
            return self.inputs.request_resource().ok_or_else(|| Fault::no_key(field));
        }
        let operand = self.value(operand)?;
        match access {
            Access::Test => {
                let operand = match as_optional(&operand) {
                    Some(Some(inner)) => inner.clone(),
                    Some(None) => return Ok(Value::Bool(false)),
                    None => operand,
                };
                Ok(Value::Bool(field_of(&operand, field).is_some()))
            }
            _ => through_optional(operand, access == Access::Optional, |operand| {
                field_of(&operand, field).ok_or_else(|| Fault::no_key(field))
            }),
        }
    }

    fn variable(&mut self, name: &str) -> Result<Value, Fault> {
        if let Some(known) = self.known.get(name) {
            return known.clone();
        }
        let Some((name, node)) = self.variables.get(name) else { return Err(Fault::no_key(name)) };
        let locals = std::mem::take(&mut self.locals);
        let outcome = self.value(node);
        self.locals = locals;
        let outcome = match outcome {
            // Its size bounds what those that are made of it can be.
            Ok(value) => self.budget.spend_value(&value).map(|_| value),
            Err(Fault::OutOfBudget) => Err(Fault::OutOfBudget),
            Err(fault) => Err(Fault::Error(format!("composited variable \"{name}\" fails to evaluate: {fault}"))),
        };
        self.known.insert(name, outcome.clone());
        outcome
    }

    // === calls ===

    fn call(&mut self, target: Option<&'a Node>, name: &str, args: &'a [Node]) -> Result<Value, Fault> {
        let target = target.map(|target| self.value(target)).transpose()?;
        if let (Some(target), "or" | "orValue") = (&target, name)
            && matches!(as_optional(target), Some(Some(_)))
        {
            // The value is present: its replacement is not evaluated.
            return library::call(name, Some(target.clone()), vec![target.clone()], &mut self.budget, &mut self.regexes);
        }
        let args = args.iter().map(|arg| self.value(arg)).collect::<Result<Vec<_>, _>>()?;
        if let Some(receiver) = target.as_ref().and_then(as_receiver) {
            return receiver.call(name, &args, &mut self.budget).unwrap_or_else(|| Err(Fault::no_overload()));
        }
        let args = args.into_iter().map(plain).collect();
        library::call(name, target.map(plain), args, &mut self.budget, &mut self.regexes)
    }

    // === what is put together ===

    fn list(&mut self, elements: &'a [(bool, Node)]) -> Result<Value, Fault> {
        let mut items = Vec::with_capacity(elements.len());
        for (optional, element) in elements {
            let value = self.value(element)?;
            items.extend(present(value, *optional)?);
        }
        Ok(Value::List(Arc::new(items)))
    }

    fn map(&mut self, entries: &'a [(bool, Node, Node)]) -> Result<Value, Fault> {
        let mut map = HashMap::with_capacity(entries.len());
        for (optional, key, value) in entries {
            let key = operate::owned_key(&self.value(key)?)?;
            let value = self.value(value)?;
            if let Some(value) = present(value, *optional)? {
                if map.contains_key(&key) {
                    return Err(Fault::Error(format!("Failed with repeated key {key}")));
                }
                map.insert(key, value);
            }
        }
        Ok(values::map(map))
    }

    fn structure(&mut self, type_name: &str, entries: &'a [(bool, String, Node)]) -> Result<Value, Fault> {
        let mut fields = BTreeMap::new();
        for (optional, name, value) in entries {
            let value = self.value(value)?;
            if let Some(value) = present(value, *optional)? {
                fields.insert(name.clone(), value);
            }
        }
        Ok(Value::Opaque(Arc::new(Struct { type_name: type_name.to_owned(), fields })))
    }

    // === macros ===

    fn optional_map(&mut self, target: &'a Node, name: &'a str, body: &'a Node, flat: bool) -> Result<Value, Fault> {
        let target = self.value(target)?;
        let Some(inner) = as_optional(&target).ok_or_else(Fault::no_overload)? else { return Ok(values::optional(None)) };
        self.locals.push((name, inner.clone()));
        let outcome = self.value(body);
        self.locals.pop();
        let value = outcome?;
        match (flat, as_optional(&value).is_some()) {
            (true, true) => Ok(value),
            (true, false) => Err(Fault::no_overload()),
            (false, _) => Ok(values::optional(Some(value))),
        }
    }

    fn looped(&mut self, of: &'a Loop) -> Result<Value, Fault> {
        let range = plain(self.value(&of.range)?);
        let items = self.items(&range)?;
        let locals = self.locals.len();
        let mut result = Collected::default();
        for (key, value) in items {
            // One name: the element of a list, the key of a map.
            match (&of.second, &range) {
                (Some(second), _) => {
                    self.locals.push((of.first.as_str(), key.clone()));
                    self.locals.push((second.as_str(), value.clone()));
                }
                (None, Value::Map(_)) => self.locals.push((of.first.as_str(), key.clone())),
                (None, _) => self.locals.push((of.first.as_str(), value.clone())),
            }
            let element = if of.second.is_none() && matches!(range, Value::Map(_)) { &key } else { &value };
            let done = self.round(of, &key, element, &mut result);
            self.locals.truncate(locals);
            if let Some(value) = done? {
                return Ok(value);
            }
        }
        result.end(of.kind)
    }

    /// One round. A value ends the loop.
    fn round(&mut self, of: &'a Loop, key: &Value, element: &Value, result: &mut Collected) -> Result<Option<Value>, Fault> {
        if let Some(filter) = &of.filter
            && !self.bool(filter)?
        {
            return Ok(None);
        }
        match of.kind {
            LoopKind::All | LoopKind::Exists => {
                let decisive = of.kind == LoopKind::Exists;
                match self.bool(&of.body) {
                    Ok(value) if value == decisive => return Ok(Some(Value::Bool(decisive))),
                    Ok(_) => {}
                    Err(Fault::OutOfBudget) => return Err(Fault::OutOfBudget),
                    Err(fault) => result.fault = result.fault.take().or(Some(fault)),
                }
            }
            LoopKind::ExistsOne => result.count += usize::from(self.bool(&of.body)?),
            LoopKind::Filter => {
                if self.bool(&of.body)? {
                    result.items.push(element.clone());
                }
            }
            LoopKind::Map => result.items.push(self.value(&of.body)?),
            LoopKind::TransformMap => {
                let value = self.value(&of.body)?;
                result.entries.insert(operate::owned_key(key)?, value);
            }
        }
        Ok(None)
    }

    /// Keys and values of a map, indices and elements of a list. The order of a map's keys is that of their names: the same request
    /// has the same outcome everywhere.
    fn items(&mut self, range: &Value) -> Result<Vec<(Value, Value)>, Fault> {
        match range {
            Value::List(items) => {
                self.budget.spend(items.len())?;
                let index = |at: usize| Value::Int(i64::try_from(at).unwrap_or(i64::MAX));
                Ok(items.iter().enumerate().map(|(at, item)| (index(at), item.clone())).collect())
            }
            Value::Map(map) => {
                self.budget.spend(map.map.len())?;
                let mut entries: Vec<(&Key, &Value)> = map.map.iter().collect();
                entries.sort_by_key(|(key, _)| *key);
                Ok(entries.into_iter().map(|(key, value)| (Value::from(key), value.clone())).collect())
            }
            _ => Err(Fault::no_overload()),
        }
    }
}

/// What a loop has put together.
#[derive(Default)]
struct Collected {
    items: Vec<Value>,
    entries: HashMap<Key, Value>,
    count: usize,
    fault: Option<Fault>,
}

impl Collected {
    fn end(self, kind: LoopKind) -> Result<Value, Fault> {
        match kind {
            LoopKind::All | LoopKind::Exists => self.fault.map_or(Ok(Value::Bool(kind == LoopKind::All)), Err),
            LoopKind::ExistsOne => Ok(Value::Bool(self.count == 1)),
            LoopKind::Map | LoopKind::Filter => Ok(Value::List(Arc::new(self.items))),
            LoopKind::TransformMap => Ok(values::map(self.entries)),
        }
    }
}

/// The value of a field; None if the value has no such field or no fields at all.
fn field_of(value: &Value, field: &str) -> Option<Value> {
    match value {
        Value::Map(map) => operate::find(map, KeyRef::String(field)).cloned(),
        other => as_struct(other).and_then(|made| made.fields.get(field).cloned()),
    }
}

/// An element of a list, the value of a key.
fn element(value: &Value, index: &Value) -> Result<Value, Fault> {
    match value {
        Value::List(items) => {
            let Some(KeyRef::Int(_) | KeyRef::Uint(_)) = operate::key_of(index) else { return Err(Fault::no_overload()) };
            let at = match operate::key_of(index) {
                Some(KeyRef::Int(at)) => usize::try_from(at).ok(),
                Some(KeyRef::Uint(at)) => usize::try_from(at).ok(),
                _ => None,
            };
            at.and_then(|at| items.get(at)).cloned().ok_or_else(|| Fault::Error(format!("index out of bounds: {}", shown(index))))
        }
        Value::Map(map) => {
            let key = operate::key_of(index).ok_or_else(Fault::no_overload)?;
            operate::find(map, key).cloned().ok_or_else(|| Fault::no_key(shown(index)))
        }
        Value::Null => Err(Fault::no_key(shown(index))),
        _ => Err(Fault::no_overload()),
    }
}

fn shown(index: &Value) -> String {
    operate::owned_key(index).map_or_else(|_| "?".to_owned(), |key| key.to_string())
}

/// Selects from a value that may be an optional. A selection from an optional, or an optional selection, gives an optional.
fn through_optional(operand: Value, optional: bool, look: impl Fn(Value) -> Result<Value, Fault>) -> Result<Value, Fault> {
    let found = match as_optional(&operand) {
        Some(None) => return Ok(values::optional(None)),
        Some(Some(inner)) => look(inner.clone()),
        None if optional => look(operand),
        None => return look(operand),
    };
    match found {
        Ok(value) => Ok(values::optional(Some(value))),
        Err(Fault::OutOfBudget) => Err(Fault::OutOfBudget),
        // The field or element does not exist, or the value has none: an optional selection gives an empty optional, not an error.
        Err(_) => Ok(values::optional(None)),
    }
}

/// The value that an element adds to a literal; an optional element may add none.
fn present(value: Value, optional: bool) -> Result<Option<Value>, Fault> {
    if !optional {
        return Ok(Some(value));
    }
    as_optional(&value).map(Option::<&Value>::cloned).ok_or_else(Fault::no_overload)
}

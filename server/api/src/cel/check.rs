//! Type-checks an expression before it is evaluated: undeclared names, operands that no operator accepts.

use super::ast::{Access, Kind, Loop, LoopKind, Node, Operator};
use super::fault::Syntax;
use super::functions;
use super::library;
use super::types::Type;
use super::values;
use super::variables::Variables;

/// What an expression may refer to.
pub trait Names {
    /// The type of a variable; None: there is none of this name.
    fn get(&self, name: &str) -> Option<Type>;

    /// Whether there is an `authorizer`, with its `requestResource`.
    fn has_authorizer(&self) -> bool {
        false
    }

    /// Whether structs of apply configurations and JSON patches may be made.
    fn makes_patches(&self) -> bool {
        false
    }
}

/// The fields of a JSONPatch.
const PATCH_FIELDS: [&str; 4] = ["op", "path", "from", "value"];
/// The largest number of errors that are reported for one expression.
const MAX_ERRORS: usize = 10;

/// The type of an expression.
///
/// # Errors
/// What is wrong, in the order in which it was found.
pub fn check(node: &Node, declared: &dyn Names, variables: &Variables) -> Result<Type, Vec<Syntax>> {
    let mut checker = Checker { declared, variables, locals: Vec::new(), errors: Vec::new() };
    let of = checker.of(node);
    if checker.errors.is_empty() { Ok(of) } else { Err(checker.errors) }
}

struct Checker<'a> {
    declared: &'a dyn Names,
    variables: &'a Variables,
    locals: Vec<(&'a str, Type)>,
    errors: Vec<Syntax>,
}

// === impl Checker ===

impl<'a> Checker<'a> {
    fn error(&mut self, at: usize, message: impl Into<String>) -> Type {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(Syntax::new(at, message));
        }
        Type::Dyn
    }

    fn no_overload(&mut self, at: usize, function: &str, operands: &[&Type]) -> Type {
        let shown: Vec<String> = operands.iter().map(ToString::to_string).collect();
        self.error(at, format!("found no matching overload for '{function}' applied to '({})'", shown.join(", ")))
    }

    fn undeclared(&mut self, at: usize, name: &str) -> Type {
        self.error(at, format!("undeclared reference to '{name}' (in container '')"))
    }

    fn of(&mut self, node: &'a Node) -> Type {
        let at = node.at;
        match &node.kind {
            Kind::Literal(value) => of_literal(value),
            Kind::Ident(name) => self.ident(at, name),
            Kind::Select(operand, field, access) => self.select(at, operand, field, *access),
            Kind::Index(operand, index, access) => {
                let (operand, index) = (self.of(operand), self.of(index));
                self.index(at, operand, &index, *access)
            }
            Kind::Call(target, name, args) => self.call(at, target.as_deref(), name, args),
            Kind::Not(operand) => match self.of(operand) {
                Type::Bool | Type::Dyn => Type::Bool,
                other => self.no_overload(at, "!_", &[&other]),
            },
            Kind::Negate(operand) => match self.of(operand) {
                of @ (Type::Int | Type::Double | Type::Dyn) => of,
                other => self.no_overload(at, "-_", &[&other]),
            },
            Kind::Binary(operator, left, right) => {
                let (left, right) = (self.of(left), self.of(right));
                binary(*operator, &left, &right).unwrap_or_else(|| self.no_overload(at, operator.function(), &[&left, &right]))
            }
            Kind::And(terms) => self.joined(terms, "_&&_"),
            Kind::Or(terms) => self.joined(terms, "_||_"),
            Kind::Conditional(parts) => {
                let [condition, yes, no] = &**parts;
                let (condition, yes, no) = (self.of(condition), self.of(yes), self.of(no));
                match condition {
                    Type::Bool | Type::Dyn if yes.agrees(&no) => yes.joined(&no),
                    condition => self.no_overload(at, "_?_:_", &[&condition, &yes, &no]),
                }
            }
            Kind::List(elements) => {
                let mut element = Type::Dyn;
                for (optional, node) in elements {
                    let of = self.of(node);
                    element = joined_element(&element, of, *optional);
                }
                Type::list(element)
            }
            Kind::Map(entries) => {
                let (mut key, mut value) = (Type::Dyn, Type::Dyn);
                for (optional, key_node, value_node) in entries {
                    let key_type = self.of(key_node);
                    key = key.joined(&key_type);
                    let of = self.of(value_node);
                    value = joined_element(&value, of, *optional);
                }
                Type::map(key, value)
            }
            Kind::Struct(name, fields) => self.structure(at, name, fields),
            Kind::Loop(of) => self.looped(of),
            Kind::OptionalMap { target, name, body, flat } => self.optional_map(target, name, body, *flat),
        }
    }

    fn ident(&mut self, at: usize, name: &str) -> Type {
        if let Some((_, of)) = self.locals.iter().rev().find(|(known, _)| *known == name) {
            return of.clone();
        }
        match self.declared.get(name) {
            Some(of) => of,
            None if values::TYPE_NAMES.contains(&name) => Type::Dyn,
            None => self.undeclared(at, name),
        }
    }

    fn is_variable(&self, node: &Node, wanted: &str) -> bool {
        matches!(&node.kind, Kind::Ident(name) if name == wanted) && !self.locals.iter().any(|(known, _)| *known == wanted)
    }

    fn select(&mut self, at: usize, operand: &'a Node, field: &str, access: Access) -> Type {
        let found = if self.is_variable(operand, "variables") {
            self.variables.type_of(field).cloned()
        } else if self.is_variable(operand, "authorizer") && field == "requestResource" && self.declared.has_authorizer() {
            Some(Type::named("kubernetes.authorization.ResourceCheck"))
        } else {
            let operand = self.of(operand);
            match &operand {
                Type::Optional(inner) => {
                    let of = field_of(inner, field).unwrap_or(Type::Dyn);
                    return if access == Access::Test { Type::Bool } else { Type::optional(of) };
                }
                Type::Dyn | Type::Map(..) | Type::Object(_) | Type::Named(_) => field_of(&operand, field),
                other => return self.error(at, format!("type '{other}' does not support field selection")),
            }
        };
        match (found, access) {
            (None, _) => self.error(at, format!("undefined field '{field}'")),
            (Some(_), Access::Test) => Type::Bool,
            (Some(of), Access::Optional) => Type::optional(of),
            (Some(of), Access::Plain) => of,
        }
    }

    fn index(&mut self, at: usize, operand: Type, index: &Type, access: Access) -> Type {
        let (operand, optional) = match operand {
            Type::Optional(inner) => ((*inner).clone(), true),
            other => (other, access == Access::Optional),
        };
        let found = match &operand {
            Type::List(element) if index.is_number() || index.is_dyn() => Some((**element).clone()),
            Type::Map(key, value) if key.agrees(index) || (key.is_number() && index.is_number()) => Some((**value).clone()),
            Type::Dyn => Some(Type::Dyn),
            _ => None,
        };
        match found {
            Some(of) if optional => Type::optional(of),
            Some(of) => of,
            None => self.no_overload(at, "_[_]", &[&operand, index]),
        }
    }

    fn call(&mut self, at: usize, target: Option<&'a Node>, name: &str, args: &'a [Node]) -> Type {
        let target = target.map(|target| self.of(target));
        let types: Vec<Type> = args.iter().map(|arg| self.of(arg)).collect();
        if matches!(name, "matches" | "find" | "findAll")
            && let Some(Kind::Literal(kube_cel::cel::Value::String(pattern))) = args.last().map(|arg| &arg.kind)
            && let Err(why) = library::compile_regex(pattern)
        {
            return self.error(at, format!("invalid {name} argument: {why}"));
        }
        match functions::result(name, target.as_ref(), &types) {
            Ok(of) => of,
            Err(why) => self.error(at, why),
        }
    }

    fn joined(&mut self, terms: &'a [Node], function: &str) -> Type {
        for term in terms {
            match self.of(term) {
                Type::Bool | Type::Dyn => {}
                other => {
                    self.no_overload(term.at, function, &[&other, &Type::Bool]);
                }
            }
        }
        Type::Bool
    }

    fn structure(&mut self, at: usize, name: &str, fields: &'a [(bool, String, Node)]) -> Type {
        let patch = name == "JSONPatch";
        if !self.declared.makes_patches() || !(patch || name == "Object" || name.starts_with("Object.")) {
            return self.undeclared(at, name);
        }
        for (_, field, value) in fields {
            let of = self.of(value);
            if patch && !PATCH_FIELDS.contains(&field.as_str()) {
                self.error(value.at, format!("undefined field '{field}'"));
            } else if patch && field != "value" && !of.agrees(&Type::String) {
                self.error(value.at, format!("expected type of field '{field}' is 'string' but provided type is '{of}'"));
            }
        }
        Type::named(name)
    }

    fn looped(&mut self, of: &'a Loop) -> Type {
        let range = self.of(&of.range);
        let (key, value) = match &range {
            Type::List(element) => (Type::Int, (**element).clone()),
            Type::Map(key, value) => ((**key).clone(), (**value).clone()),
            Type::Dyn => (Type::Dyn, Type::Dyn),
            // The fields of an object are the keys of a map.
            Type::Object(_) | Type::Named(_) => (Type::String, Type::Dyn),
            other => {
                let message = format!("expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)");
                return self.error(of.range.at, message);
            }
        };
        let locals = self.locals.len();
        let is_list = matches!(range, Type::List(_));
        match (&of.second, &range) {
            (Some(second), _) => self.locals.extend([(of.first.as_str(), key.clone()), (second.as_str(), value.clone())]),
            (None, Type::List(_)) => self.locals.push((&of.first, value.clone())),
            (None, _) => self.locals.push((&of.first, key.clone())),
        }
        if let Some(filter) = &of.filter {
            self.bool(filter);
        }
        let body = match of.kind {
            LoopKind::Map | LoopKind::TransformMap => self.of(&of.body),
            _ => self.bool(&of.body),
        };
        self.locals.truncate(locals);
        match of.kind {
            LoopKind::All | LoopKind::Exists | LoopKind::ExistsOne => Type::Bool,
            LoopKind::Map => Type::list(body),
            LoopKind::Filter => Type::list(if is_list { value } else { key }),
            LoopKind::TransformMap => Type::map(key, body),
        }
    }

    fn bool(&mut self, node: &'a Node) -> Type {
        match self.of(node) {
            Type::Bool | Type::Dyn => Type::Bool,
            other => self.error(node.at, format!("expected type 'bool' but found '{other}'")),
        }
    }

    fn optional_map(&mut self, target: &'a Node, name: &'a str, body: &'a Node, flat: bool) -> Type {
        let inner = match self.of(target) {
            Type::Optional(inner) => (*inner).clone(),
            Type::Dyn => Type::Dyn,
            other => return self.no_overload(target.at, if flat { "optFlatMap" } else { "optMap" }, &[&other]),
        };
        self.locals.push((name, inner));
        let of = self.of(body);
        self.locals.pop();
        if flat { of } else { Type::optional(of) }
    }
}

fn of_literal(value: &kube_cel::cel::Value) -> Type {
    use kube_cel::cel::Value;
    match value {
        Value::Null => Type::Null,
        Value::Bool(_) => Type::Bool,
        Value::Int(_) => Type::Int,
        Value::UInt(_) => Type::Uint,
        Value::Float(_) => Type::Double,
        Value::String(_) => Type::String,
        Value::Bytes(_) => Type::Bytes,
        _ => Type::Dyn,
    }
}

fn joined_element(before: &Type, of: Type, optional: bool) -> Type {
    match (optional, of) {
        (true, Type::Optional(inner)) => before.joined(&inner),
        (_, of) => before.joined(&of),
    }
}

/// The type of a field; None: there is none of this name.
fn field_of(of: &Type, field: &str) -> Option<Type> {
    match of {
        Type::Object(fields) => fields.field(field),
        Type::Map(_, value) => Some((**value).clone()),
        Type::Named(name) if !name.starts_with("Object") && &**name != "JSONPatch" => None,
        _ => Some(Type::Dyn),
    }
}

/// The result type of an operator; None if it does not accept these operands.
fn binary(operator: Operator, left: &Type, right: &Type) -> Option<Type> {
    let known = if left.is_dyn() { right } else { left };
    let numbers = left.is_number() && right.is_number();
    match operator {
        Operator::Equal | Operator::NotEqual => (numbers || left.agrees(right)).then_some(Type::Bool),
        Operator::Less | Operator::LessOrEqual | Operator::Greater | Operator::GreaterOrEqual => {
            let ordered = |of: &Type| {
                of.is_number() || matches!(of, Type::Dyn | Type::Bool | Type::String | Type::Bytes | Type::Timestamp | Type::Duration)
            };
            (ordered(left) && ordered(right) && (numbers || left.agrees(right))).then_some(Type::Bool)
        }
        Operator::In => match right {
            Type::List(element) if element.agrees(left) || (element.is_number() && left.is_number()) => Some(Type::Bool),
            Type::Map(key, _) if key.agrees(left) || (key.is_number() && left.is_number()) => Some(Type::Bool),
            Type::Dyn | Type::Object(_) => Some(Type::Bool),
            _ => None,
        },
        Operator::Add | Operator::Subtract => match (left, right) {
            (Type::Timestamp, Type::Duration) => Some(Type::Timestamp),
            (Type::Duration, Type::Timestamp) if operator == Operator::Add => Some(Type::Timestamp),
            (Type::Timestamp, Type::Timestamp) if operator == Operator::Subtract => Some(Type::Duration),
            (Type::Timestamp, Type::Timestamp) => None,
            (Type::Timestamp | Type::Duration, Type::Dyn) | (Type::Dyn, Type::Timestamp | Type::Duration) => Some(Type::Dyn),
            _ if !left.agrees(right) => None,
            _ => match known {
                Type::Dyn => Some(Type::Dyn),
                Type::Int | Type::Uint | Type::Double | Type::Duration => Some(known.clone()),
                Type::String | Type::Bytes if operator == Operator::Add => Some(known.clone()),
                Type::List(_) if operator == Operator::Add => Some(left.joined(right)),
                _ => None,
            },
        },
        Operator::Multiply | Operator::Divide | Operator::Modulo => {
            let taken = |of: &Type| match of {
                Type::Int | Type::Uint | Type::Dyn => true,
                Type::Double => operator != Operator::Modulo,
                _ => false,
            };
            (taken(left) && taken(right) && left.agrees(right)).then(|| known.clone())
        }
    }
}

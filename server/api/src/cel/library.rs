//! Calls of functions: those of the language and of regular expressions here, the libraries of Kubernetes through `kube-cel`.
//!
//! A call through `kube-cel` takes its cost from the budget first. Its result can be no larger than that cost allows, so the budget
//! bounds both time and memory.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use kube_cel::KubeCelExt;
use kube_cel::cel::common::ast::{CallExpr, Expr};
use kube_cel::cel::{Context, ExecutionError, IdedExpr, Value};
use regex::{Regex, RegexBuilder};

use super::budget::Budget;
use super::fault::Fault;
use super::values::{self, as_optional, text};

/// What a regular expression may take when it is compiled, in bytes.
const REGEX_BYTES: usize = 512 * 1024;
/// What compiling one costs, in steps.
const REGEX_STEPS: usize = 2_000;
/// Digits after the point that `format` may be asked for.
const MAX_PRECISION: usize = 100;
/// A message of a library is cut after this.
const MAX_MESSAGE_CHARS: usize = 512;

thread_local! {
    /// The functions of the libraries. A context cannot be shared between threads.
    static LIBRARIES: Context<'static> = Context::default().with_all();
}

/// Regular expressions by their text, for one evaluation.
#[derive(Default)]
pub struct Regexes(HashMap<String, Regex>);

// === impl Regexes ===

impl Regexes {
    /// The compiled expression.
    fn get(&mut self, pattern: &str, budget: &mut Budget) -> Result<&Regex, Fault> {
        if !self.0.contains_key(pattern) {
            budget.spend(REGEX_STEPS)?;
            let regex = compile_regex(pattern).map_err(Fault::Error)?;
            self.0.insert(pattern.to_owned(), regex);
        }
        self.0.get(pattern).ok_or_else(Fault::no_overload)
    }
}

/// Compiles a regular expression.
///
/// # Errors
/// Why it is none.
pub fn compile_regex(pattern: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(pattern).size_limit(REGEX_BYTES).dfa_size_limit(REGEX_BYTES).build();
    built.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => "the regular expression is too large".to_owned(),
        error => format!("error parsing regexp: {}", error.to_string().lines().last().unwrap_or_default()),
    })
}

/// A timestamp or a duration of a text, by the function `name` that makes one.
pub fn parsed(name: &str, text: &str) -> Result<Value, Fault> {
    delegate(name, None, vec![values::text(text)])
}

/// Calls `name`.
pub fn call(name: &str, target: Option<Value>, args: Vec<Value>, budget: &mut Budget, regexes: &mut Regexes) -> Result<Value, Fault> {
    let operands: Vec<&Value> = target.iter().chain(&args).collect();
    match (name, operands.as_slice()) {
        ("size", [operand]) => size(operand, budget),
        ("contains", [Value::String(a), Value::String(b)]) => within(a, b, budget, |a, b| a.contains(b)),
        ("startsWith", [Value::String(a), Value::String(b)]) => within(a, b, budget, |a, b| a.starts_with(b)),
        ("endsWith", [Value::String(a), Value::String(b)]) => within(a, b, budget, |a, b| a.ends_with(b)),
        ("matches", [Value::String(subject), Value::String(pattern)]) => {
            budget.spend_bytes(subject.len() * 4)?;
            Ok(Value::Bool(regexes.get(pattern, budget)?.is_match(subject)))
        }
        ("find", [Value::String(subject), Value::String(pattern)]) => {
            budget.spend_bytes(subject.len() * 4)?;
            Ok(text(regexes.get(pattern, budget)?.find(subject).map_or("", |found| found.as_str())))
        }
        ("findAll", [Value::String(subject), Value::String(pattern), rest @ ..]) => find_all(subject, pattern, rest, budget, regexes),
        ("contains" | "startsWith" | "endsWith" | "matches" | "find" | "findAll" | "size", _) => Err(Fault::no_overload()),
        ("dyn", [operand]) => Ok((*operand).clone()),
        ("type", [operand]) => Ok(text(values::type_name(operand))),
        ("bool" | "int" | "uint" | "double" | "string" | "bytes", [operand]) => convert(name, operand, budget),
        ("timestamp" | "duration", [Value::Timestamp(_) | Value::Duration(_)]) => Ok(operands[0].clone()),
        ("optional.none", []) => Ok(values::optional(None)),
        ("optional.of", [operand]) => Ok(values::optional(Some((*operand).clone()))),
        ("optional.ofNonZeroValue", [operand]) => Ok(values::optional(Some((*operand).clone()).filter(|value| !value.is_zero()))),
        ("value" | "hasValue" | "or" | "orValue", [operand, rest @ ..]) => of_optional(name, operand, rest),
        ("first", [Value::List(items)]) => Ok(values::optional(items.first().cloned())),
        ("last", [Value::List(items)]) => Ok(values::optional(items.last().cloned())),
        _ => {
            pay(name, &operands, budget)?;
            drop(operands);
            delegate(name, target, args)
        }
    }
}

fn size(operand: &Value, budget: &mut Budget) -> Result<Value, Fault> {
    let size = match operand {
        Value::String(text) => {
            budget.spend_bytes(text.len())?;
            text.chars().count()
        }
        Value::Bytes(bytes) => bytes.len(),
        Value::List(items) => items.len(),
        Value::Map(map) => map.map.len(),
        _ => return Err(Fault::no_overload()),
    };
    Ok(Value::Int(i64::try_from(size).unwrap_or(i64::MAX)))
}

fn within(a: &str, b: &str, budget: &mut Budget, test: fn(&str, &str) -> bool) -> Result<Value, Fault> {
    budget.spend_bytes(a.len() + b.len())?;
    Ok(Value::Bool(test(a, b)))
}

fn find_all(subject: &str, pattern: &str, rest: &[&Value], budget: &mut Budget, regexes: &mut Regexes) -> Result<Value, Fault> {
    let limit = match rest {
        [] => usize::MAX,
        [Value::Int(limit)] => usize::try_from(*limit).unwrap_or(usize::MAX),
        _ => return Err(Fault::no_overload()),
    };
    budget.spend(subject.len())?;
    let found = regexes.get(pattern, budget)?.find_iter(subject).take(limit);
    Ok(Value::List(Arc::new(found.map(|found| text(found.as_str())).collect())))
}

#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn convert(name: &str, operand: &Value, budget: &mut Budget) -> Result<Value, Fault> {
    let out_of_range = || Fault::error("integer overflow");
    let malformed = || Fault::Error(format!("type conversion error from 'string' to '{name}'"));
    match (name, operand) {
        ("bool", Value::Bool(_)) | ("int", Value::Int(_)) | ("uint", Value::UInt(_)) | ("double", Value::Float(_)) => Ok(operand.clone()),
        ("string", Value::String(_)) | ("bytes", Value::Bytes(_)) => Ok(operand.clone()),
        ("bool", Value::String(text)) => match text.as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Value::Bool(false)),
            _ => Err(malformed()),
        },
        ("int", Value::UInt(number)) => i64::try_from(*number).map(Value::Int).map_err(|_| out_of_range()),
        ("int", Value::Float(number)) if *number > -9.2e18 && *number < 9.2e18 => Ok(Value::Int(*number as i64)),
        ("int", Value::String(text)) => text.parse().map(Value::Int).map_err(|_| malformed()),
        ("int", Value::Timestamp(time)) => Ok(Value::Int(time.timestamp())),
        ("uint", Value::Int(number)) => u64::try_from(*number).map(Value::UInt).map_err(|_| out_of_range()),
        ("uint", Value::Float(number)) if *number >= 0.0 && *number < 1.8e19 => Ok(Value::UInt(*number as u64)),
        ("uint", Value::String(text)) => text.parse().map(Value::UInt).map_err(|_| malformed()),
        ("int" | "uint", Value::Float(_)) => Err(out_of_range()),
        ("double", Value::Int(number)) => Ok(Value::Float(*number as f64)),
        ("double", Value::UInt(number)) => Ok(Value::Float(*number as f64)),
        ("double", Value::String(text)) => text.parse().map(Value::Float).map_err(|_| malformed()),
        ("string", Value::Bool(value)) => Ok(text(value.to_string())),
        ("string", Value::Bytes(bytes)) => {
            budget.spend_bytes(bytes.len())?;
            String::from_utf8(bytes.to_vec()).map(text).map_err(|_| Fault::error("invalid UTF-8 in bytes, cannot convert to string"))
        }
        ("bytes", Value::String(text)) => {
            budget.spend_bytes(text.len())?;
            Ok(Value::Bytes(Arc::new(text.as_bytes().to_vec())))
        }
        ("string", Value::Int(_) | Value::UInt(_) | Value::Float(_) | Value::Duration(_) | Value::Timestamp(_) | Value::Opaque(_)) => {
            delegate("string", None, vec![operand.clone()])
        }
        _ => Err(Fault::no_overload()),
    }
}

fn of_optional(name: &str, operand: &Value, rest: &[&Value]) -> Result<Value, Fault> {
    let inner = as_optional(operand).ok_or_else(Fault::no_overload)?;
    match (name, rest) {
        ("value", []) => inner.cloned().ok_or_else(|| Fault::error("optional.none() dereference")),
        ("hasValue", []) => Ok(Value::Bool(inner.is_some())),
        ("or", [_]) if inner.is_some() => Ok(operand.clone()),
        ("or", [other]) if as_optional(other).is_some() => Ok((*other).clone()),
        ("orValue", [other]) => Ok(inner.unwrap_or(other).clone()),
        _ => Err(Fault::no_overload()),
    }
}

/// Pays for what a function of a library looks at and for what it may make.
fn pay(name: &str, operands: &[&Value], budget: &mut Budget) -> Result<(), Fault> {
    let mut weights = Vec::with_capacity(operands.len());
    for operand in operands {
        weights.push(budget.spend_value(operand)?);
    }
    match (name, operands) {
        // Each element is compared with each other one.
        ("sets.contains" | "sets.equivalent" | "sets.intersects", _) => {
            budget.spend(weights.iter().fold(1, |product: usize, weight| product.saturating_mul(*weight)))
        }
        ("distinct" | "sort" | "isSorted" | "indexOf" | "lastIndexOf", [Value::List(items), ..]) => {
            budget.spend(items.len().saturating_mul(weights[0]))
        }
        ("lists.range", [Value::Int(count)]) => budget.spend(usize::try_from(*count).unwrap_or(0)),
        ("replace", [Value::String(text), Value::String(from), Value::String(to), ..]) => {
            let times = text.len() / from.len().max(1) + 1;
            budget.spend_bytes(text.len() + times.saturating_mul(to.len()))
        }
        ("join", [Value::List(items), Value::String(separator)]) => budget.spend_bytes(items.len().saturating_mul(separator.len())),
        ("split", [Value::String(text), ..]) => budget.spend(text.len() + 1),
        ("format", [Value::String(format), ..]) => check_precision(format),
        ("indexOf" | "lastIndexOf", [Value::String(text), Value::String(part), ..]) => {
            budget.spend_bytes(text.len().saturating_mul(part.len().clamp(1, 64)))
        }
        _ => Ok(()),
    }
}

/// A format must not make a megabyte of zeros out of a number.
fn check_precision(format: &str) -> Result<(), Fault> {
    let mut rest = format;
    while let Some(at) = rest.find("%.") {
        rest = &rest[at + 2..];
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        if digits.parse::<usize>().map_or(!digits.is_empty(), |precision| precision > MAX_PRECISION) {
            return Err(Fault::Error(format!("a precision of more than {MAX_PRECISION} is not supported")));
        }
    }
    Ok(())
}

/// Calls a function of a library on values.
fn delegate(name: &str, target: Option<Value>, args: Vec<Value>) -> Result<Value, Fault> {
    if target.iter().chain(&args).any(|value| matches!(value, Value::Opaque(_)) && values::as_struct(value).is_some()) {
        return Err(Fault::no_overload());
    }
    LIBRARIES.with(|libraries| {
        let mut scope = libraries.new_inner_scope();
        let operand = |index: usize| IdedExpr { id: 0, expr: Expr::Ident(format!("@{index}")) };
        let call = CallExpr {
            func_name: name.to_owned(),
            target: target.is_some().then(|| Box::new(operand(args.len()))),
            args: (0..args.len()).map(operand).collect(),
        };
        for (index, value) in args.into_iter().chain(target).enumerate() {
            scope.add_variable_from_value(format!("@{index}"), value);
        }
        let expression = IdedExpr { id: 0, expr: Expr::Call(call) };
        // The library is not ours: a panic of it is an error of the expression.
        let outcome = catch_unwind(AssertUnwindSafe(|| Value::resolve(&expression, &scope)));
        outcome.unwrap_or_else(|_| Err(ExecutionError::function_error(name, "failed"))).map_err(|error| library_fault(name, &error))
    })
}

fn library_fault(name: &str, error: &ExecutionError) -> Fault {
    let message = match error {
        ExecutionError::FunctionError { message, .. } => message.clone(),
        ExecutionError::UnexpectedType { .. }
        | ExecutionError::UnsupportedTargetType { .. }
        | ExecutionError::NoSuchOverload
        | ExecutionError::NotSupportedAsMethod { .. }
        | ExecutionError::InvalidArgumentCount { .. }
        | ExecutionError::MissingArgumentOrTarget => return Fault::no_overload(),
        other => format!("{name}: {other}"),
    };
    Fault::Error(message.chars().take(MAX_MESSAGE_CHARS).collect())
}

//! Parses tokens into a tree and expands macros. Answers to the grammar of the CEL specification
//! (<https://github.com/google/cel-spec/blob/master/doc/langdef.md#syntax>).
//!
//! The depth of the tree is bounded, so that nothing that goes through it recursively can exhaust the stack.

use kube_cel::cel::Value;

use super::ast::{Access, Kind, Loop, LoopKind, Node, Operator};
use super::fault::Syntax;
use super::functions;
use super::names::RESERVED_WORDS;
use super::token::{Token, TokenKind, tokens};

/// Characters of an expression. Upstream has the same limit.
pub const MAX_CHARS: usize = 100_000;
/// How deep brackets and conditions may be in one another. Each takes a dozen calls of the parser.
const MAX_NESTING: usize = 64;
/// How deep a tree may be.
const MAX_DEPTH: usize = 200;

/// A name and its value, as a struct or a map has them.
type Field = (bool, String, Node);

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    nesting: usize,
}

/// The tree of `text`.
pub fn parse(text: &str) -> Result<Node, Syntax> {
    let length = text.chars().count();
    if length > MAX_CHARS {
        let message = format!("expression code point size exceeds limit: size: {length}, limit {MAX_CHARS}");
        return Err(Syntax::new(0, message));
    }
    let mut parser = Parser { tokens: tokens(text)?, at: 0, nesting: 0 };
    let (node, _) = parser.expression()?;
    match parser.peek() {
        TokenKind::End => Ok(node),
        _ => Err(parser.unexpected("<EOF>")),
    }
}

/// A node and its depth.
type Parsed = Result<(Node, usize), Syntax>;

// === impl Parser ===

impl Parser {
    fn peek(&self) -> &TokenKind {
        &self.tokens[self.at.min(self.tokens.len() - 1)].kind
    }

    fn position(&self) -> usize {
        self.tokens[self.at.min(self.tokens.len() - 1)].at
    }

    fn unexpected(&self, wanted: &str) -> Syntax {
        Syntax::new(self.position(), format!("Syntax error: mismatched input {} expecting {wanted}", self.peek().shown()))
    }

    fn is(&self, symbol: &str) -> bool {
        matches!(self.peek(), TokenKind::Symbol(found) if *found == symbol)
    }

    fn take(&mut self, symbol: &str) -> bool {
        let found = self.is(symbol);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, symbol: &str) -> Result<(), Syntax> {
        if self.take(symbol) { Ok(()) } else { Err(self.unexpected(&format!("'{symbol}'"))) }
    }

    fn check_depth(&self, depth: usize) -> Result<(), Syntax> {
        if depth > MAX_DEPTH || self.nesting > MAX_NESTING {
            return Err(Syntax::new(self.position(), format!("expression recursion limit exceeded: {MAX_DEPTH}")));
        }
        Ok(())
    }

    fn node(&self, at: usize, depth: usize, kind: Kind) -> Parsed {
        self.check_depth(depth)?;
        Ok((Node { at, kind }, depth))
    }

    fn expression(&mut self) -> Parsed {
        self.nesting += 1;
        self.check_depth(0)?;
        let (condition, depth) = self.alternatives()?;
        let at = self.position();
        let parsed = if self.take("?") {
            let (yes, yes_depth) = self.alternatives()?;
            self.expect(":")?;
            let (no, no_depth) = self.expression()?;
            let depth = 1 + depth.max(yes_depth).max(no_depth);
            self.node(at, depth, Kind::Conditional(Box::new([condition, yes, no])))
        } else {
            Ok((condition, depth))
        };
        self.nesting -= 1;
        parsed
    }

    /// Operands that one operator joins.
    fn joined(&mut self, symbol: &str, operand: fn(&mut Parser) -> Parsed, join: fn(Vec<Node>) -> Kind) -> Parsed {
        let at = self.position();
        let (first, mut depth) = operand(self)?;
        if !self.is(symbol) {
            return Ok((first, depth));
        }
        let mut terms = vec![first];
        while self.take(symbol) {
            let (term, its_depth) = operand(self)?;
            depth = depth.max(its_depth);
            terms.push(term);
        }
        self.node(at, depth + 1, join(terms))
    }

    fn alternatives(&mut self) -> Parsed {
        self.joined("||", Parser::conjunction, Kind::Or)
    }

    fn conjunction(&mut self) -> Parsed {
        self.joined("&&", Parser::relation, Kind::And)
    }

    /// Operands joined by operators of one rank, from the left.
    fn ranked(&mut self, operators: &[(&str, Operator)], operand: fn(&mut Parser) -> Parsed) -> Parsed {
        let (mut left, mut depth) = operand(self)?;
        loop {
            let at = self.position();
            let found = match self.peek() {
                TokenKind::Symbol(symbol) => operators.iter().find(|(text, _)| text == symbol),
                TokenKind::Name(name) => operators.iter().find(|(text, _)| text == name),
                _ => None,
            };
            let Some((_, operator)) = found else { return Ok((left, depth)) };
            self.at += 1;
            let (right, its_depth) = operand(self)?;
            depth = 1 + depth.max(its_depth);
            (left, depth) = self.node(at, depth, Kind::Binary(*operator, Box::new(left), Box::new(right)))?;
        }
    }

    fn relation(&mut self) -> Parsed {
        const RELATIONS: [(&str, Operator); 7] = [
            ("==", Operator::Equal),
            ("!=", Operator::NotEqual),
            ("<=", Operator::LessOrEqual),
            (">=", Operator::GreaterOrEqual),
            ("<", Operator::Less),
            (">", Operator::Greater),
            ("in", Operator::In),
        ];
        self.ranked(&RELATIONS, Parser::sum)
    }

    fn sum(&mut self) -> Parsed {
        self.ranked(&[("+", Operator::Add), ("-", Operator::Subtract)], Parser::product)
    }

    fn product(&mut self) -> Parsed {
        self.ranked(&[("*", Operator::Multiply), ("/", Operator::Divide), ("%", Operator::Modulo)], Parser::unary)
    }

    fn unary(&mut self) -> Parsed {
        let at = self.position();
        for (symbol, negates) in [("!", false), ("-", true)] {
            let mut count = 0_usize;
            while self.take(symbol) {
                count += 1;
            }
            if count == 0 {
                continue;
            }
            if negates && let TokenKind::Literal(value @ (Value::Int(_) | Value::Float(_))) = self.peek() {
                let value = negated(value.clone(), count).ok_or_else(|| Syntax::new(at, "invalid int literal"))?;
                self.at += 1;
                return self.members(at, Node { at, kind: Kind::Literal(value) }, 1);
            }
            let (operand, depth) = self.member()?;
            // Two of them are kept for what they check: the operand's type.
            let count = if count % 2 == 1 { 1 } else { 2 };
            let wrap = |node: Node| Node { at, kind: if negates { Kind::Negate(Box::new(node)) } else { Kind::Not(Box::new(node)) } };
            let node = (0..count).fold(operand, |node, _| wrap(node));
            self.check_depth(depth + count)?;
            return Ok((node, depth + count));
        }
        self.member()
    }

    fn member(&mut self) -> Parsed {
        let at = self.position();
        let (node, depth) = self.primary()?;
        self.members(at, node, depth)
    }

    /// What follows a value: fields, calls, indices.
    fn members(&mut self, first_at: usize, mut node: Node, mut depth: usize) -> Parsed {
        if let Kind::Literal(Value::Int(i64::MIN)) = node.kind
            && self.tokens.get(self.at.wrapping_sub(1)).is_some_and(|token| token.at == first_at)
        {
            return Err(Syntax::new(first_at, "invalid int literal"));
        }
        loop {
            let at = self.position();
            if self.take(".") {
                let access = if self.take("?") { Access::Optional } else { Access::Plain };
                let (name, plain) = match self.peek().clone() {
                    TokenKind::Name(name) => (name, true),
                    TokenKind::Quoted(name) => (name, false),
                    _ => return Err(self.unexpected("IDENTIFIER")),
                };
                self.at += 1;
                if plain && access == Access::Plain && self.take("(") {
                    (node, depth) = self.method(at, node, depth, name)?;
                } else if plain && access == Access::Plain && self.is("{") && is_type_name(&node) {
                    self.at += 1;
                    let type_name = format!("{}.{name}", type_name(&node));
                    (node, depth) = self.structure(first_at, type_name)?;
                } else {
                    (node, depth) = self.node(at, depth + 1, Kind::Select(Box::new(node), name, access))?;
                }
            } else if self.take("[") {
                let access = if self.take("?") { Access::Optional } else { Access::Plain };
                let (index, its_depth) = self.expression()?;
                self.expect("]")?;
                let depth_now = 1 + depth.max(its_depth);
                (node, depth) = self.node(at, depth_now, Kind::Index(Box::new(node), Box::new(index), access))?;
            } else {
                return Ok((node, depth));
            }
        }
    }

    fn primary(&mut self) -> Parsed {
        let at = self.position();
        match self.peek().clone() {
            TokenKind::Literal(value) => {
                self.at += 1;
                self.node(at, 1, Kind::Literal(value))
            }
            TokenKind::Symbol("(") => {
                self.at += 1;
                let parsed = self.expression()?;
                self.expect(")")?;
                Ok(parsed)
            }
            TokenKind::Symbol("[") => self.list(at),
            TokenKind::Symbol("{") => self.map(at),
            // A leading dot asks for the outermost name: there are no inner ones here.
            TokenKind::Symbol(".") | TokenKind::Name(_) => {
                self.take(".");
                let TokenKind::Name(name) = self.peek().clone() else { return Err(self.unexpected("IDENTIFIER")) };
                self.at += 1;
                self.named(at, name)
            }
            _ => Err(self.unexpected("an expression")),
        }
    }

    fn named(&mut self, at: usize, name: String) -> Parsed {
        if self.take("(") {
            let (args, depth) = self.arguments(")")?;
            return match name.as_str() {
                "has" => self.has(at, args, depth),
                _ => self.node(at, depth + 1, Kind::Call(None, name, args)),
            };
        }
        // Reserved words are allowed as field names, but not as identifiers.
        if RESERVED_WORDS.contains(&name.as_str()) {
            return Err(Syntax::new(at, format!("reserved identifier: {name}")));
        }
        if self.take("{") {
            return self.structure(at, name);
        }
        self.node(at, 1, Kind::Ident(name))
    }

    fn has(&self, at: usize, mut args: Vec<Node>, depth: usize) -> Parsed {
        match args.pop().map(|arg| arg.kind) {
            Some(Kind::Select(operand, field, Access::Plain)) if args.is_empty() => {
                self.node(at, depth, Kind::Select(operand, field, Access::Test))
            }
            _ => Err(Syntax::new(at, "invalid argument to has() macro")),
        }
    }

    fn arguments(&mut self, end: &'static str) -> Result<(Vec<Node>, usize), Syntax> {
        let (mut args, mut depth) = (Vec::new(), 0);
        while !self.take(end) {
            if !args.is_empty() {
                self.expect(",")?;
            }
            let (arg, its_depth) = self.expression()?;
            depth = depth.max(its_depth);
            args.push(arg);
        }
        Ok((args, depth))
    }

    fn method(&mut self, at: usize, target: Node, target_depth: usize, name: String) -> Parsed {
        let (args, depth) = self.arguments(")")?;
        let depth = 1 + depth.max(target_depth);
        if let Kind::Ident(space) = &target.kind {
            let qualified = format!("{space}.{name}");
            if functions::is_known(&qualified) {
                return self.node(at, depth, Kind::Call(None, qualified, args));
            }
        }
        let args = match expand(target, &name, args) {
            Ok(Some(kind)) => return self.node(at, depth + 1, kind),
            Ok(None) => return Err(Syntax::new(at, "argument must be a simple name")),
            Err(unchanged) => unchanged,
        };
        let (target, args) = args;
        self.node(at, depth, Kind::Call(Some(Box::new(target)), name, args))
    }

    fn list(&mut self, at: usize) -> Parsed {
        self.at += 1;
        let (mut elements, mut depth) = (Vec::new(), 0);
        while !self.take("]") {
            if !elements.is_empty() {
                self.expect(",")?;
                if self.take("]") {
                    break;
                }
            }
            let optional = self.take("?");
            let (element, its_depth) = self.expression()?;
            depth = depth.max(its_depth);
            elements.push((optional, element));
        }
        self.node(at, depth + 1, Kind::List(elements))
    }

    fn map(&mut self, at: usize) -> Parsed {
        self.at += 1;
        let (mut entries, mut depth) = (Vec::new(), 0);
        while !self.take("}") {
            if !entries.is_empty() {
                self.expect(",")?;
                if self.take("}") {
                    break;
                }
            }
            let optional = self.take("?");
            let (key, key_depth) = self.expression()?;
            self.expect(":")?;
            let (value, value_depth) = self.expression()?;
            depth = depth.max(key_depth).max(value_depth);
            entries.push((optional, key, value));
        }
        self.node(at, depth + 1, Kind::Map(entries))
    }

    /// The fields of a struct whose name and bracket were read.
    fn structure(&mut self, at: usize, type_name: String) -> Parsed {
        let (mut fields, mut depth): (Vec<Field>, usize) = (Vec::new(), 0);
        while !self.take("}") {
            if !fields.is_empty() {
                self.expect(",")?;
                if self.take("}") {
                    break;
                }
            }
            let optional = self.take("?");
            let (TokenKind::Name(name) | TokenKind::Quoted(name)) = self.peek().clone() else {
                return Err(self.unexpected("IDENTIFIER"));
            };
            self.at += 1;
            self.expect(":")?;
            let (value, its_depth) = self.expression()?;
            depth = depth.max(its_depth);
            fields.push((optional, name, value));
        }
        self.node(at, depth + 1, Kind::Struct(type_name, fields))
    }
}

/// A number with its signs. The scanner leaves the least integer for here.
fn negated(value: Value, count: usize) -> Option<Value> {
    match value {
        Value::Int(i64::MIN) => (count == 1).then_some(Value::Int(i64::MIN)),
        Value::Int(number) => Some(Value::Int(if count % 2 == 1 { -number } else { number })),
        Value::Float(number) => Some(Value::Float(if count % 2 == 1 { -number } else { number })),
        other => Some(other),
    }
}

/// Whether it is names and dots, as a type's name is.
fn is_type_name(node: &Node) -> bool {
    match &node.kind {
        Kind::Ident(_) => true,
        Kind::Select(operand, _, Access::Plain) => is_type_name(operand),
        _ => false,
    }
}

fn type_name(node: &Node) -> String {
    match &node.kind {
        Kind::Ident(name) => name.clone(),
        Kind::Select(operand, name, _) => format!("{}.{name}", type_name(operand)),
        _ => String::new(),
    }
}

/// A macro written out; None: its variables are no names; the parts as they were: it is no macro.
fn expand(target: Node, name: &str, mut args: Vec<Node>) -> Result<Option<Kind>, (Node, Vec<Node>)> {
    let kind = match (name, args.len()) {
        ("all", 2 | 3) => LoopKind::All,
        ("exists", 2 | 3) => LoopKind::Exists,
        ("exists_one", 2) | ("existsOne", 2 | 3) => LoopKind::ExistsOne,
        ("map", 2 | 3) | ("transformList", 3 | 4) => LoopKind::Map,
        ("filter", 2) => LoopKind::Filter,
        ("transformMap", 3 | 4) => LoopKind::TransformMap,
        ("optMap" | "optFlatMap", 2) => return Ok(optional_map(target, name == "optFlatMap", args)),
        _ => return Err((target, args)),
    };
    let two = match kind {
        LoopKind::Map => name == "transformList",
        LoopKind::TransformMap => true,
        _ => args.len() == 3,
    };
    let Some(body) = args.pop() else { return Ok(None) };
    let filter = if args.len() == 1 + usize::from(two) { None } else { args.pop() };
    let mut names = args.into_iter().map(|arg| match arg.kind {
        Kind::Ident(name) => Some(name),
        _ => None,
    });
    let (Some(Some(first)), second) = (names.next(), names.next()) else { return Ok(None) };
    if matches!(second, Some(None)) {
        return Ok(None);
    }
    Ok(Some(Kind::Loop(Box::new(Loop { kind, range: target, first, second: second.flatten(), filter, body }))))
}

fn optional_map(target: Node, flat: bool, mut args: Vec<Node>) -> Option<Kind> {
    let body = args.pop()?;
    let Kind::Ident(name) = args.pop()?.kind else { return None };
    Some(Kind::OptionalMap { target: Box::new(target), name, body: Box::new(body), flat })
}

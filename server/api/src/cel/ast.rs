//! The tree of an expression. Macros have their own node types, so that loops are visible in the tree.

use kube_cel::cel::Value;

/// A node, and where it begins in the text (in characters).
#[derive(Debug)]
pub struct Node {
    /// Offset in characters.
    pub at: usize,
    /// What it is.
    pub kind: Kind,
}

impl Node {
    /// Whether a variable of this name is anywhere in the tree; a local one of a macro counts too.
    pub fn refers_to(&self, wanted: &str) -> bool {
        let is = |node: &Node| node.refers_to(wanted);
        match &self.kind {
            Kind::Literal(_) => false,
            Kind::Ident(name) => name == wanted,
            Kind::Select(operand, ..) | Kind::Not(operand) | Kind::Negate(operand) => is(operand),
            Kind::Index(left, right, _) | Kind::Binary(_, left, right) => is(left) || is(right),
            Kind::Call(target, _, args) => target.as_deref().is_some_and(is) || args.iter().any(is),
            Kind::And(terms) | Kind::Or(terms) => terms.iter().any(is),
            Kind::Conditional(parts) => parts.iter().any(is),
            Kind::List(elements) => elements.iter().any(|(_, element)| is(element)),
            Kind::Map(entries) => entries.iter().any(|(_, key, value)| is(key) || is(value)),
            Kind::Struct(_, fields) => fields.iter().any(|(_, _, value)| is(value)),
            Kind::Loop(of) => is(&of.range) || of.filter.as_ref().is_some_and(is) || is(&of.body),
            Kind::OptionalMap { target, body, .. } => is(target) || is(body),
        }
    }
}

/// What a node is.
#[derive(Debug)]
pub enum Kind {
    /// A constant.
    Literal(Value),
    /// A variable.
    Ident(String),
    /// `operand.field`, `operand.?field`, `has(operand.field)`.
    Select(Box<Node>, String, Access),
    /// `operand[index]`, `operand[?index]`.
    Index(Box<Node>, Box<Node>, Access),
    /// `name(args)` or `target.name(args)`. The name of a function in a namespace is written out: `sets.contains`.
    Call(Option<Box<Node>>, String, Vec<Node>),
    /// `!operand`.
    Not(Box<Node>),
    /// `-operand`.
    Negate(Box<Node>),
    /// `left op right`.
    Binary(Operator, Box<Node>, Box<Node>),
    /// `a && b && c`.
    And(Vec<Node>),
    /// `a || b || c`.
    Or(Vec<Node>),
    /// `condition ? yes : no`.
    Conditional(Box<[Node; 3]>),
    /// `[a, ?b]`: whether an element is optional, and it.
    List(Vec<(bool, Node)>),
    /// `{k: v, ?k: v}`.
    Map(Vec<(bool, Node, Node)>),
    /// `Type{field: value}`.
    Struct(String, Vec<(bool, String, Node)>),
    /// A macro that goes through a list or a map.
    Loop(Box<Loop>),
    /// `optional.optMap(name, body)`; flat: `optFlatMap`, whose body is an optional itself.
    OptionalMap {
        /// The optional.
        target: Box<Node>,
        /// The name of its value in the body.
        name: String,
        /// What is made of it.
        body: Box<Node>,
        /// Whether the body gives an optional.
        flat: bool,
    },
}

/// How a field or an element is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It must be there.
    Plain,
    /// Gives an optional.
    Optional,
    /// Only whether it is there.
    Test,
}

/// A macro that goes through a list or a map.
#[derive(Debug)]
pub struct Loop {
    /// What it makes of the elements.
    pub kind: LoopKind,
    /// The list or map.
    pub range: Node,
    /// The name of the element, or of index or key where there are two.
    pub first: String,
    /// The name of the value, where there are two.
    pub second: Option<String>,
    /// Only elements for which this holds.
    pub filter: Option<Node>,
    /// What is evaluated for each element.
    pub body: Node,
}

/// What a loop makes of the elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoopKind {
    /// Whether the body holds for all.
    All,
    /// Whether the body holds for one at least.
    Exists,
    /// Whether the body holds for one and no other.
    ExistsOne,
    /// A list of the results of the body.
    Map,
    /// The elements for which the body holds.
    Filter,
    /// A map with the same keys and what the body gives.
    TransformMap,
}

/// An operator with two operands. `&&` and `||` are not among them: they need not look at both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `+`
    Add,
    /// `-`
    Subtract,
    /// `*`
    Multiply,
    /// `/`
    Divide,
    /// `%`
    Modulo,
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `in`
    In,
}

impl Operator {
    /// The name of its function, as upstream's messages have it.
    pub fn function(self) -> &'static str {
        match self {
            Operator::Add => "_+_",
            Operator::Subtract => "_-_",
            Operator::Multiply => "_*_",
            Operator::Divide => "_/_",
            Operator::Modulo => "_%_",
            Operator::Equal => "_==_",
            Operator::NotEqual => "_!=_",
            Operator::Less => "_<_",
            Operator::LessOrEqual => "_<=_",
            Operator::Greater => "_>_",
            Operator::GreaterOrEqual => "_>=_",
            Operator::In => "@in",
        }
    }
}

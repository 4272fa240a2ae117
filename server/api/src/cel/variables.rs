//! The variables of a policy: named expressions that refer to the ones before them.

use super::ast::Node;
use super::types::Type;

/// Named expressions, in order.
#[derive(Debug, Default)]
pub struct Variables(Vec<Variable>);

#[derive(Debug)]
struct Variable {
    name: String,
    /// None: it does not compile.
    node: Option<Node>,
    of: Type,
}

// === impl Variables ===

impl Variables {
    /// Adds one. A later one of the same name takes the place of an earlier one.
    pub fn add(&mut self, name: &str, node: Node, of: Type) {
        self.0.retain(|variable| variable.name != name);
        self.0.push(Variable { name: name.to_owned(), node: Some(node), of });
    }

    /// Adds one that does not compile: what refers to it is not wrong itself.
    pub fn add_broken(&mut self, name: &str) {
        self.0.push(Variable { name: name.to_owned(), node: None, of: Type::Dyn });
    }

    /// The expression of a name.
    pub fn get(&self, name: &str) -> Option<(&str, &Node)> {
        let variable = self.0.iter().find(|variable| variable.name == name)?;
        Some((&variable.name, variable.node.as_ref()?))
    }

    /// The type of a name; None: there is none.
    pub fn type_of(&self, name: &str) -> Option<&Type> {
        self.0.iter().find(|variable| variable.name == name).map(|variable| &variable.of)
    }
}

//! What policies of both kinds have.

use serde_json::Value;
use trireme_api::meta;

use super::constraints::Constraints;
use super::params::ParamKind;
use crate::admission::cel::{self, Declared, Variables};
use crate::admission::match_conditions::MatchConditions;

/// The parts of a policy that do not depend on what it does.
#[derive(Debug)]
pub struct Policy {
    /// The policy's name.
    pub name: String,
    /// Whether errors are ignored.
    pub ignores_failure: bool,
    /// Which requests it is about.
    pub constraints: Constraints,
    /// The kind of its parameters.
    pub param_kind: Option<ParamKind>,
    /// What must hold of a request besides.
    pub conditions: Result<MatchConditions, String>,
    /// Its variables.
    pub variables: Variables,
}

// === impl Policy ===

impl Policy {
    /// Parses a policy and compiles its conditions and variables.
    pub fn parse(policy: &Value) -> Policy {
        let spec = &policy["spec"];
        let param_kind = spec.get("paramKind").filter(|kind| kind.is_object()).map(ParamKind::parse);
        let declared = Declared::new(param_kind.is_some(), true);
        let conditions = MatchConditions::compile_with(&spec["matchConditions"], &declared);
        Policy {
            name: meta::name(policy).to_owned(),
            ignores_failure: spec["failurePolicy"] == "Ignore",
            constraints: Constraints::parse(&spec["matchConstraints"]),
            conditions: conditions.map_err(|errors| errors.into_iter().next().map(|(_, why)| why).unwrap_or_default()),
            variables: variables(&spec["variables"], &declared),
            param_kind,
        }
    }

    /// What its expressions may refer to.
    pub fn declared(&self) -> Declared {
        Declared::new(self.param_kind.is_some(), true)
    }
}

fn variables(list: &Value, declared: &Declared) -> Variables {
    let mut variables = Variables::default();
    for variable in list.as_array().into_iter().flatten() {
        let name = meta::str_at(variable, &["name"]);
        match cel::compile(meta::str_at(variable, &["expression"]), declared, &variables) {
            Ok((node, of)) => variables.add(name, node, of),
            Err(_) => variables.add_broken(name),
        }
    }
    variables
}

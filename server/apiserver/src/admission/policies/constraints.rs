//! `matchConstraints` of a policy and `matchResources` of a binding.

use serde_json::Value;
use trireme_api::meta;

use crate::admission::request::AdmissionRequest;
use crate::admission::rules::{self, Rule, Selectors};

/// Parsed constraints.
#[derive(Debug)]
pub struct Constraints {
    rules: Vec<Rule>,
    excluded: Vec<Rule>,
    selectors: Result<Selectors, String>,
    exact: bool,
}

// === impl Constraints ===

impl Constraints {
    /// Parses a MatchResources.
    pub fn parse(constraints: &Value) -> Constraints {
        let rules = |field: &str| meta::list_at(constraints, &[field]).iter().map(Rule::parse).collect();
        Constraints {
            rules: rules("resourceRules"),
            excluded: rules("excludeResourceRules"),
            selectors: Selectors::parse(constraints),
            exact: meta::str_at(constraints, &["matchPolicy"]) == "Exact",
        }
    }

    /// The version in which the rules see the request; None: they are not about it. Says nothing about selectors.
    pub fn version(&self, request: &AdmissionRequest) -> Option<String> {
        if rules::matched_version(&self.excluded, request, self.exact).is_some() {
            return None;
        }
        if self.rules.is_empty() {
            return Some(request.resource.version.to_string());
        }
        rules::matched_version(&self.rules, request, self.exact)
    }

    /// Whether rules and selectors are about the request. `namespace` is as [`rules::namespace_of`] found it.
    ///
    /// # Errors
    /// A selector is none.
    pub fn matches(&self, request: &AdmissionRequest, namespace: Option<&Value>) -> Result<Option<String>, String> {
        let Some(version) = self.version(request) else { return Ok(None) };
        let selectors = self.selectors.as_ref().map_err(Clone::clone)?;
        Ok(selectors.select(request, namespace).then_some(version))
    }
}

//! The bindings of policies of both kinds.

use serde_json::Value;
use trireme_api::meta;

use super::constraints::Constraints;
use super::params::ParamRef;

/// A binding: where a policy holds, and with which parameters.
#[derive(Debug)]
pub struct Binding {
    /// Its name.
    pub name: String,
    /// The policy's name.
    pub policy: String,
    /// Which requests it is about; None: all that the policy is about.
    pub resources: Option<Constraints>,
    /// The parameters.
    pub param_ref: Option<ParamRef>,
    /// `validationActions`.
    pub actions: Vec<String>,
}

// === impl Binding ===

impl Binding {
    /// Parses a binding of either kind.
    pub fn parse(binding: &Value) -> Binding {
        let spec = &binding["spec"];
        Binding {
            name: meta::name(binding).to_owned(),
            policy: meta::str_at(spec, &["policyName"]).to_owned(),
            resources: spec.get("matchResources").filter(|resources| resources.is_object()).map(Constraints::parse),
            param_ref: spec.get("paramRef").filter(|reference| reference.is_object()).map(ParamRef::parse),
            actions: meta::list_at(spec, &["validationActions"]).iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        }
    }
}

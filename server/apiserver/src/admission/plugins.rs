//! The built-in admission plugins, one file each.

pub mod certificates;
pub mod default_classes;
pub mod disruption_budget;
pub mod escalation;
pub mod limit_ranger;
pub mod mutating_admission_policy;
pub mod namespace_lifecycle;
pub mod node_restriction;
pub mod node_tokens;
pub mod nodes;
pub mod pod_security;
pub mod policy_expressions;
pub mod priority;
pub mod resource_quota;
pub mod runtime_class;
pub mod service_account;
pub mod service_allocation;
pub mod storage_protection;
pub mod tolerations;
pub mod validating_admission_policy;
pub mod webhooks;

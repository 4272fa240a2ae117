//! The variable `authorizer`: checks what else the user of the request is allowed to do.
//!
//! Answers to <https://kubernetes.io/docs/reference/using-api/cel/#kubernetes-authorizer-library>.

use std::fmt;
use std::sync::Arc;

use futures::FutureExt;
use trireme_api::cel::receiver::{Methods, receiver};
use trireme_api::cel::values::text;
use trireme_api::cel::{Budget, Fault, Value};

use crate::attributes::Attributes;
use crate::authz::{Authorizer, Decision};
use crate::user::UserInfo;

/// The cost of one authorization check, in steps; the same as upstream's.
const CHECK_STEPS: usize = 350_000 / 100;

/// A question that is being put together, and its answer.
#[derive(Clone)]
pub struct Question {
    authorizer: Authorizer,
    attributes: Attributes,
    stage: Stage,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    Authorizer,
    Path,
    Group,
    Resource,
    Answered(Decision),
}

impl Question {
    /// Nothing is asked yet.
    pub fn new(authorizer: Authorizer, user: UserInfo) -> Question {
        Question { authorizer, attributes: Attributes { user, ..Attributes::default() }, stage: Stage::Authorizer }
    }

    /// About the object of a request, as `authorizer.requestResource` has it.
    pub fn about(mut self, attributes: Attributes) -> Question {
        self.attributes = Attributes { user: self.attributes.user, resource_request: true, ..attributes };
        self.stage = Stage::Resource;
        self
    }

    /// As a value of the language.
    pub fn into_value(self) -> Value {
        receiver(Arc::new(self))
    }

    fn called(&self, name: &str, args: &[Value], budget: &mut Budget) -> Option<Result<Value, Fault>> {
        if let Stage::Answered(decision) = &self.stage {
            return match (name, args) {
                ("allowed", []) => Some(Ok(Value::Bool(decision.allowed))),
                ("reason", []) => Some(Ok(text(decision.reason.as_str()))),
                ("errored", []) => Some(Ok(Value::Bool(false))),
                ("error", []) => Some(Ok(text(""))),
                _ => None,
            };
        }
        let arg = |index: usize| match args.get(index) {
            Some(Value::String(text)) => Some(text.to_string()),
            _ => None,
        };
        let mut next = self.clone();
        let (first, to) = (arg(0)?, &mut next.attributes);
        next.stage = match (&self.stage, name, args.len()) {
            (Stage::Authorizer, "path", 1) if !first.trim().is_empty() => {
                to.path = first;
                Stage::Path
            }
            (Stage::Authorizer, "group", 1) => {
                to.group = first;
                Stage::Group
            }
            (Stage::Authorizer, "serviceAccount", 2) => {
                to.user = service_account(&first, &arg(1)?);
                Stage::Authorizer
            }
            (Stage::Group, "resource", 1) if !first.trim().is_empty() => {
                (to.resource, to.version, to.resource_request) = (first, "*".to_owned(), true);
                Stage::Resource
            }
            (Stage::Authorizer, "path", 1) | (Stage::Group, "resource", 1) => {
                return Some(Err(Fault::Error(format!("{name} must not be empty"))));
            }
            (Stage::Resource, "subresource", 1) => set(&mut to.subresource, first),
            (Stage::Resource, "namespace", 1) => set(&mut to.namespace, first),
            (Stage::Resource, "name", 1) => set(&mut to.name, first),
            (Stage::Resource, "fieldSelector", 1) => {
                to.field_selector = Some(first);
                Stage::Resource
            }
            (Stage::Resource, "labelSelector", 1) => {
                to.label_selector = Some(first);
                Stage::Resource
            }
            (Stage::Path | Stage::Resource, "check", 1) => {
                if let Err(fault) = budget.spend(CHECK_STEPS) {
                    return Some(Err(fault));
                }
                to.verb = first;
                Stage::Answered(decide(&self.authorizer, to))
            }
            _ => return None,
        };
        Some(Ok(next.into_value()))
    }
}

fn set(field: &mut String, value: String) -> Stage {
    *field = value;
    Stage::Resource
}

/// An expression cannot wait. The authorizer waits only for a kubelet whose relation to an object is not visible here yet; in that case
/// the answer is no.
fn decide(authorizer: &Authorizer, attributes: &Attributes) -> Decision {
    let decided = authorizer.authorize(attributes).now_or_never();
    decided.unwrap_or_else(|| Decision { allowed: false, reason: "the relation to the object is not known here yet".to_owned() })
}

fn service_account(namespace: &str, name: &str) -> UserInfo {
    let groups = ["system:serviceaccounts", &format!("system:serviceaccounts:{namespace}"), crate::user::GROUP_AUTHENTICATED];
    UserInfo::new(format!("system:serviceaccount:{namespace}:{name}"), &groups)
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Question").field("stage", &self.stage).finish_non_exhaustive()
    }
}

impl Methods for Question {
    fn call(&self, name: &str, args: &[Value], budget: &mut Budget) -> Option<Result<Value, Fault>> {
        self.called(name, args, budget)
    }

    fn type_name(&self) -> &str {
        match self.stage {
            Stage::Authorizer => "kubernetes.authorization.Authorizer",
            Stage::Path => "kubernetes.authorization.PathCheck",
            Stage::Group => "kubernetes.authorization.GroupCheck",
            Stage::Resource => "kubernetes.authorization.ResourceCheck",
            Stage::Answered(_) => "kubernetes.authorization.Decision",
        }
    }
}

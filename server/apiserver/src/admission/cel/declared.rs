//! What expressions may refer to: the variables and their types.
//!
//! Answers to <https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/#validation-expression>.

use std::sync::Arc;

use trireme_api::cel::{Fields, Names, Type};

/// The variables of an expression.
#[derive(Clone, Debug)]
pub struct Declared {
    /// The type of `object` and `oldObject`.
    pub object: Type,
    /// The type of `params`, where there are any.
    pub params: Option<Type>,
    /// Whether there is an `authorizer`.
    pub authorizer: bool,
    /// Whether structs of apply configurations and JSON patches may be made.
    pub patches: bool,
}

// === impl Declared ===

impl Declared {
    /// Those of every policy and match condition.
    pub fn new(params: bool, authorizer: bool) -> Declared {
        Declared { object: Type::Dyn, params: params.then_some(Type::Dyn), authorizer, patches: false }
    }

    /// Those of a mutation.
    pub fn of_mutation(params: bool) -> Declared {
        Declared { patches: true, ..Declared::new(params, true) }
    }
}

impl Names for Declared {
    fn get(&self, name: &str) -> Option<Type> {
        match name {
            "object" | "oldObject" => Some(self.object.clone()),
            "request" => Some(Type::Object(Arc::new(&REQUEST))),
            "namespaceObject" => Some(Type::Object(Arc::new(&NAMESPACE))),
            "params" => self.params.clone(),
            "authorizer" if self.authorizer => Some(Type::named("kubernetes.authorization.Authorizer")),
            _ => None,
        }
    }

    fn has_authorizer(&self) -> bool {
        self.authorizer
    }

    fn makes_patches(&self) -> bool {
        self.patches
    }
}

/// A type whose fields are known here.
#[derive(Debug)]
struct Known {
    name: &'static str,
    fields: &'static [(&'static str, Of)],
}

/// The type of a field.
#[derive(Debug)]
enum Of {
    Text,
    Number,
    Flag,
    Time,
    Any,
    Texts,
    TextMap,
    TextsMap,
    Known(&'static Known),
    KnownList(&'static Known),
}

impl Fields for &'static Known {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn field(&self, name: &str) -> Option<Type> {
        let (_, of) = self.fields.iter().find(|(known, _)| *known == name)?;
        Some(match of {
            Of::Text => Type::String,
            Of::Number => Type::Int,
            Of::Flag => Type::Bool,
            // Upstream declares a timestamp and gives a string.
            Of::Time | Of::Any => Type::Dyn,
            Of::Texts => Type::list(Type::String),
            Of::TextMap => Type::map(Type::String, Type::String),
            Of::TextsMap => Type::map(Type::String, Type::list(Type::String)),
            Of::Known(known) => Type::Object(Arc::new(*known)),
            Of::KnownList(known) => Type::list(Type::Object(Arc::new(*known))),
        })
    }
}

static KIND: Known =
    Known { name: "kubernetes.GroupVersionKind", fields: &[("group", Of::Text), ("version", Of::Text), ("kind", Of::Text)] };

static RESOURCE: Known =
    Known { name: "kubernetes.GroupVersionResource", fields: &[("group", Of::Text), ("version", Of::Text), ("resource", Of::Text)] };

static USER: Known = Known {
    name: "kubernetes.UserInfo",
    fields: &[("username", Of::Text), ("uid", Of::Text), ("groups", Of::Texts), ("extra", Of::TextsMap)],
};

static REQUEST: Known = Known {
    name: "kubernetes.AdmissionRequest",
    fields: &[
        ("kind", Of::Known(&KIND)),
        ("resource", Of::Known(&RESOURCE)),
        ("subResource", Of::Text),
        ("requestKind", Of::Known(&KIND)),
        ("requestResource", Of::Known(&RESOURCE)),
        ("requestSubResource", Of::Text),
        ("name", Of::Text),
        ("namespace", Of::Text),
        ("operation", Of::Text),
        ("userInfo", Of::Known(&USER)),
        ("dryRun", Of::Flag),
        ("options", Of::Any),
    ],
};

static NAMESPACE: Known = Known {
    name: "kubernetes.Namespace",
    fields: &[("metadata", Of::Known(&METADATA)), ("spec", Of::Known(&SPEC)), ("status", Of::Known(&STATUS))],
};

static METADATA: Known = Known {
    name: "kubernetes.NamespaceMetadata",
    fields: &[
        ("name", Of::Text),
        ("generateName", Of::Text),
        ("namespace", Of::Text),
        ("labels", Of::TextMap),
        ("annotations", Of::TextMap),
        ("UID", Of::Text),
        ("uid", Of::Text),
        ("creationTimestamp", Of::Time),
        ("deletionGracePeriodSeconds", Of::Number),
        ("deletionTimestamp", Of::Time),
        ("generation", Of::Number),
        ("resourceVersion", Of::Text),
        ("finalizers", Of::Texts),
    ],
};

static SPEC: Known = Known { name: "kubernetes.NamespaceSpec", fields: &[("finalizers", Of::Texts)] };

static STATUS: Known =
    Known { name: "kubernetes.NamespaceStatus", fields: &[("conditions", Of::KnownList(&CONDITION)), ("phase", Of::Text)] };

static CONDITION: Known = Known {
    name: "kubernetes.NamespaceCondition",
    fields: &[("status", Of::Text), ("type", Of::Text), ("lastTransitionTime", Of::Time), ("message", Of::Text), ("reason", Of::Text)],
};

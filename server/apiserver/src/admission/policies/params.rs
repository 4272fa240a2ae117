//! The parameters of a policy: objects of a kind that it names, chosen by a binding.
//!
//! Answers to <https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/#parameter-resources>.

use serde_json::Value;
use trireme_api::gvk::GroupVersionKind;
use trireme_api::selector::LabelSelector;
use trireme_api::{meta, resources};

use crate::storage::lookup::ObjectReader;

/// The kind of the parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamKind {
    api_version: String,
    kind: String,
}

/// Which objects of the kind are the parameters.
#[derive(Debug)]
pub struct ParamRef {
    name: String,
    namespace: String,
    selector: Option<Result<LabelSelector, String>>,
    /// Whether it is an error that there is none.
    denies: bool,
}

/// Where objects of a kind are.
pub struct ParamResource {
    /// The group of its storage.
    pub group: String,
    /// Its plural.
    pub plural: String,
    /// Whether they are in namespaces.
    pub namespaced: bool,
}

// === impl ParamKind ===

impl ParamKind {
    /// Parses a `paramKind`.
    pub fn parse(kind: &Value) -> ParamKind {
        let text = |field: &str| meta::str_at(kind, &[field]).to_owned();
        ParamKind { api_version: text("apiVersion"), kind: text("kind") }
    }

    /// Group, version and kind; None if `apiVersion` is malformed.
    pub fn gvk(&self) -> Option<GroupVersionKind> {
        GroupVersionKind::from_api_version(&self.api_version, &self.kind)
    }

    /// Where its objects are; None: there is no such kind.
    pub fn resource(&self, reader: &dyn ObjectReader) -> Option<ParamResource> {
        let gvk = self.gvk()?;
        if let Some(resource) = resources::find_kind(&gvk.group, &gvk.kind).filter(|resource| resource.gvk(&gvk.version).is_some()) {
            let group = resource.storage.group.to_string();
            return Some(ParamResource { group, plural: resource.plural.to_string(), namespaced: resource.namespaced });
        }
        let custom = reader.list("apiextensions.k8s.io", "customresourcedefinitions", None);
        let spec = custom.iter().map(|found| &found.object["spec"]).find(|spec| {
            let served = |version: &Value| version["name"] == *gvk.version && version["served"] == true;
            spec["group"] == *gvk.group && spec["names"]["kind"] == *gvk.kind && meta::list_at(spec, &["versions"]).iter().any(served)
        })?;
        Some(ParamResource {
            group: gvk.group.to_string(),
            plural: meta::str_at(spec, &["names", "plural"]).to_owned(),
            namespaced: spec["scope"] == "Namespaced",
        })
    }

    fn shown(&self) -> String {
        format!("&ParamKind{{APIVersion:{},Kind:{},}}", self.api_version, self.kind)
    }
}

// === impl ParamRef ===

impl ParamRef {
    /// Parses a `paramRef`.
    pub fn parse(reference: &Value) -> ParamRef {
        let text = |field: &str| meta::str_at(reference, &[field]).to_owned();
        let selector = reference.get("selector").filter(|selector| selector.is_object());
        ParamRef {
            name: text("name"),
            namespace: text("namespace"),
            selector: selector.map(|selector| LabelSelector::from_object(selector).map_err(|error| error.to_string())),
            denies: reference["parameterNotFoundAction"] == "Deny",
        }
    }
}

/// The parameters for a request in `namespace`. One that is None: the policy is evaluated without. None at all: it is not evaluated.
///
/// # Errors
/// Upstream's words for what is wrong with policy or binding.
pub fn collect(
    reader: &dyn ObjectReader,
    kind: Option<&ParamKind>,
    reference: Option<&ParamRef>,
    namespace: &str,
) -> Result<Vec<Option<Value>>, String> {
    let (Some(kind), Some(reference)) = (kind, reference) else { return Ok(vec![None]) };
    let resource = kind.resource(reader).ok_or_else(|| format!("paramKind kind `{}` not known", kind.shown()))?;
    let namespace = match (resource.namespaced, reference.namespace.as_str(), namespace) {
        (false, "", _) => "",
        (false, ..) => return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".to_owned()),
        (true, "", "") => return Err("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources".to_owned()),
        (true, "", own) => own,
        (true, named, _) => named,
    };
    let found: Vec<_> = match &reference.selector {
        _ if !reference.name.is_empty() => reader.get(&resource.group, &resource.plural, namespace, &reference.name).into_iter().collect(),
        Some(selector) => {
            let selector = selector.as_ref().map_err(Clone::clone)?;
            let all = reader.list(&resource.group, &resource.plural, Some(namespace).filter(|namespace| !namespace.is_empty()));
            all.into_iter().filter(|object| selector.matches(meta::labels(&object.object))).collect()
        }
        None => return Err("one of name or selector must be provided".to_owned()),
    };
    if found.is_empty() && reference.denies {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".to_owned());
    }
    let with_kind = |object: &Value| {
        let mut object = object.clone();
        if object.get("kind").is_none() && object.is_object() {
            object["apiVersion"] = Value::from(kind.api_version.as_str());
            object["kind"] = Value::from(kind.kind.as_str());
        }
        object
    };
    Ok(found.iter().map(|found| Some(with_kind(&found.object))).collect())
}

//! OwnerReferencesPermissionEnforcement: who may set owners of an object.
//!
//! With an owner an object can be deleted, so a change of the owners needs the permission to delete the object; and an owner that waits
//! for the object (`blockOwnerDeletion`) needs the permission to update the owner's finalizers. Kinds that extension servers serve are
//! not known here: their owners are refused to those who may not update the finalizers of everything. Answers to
//! <https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#ownerreferencespermissionenforcement>.

use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::Value;
use trireme_api::field::quote;
use trireme_api::gvk::GroupVersion;
use trireme_api::meta;

use crate::admission::effects::Effects;
use crate::admission::forbid;
use crate::admission::plugin::{Environment, Phase, Plugin};
use crate::admission::request::{AdmissionRequest, Operation};
use crate::attributes::Attributes;
use crate::authz::Authorizer;
use crate::catalog::rows::Rows;
use crate::error::Answer;

/// The plugin.
pub struct OwnerReferencesPermissionEnforcement {
    authorizer: Authorizer,
    rows: Arc<Rows>,
}

/// One owner, with absent fields as what they mean.
#[derive(PartialEq, Eq)]
struct Owner<'a> {
    api_version: &'a str,
    kind: &'a str,
    name: &'a str,
    uid: &'a str,
    controller: Option<bool>,
    blocks: Option<bool>,
}

impl OwnerReferencesPermissionEnforcement {
    /// Made from `environment`.
    pub fn new(environment: &Environment) -> OwnerReferencesPermissionEnforcement {
        OwnerReferencesPermissionEnforcement { authorizer: environment.authorizer.clone(), rows: environment.rows.clone() }
    }

    async fn judge(&self, request: &AdmissionRequest) -> Answer<()> {
        let new = request.object().map(owners).unwrap_or_default();
        let old = request.old_object.as_deref().map(owners).unwrap_or_default();
        if new == old {
            return Ok(());
        }
        // Whoever creates an object could have left it out.
        if request.operation != Operation::Create {
            self.may_delete(request).await?;
        }
        let was_blocking =
            |owner: &Owner<'_>| old.iter().rev().find(|other| other.uid == owner.uid).is_some_and(|other| other.blocks == Some(true));
        let blocking: Vec<&Owner<'_>> = new.iter().filter(|owner| owner.blocks == Some(true) && !was_blocking(owner)).collect();
        if blocking.is_empty() || self.authorizer.authorize(&finalizers(request, "*", "*", "*", "*")).await.allowed {
            return Ok(());
        }
        for owner in blocking {
            self.may_finalize(request, owner).await?;
        }
        Ok(())
    }

    async fn may_delete(&self, request: &AdmissionRequest) -> Answer<()> {
        let question = Attributes {
            user: request.user.clone(),
            verb: "delete".to_owned(),
            resource_request: true,
            group: request.resource.group.to_string(),
            version: request.resource.version.to_string(),
            resource: request.resource.resource.to_string(),
            subresource: request.subresource.clone(),
            namespace: request.namespace.clone(),
            name: request.name.clone(),
            ..Attributes::default()
        };
        let decision = self.authorizer.authorize(&question).await;
        if decision.allowed {
            return Ok(());
        }
        Err(forbid(request, &format!("cannot set an ownerRef on a resource you can't delete: {}, <nil>", decision.reason)))
    }

    async fn may_finalize(&self, request: &AdmissionRequest, owner: &Owner<'_>) -> Answer<()> {
        let resources = self.resources(owner).map_err(|why| {
            let (version, kind) = (owner.api_version, owner.kind);
            let text = "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion";
            forbid(request, &format!("{text} {version} Kind {kind}: {why}"))
        })?;
        for (version, plural, is_namespaced) in resources {
            let mut question = finalizers(request, &version.group, &version.version, &plural, owner.name);
            if is_namespaced {
                // A namespaced owner and its dependents share a namespace.
                question.namespace.clone_from(&request.namespace);
            }
            let decision = self.authorizer.authorize(&question).await;
            if !decision.allowed {
                let text = "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on";
                return Err(forbid(request, &format!("{text}: {}, <nil>", decision.reason)));
            }
        }
        Ok(())
    }

    /// The resources whose objects are of the owner's kind, and whether they are in namespaces.
    fn resources(&self, owner: &Owner<'_>) -> Result<Vec<(GroupVersion, String, bool)>, String> {
        let version =
            GroupVersion::parse(owner.api_version).ok_or_else(|| format!("unexpected GroupVersion string: {}", owner.api_version))?;
        let views = self.rows.views();
        let of_kind = views.iter().map(|view| &view.resource).filter(|resource| {
            resource.group == version.group && resource.kind == owner.kind && resource.versions.contains(&version.version)
        });
        let found: Vec<_> = of_kind.map(|resource| (version.clone(), resource.plural.to_string(), resource.namespaced)).collect();
        match found.is_empty() {
            true => Err(format!("no matches for kind {} in version {}", quote(owner.kind), quote(owner.api_version))),
            false => Ok(found),
        }
    }
}

impl Plugin for OwnerReferencesPermissionEnforcement {
    fn name(&self) -> &'static str {
        "OwnerReferencesPermissionEnforcement"
    }

    fn phases(&self) -> &'static [Phase] {
        &[Phase::Validate]
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        // A pod's status changes no owners, whatever a kubelet sends.
        matches!(request.operation, Operation::Create | Operation::Update) && !request.is_on("", "pods", "status")
    }

    fn validate<'a>(&'a self, request: &'a AdmissionRequest, _effects: &'a mut Effects) -> BoxFuture<'a, Answer<()>> {
        Box::pin(self.judge(request))
    }
}

fn owners(object: &Value) -> Vec<Owner<'_>> {
    let flag = |reference: &Value, field: &str| reference.get(field).and_then(Value::as_bool);
    let of = |reference| Owner {
        api_version: meta::str_at(reference, &["apiVersion"]),
        kind: meta::str_at(reference, &["kind"]),
        name: meta::str_at(reference, &["name"]),
        uid: meta::str_at(reference, &["uid"]),
        controller: flag(reference, "controller"),
        blocks: flag(reference, "blockOwnerDeletion"),
    };
    meta::owner_references(object).iter().map(of).collect()
}

/// The question for the finalizers of an object.
fn finalizers(request: &AdmissionRequest, group: &str, version: &str, plural: &str, name: &str) -> Attributes {
    Attributes {
        user: request.user.clone(),
        verb: "update".to_owned(),
        resource_request: true,
        group: group.to_owned(),
        version: version.to_owned(),
        resource: plural.to_owned(),
        subresource: "finalizers".to_owned(),
        name: name.to_owned(),
        ..Attributes::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::admission::tests::{on, world};
    use crate::user::UserInfo;

    const RBAC: &str = "rbac.authorization.k8s.io";

    fn owned(references: &[Value]) -> Value {
        json!({"metadata": {"namespace": "a", "name": "p", "ownerReferences": references}})
    }

    fn owner(kind: &str, uid: &str, blocks: Value) -> Value {
        let api_version = if kind == "ReplicaSet" { "apps/v1" } else { "v1" };
        json!({"apiVersion": api_version, "kind": kind, "name": "o", "uid": uid, "blockOwnerDeletion": blocks})
    }

    #[tokio::test]
    async fn owners_need_permissions() {
        let world = world();
        let plugin = OwnerReferencesPermissionEnforcement::new(&world.environment);
        for (user, resources, verb) in
            [("deleter", "pods", "delete"), ("finalizer", "replicasets/finalizers", "update"), ("all", "*/finalizers", "update")]
        {
            let groups = if user == "all" {
                "*"
            } else if user == "finalizer" {
                "apps"
            } else {
                ""
            };
            let rule = json!({"apiGroups": [groups], "resources": [resources], "verbs": [verb]});
            world.reader.put(RBAC, "clusterroles", json!({"metadata": {"name": user}, "rules": [rule]}));
            let (role, subject) = (json!({"kind": "ClusterRole", "name": user}), json!({"kind": "User", "name": user}));
            let binding = json!({"metadata": {"name": user}, "roleRef": role, "subjects": [subject]});
            world.reader.put(RBAC, "clusterrolebindings", binding);
        }
        let set = |kind, blocks: Value| Some(owned(&[owner(kind, "1", blocks)]));
        let (plain, yes, no) = (Some(owned(&[])), || json!(true), || json!(false));
        let delete = "cannot set an ownerRef on a resource you can't delete: , <nil>";
        let finalize = "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: , <nil>";
        let unknown = "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion v1 Kind Boat: \
                       no matches for kind \"Boat\" in version \"v1\"";
        for (user, old, new, refusal) in [
            ("nobody", None, set("ReplicaSet", no()), ""),
            ("nobody", None, set("ReplicaSet", yes()), finalize),
            ("finalizer", None, set("ReplicaSet", yes()), ""),
            ("finalizer", None, set("ConfigMap", yes()), finalize),
            ("nobody", None, set("Boat", yes()), unknown),
            ("all", None, set("Boat", yes()), ""),
            ("nobody", plain.clone(), set("ReplicaSet", no()), delete),
            ("nobody", set("ReplicaSet", no()), plain.clone(), delete),
            ("nobody", set("ReplicaSet", Value::Null), set("ReplicaSet", Value::Null), ""),
            ("deleter", plain.clone(), set("ReplicaSet", no()), ""),
            ("deleter", plain, set("ReplicaSet", yes()), finalize),
            ("deleter", set("ReplicaSet", no()), set("ReplicaSet", yes()), finalize),
            ("deleter", set("ReplicaSet", yes()), Some(owned(&[owner("ReplicaSet", "1", yes()), owner("Pod", "2", no())])), ""),
        ] {
            let operation = if old.is_some() { Operation::Update } else { Operation::Create };
            let shown = format!("{user}: {old:?} -> {new:?}");
            let mut request = on("", "pods", "a", operation, new.unwrap());
            (request.name, request.user, request.old_object) = ("p".to_owned(), UserInfo::new(user, &[]), old.map(Arc::new));
            let said = plugin.validate(&request, &mut Effects::default()).await.err().map(|status| status.message).unwrap_or_default();
            assert_eq!(said.trim_start_matches("pods \"p\" is forbidden: "), refusal, "{shown}");
        }
        let mut status = on("", "pods", "a", Operation::Update, json!({}));
        status.subresource = "status".to_owned();
        assert!(!plugin.handles(&status));
    }
}

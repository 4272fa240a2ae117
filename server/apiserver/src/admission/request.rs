//! What admission plugins see of a mutation. Answers to upstream's `admission.Attributes`.

use std::sync::Arc;

use serde_json::Value;
use trireme_api::gvk::{GroupVersionKind, GroupVersionResource};
use trireme_api::resource::Definition;

use crate::conversion::Converter;
use crate::user::UserInfo;

/// The kind of change that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A new object, or a create on a subresource (binding, eviction, token).
    Create,
    /// A changed object (update or patch).
    Update,
    /// A deletion.
    Delete,
    /// A connection (exec, attach, port-forward, proxy).
    Connect,
}

impl Operation {
    /// The name that upstream uses in messages, metrics and webhooks.
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }
}

/// Which mutating webhooks have been asked, over both rounds.
#[derive(Clone, Debug, Default)]
pub struct WebhookRounds {
    is_second: bool,
    /// Those that want to see later changes.
    asked: Vec<String>,
    /// Those after which another one changed the object.
    again: Vec<String>,
}

impl WebhookRounds {
    /// The second round begins.
    pub fn begin_second(&mut self) {
        self.is_second = true;
    }

    /// All that want to see later changes are asked again.
    fn require_all(&mut self) {
        self.again.append(&mut self.asked);
    }

    /// Whether a webhook is asked in this round.
    pub fn is_due(&self, uid: &str) -> bool {
        !self.is_second || self.again.iter().any(|other| other == uid)
    }

    /// A webhook was asked.
    pub fn asked(&mut self, uid: &str, wants_later_changes: bool, changed: bool) {
        if changed {
            self.require_all();
        }
        if wants_later_changes {
            self.asked.push(uid.to_owned());
        }
    }
}

/// Which mutating policies have run, over both rounds.
#[derive(Clone, Debug, Default)]
pub struct PolicyRounds {
    rounds: WebhookRounds,
    /// The object after the policies of the first round.
    output: Option<Value>,
}

impl PolicyRounds {
    /// The second round begins.
    pub fn begin_second(&mut self) {
        self.rounds.begin_second();
    }

    /// Others have made this of the object since: policies that want to see later changes run again if it is another one.
    pub fn look_at(&mut self, object: Option<Value>) {
        if self.rounds.is_second && self.output != object {
            self.rounds.require_all();
        }
    }

    /// The policies have made this of the object.
    pub fn remember(&mut self, object: Option<Value>) {
        self.output = object;
    }

    /// Whether a policy runs in this round.
    pub fn is_due(&self, key: &str) -> bool {
        self.rounds.is_due(key)
    }

    /// A policy has run.
    pub fn asked(&mut self, key: &str, wants_later_changes: bool, changed: bool) {
        self.rounds.asked(key, wants_later_changes, changed);
    }
}

/// One mutation on its way through the admission plugins.
#[derive(Clone, Debug)]
pub struct AdmissionRequest {
    /// What kind of change.
    pub operation: Operation,
    /// Kind and version of `object` (for a subresource: the subresource's kind, for example `policy/v1 Eviction`).
    pub kind: GroupVersionKind,
    /// Kind and version as the client addressed it.
    pub requested_kind: GroupVersionKind,
    /// The resource that was addressed.
    pub resource: GroupVersionResource,
    /// The subresource that was addressed, or empty.
    pub subresource: String,
    /// Namespace, or empty.
    pub namespace: String,
    /// Name; may be empty on create with `generateName`.
    pub name: String,
    /// The user of the request.
    pub user: UserInfo,
    /// The stored object, present on update and delete.
    pub old_object: Option<Arc<Value>>,
    /// The stored object that the transaction changes, where `object` is something else: the pod of an eviction.
    pub target: Option<Arc<Value>>,
    /// The CreateOptions, UpdateOptions, PatchOptions or DeleteOptions of the request.
    pub options: Value,
    /// Whether nothing will be stored.
    pub dry_run: bool,
    /// What is known about the resource; absent where `object` is of none that is stored.
    pub definition: Option<Arc<Definition>>,
    /// What converts objects of the resource, where a webhook does.
    pub converter: Option<Converter>,
    /// Which webhooks have been asked.
    pub webhooks: WebhookRounds,
    /// Which mutating policies have run.
    pub policies: PolicyRounds,
    object: Option<Value>,
    changed: bool,
}

// === impl AdmissionRequest ===

impl AdmissionRequest {
    /// A request without object, options and names, for its maker to fill in.
    pub fn new(operation: Operation, kind: GroupVersionKind, resource: GroupVersionResource, user: UserInfo) -> AdmissionRequest {
        AdmissionRequest {
            operation,
            requested_kind: kind.clone(),
            kind,
            resource,
            subresource: String::new(),
            namespace: String::new(),
            name: String::new(),
            user,
            old_object: None,
            target: None,
            options: Value::Null,
            dry_run: false,
            definition: None,
            converter: None,
            webhooks: WebhookRounds::default(),
            policies: PolicyRounds::default(),
            object: None,
            changed: false,
        }
    }

    /// The new object, absent on delete.
    pub fn object(&self) -> Option<&Value> {
        self.object.as_ref()
    }

    /// The new object, to be changed. The caller changes it, so defaults are filled in again.
    pub fn object_mut(&mut self) -> Option<&mut Value> {
        self.changed |= self.object.is_some();
        self.object.as_mut()
    }

    /// Puts an object in, as not changed by a plugin.
    pub fn set_object(&mut self, object: Value) {
        self.object = Some(object);
        self.changed = false;
    }

    /// Takes the object out.
    pub fn take_object(&mut self) -> Value {
        self.object.take().unwrap_or_default()
    }

    /// Whether a plugin has changed the object.
    pub fn is_changed(&self) -> bool {
        self.changed
    }

    /// The versions in which the resource is served.
    pub fn versions(&self) -> impl Iterator<Item = &str> {
        self.definition.iter().flat_map(|definition| definition.resource.versions.iter()).map(|version| &**version)
    }

    /// An object of this request (in `kind`, as all of them) in another version of its resource, with its kind there. Null for none.
    pub async fn in_version(&self, object: Option<&Value>, version: &str) -> Result<(GroupVersionKind, Value), String> {
        let Some(definition) = self.definition_of_object() else { return Ok((self.kind.clone(), object.cloned().unwrap_or_default())) };
        let to = definition.resource.gvk(version).unwrap_or_else(|| self.kind.clone());
        let Some(object) = object else { return Ok((to, Value::Null)) };
        let converted = self.converted(definition, object.clone(), &self.kind, &to).await?;
        Ok((to, converted))
    }

    /// The way back of [`AdmissionRequest::in_version`].
    pub async fn from_version(&self, object: Value, kind: &GroupVersionKind) -> Result<Value, String> {
        match self.definition_of_object() {
            Some(definition) => self.converted(definition, object, kind, &self.kind).await,
            None => Ok(object),
        }
    }

    async fn converted(
        &self,
        definition: &Definition,
        object: Value,
        from: &GroupVersionKind,
        to: &GroupVersionKind,
    ) -> Result<Value, String> {
        match &self.converter {
            Some(converter) if from != to => converter.convert(object, to).await,
            _ => definition.convert(object, from, to),
        }
    }

    /// The definition, if the object is one of the resource and not the body of a subresource.
    pub fn definition_of_object(&self) -> Option<&Definition> {
        self.definition.as_deref().filter(|definition| definition.resource.kind == self.kind.kind)
    }

    /// Whether the request is on this resource, and on this subresource of it (empty: on the object itself).
    pub fn is_on(&self, group: &str, plural: &str, subresource: &str) -> bool {
        self.resource.group == group && self.resource.resource == plural && self.subresource == subresource
    }
}

//! Where the schema of a resource comes from.

use std::sync::Arc;

use serde_json::Value;

use crate::apply::Node;
use crate::custom::decode;
use crate::custom::structural::Structural;
use crate::gvk::GroupVersionKind;
use crate::schema::{self, ContentType, Decoded, FieldValidation};
use crate::status::Status;

/// The schema of a resource, for all of its versions.
#[derive(Clone, Debug)]
pub enum Schema {
    /// The generated tables hold the types.
    Builtin,
    /// Everything beside `metadata` is accepted as it comes.
    Open,
    /// A structural schema that was given at run time.
    Structural(Arc<Structural>),
}

impl Schema {
    /// Decodes a body as an object of the kind `expected`.
    pub fn decode(
        &self,
        body: &[u8],
        content_type: ContentType,
        expected: &GroupVersionKind,
        validation: FieldValidation,
    ) -> Result<Decoded, Status> {
        match self {
            Schema::Builtin => schema::decode(body, content_type, expected, validation),
            Schema::Open => schema::decode_open(body, content_type, expected, validation),
            Schema::Structural(structural) => decode::decode(body, content_type, expected, validation, structural),
        }
    }

    /// Checks what a patch made of an object.
    pub fn decode_patched(&self, patched: Value, gvk: &GroupVersionKind, validation: FieldValidation) -> Result<Decoded, Status> {
        match self {
            Schema::Builtin => crate::patch::decode_result(patched, gvk, validation),
            Schema::Open => crate::patch::decode_untyped_result(patched, gvk, validation, schema::conform_open_value),
            Schema::Structural(structural) => {
                crate::patch::decode_untyped_result(patched, gvk, validation, |patched| decode::conform(patched, structural))
            }
        }
    }

    /// Makes an object that was put together of others fit its type; what the type does not have is dropped.
    ///
    /// # Errors
    /// It does not fit.
    pub fn conform(&self, object: Value, gvk: &GroupVersionKind) -> Result<Value, String> {
        let conformed = match self {
            Schema::Builtin => {
                let ty = schema::type_of(&gvk.group, &gvk.version, &gvk.kind).ok_or_else(|| format!("no schema for {gvk}"))?;
                schema::conform_value(object, ty)
            }
            Schema::Open => schema::conform_open_value(object),
            Schema::Structural(structural) => decode::conform(object, structural),
        };
        conformed.map(|conformed| conformed.object)
    }

    /// How objects of a kind are merged and owned; None: there is no such kind.
    pub fn node(&self, gvk: &GroupVersionKind) -> Option<Node<'_>> {
        match self {
            Schema::Builtin => Node::of_kind(&gvk.group, &gvk.version, &gvk.kind),
            Schema::Open => Some(Node::Deduced),
            Schema::Structural(structural) => Some(Node::of_custom(structural)),
        }
    }

    /// Whether the types are in the tables: strategic merge patches need them, and items of lists then carry no type of their own.
    pub fn is_typed(&self) -> bool {
        matches!(self, Schema::Builtin)
    }
}

//! patch, in each of its formats.

use http::Response;
use serde_json::Value;
use trireme_api::field::{FieldError, FieldPath};
use trireme_api::gvk::{GroupKind, GroupVersionKind};
use trireme_api::meta;
use trireme_api::patch;
use trireme_api::resource::Schema;
use trireme_api::schema::{self, FieldValidation};
use trireme_api::status::Status;

use crate::endpoints::context::Context;
use crate::endpoints::verbs::write::{finish, update_kind};
use crate::error::Answer;
use crate::http::query::WriteOptions;
use crate::http::respond::{Body, unsupported_media_type};
use crate::registry::identity;
use crate::registry::mutation::Mutation;
use crate::registry::update::{UpdateKind, Updated};

/// How often an object that is neither there nor can be made is looked for again.
const ROUNDS: usize = 3;

/// The patch formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchType {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
    /// Kubernetes' own, by merge keys.
    Strategic,
    /// A configuration, for server-side apply.
    Apply,
}

/// A patch as it was sent.
pub struct Patch {
    /// Its format.
    pub kind: PatchType,
    /// What it says.
    pub document: Value,
    /// Whether a configuration takes fields from other managers.
    pub force: bool,
    validation: FieldValidation,
    /// What to tell its author.
    pub warnings: Vec<String>,
}

// === impl Patch ===

impl Patch {
    /// Reads the patch of a request.
    pub fn parse(ctx: &Context, options: &WriteOptions) -> Answer<Patch> {
        let kind = patch_type(ctx)?;
        let refuse = |error| Status::invalid(&GroupKind::new("meta.k8s.io", "PatchOptions"), "", &vec![error]);
        let validation = options.field_validation;
        if kind != PatchType::Apply {
            if options.force.is_some() {
                Err(refuse(FieldError::forbidden(&FieldPath::new("force"), "may not be specified for non-apply patch")))?;
            }
            let document =
                serde_json::from_slice(&ctx.body).map_err(|e| Box::new(Status::bad_request(format!("error decoding patch: {e}"))))?;
            return Ok(Patch { kind, document, force: false, validation, warnings: Vec::new() });
        }
        if options.field_manager.is_empty() {
            Err(refuse(FieldError::required(&FieldPath::new("fieldManager"), "is required for apply patch")))?;
        }
        let undecodable = |why| Status::bad_request(format!("error decoding YAML: {why}"));
        let (document, duplicate) = schema::parse_configuration(&ctx.body).map_err(undecodable)?;
        if !matches!(document, Value::Object(_) | Value::Null) {
            let word = schema::type_word(&document);
            let why = format!("json: cannot unmarshal {word} into Go value of type map[string]interface {{}}");
            Err(undecodable(format!("error unmarshaling JSON: while decoding JSON: {why}")))?;
        }
        let duplicate = duplicate.map(|why| format!("error converting YAML to JSON: {why}"));
        let warnings = match (duplicate, validation) {
            (Some(why), FieldValidation::Strict) => return Err(Status::bad_request(format!("error strict decoding YAML: {why}")).into()),
            (Some(why), FieldValidation::Warn) => vec![why],
            _ => Vec::new(),
        };
        Ok(Patch { kind, document, force: options.force.unwrap_or_default(), validation, warnings })
    }

    /// Applies the patch to `existing`. Both `existing` and the result are in the storage version.
    pub fn apply(&self, mutation: &mut Mutation<'_>, existing: &Value) -> Answer<Value> {
        let mut object = if self.kind == PatchType::Apply {
            mutation.warnings.clone_from(&self.warnings);
            let object = mutation.apply(Some(existing), &self.document, self.force)?;
            check_name(&object, meta::name(existing))?;
            object
        } else {
            let gvk = mutation.gvk();
            let shown = mutation.show(existing.clone())?;
            let (patched, warnings) = self.patched(shown, &mutation.view.definition.schema, &gvk)?;
            mutation.warnings = warnings;
            if self.kind != PatchType::Strategic && meta::name(&patched).is_empty() {
                Err(Status::bad_request("name must be provided"))?;
            }
            mutation.to_storage(patched)?
        };
        identity::settle_namespace(&mut object, mutation.row.resource.namespaced, mutation.namespace)?;
        Ok(object)
    }

    /// Patches an object and makes the result fit its type again. A configuration is none of these patches.
    pub fn patched(&self, object: Value, schema: &Schema, gvk: &GroupVersionKind) -> Answer<(Value, Vec<String>)> {
        let mut patched = object;
        if self.kind == PatchType::Strategic && !schema.is_typed() {
            Err(unsupported(false))?;
        }
        match self.kind {
            PatchType::Json => patch::json_patch(&mut patched, &self.document),
            PatchType::Merge => patch::merge_patch(&mut patched, &self.document),
            PatchType::Strategic => {
                let Some(ty) = schema::type_of(&gvk.group, &gvk.version, &gvk.kind) else {
                    return Err(Status::internal(format!("no schema for {gvk}")).into());
                };
                patch::strategic_merge_patch(ty, &mut patched, &self.document)
            }
            PatchType::Apply => return Err(Status::internal("a configuration is applied, not patched in").into()),
        }
        .map_err(|e| e.to_status())?;
        let decoded = schema.decode_patched(patched, gvk, self.validation)?;
        Ok((decoded.object, decoded.warnings))
    }
}

/// Reads the patch format from the content type.
fn patch_type(ctx: &Context) -> Answer<PatchType> {
    match ctx.content_type() {
        "application/json-patch+json" => Ok(PatchType::Json),
        "application/merge-patch+json" => Ok(PatchType::Merge),
        "application/strategic-merge-patch+json" => Ok(PatchType::Strategic),
        "application/apply-patch+yaml" => Ok(PatchType::Apply),
        _ => Err(unsupported(ctx.view()?.definition.schema.is_typed())),
    }
}

/// 415. As upstream, the accepted formats are listed for custom resources only: for built-in ones the router refuses the request.
fn unsupported(is_typed: bool) -> Box<Status> {
    if is_typed {
        return unsupported_media_type();
    }
    let accepted = ["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];
    Box::new(Status::unsupported_media_type(&accepted))
}

/// Answers a patch of the object or of its status.
pub async fn patch(ctx: &Context) -> Answer<Response<Body>> {
    let options = WriteOptions::parse(&ctx.info.query, "PatchOptions")?;
    let patch = Patch::parse(ctx, &options)?;
    let mut mutation = ctx.mutation(options.dry_run, options.to_value("PatchOptions"))?;
    let kind = update_kind(ctx);
    for round in 1.. {
        let outcome = mutation.update(&ctx.info.name, kind, |mutation, existing| patch.apply(mutation, existing)).await;
        let missing = matches!(&outcome, Err(status) if status.code() == 404);
        if !missing || patch.kind != PatchType::Apply || kind != UpdateKind::Main {
            return finish(ctx, &mutation, outcome?);
        }
        match create(ctx, &mut mutation, &patch).await {
            // Another client created the object first: the next round patches it.
            Err(status) if status.reason == "AlreadyExists" && !options.dry_run && round < ROUNDS => {}
            created => return finish(ctx, &mutation, Updated { object: created?, created: true }),
        }
    }
    Err(Status::internal("no round was made").into())
}

/// Makes an object of a configuration.
async fn create(ctx: &Context, mutation: &mut Mutation<'_>, patch: &Patch) -> Answer<Value> {
    // A user who may patch but not create must not create objects this way.
    ctx.authorize_verb("create").await?;
    mutation.warnings.clone_from(&patch.warnings);
    let object = mutation.apply(None, &patch.document, patch.force)?;
    check_name(&object, &ctx.info.name)?;
    let uid = meta::uid(&object);
    if !uid.is_empty() {
        let why = format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
        Err(Status::conflict(&mutation.group_resource(), &ctx.info.name, &why))?;
    }
    let shown = mutation.show(object)?;
    let created = mutation.create(shown, &ctx.info.name).await?;
    mutation.warnings.extend(mutation.row.definition.missing_actor_warning());
    Ok(created)
}

/// A configuration names the object that the path names.
fn check_name(object: &Value, name: &str) -> Answer<()> {
    let given = meta::name(object);
    if given.is_empty() {
        Err(Status::bad_request(format!("the name of the object ({name} based on URL) was undeterminable: name must be provided")))?;
    }
    if given != name {
        Err(Status::bad_request(format!("the name of the object ({given}) does not match the name on the URL ({name})")))?;
    }
    Ok(())
}

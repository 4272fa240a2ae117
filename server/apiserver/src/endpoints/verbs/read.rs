//! get and list.
//!
//! Semantics of resourceVersion and resourceVersionMatch:
//! <https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions>.

use std::sync::Arc;

use http::Response;
use jiff::Timestamp;
use serde_json::{Value, json};
use trireme_api::status::Status;
use trireme_raft::StoreError;

use crate::catalog::rows::{Row, View};
use crate::catalog::transform;
use crate::endpoints::context::Context;
use crate::endpoints::verbs::list_body::ListBody;
use crate::error::{Answer, store_status};
use crate::http::negotiate::Transform;
use crate::http::query::{Continue, IncludeObject, ListOptions, VersionMatch, resource_version};
use crate::http::respond::{self, Body};
use crate::http::selection::Selection;
use crate::storage::cache::Cached;

/// Answers a get of one object.
pub async fn get(ctx: &Context) -> Answer<Response<Body>> {
    let (view, row) = ctx.stored()?;
    match resource_version(ctx.info.query.text("resourceVersion"))? {
        None => {
            ctx.server.storage.refresh(row).await?;
        }
        Some(0) => {}
        Some(at_least) => ctx.server.storage.wait_for(at_least).await?,
    }
    ctx.reauthorize().await?;
    let key = row.key(&ctx.info.namespace, &ctx.info.name);
    let object = row.cache.get(&key[row.prefix.len()..]);
    match ctx.shown(row, object.into_iter().collect()).await?.first() {
        Some(object) => one(ctx, view, row, object),
        None => Err(Status::not_found(&view.resource.group_resource(), &ctx.info.name).into()),
    }
}

/// Sends one cached object in the form that was asked for.
fn one(ctx: &Context, view: &View, row: &Row, object: &Cached) -> Answer<Response<Body>> {
    if ctx.form.transform == Transform::None && is_as_cached(view, row, &ctx.info.version) {
        return Ok(respond::json_bytes(200, ctx.form.encoding, object.json()));
    }
    let value = transform::to_version(view, &ctx.info.version, parse(object)?)?;
    let include = IncludeObject::parse(&ctx.info.query)?;
    Ok(respond::object(200, ctx.form.encoding, &transform::single(view, value, ctx.form, include, Timestamp::now())))
}

/// Whether objects need no conversion: the cache holds them in the storage version, and those that a webhook has converted are in the
/// requested version already.
pub fn is_as_cached(view: &View, row: &Row, version: &str) -> bool {
    row.webhook.is_some() || view.resource.gvk(version).is_some_and(|gvk| gvk == row.storage_gvk())
}

fn parse(object: &Cached) -> Answer<Value> {
    serde_json::from_slice(&object.json()).map_err(|e| Box::new(Status::internal(e)))
}

/// The objects of a list, and its metadata.
pub struct Found {
    /// The selected objects, in the addressed version where a webhook converts.
    pub objects: Vec<Arc<Cached>>,
    /// The revision at which the list holds.
    pub revision: i64,
    /// Where the next page begins, if there is one.
    pub next: Option<Continue>,
    /// How many objects the following pages have, if that is known.
    pub remaining: Option<usize>,
}

impl Found {
    /// The `metadata` of the list.
    pub fn metadata(&self) -> Value {
        let mut metadata = json!({"resourceVersion": self.revision.to_string()});
        if let Some(next) = &self.next {
            metadata["continue"] = json!(next.encode());
        }
        if let Some(remaining) = self.remaining {
            metadata["remainingItemCount"] = json!(remaining);
        }
        metadata
    }
}

/// Answers a list.
pub async fn list(ctx: &Context) -> Answer<Response<Body>> {
    let (view, row) = ctx.stored()?;
    let options = ListOptions::parse(&ctx.info.query, false)?;
    let selection = Selection::parse(view, &ctx.info.version, &options.label_selector, &options.field_selector)?;
    let found = find(ctx, view, row, &options, &selection).await?;
    let metadata = found.metadata();
    let include = match ctx.form.transform {
        Transform::Table => IncludeObject::parse(&ctx.info.query)?,
        _ => IncludeObject::default(),
    };
    let body = ListBody {
        view: view.clone(),
        version: ctx.info.version.clone(),
        form: ctx.form,
        include,
        as_cached: is_as_cached(view, row, &ctx.info.version),
    };
    body.response(found.objects, metadata).await
}

/// Reads what a list asks for.
pub async fn find(ctx: &Context, view: &View, row: &Row, options: &ListOptions, selection: &Selection) -> Answer<Found> {
    let registry = &ctx.server.storage;
    let keep = |object: &Cached| selection.matches(view, row, object);
    let prefix = row.scope_prefix(&ctx.info.namespace);
    if let Some(token) = &options.continue_token {
        registry.barrier(row).await?;
        let revision = if token.rv < 0 { registry.store.revision() } else { token.rv };
        return history(ctx, row, &prefix, &token.start, options.limit, revision, selection, keep, true).await;
    }
    match (options.resource_version, options.version_match) {
        (Some(revision), Some(VersionMatch::Exact)) => {
            registry.wait_for(revision).await?;
            return history(ctx, row, &prefix, "", options.limit, revision, selection, keep, false).await;
        }
        (None, _) => {
            registry.refresh(row).await?;
        }
        (Some(0), _) => {}
        // With a limit and no match rule, a version means exactly that version (upstream's legacy rule).
        (Some(revision), None) if options.limit > 0 => {
            registry.wait_for(revision).await?;
            return history(ctx, row, &prefix, "", options.limit, revision, selection, keep, false).await;
        }
        (Some(revision), _) => registry.wait_for(revision).await?,
    }
    ctx.reauthorize().await?;
    let ingested = registry.cache.ingested();
    // From the cache "at any version" the limit is not honoured, as upstream's cache does it.
    let limit = if options.resource_version == Some(0) { 0 } else { options.limit };
    // The selection applies to the converted objects: all of them must be converted first.
    if row.webhook.is_some() && !selection.is_everything() {
        let (objects, revision) = row.cache.list(&prefix, ingested, |_| true);
        let mut objects = ctx.shown(row, objects).await?;
        objects.retain(|object| keep(object));
        let more = limit > 0 && objects.len() > limit;
        objects.truncate(if more { limit } else { objects.len() });
        let last = objects.last().map(|object| row.key(&object.namespace, &object.name)).unwrap_or_default();
        let next = more.then(|| Continue::new(revision, after(last.strip_prefix(&row.prefix).unwrap_or_default(), &prefix)));
        return Ok(Found { objects, revision, next, remaining: None });
    }
    if limit == 0 {
        let (objects, revision) = row.cache.list(&prefix, ingested, keep);
        return Ok(Found { objects: ctx.shown(row, objects).await?, revision, next: None, remaining: None });
    }
    let page = row.cache.page(&prefix, limit, ingested, keep);
    let next = (page.remaining > 0).then(|| Continue::new(page.revision, after(page.last_key.as_deref().unwrap_or_default(), &prefix)));
    let remaining = (page.remaining > 0 && selection.is_everything()).then_some(page.remaining);
    Ok(Found { objects: ctx.shown(row, page.objects).await?, revision: page.revision, next, remaining })
}

/// The first key after `key`, relative to the list's prefix.
fn after(key: &str, prefix: &str) -> String {
    format!("{}\0", &key[prefix.len().min(key.len())..])
}

/// Reads a list at an exact revision: from the cache where its window reaches back to it, else from the store.
#[allow(clippy::too_many_arguments)]
async fn history(
    ctx: &Context,
    row: &Row,
    prefix: &str,
    start: &str,
    limit: usize,
    revision: i64,
    selection: &Selection,
    keep: impl Fn(&Cached) -> bool,
    continued: bool,
) -> Answer<Found> {
    const READ: usize = 500;
    let registry = &ctx.server.storage;
    let mut from = format!("{prefix}{start}");
    // The selection applies to converted objects: those of a webhook are read from the store.
    if registry.holds(row, revision)
        && (row.webhook.is_none() || selection.is_everything())
        && let Some(page) = row.cache.page_at(prefix, &from, limit, revision, &keep)
    {
        let more = page.remaining > 0;
        let next = more.then(|| Continue::new(revision, after(page.last_key.as_deref().unwrap_or_default(), prefix)));
        let remaining = (more && selection.is_everything()).then_some(page.remaining);
        return Ok(Found { objects: ctx.shown(row, page.objects).await?, revision, next, remaining });
    }
    let mut objects = Vec::new();
    loop {
        let want = if limit == 0 { READ } else { (limit - objects.len()).clamp(1, READ) };
        let page = registry.range_at(row, prefix, &from, want, revision).map_err(|error| match error {
            StoreError::Compacted { .. } if continued => expired_continue(&from[prefix.len()..]),
            error => store_status(&error, &row.group_resource(), "list"),
        })?;
        let read = page.kvs.len();
        let mut decoded = Vec::with_capacity(read);
        for kv in page.kvs {
            from = format!("{}\0", String::from_utf8_lossy(&kv.key[row.prefix.len()..]));
            decoded.push(Arc::new(registry.decode(row, kv)?));
        }
        objects.extend(ctx.shown(row, decoded).await?.into_iter().filter(|object| keep(object)));
        let rest = usize::try_from(page.count).unwrap_or(0).saturating_sub(read);
        if rest == 0 || read == 0 {
            return Ok(Found { objects, revision, next: None, remaining: None });
        }
        if limit > 0 && objects.len() >= limit {
            let next = Some(Continue::new(revision, from[prefix.len()..].to_owned()));
            return Ok(Found { objects, revision, next, remaining: selection.is_everything().then_some(rest) });
        }
    }
}

/// 410 with a token that goes on at the newest revision.
fn expired_continue(start: &str) -> Status {
    Status::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue \
         parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided \
         token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was \
         returned and now may show up in the list.",
    )
    .with_continue(&Continue::new(-1, start.to_owned()).encode())
}

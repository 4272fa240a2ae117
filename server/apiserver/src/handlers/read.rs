//! get and list.
//!
//! Semantics of resourceVersion and resourceVersionMatch:
//! <https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions>.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::Response;
use jiff::Timestamp;
use serde_json::{Value, json};
use trireme_api::status::Status;
use trireme_raft::StoreError;

use super::Context;
use crate::cache::Cached;
use crate::convert;
use crate::encode;
use crate::error::{Answer, store_status};
use crate::negotiate::{Encoding, Transform};
use crate::query::{Continue, ListOptions, VersionMatch, resource_version};
use crate::request_info::query_value;
use crate::respond::{self, Body};
use crate::rows::{Row, View};
use crate::selection::Selection;
use crate::transform::{self, IncludeObject};

/// A list is sent in pieces of about this size.
const PIECE_BYTES: usize = 128 * 1024;

/// Answers a get of one object.
pub async fn get(ctx: &Context) -> Answer<Response<Body>> {
    let (view, row) = ctx.stored()?;
    match resource_version(&query_value(&ctx.query, "resourceVersion").unwrap_or_default())? {
        None => {
            ctx.server.registry.refresh(row).await?;
        }
        Some(0) => {}
        Some(at_least) => ctx.server.registry.wait_for(at_least).await?,
    }
    ctx.reauthorize().await?;
    let key = row.key(&ctx.info.namespace, &ctx.info.name);
    let object =
        row.cache.get(&key[row.prefix.len()..]).ok_or_else(|| Status::not_found(&view.resource.group_resource(), &ctx.info.name))?;
    one(ctx, view, row, &object)
}

/// Sends one cached object in the form that was asked for.
fn one(ctx: &Context, view: &View, row: &Row, object: &Cached) -> Answer<Response<Body>> {
    if ctx.form.transform == Transform::None && is_storage_version(view, row, &ctx.info.version) {
        return Ok(respond::json_bytes(200, ctx.form.encoding, object.json()));
    }
    let value = transform::to_version(view, &ctx.info.version, parse(object)?)?;
    let include = IncludeObject::parse(&ctx.query)?;
    Ok(respond::object(200, ctx.form.encoding, &transform::single(view, value, ctx.form, include, Timestamp::now())))
}

/// Whether objects are sent as they are stored.
pub fn is_storage_version(view: &View, row: &Row, version: &str) -> bool {
    view.resource.gvk(version).is_some_and(|gvk| gvk == row.storage_gvk())
}

fn parse(object: &Cached) -> Answer<Value> {
    serde_json::from_slice(&object.json()).map_err(|e| Box::new(Status::internal(e)))
}

/// The objects of a list, and its metadata.
struct Found {
    objects: Vec<Arc<Cached>>,
    revision: i64,
    next: Option<Continue>,
    remaining: Option<usize>,
}

/// Answers a list.
pub async fn list(ctx: &Context) -> Answer<Response<Body>> {
    let (view, row) = ctx.stored()?;
    let options = ListOptions::parse(&ctx.query, false)?;
    let selection = Selection::parse(view, &ctx.info.version, &options.label_selector, &options.field_selector)?;
    let found = find(ctx, view, row, &options, &selection).await?;
    send(ctx, view, row, found)
}

async fn find(ctx: &Context, view: &View, row: &Row, options: &ListOptions, selection: &Selection) -> Answer<Found> {
    let registry = &ctx.server.registry;
    let keep = |object: &Cached| selection.matches(view, row, object);
    let prefix = row.scope_prefix(&ctx.info.namespace);
    if let Some(token) = &options.continue_token {
        registry.barrier(row).await?;
        let revision = if token.rv < 0 { registry.store.revision() } else { token.rv };
        return history(ctx, row, &prefix, &token.start, options.limit, revision, selection, keep, true);
    }
    match (options.resource_version, options.version_match) {
        (Some(revision), Some(VersionMatch::Exact)) => {
            registry.wait_for(revision).await?;
            return history(ctx, row, &prefix, "", options.limit, revision, selection, keep, false);
        }
        (None, _) => {
            registry.refresh(row).await?;
        }
        (Some(0), _) => {}
        // With a limit and no match rule, a version means exactly that version (upstream's legacy rule).
        (Some(revision), None) if options.limit > 0 => {
            registry.wait_for(revision).await?;
            return history(ctx, row, &prefix, "", options.limit, revision, selection, keep, false);
        }
        (Some(revision), _) => registry.wait_for(revision).await?,
    }
    ctx.reauthorize().await?;
    let ingested = registry.cache.ingested();
    // From the cache "at any version" the limit is not honoured, as upstream's cache does it.
    if options.limit == 0 || options.resource_version == Some(0) {
        let (objects, revision) = row.cache.list(&prefix, ingested, keep);
        return Ok(Found { objects, revision, next: None, remaining: None });
    }
    let page = row.cache.page(&prefix, options.limit, ingested, keep);
    let next = (page.remaining > 0).then(|| Continue::new(page.revision, after(page.last_key.as_deref().unwrap_or_default(), &prefix)));
    let remaining = (page.remaining > 0 && selection.is_everything()).then_some(page.remaining);
    Ok(Found { objects: page.objects, revision: page.revision, next, remaining })
}

/// The first key after `key`, relative to the list's prefix.
fn after(key: &str, prefix: &str) -> String {
    format!("{}\0", &key[prefix.len().min(key.len())..])
}

/// Reads a list at an exact revision from the store.
#[allow(clippy::too_many_arguments)]
fn history(
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
    let registry = &ctx.server.registry;
    let mut from = format!("{prefix}{start}");
    let mut objects = Vec::new();
    loop {
        let want = if limit == 0 { READ } else { (limit - objects.len()).clamp(1, READ) };
        let page = registry.range_at(row, prefix, &from, want, revision).map_err(|error| match error {
            StoreError::Compacted { .. } if continued => expired_continue(&from[prefix.len()..]),
            error => store_status(&error, &row.group_resource(), "list"),
        })?;
        let read = page.kvs.len();
        for kv in page.kvs {
            from = format!("{}\0", String::from_utf8_lossy(&kv.key[row.prefix.len()..]));
            let object = registry.decode(row, kv)?;
            if keep(&object) {
                objects.push(Arc::new(object));
            }
        }
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

fn send(ctx: &Context, view: &View, row: &Row, found: Found) -> Answer<Response<Body>> {
    let mut metadata = json!({"resourceVersion": found.revision.to_string()});
    if let Some(next) = &found.next {
        metadata["continue"] = json!(next.encode());
    }
    if let Some(remaining) = found.remaining {
        metadata["remainingItemCount"] = json!(remaining);
    }
    let as_stored = is_storage_version(view, row, &ctx.info.version);
    if ctx.form.transform != Transform::None || !as_stored || ctx.form.encoding != Encoding::Json {
        let mut values = Vec::with_capacity(found.objects.len());
        for object in &found.objects {
            values.push(transform::to_version(view, &ctx.info.version, parse(object)?)?);
        }
        let value = match ctx.form.transform {
            Transform::Table => {
                let include = IncludeObject::parse(&ctx.query)?;
                transform::table_of(view, &values, metadata, ctx.form, include, true, Timestamp::now())
            }
            Transform::PartialMetadata | Transform::PartialMetadataList => transform::partial_metadata_list(&values, metadata, ctx.form),
            Transform::None => {
                for value in &mut values {
                    convert::strip_type(value);
                }
                let gvk = view.resource.gvk(&ctx.info.version).unwrap_or_else(|| row.storage_gvk());
                json!({"kind": &*view.resource.list_kind, "apiVersion": gvk.api_version(), "metadata": metadata, "items": values})
            }
        };
        return Ok(respond::object(200, ctx.form.encoding, &value));
    }
    let head = format!(
        "{{\"kind\":{},\"apiVersion\":{},\"metadata\":{},\"items\":[",
        Value::from(&*view.resource.list_kind),
        Value::from(row.storage_gvk().api_version()),
        String::from_utf8_lossy(&encode::object_json(&metadata)),
    );
    Ok(concatenate(head, found.objects))
}

/// A list from the objects' own bytes: in one piece if small, else streamed.
fn concatenate(head: String, objects: Vec<Arc<Cached>>) -> Response<Body> {
    let total: usize = objects.iter().map(|o| o.size()).sum();
    let mut pieces = Pieces { head: Some(head), objects: objects.into_iter(), first: true, done: false };
    if total < PIECE_BYTES {
        let mut whole = BytesMut::new();
        for piece in pieces.by_ref() {
            if whole.is_empty() {
                whole = BytesMut::from(piece);
            } else {
                whole.extend_from_slice(&piece);
            }
        }
        return respond::bytes(200, "application/json", whole.freeze());
    }
    let mut response = Response::new(respond::stream(futures::stream::iter(pieces.map(Ok))));
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

struct Pieces {
    head: Option<String>,
    objects: std::vec::IntoIter<Arc<Cached>>,
    first: bool,
    done: bool,
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.done {
            return None;
        }
        let mut piece = BytesMut::with_capacity(PIECE_BYTES.min(self.objects.len() * 1024 + 512));
        if let Some(head) = self.head.take() {
            piece.extend_from_slice(head.as_bytes());
        }
        for object in self.objects.by_ref() {
            piece.extend_from_slice(if self.first { b"{" } else { b",{" });
            self.first = false;
            piece.extend_from_slice(&object.json_from_metadata());
            if piece.len() >= PIECE_BYTES {
                return Some(piece.freeze());
            }
        }
        piece.extend_from_slice(b"]}\n");
        self.done = true;
        Some(piece.freeze())
    }
}

//! watch: a stream of changes from a revision on.
//!
//! A watcher pulls shared objects, from the state at its start, from the window of its resource, or behind the window from the store's
//! history, and encodes each when the client has room for it. A client that does not read holds only pointers. No change is skipped:
//! if a change can no longer be read, the stream ends with 410.
//! <https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes>

pub mod encoder;
pub mod schedule;
pub mod scope;
pub mod shown;
pub mod watcher;

use http::{HeaderValue, Response};
use trireme_api::protobuf;

use crate::endpoints::context::Context;
use crate::error::Answer;
use crate::http::negotiate::Encoding;
use crate::http::query::{IncludeObject, ListOptions};
use crate::http::respond::{self, Body};
use crate::http::selection::Selection;
use crate::metrics::RequestLabels;
use encoder::Encoder;
use schedule::Schedule;
use scope::Scope;
use shown::Shown;
use watcher::Watcher;

/// Answers a watch.
pub async fn answer(ctx: &Context) -> Answer<Response<Body>> {
    let (view, row) = ctx.stored()?;
    let options = ListOptions::parse(&ctx.info.query, true)?;
    let selection = Selection::parse(view, &ctx.info.version, &options.label_selector, &options.field_selector)?;
    let include = IncludeObject::parse(&ctx.info.query)?;
    let registry = &ctx.server.storage;
    let initial = match options.send_initial_events {
        Some(wanted) => wanted,
        None => options.resource_version.unwrap_or(0) == 0,
    };
    match options.resource_version {
        None => {
            registry.refresh(row).await?;
        }
        Some(at_least) if initial && at_least > 0 => registry.wait_for(at_least).await?,
        Some(_) => {}
    }
    ctx.reauthorize().await?;
    let position = match options.resource_version {
        Some(at) if at > 0 => at,
        _ => registry.cache.ingested(),
    };
    let labels = RequestLabels::of(&ctx.method, &ctx.info, Some(&view.resource));
    let mut watcher = Watcher::new(
        registry.cache.clone(),
        row.clone(),
        Scope::new(view.clone(), row, &ctx.info, selection),
        Shown::new(&ctx.info.version, ctx.server.conversions.of(row)),
        Encoder::new(view.clone(), row.clone(), &ctx.info.version, ctx.form, include),
        Schedule::new(
            options.timeout_secs,
            options.allow_watch_bookmarks,
            ctx.server.stopping.clone(),
            row.retired.clone(),
            ctx.server.store_status.clone(),
        ),
        ctx.server.metrics.watch_counters(&labels),
        position,
    );
    if initial {
        watcher.begin_with_state(options.send_initial_events == Some(true)).await?;
    }
    let place = ctx.place.clone();
    let pieces = futures::stream::unfold((watcher, place), |(mut watcher, place)| async move {
        let piece = watcher.next().await?;
        Some((Ok(piece), (watcher, place)))
    });
    let mut response = Response::new(respond::stream(pieces));
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static(match ctx.form.encoding {
            Encoding::Protobuf => protobuf::WATCH_CONTENT_TYPE,
            _ => "application/json",
        }),
    );
    Ok(response)
}

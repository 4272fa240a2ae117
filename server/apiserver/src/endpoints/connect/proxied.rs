//! The proxies of pods, Services and nodes: the changes to requests and answers that browsers need.
//!
//! Answers to upstream's `UpgradeAwareHandler` with its `Transport` (`apimachinery/pkg/util/proxy`).

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, UPGRADE};
use http::{HeaderValue, Method, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use trireme_api::status::Status;

use crate::endpoints::connect::destination::Destination;
use crate::endpoints::connect::forward::forward;
use crate::endpoints::connect::rewrite::{Links, PageRewriter};
use crate::endpoints::context::Context;
use crate::error::Answer;
use crate::http::respond::{self, Body};

/// Passes a request on; redirects and links in its answer lead through the proxy.
pub async fn proxied(ctx: &Context, destination: &Destination) -> Answer<Response<Body>> {
    let reads = matches!(ctx.method, Method::GET | Method::HEAD);
    if reads && ctx.info.remainder.is_empty() && !ctx.headers.contains_key(UPGRADE) {
        return redirect(ctx);
    }
    let response = forward(ctx, destination).await?;
    // The path as it was asked for, so that links of a proxy behind another one work.
    let prefix = ctx.info.path.strip_suffix(ctx.info.remainder.as_str()).unwrap_or(&ctx.info.path);
    let links = Links { prefix: prefix.trim_end_matches('/').to_owned(), host: destination.authority() };
    Ok(rewritten(links, response, ctx.method == Method::HEAD))
}

/// Relative links in a page work only below a path that ends with a slash.
fn redirect(ctx: &Context) -> Answer<Response<Body>> {
    let query = ctx.info.query.raw();
    let target = if query.is_empty() { format!("{}/", ctx.info.path) } else { format!("{}/?{query}", ctx.info.path) };
    let mut response = Response::new(respond::full(Bytes::new()));
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    let target = HeaderValue::from_str(&target).map_err(|error| Status::bad_request(error.to_string()))?;
    response.headers_mut().insert(LOCATION, target);
    Ok(response)
}

fn rewritten(links: Links, mut response: Response<Body>, without_body: bool) -> Response<Body> {
    if let Some(location) = response.headers().get(LOCATION).and_then(|location| location.to_str().ok()) {
        if let Some(location) = links.address(location).and_then(|location| HeaderValue::from_str(&location).ok()) {
            response.headers_mut().insert(LOCATION, location);
        }
        return response;
    }
    let headers = response.headers();
    let is_page = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .is_some_and(|kind| kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("text/html"));
    if !is_page || without_body || headers.contains_key(CONTENT_ENCODING) || response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return response;
    }
    // Changed links have another length.
    response.headers_mut().remove(CONTENT_LENGTH);
    response.map(|body| page(body, PageRewriter::new(links)))
}

/// The page with its links changed, piece by piece.
fn page(body: Body, rewriter: PageRewriter) -> Body {
    let pieces = futures::stream::unfold((body, Some(rewriter)), |(mut body, rewriter)| async move {
        let mut rewriter = rewriter?;
        let piece = loop {
            match body.frame().await {
                Some(Ok(frame)) => {
                    let out = frame.into_data().map(|data| rewriter.push(&data)).unwrap_or_default();
                    if !out.is_empty() {
                        break out;
                    }
                }
                Some(Err(error)) => return Some((Err(error), (body, None))),
                None => return Some((Ok(Frame::data(Bytes::from(rewriter.finish()))), (body, None))),
            }
        };
        Some((Ok(Frame::data(Bytes::from(piece))), (body, Some(rewriter))))
    });
    StreamBody::new(pieces).boxed_unsync()
}

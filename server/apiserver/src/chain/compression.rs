//! Compresses large answers for clients that take gzip.
//!
//! Owns the minimum size of a compressed answer (as upstream, 128 KiB), and that compression runs on a bounded number of threads outside
//! the runtime's. Must not touch endless answers (watches, logs, tunnels) or answers that are compressed already.
//!
//! Answers to upstream's `endpoints/handlers/responsewriters/writers.go`.

use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::stream;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, VARY};
use http::{HeaderMap, HeaderValue, Method, Response};
use http_body_util::BodyExt;
use tokio::sync::Semaphore;

use crate::http::respond::{self, Body, BoxError};

/// Smaller answers are sent as they are.
const THRESHOLD_BYTES: u64 = 128 * 1024;
/// As upstream: the level that costs least; the others save little more.
const LEVEL: Compression = Compression::new(1);
/// The media types of objects.
const OBJECTS: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];

/// Whether a client takes gzip. As upstream: named without a weight.
pub fn takes_gzip(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok()).any(|text| text.split(',').any(|t| t.trim() == "gzip"))
}

/// How many pieces of answers are compressed at a time.
pub struct Compressor(Arc<Semaphore>);

/// Whether the answer to a request may be compressed. Asked before the request's headers are given away.
pub fn applies(method: &Method, headers: &HeaderMap, long_running: bool) -> bool {
    method != Method::HEAD && !long_running && takes_gzip(headers)
}

// === impl Compressor ===

impl Default for Compressor {
    fn default() -> Compressor {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Compressor(Arc::new(Semaphore::new(threads.div_ceil(2))))
    }
}

impl Compressor {
    /// The answer, compressed if it is large enough.
    pub fn filter(&self, response: Response<Body>) -> Response<Body> {
        if !is_worth_it(&response) {
            return response;
        }
        let (mut parts, body) = response.into_parts();
        parts.headers.remove(CONTENT_LENGTH);
        parts.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        parts.headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
        Response::from_parts(parts, self.compress(body))
    }

    fn compress(&self, body: Body) -> Body {
        let state = Some((body, GzEncoder::new(Vec::new(), LEVEL)));
        let places = self.0.clone();
        respond::stream(stream::try_unfold(state, move |state| next_piece(state, places.clone())))
    }
}

type State = Option<(Body, GzEncoder<Vec<u8>>)>;

/// Compresses pieces of the body until some bytes come out.
async fn next_piece(state: State, places: Arc<Semaphore>) -> Result<Option<(Bytes, State)>, BoxError> {
    let Some((mut body, mut encoder)) = state else { return Ok(None) };
    while let Some(frame) = body.frame().await {
        let Ok(piece) = frame?.into_data() else { continue };
        let _place = places.acquire().await?;
        // A large piece takes milliseconds: other requests of this thread would wait for it.
        encoder = tokio::task::spawn_blocking(move || encoder.write_all(&piece).map(|()| encoder)).await??;
        let compressed = std::mem::take(encoder.get_mut());
        if !compressed.is_empty() {
            return Ok(Some((compressed.into(), Some((body, encoder)))));
        }
    }
    Ok(Some((encoder.finish()?.into(), None)))
}

fn is_worth_it(response: &Response<Body>) -> bool {
    let headers = response.headers();
    let is_object = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).is_some_and(|ty| OBJECTS.contains(&ty));
    // Objects whose size is not known are lists that are sent in several pieces.
    let is_large = http_body::Body::size_hint(response.body()).exact().is_none_or(|size| size > THRESHOLD_BYTES);
    is_object && is_large && !headers.contains_key(CONTENT_ENCODING)
}

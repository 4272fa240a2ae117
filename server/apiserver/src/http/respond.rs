//! Building HTTP responses.

use bytes::Bytes;
use futures::Stream;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_NONE_MATCH, RETRY_AFTER, WARNING};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use serde_json::Value;
use trireme_api::protobuf;
use trireme_api::status::{Status, StatusDetails};

use crate::http::negotiate::Encoding;

/// Any error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// The body of every response.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A body of one piece.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body of many pieces.
pub fn stream<S>(pieces: S) -> Body
where
    S: Stream<Item = Result<Bytes, BoxError>> + Send + 'static,
{
    use futures::TryStreamExt;
    StreamBody::new(pieces.map_ok(Frame::data)).boxed_unsync()
}

/// A response of raw bytes.
pub fn bytes(code: u16, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let body = body.into();
    let mut response = Response::new(Body::default());
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    *response.body_mut() = full(body);
    response
}

/// JSON bytes that exist already.
pub fn json_bytes(code: u16, encoding: Encoding, body: Bytes) -> Response<Body> {
    match encoding {
        Encoding::Json => bytes(code, "application/json", body),
        Encoding::Yaml | Encoding::Protobuf => match serde_json::from_slice(&body) {
            Ok(value) => object(code, encoding, &value),
            Err(error) => status(&Status::internal(error)),
        },
    }
}

/// An object.
pub fn object(code: u16, encoding: Encoding, value: &Value) -> Response<Body> {
    match encoding {
        Encoding::Json => {
            let mut json = crate::storage::encode::object_json(value);
            json.push(b'\n');
            bytes(code, "application/json", json)
        }
        Encoding::Yaml => match serde_saphyr::to_string(value) {
            Ok(yaml) => bytes(code, "application/yaml", yaml),
            Err(error) => status(&Status::internal(error)),
        },
        Encoding::Protobuf => match protobuf::encode(value) {
            Ok(encoded) => bytes(code, protobuf::CONTENT_TYPE, encoded),
            Err(error) => {
                // Clients that take protobuf read JSON too: better than no answer.
                tracing::warn!(%error, "an object without a protobuf form was asked for in protobuf");
                object(code, Encoding::Json, value)
            }
        },
    }
}

/// A Status in JSON, with its code and Retry-After.
pub fn status(status: &Status) -> Response<Body> {
    status_as(status, Encoding::Json)
}

/// A Status, with its code and Retry-After.
pub fn status_as(status: &Status, encoding: Encoding) -> Response<Body> {
    let protobuf = (encoding == Encoding::Protobuf).then(|| serde_json::to_value(status).ok().and_then(|v| protobuf::encode(&v).ok()));
    let mut response = match protobuf.flatten() {
        Some(encoded) => bytes(status.code(), protobuf::CONTENT_TYPE, encoded),
        None => bytes(status.code(), "application/json", status.to_bytes()),
    };
    if let Some(secs) = status.retry_after_secs() {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(secs));
    }
    response
}

/// A document under an ETag; 304 without it where the client has it already.
pub fn tagged(request: &HeaderMap, tag: &str, make: impl FnOnce() -> Response<Body>) -> Response<Body> {
    let etag = format!("\"{tag}\"");
    let known = |value: &HeaderValue| value.to_str().is_ok_and(|text| text.split(',').any(|one| one.trim() == etag));
    let mut response = match request.get_all(IF_NONE_MATCH).iter().any(known) {
        true => bytes(304, "application/json", ""),
        false => make(),
    };
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        response.headers_mut().insert(ETAG, etag);
    }
    response
}

/// Plain text.
pub fn text(code: u16, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = bytes(code, "text/plain; charset=utf-8", body);
    response.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

/// The answer of upstream's router for a path without a route.
pub fn path_not_found() -> Response<Body> {
    text(404, "404 page not found\n")
}

/// A verb that the resource does not have.
pub fn method_not_allowed() -> Box<Status> {
    plain_status(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
}

/// A body in a format that no endpoint of the path reads, as upstream's router refuses it.
pub fn unsupported_media_type() -> Box<Status> {
    plain_status(415, "UnsupportedMediaType", "415: Unsupported Media Type")
}

fn plain_status(code: u16, reason: &str, message: &str) -> Box<Status> {
    let mut status = Status::failure(code, reason, message);
    status.details = Some(StatusDetails::default());
    Box::new(status)
}

/// Adds `Warning` headers: code 299, no agent, the text quoted. Repeats and control characters are dropped, as is what exceeds
/// upstream's limits (256 bytes each, 4096 in all).
pub fn add_warnings<T>(response: &mut Response<T>, warnings: &[String]) {
    let mut seen: Vec<&str> = Vec::new();
    let mut total = 0;
    for warning in warnings {
        if seen.contains(&warning.as_str()) {
            continue;
        }
        seen.push(warning);
        let mut text = String::with_capacity(warning.len());
        for c in warning.chars().filter(|c| !c.is_control()) {
            if total + text.len() > 4096 {
                return;
            }
            if matches!(c, '"' | '\\') {
                text.push('\\');
            }
            text.push(c);
        }
        total += text.len();
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            response.headers_mut().append(WARNING, value);
        }
    }
}

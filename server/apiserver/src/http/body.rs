//! The body of a request: not read yet, read under a bound, or thrown away.
//!
//! Owns how bytes are read: their number, their minimum speed, and that memory is reserved before they are kept. [`crate::chain::body`]
//! decides how much each user may send; no byte is read before that, so unauthenticated clients cannot make the server hold any.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, EXPECT};
use http_body_util::BodyExt;
use hyper::body::Incoming;

/// How much of a body that is too large is still read before the answer.
const DISCARDED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How much is read of the body of a request that is refused, so that the connection can be used again.
const REFUSED_BYTES_MAX: usize = 256 * 1024;
const REFUSED_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a whole body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a body may pause.
const PAUSE_TIMEOUT: Duration = Duration::from_secs(15);

/// A body.
pub enum Payload {
    /// In memory.
    Whole(Bytes),
    /// Still on its way.
    Stream(Incoming),
}

/// Why a body was not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Larger than the limit.
    #[error("the body of the request is too large")]
    TooLarge,
    /// Other bodies take all the room there is.
    #[error("too many bodies are being read")]
    NoRoom,
    /// It came too slowly.
    #[error("the body of the request did not arrive in time")]
    TimedOut,
    /// The connection or its framing broke.
    #[error("the body could not be read: {0}")]
    Broken(String),
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Payload {
        Payload::Whole(bytes)
    }
}

impl From<Incoming> for Payload {
    fn from(body: Incoming) -> Payload {
        Payload::Stream(body)
    }
}

impl Payload {
    /// The whole body, at most `limit` bytes. `room` is asked before a piece is kept. The rest of a body that is too large is read and
    /// discarded, up to a bound, so that a client that reads only after writing sees the answer instead of a broken pipe.
    pub async fn read(self, headers: &HeaderMap, limit: usize, mut room: impl FnMut(usize) -> bool) -> Result<Bytes, BodyError> {
        let body = match self {
            Payload::Whole(bytes) if bytes.len() > limit => return Err(BodyError::TooLarge),
            Payload::Whole(bytes) => return Ok(bytes),
            Payload::Stream(body) => body,
        };
        if declared(headers).is_some_and(|length| length > DISCARDED_BYTES_MAX) {
            return Err(BodyError::TooLarge);
        }
        tokio::time::timeout(BODY_TIMEOUT, read(body, limit, &mut room)).await.unwrap_or(Err(BodyError::TimedOut))
    }

    /// Reads and forgets a little of the body of a refused request. False if more would have come: then the connection ends.
    pub async fn discard(self, headers: &HeaderMap) -> bool {
        let Payload::Stream(mut body) = self else { return true };
        // A client that waits for `100 Continue` has sent nothing yet.
        if headers.contains_key(EXPECT) {
            return false;
        }
        let all = async {
            let mut total = 0_usize;
            while let Some(Ok(frame)) = body.frame().await {
                total = total.saturating_add(frame.data_ref().map_or(0, Bytes::len));
                if total > REFUSED_BYTES_MAX {
                    return false;
                }
            }
            http_body::Body::is_end_stream(&body)
        };
        tokio::time::timeout(REFUSED_TIMEOUT, all).await.unwrap_or(false)
    }
}

fn declared(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

async fn read(mut body: Incoming, limit: usize, room: &mut impl FnMut(usize) -> bool) -> Result<Bytes, BodyError> {
    let mut pieces: Vec<Bytes> = Vec::new();
    let mut total = 0_usize;
    loop {
        let frame = match tokio::time::timeout(PAUSE_TIMEOUT, body.frame()).await {
            Err(_) => return Err(BodyError::TimedOut),
            Ok(None) => break,
            Ok(Some(Err(error))) => return Err(BodyError::Broken(error.to_string())),
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(piece) = frame.into_data() else { continue };
        total = total.saturating_add(piece.len());
        if total > DISCARDED_BYTES_MAX {
            return Err(BodyError::TooLarge);
        }
        if total > limit {
            pieces.clear();
            continue;
        }
        if !room(piece.len()) {
            return Err(BodyError::NoRoom);
        }
        pieces.push(piece);
    }
    if total > limit {
        return Err(BodyError::TooLarge);
    }
    Ok(if pieces.len() == 1 { pieces.swap_remove(0) } else { pieces.concat().into() })
}

//! Reading bodies, after the request is allowed and within the budget of its user.

pub mod budget;

use bytes::Bytes;
use trireme_api::status::Status;

use crate::chain::body::budget::Room;
use crate::chain::call::Call;
use crate::error::Answer;
use crate::http::body::{BodyError, Payload};
use crate::server::Server;

/// The largest body, as upstream's.
pub const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;

/// Reads the body of a request, unless its endpoint passes the body on unread. The room is held until the request is answered.
pub async fn filter(server: &Server, call: &mut Call) -> Answer<(Bytes, Option<Room>)> {
    if call.target.streams_body() {
        return Ok((Bytes::new(), None));
    }
    match call.payload.take() {
        None => Ok((Bytes::new(), None)),
        Some(Payload::Whole(bytes)) if call.in_process => Ok((bytes, None)),
        Some(payload) => {
            let mut room = server.bodies.room(&call.user);
            match payload.read(&call.headers, BODY_BYTES_MAX, |bytes| room.grow(bytes)).await {
                Ok(bytes) => Ok((bytes, Some(room))),
                Err(error) => {
                    call.broken = true;
                    Err(status(&error, BODY_BYTES_MAX))
                }
            }
        }
    }
}

/// A body that was not read, as clients see it.
pub fn status(error: &BodyError, limit_bytes: usize) -> Box<Status> {
    Box::new(match error {
        BodyError::TooLarge => Status::body_too_large(limit_bytes),
        BodyError::NoRoom => Status::too_many_requests("Too many requests, please try again later.", 1),
        BodyError::TimedOut => Status::timeout(&error.to_string(), 0),
        BodyError::Broken(_) => Status::bad_request(error.to_string()),
    })
}

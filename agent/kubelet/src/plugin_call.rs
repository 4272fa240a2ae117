//! Calls to plugins over their unix sockets, each with a deadline: CSI drivers, device plugins, and the registrars of both.
//!
//! A channel is lazy: while the plugin restarts every call fails with `Unavailable`, and the next one connects again.

use std::{future::Future, path::PathBuf, time::Duration};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::{
    Code, Response, Status,
    transport::{Channel, Endpoint, Uri},
};

use crate::error::Error;

/// What a plugin says goes into events and logs.
const MAX_TEXT_CHARS: usize = 1000;

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rpc error: code = {} desc = {message}", name(*.code))]
pub(crate) struct Refused {
    pub(crate) code: Code,
    message: String,
}

impl Refused {
    /// Whether the call may have had its effect nonetheless, or still has it later.
    pub(crate) fn is_uncertain(&self) -> bool {
        matches!(self.code, Code::Cancelled | Code::DeadlineExceeded | Code::Unavailable | Code::ResourceExhausted | Code::Aborted)
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Error {
        Error::Config(refused.to_string())
    }
}

/// The name of a code as Go prints it.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

/// A connection to a plugin's socket; connects on first use.
pub(crate) fn channel(socket: PathBuf) -> Channel {
    // The authority is never used: the connector ignores it.
    Endpoint::from_static("http://plugin.invalid").connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    }))
}

/// The answer of a call, or why there is none.
pub(crate) async fn answer<T>(deadline: Duration, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Refused> {
    match tokio::time::timeout(deadline, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => {
            let away = std::error::Error::source(&status).is_some() && matches!(status.code(), Code::Unknown | Code::Cancelled);
            let code = if away { Code::Unavailable } else { status.code() };
            Err(Refused { code, message: status.message().chars().take(MAX_TEXT_CHARS).collect() })
        }
        Err(_) => Err(Refused { code: Code::DeadlineExceeded, message: "context deadline exceeded".into() }),
    }
}

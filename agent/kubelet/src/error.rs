//! What can go wrong in the kubelet, and whether trying again may help.

use tonic::Code;

/// The one error type of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The container runtime refused a call. `message` is the runtime's own text, which users see in pod statuses.
    #[error("{message}")]
    Runtime {
        /// The name of the CRI call, for logs.
        call: &'static str,
        /// The gRPC status code.
        code: Code,
        /// What the runtime said.
        message: String,
    },
    /// The API server refused or could not be reached.
    #[error("{0}")]
    Api(#[from] trireme_client::Error),
    /// A file, directory, mount or socket of the host.
    #[error("{what}: {source}")]
    Io {
        /// What was tried, with its path.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The pod's specification cannot be turned into a running container (a missing key, an unknown volume type, ...).
    #[error("{0}")]
    Config(String),
    /// One step on a volume's way into a pod failed. Users see the text as an event, in upstream's words.
    #[error("{operation} failed for volume {volume:?} : {why}")]
    Mount {
        /// Upstream's name of the step, `MountVolume.SetUp`.
        operation: &'static str,
        /// The PersistentVolume, or the pod's volume.
        volume: String,
        /// What went wrong.
        why: String,
    },
    /// Others have not done their part yet: nothing is wrong so far.
    #[error("{0}")]
    Waiting(String),
    /// An option of this kubelet is wrong, or a listening port is taken.
    #[error("{0}")]
    Options(String),
}

impl Error {
    /// Wraps an I/O error with what was tried.
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
        let what = what.into();
        move |source| Error::Io { what, source }
    }

    /// A system call's error (from `nix`), with what was tried.
    pub fn errno(what: impl Into<String>) -> impl FnOnce(nix::Error) -> Error {
        let what = what.into();
        move |errno| Error::Io { what, source: std::io::Error::from(errno) }
    }

    /// True when the same call may succeed later without any change.
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::Runtime { code, .. } => matches!(code, Code::Unavailable | Code::DeadlineExceeded | Code::Aborted | Code::Cancelled),
            Error::Api(e) => e.is_retryable(),
            Error::Io { .. } | Error::Mount { .. } | Error::Waiting(_) => true,
            Error::Config(_) | Error::Options(_) => false,
        }
    }

    /// True when the runtime could not be reached at all (it restarts, or is not there yet).
    pub fn is_runtime_away(&self) -> bool {
        matches!(self, Error::Runtime { code: Code::Unavailable, .. })
    }

    /// True when the runtime no longer knows the sandbox, container or image.
    pub fn is_runtime_not_found(&self) -> bool {
        matches!(self, Error::Runtime { code: Code::NotFound, .. })
    }

    /// True when the runtime still holds the name of a sandbox or container from a creation that was cut off
    /// (by a crash of ours, or a timeout). The creation either appears in its lists or the name becomes free.
    pub fn is_name_reserved(&self) -> bool {
        matches!(self, Error::Runtime { message, .. } if message.contains("is reserved for"))
    }
}

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

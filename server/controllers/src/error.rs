//! The crate's one error.

/// Why a reconcile did not finish. All are tried again, each time later.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API refused or did not answer.
    #[error(transparent)]
    Client(#[from] trireme_client::Error),
    /// The own cache has not yet seen what was just written.
    #[error("the cache has not caught up with our own writes")]
    StaleCache,
    /// Several errors; the first of them.
    #[error("{count} of the steps failed, first: {first}")]
    Several {
        /// How many.
        count: usize,
        /// The first failure.
        first: Box<Error>,
    },
    /// An object is not as it must be.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    /// One error for many; `None` if there is none.
    pub(crate) fn first_of(mut errors: Vec<Error>) -> Option<Error> {
        match errors.len() {
            0 => None,
            1 => errors.pop(),
            count => Some(Error::Several { count, first: Box::new(errors.swap_remove(0)) }),
        }
    }

    /// Whether this is everyday business between level-triggered clients, not worth a warning.
    pub(crate) fn is_expected(&self) -> bool {
        match self {
            Error::Client(error) => error.is_conflict() || error.is_not_found() || error.is_already_exists(),
            Error::StaleCache => true,
            Error::Several { first, .. } => first.is_expected(),
            Error::Invalid(_) => false,
        }
    }
}

//! Which paths answer to requests without credentials.

/// The paths where a server has no other configuration.
const DEFAULT_PATHS: &[&str] = &["/healthz", "/livez", "/readyz", "/version", "/version/"];

/// The paths that accept requests without credentials. The authorizer decides what such requests may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Anonymous {
    /// Health and version.
    #[default]
    DefaultPaths,
    /// These paths.
    Paths(Vec<String>),
    /// All paths.
    Everywhere,
    /// No path.
    Nowhere,
}

impl Anonymous {
    /// Whether a path is one of them.
    pub fn allows(&self, path: &str) -> bool {
        match self {
            Anonymous::DefaultPaths => DEFAULT_PATHS.contains(&path),
            Anonymous::Paths(paths) => paths.iter().any(|one| one == path),
            Anonymous::Everywhere => true,
            Anonymous::Nowhere => false,
        }
    }
}

//! Which paths answer to requests without credentials.

/// The paths where a server has no other configuration.
const DEFAULT_PATHS: &[&str] = &["/healthz", "/livez", "/readyz", "/version", "/version/"];

/// Where nobody has to say who he is. What he may do there is for the authorizer to say.
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

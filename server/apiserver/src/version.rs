//! `/version`: which Kubernetes API level this is, and which build.

use serde_json::{Value, json};

/// The API level, with this distribution's suffix.
pub const GIT_VERSION: &str = "v1.36.2+trireme1";
/// Major version.
pub const MAJOR: &str = "1";
/// Minor version.
pub const MINOR: &str = "36";

fn platform() -> String {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("{}/{arch}", std::env::consts::OS)
}

/// The document of `/version`.
pub fn document() -> Value {
    json!({
        "major": MAJOR,
        "minor": MINOR,
        "emulationMajor": MAJOR,
        "emulationMinor": MINOR,
        "minCompatibilityMajor": MAJOR,
        "minCompatibilityMinor": "35",
        "gitVersion": GIT_VERSION,
        "gitCommit": option_env!("TRIREME_GIT_COMMIT").unwrap_or("unknown"),
        "gitTreeState": option_env!("TRIREME_GIT_TREE_STATE").unwrap_or("clean"),
        "buildDate": option_env!("TRIREME_BUILD_DATE").unwrap_or("1970-01-01T00:00:00Z"),
        "goVersion": "go1.26",
        "compiler": "rustc",
        "platform": platform(),
    })
}

//! `/version`: the Kubernetes version whose behaviour is served, with what this build is.

use serde_json::{Value, json};

/// The upstream release that this server behaves as.
pub const KUBERNETES: &str = "v1.37.2";

/// The answer of `/version`. Clients read major, minor and gitVersion.
#[must_use]
pub(crate) fn info() -> Value {
    json!({
        "major": "1", "minor": "37", "emulationMajor": "1", "emulationMinor": "37",
        "minCompatibilityMajor": "1", "minCompatibilityMinor": "36",
        "gitVersion": format!("{KUBERNETES}+skep-{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "", "gitTreeState": "", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" }),
    })
}

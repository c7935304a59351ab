//! Client certificates as kubeconfig files.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::{Error, write};

/// A client certificate and its key, as PEM.
pub struct Credentials {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

/// The text of a kubeconfig with one cluster and one user.
#[must_use]
pub fn kubeconfig(server: &str, ca_pem: &str, user: &str, credentials: &Credentials) -> String {
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "preferences": {}, "current-context": "skep",
        "clusters": [{ "name": "skep", "cluster": { "server": server, "certificate-authority-data": STANDARD.encode(ca_pem) } }],
        "contexts": [{ "name": "skep", "context": { "cluster": "skep", "user": user } }],
        "users": [{ "name": user, "user": {
            "client-certificate-data": STANDARD.encode(&credentials.certificate),
            "client-key-data": STANDARD.encode(&credentials.key),
        } }],
    });
    serde_yaml::to_string(&config).unwrap_or_default()
}

impl Credentials {
    /// Writes a kubeconfig that only its owner can read.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn write_kubeconfig(&self, path: &Path, server: &str, ca_pem: &str, user: &str) -> Result<(), Error> {
        write(path, &kubeconfig(server, ca_pem, user, self), 0o600)
    }
}

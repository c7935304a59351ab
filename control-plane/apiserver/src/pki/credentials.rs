//! Certificates as files: kubeconfigs, and PEM.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::{Error, write};

/// A certificate and its key, as PEM.
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

    /// Writes `NAME.crt`, `NAME.key` (which only its owner can read) and the authority as `ca.crt` into a directory, which is made.
    ///
    /// # Errors
    /// When a file can't be written.
    pub fn write_files(&self, directory: &Path, name: &str, ca_pem: &str) -> Result<(), Error> {
        let failed = |source| Error::File { path: directory.to_owned(), source };
        fs::create_dir_all(directory).map_err(failed)?;
        write(&directory.join("ca.crt"), ca_pem, 0o644)?;
        write(&directory.join(format!("{name}.key")), &self.key, 0o600)?;
        write(&directory.join(format!("{name}.crt")), &self.certificate, 0o644)
    }
}

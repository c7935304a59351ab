//! Where a webhook is and whom it is trusted by: `WebhookClientConfig` of admissionregistration.k8s.io and apiextensions.k8s.io.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::Value;

use super::connection::Failure;
use super::resolve::{Address, resolve_service};
use crate::cache::Cache;

/// Where a webhook is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// A host, named or by address, and its port.
    Host {
        /// Without brackets.
        host: String,
        /// 443 where the URL names none.
        port: u16,
    },
    /// A Service in the cluster.
    Service {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The Service's port.
        port: u16,
    },
}

/// How a webhook is called.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientConfig {
    target: Target,
    /// As it is in the request line, beginning with a slash.
    path: String,
    /// The host as a client names it: in the URL, or the Service's name in the cluster.
    server_name: String,
    /// PEM; empty trusts what the system trusts.
    ca_bundle: Bytes,
}

impl ClientConfig {
    /// Reads a `clientConfig` that has passed validation.
    ///
    /// # Errors
    /// When it is none, in upstream's words.
    pub fn from_value(config: &Value) -> Result<Self, String> {
        let ca_bundle = match config["caBundle"].as_str() {
            Some(bundle) => {
                STANDARD.decode(bundle).map_err(|error| format!("illegal base64 data in caBundle: {error}"))?
            }
            None => Vec::new(),
        };
        let ca_bundle = Bytes::from(ca_bundle);
        if let Some(url) = config["url"].as_str() {
            return Self::from_url(url, ca_bundle);
        }
        let service = &config["service"];
        let (Some(namespace), Some(name)) = (service["namespace"].as_str(), service["name"].as_str()) else {
            return Err("webhook configuration must have either service or URL".to_owned());
        };
        let path = service["path"].as_str().unwrap_or_default();
        let port = service["port"].as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
        Ok(Self {
            target: Target::Service {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                port: port.unwrap_or(443),
            },
            path: if path.starts_with('/') { path.to_owned() } else { format!("/{path}") },
            server_name: format!("{name}.{namespace}.svc"),
            ca_bundle,
        })
    }

    fn from_url(url: &str, ca_bundle: Bytes) -> Result<Self, String> {
        let uri: http::Uri = url.parse().map_err(|error| format!("Unparsable URL: {error}"))?;
        let host = uri.host().ok_or("Unparsable URL: no host")?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let path = uri.path();
        Ok(Self {
            target: Target::Host { host: host.clone(), port: uri.port_u16().unwrap_or(443) },
            path: if path.is_empty() { "/".to_owned() } else { path.to_owned() },
            server_name: host,
            ca_bundle,
        })
    }

    /// The name that the certificate must be for.
    #[must_use]
    pub fn server_name(&self) -> &str {
        &self.server_name
    }

    /// Where it is.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    pub(super) fn ca_bundle(&self) -> &Bytes {
        &self.ca_bundle
    }

    /// `host:port`, as URLs and the `Host` header have it.
    #[must_use]
    pub fn authority(&self) -> String {
        let (Target::Host { port, .. } | Target::Service { port, .. }) = &self.target;
        if self.server_name.contains(':') {
            format!("[{}]:{port}", self.server_name)
        } else {
            format!("{}:{port}", self.server_name)
        }
    }

    pub(super) fn path_and_query(&self, timeout: Duration) -> String {
        let seconds = timeout.as_secs() + u64::from(timeout.subsec_nanos() > 0);
        format!("{}?timeout={seconds}s", self.path)
    }

    /// The URL as messages show it.
    #[must_use]
    pub fn url(&self, timeout: Duration) -> String {
        format!("https://{}{}", self.authority(), self.path_and_query(timeout))
    }

    pub(super) fn address(&self, cache: &Cache) -> Result<Address, Failure> {
        match &self.target {
            Target::Host { host, port } => Ok(Address { host: host.clone(), port: *port }),
            Target::Service { namespace, name, port } => {
                resolve_service(cache, namespace, name, *port).map_err(|status| Failure::Connection(status.message))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_service_is_called_by_its_name_in_the_cluster() {
        let config = ClientConfig::from_value(&json!({
            "service": {"namespace": "n", "name": "s", "path": "/validate", "port": 8443}, "caBundle": "YQ==",
        }))
        .unwrap();
        assert_eq!(config.server_name(), "s.n.svc");
        assert_eq!(config.url(Duration::from_secs(1)), "https://s.n.svc:8443/validate?timeout=1s");
        assert_eq!(config.url(Duration::from_millis(1500)), "https://s.n.svc:8443/validate?timeout=2s");
        assert_eq!(&config.ca_bundle()[..], b"a");
    }

    #[test]
    fn a_url_has_a_port_of_its_own_or_that_of_https() {
        let url = |url: &str| ClientConfig::from_value(&json!({"url": url})).unwrap().url(Duration::from_secs(10));
        assert_eq!(url("https://example.com"), "https://example.com:443/?timeout=10s");
        assert_eq!(url("https://[::1]:8443/a/b"), "https://[::1]:8443/a/b?timeout=10s");
        assert!(ClientConfig::from_value(&json!({})).is_err());
    }
}

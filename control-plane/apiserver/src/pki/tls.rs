//! The certificates as TLS configurations.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::{Error, Pki};

impl Pki {
    /// How the API server serves: HTTP/2 and HTTP/1.1, client certificates of the cluster's authority welcome but not demanded.
    ///
    /// # Errors
    /// When the files do not fit together.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()?), provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|error| Error::Malformed { path: self.path("ca.crt"), why: error.to_string() })?;
        let (chain, key) = self.chain("apiserver")?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// How the API server reaches kubelets.
    ///
    /// # Errors
    /// When the files do not fit together.
    pub fn kubelet_client(&self) -> Result<Arc<ClientConfig>, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let (chain, key) = self.chain("apiserver-kubelet-client")?;
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(self.roots()?)
            .with_client_auth_cert(chain, key)?;
        Ok(Arc::new(config))
    }

    fn roots(&self) -> Result<RootCertStore, Error> {
        let mut roots = RootCertStore::empty();
        for certificate in
            certificates(self.ca_pem()).map_err(|why| Error::Malformed { path: self.path("ca.crt"), why })?
        {
            roots.add(certificate)?;
        }
        Ok(roots)
    }

    fn chain(&self, name: &str) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Error> {
        let (certificate, key) = (self.path(&format!("{name}.crt")), self.path(&format!("{name}.key")));
        let chain =
            certificates(&super::read(&certificate)?).map_err(|why| Error::Malformed { path: certificate, why })?;
        let pem = super::read(&key)?;
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| Error::Malformed { path: key, why: error.to_string() })?;
        Ok((chain, key))
    }
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(|error| error.to_string())
}

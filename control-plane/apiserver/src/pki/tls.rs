//! The certificates as TLS configurations.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};

use super::{Error, Pki};

impl Pki {
    /// How the API server serves: HTTP/2 and HTTP/1.1, client certificates welcome but not demanded.
    ///
    /// # Errors
    /// When the files do not fit together.
    pub fn server_tls(&self) -> Result<ServerTls, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()?), provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|error| Error::Malformed { path: self.path("ca.crt"), why: error.to_string() })?;
        let (chain, key) = self.chain("apiserver")?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(Arc::new(AnyClient(verifier.clone())))
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(ServerTls { config: Arc::new(config), clients: verifier })
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

/// How the API server serves, and whose client certificates it believes.
#[derive(Debug, Clone)]
pub struct ServerTls {
    /// For the handshake, which takes any client certificate whose key the client has.
    pub config: Arc<ServerConfig>,
    clients: Arc<dyn ClientCertVerifier>,
}

impl ServerTls {
    /// Whether the cluster's authority signed a client's chain, for clients, and it is valid at this moment.
    #[must_use]
    pub fn trusts(&self, chain: &[CertificateDer<'_>]) -> bool {
        chain
            .split_first()
            .is_some_and(|(own, others)| self.clients.verify_client_cert(own, others, UnixTime::now()).is_ok())
    }
}

/// Lets a handshake succeed whoever signed the client's certificate, as upstream's server does: who shows one that is no
/// good gets an answer, 401, that says so, and not a broken connection. [`ServerTls::trusts`] judges it.
#[derive(Debug)]
struct AnyClient(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for AnyClient {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(|error| error.to_string())
}

//! One connection: TCP, TLS, HTTP/1.1.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::{Address, CallError};

/// How long connecting may take; Go's default for a dialer of webhooks.
const CONNECT: Duration = Duration::from_secs(30);

/// Why an exchange failed.
pub(super) enum Failure {
    /// It could not be made.
    Connection(String),
    /// It was made, and the answer says no.
    Call(CallError),
}

pub(super) struct Connection(SendRequest<Full<Bytes>>);

impl Connection {
    /// Connects; the connection's own task ends when either side closes it.
    pub(super) async fn open(
        address: &Address,
        server_name: &str,
        tls: Arc<ClientConfig>,
        tasks: &TaskTracker,
    ) -> Result<Self, Failure> {
        let shown = if address.host.contains(':') {
            format!("[{}]:{}", address.host, address.port)
        } else {
            format!("{}:{}", address.host, address.port)
        };
        let dial = |why: &str| Failure::Connection(format!("dial tcp {shown}: {why}"));
        let connect = TcpStream::connect((address.host.as_str(), address.port));
        let stream = tokio::time::timeout(CONNECT, connect)
            .await
            .map_err(|_| dial("i/o timeout"))?
            .map_err(|error| dial(&dialled(&error)))?;
        stream.set_nodelay(true).map_err(|error| dial(&error.to_string()))?;
        let name = ServerName::try_from(server_name.to_owned())
            .map_err(|_| Failure::Connection(format!("tls: invalid server name {server_name:?}")))?;
        let stream = TlsConnector::from(tls)
            .connect(name, stream)
            .await
            .map_err(|error| Failure::Connection(refused(&error)))?;
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| Failure::Connection(error.to_string()))?;
        tasks.spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "a connection to a webhook ended");
            }
        });
        Ok(Self(sender))
    }

    pub(super) fn is_open(&self) -> bool {
        !self.0.is_closed()
    }

    pub(super) async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Failure> {
        let failed = |error: hyper::Error| {
            Failure::Connection(if error.is_incomplete_message() { "EOF".to_owned() } else { error.to_string() })
        };
        self.0.ready().await.map_err(failed)?;
        self.0.send_request(request).await.map_err(failed)
    }
}

/// A TLS configuration that trusts a bundle of PEM, or what the system trusts when it is empty.
pub(super) fn trusting(ca_bundle: &[u8]) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    if ca_bundle.is_empty() {
        // A system without any leaves nobody to be trusted, which the handshake then says.
        for certificate in rustls_native_certs::load_native_certs().certs {
            if let Err(error) = roots.add(certificate) {
                debug!(%error, "a certificate of the system's authorities can't be used");
            }
        }
    } else {
        for certificate in CertificateDer::pem_slice_iter(ca_bundle) {
            let certificate =
                certificate.map_err(|_| "unable to load root certificates: unable to parse bytes as PEM block")?;
            roots.add(certificate).map_err(|error| format!("unable to load root certificates: {error}"))?;
        }
        if roots.is_empty() {
            return Err("unable to load root certificates: unable to parse bytes as PEM block".to_owned());
        }
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn dialled(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        std::io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        std::io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        _ => error.to_string(),
    }
}

/// A failed handshake in Go's words, where they are known.
fn refused(error: &std::io::Error) -> String {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let why = match tls {
        Some(rustls::Error::InvalidCertificate(why)) => why,
        Some(other) => return format!("tls: {other}"),
        None => return error.to_string(),
    };
    let words = match why {
        CertificateError::UnknownIssuer => "x509: certificate signed by unknown authority".to_owned(),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "x509: certificate has expired or is not yet valid".to_owned()
        }
        other => format!("x509: {other}"),
    };
    format!("tls: failed to verify certificate: {words}")
}

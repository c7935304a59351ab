//! The server's certificate and the authority of its clients, read again when their files change.
//!
//! Certificates rotate under a kubelet that runs; connections that stand keep theirs. Invariant: files that can't be read or don't fit together never
//! replace those that do.

use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::{Timestamp, ToSpan};
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use x509_parser::prelude::{FromDer, X509Certificate};

/// How often the files are looked at.
const RELOAD: Duration = Duration::from_secs(10);

/// How long a self-signed certificate is good, and how long before its end a start of the kubelet makes a new one.
const SELF_SIGNED_DAYS: i64 = 365;
const RENEW_DAYS: i64 = 30;

/// Why TLS can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds something else than it should.
    #[error("{}: {why}", path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A certificate can't be made.
    #[error("can't make a certificate: {0}")]
    Generate(#[from] rcgen::Error),
    /// The TLS library refuses.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

/// Where a certificate and its key are, as PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, the server's own certificate first.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// A TLS configuration that serves the certificate of these files, and, given `client_ca`, verifies client certificates by the authorities in it; a client
/// may come without one. Spawn [`Reload::run`] to follow the files.
///
/// # Errors
/// When a file can't be read or they don't fit together.
pub fn server_config(
    files: CertificateFiles,
    client_ca: Option<PathBuf>,
) -> Result<(Arc<ServerConfig>, Reload), TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    // Looked at before they are read: a change in between is found by the next look.
    let seen = contents(&files, client_ca.as_deref());
    let certificate = Arc::new(Served(ArcSwap::new(read_certificate(&files, &provider)?)));
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let (builder, clients) = match client_ca {
        None => (builder.with_no_client_auth(), None),
        Some(path) => {
            let verifier = Arc::new(Clients(ArcSwap::from_pointee(read_authority(&path, &provider)?)));
            (builder.with_client_cert_verifier(verifier.clone()), Some((path, verifier)))
        }
    };
    let mut config = builder.with_cert_resolver(certificate.clone());
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((Arc::new(config), Reload { provider, files, certificate, clients, seen }))
}

/// Follows the files of a [`server_config`].
pub struct Reload {
    provider: Arc<CryptoProvider>,
    files: CertificateFiles,
    certificate: Arc<Served>,
    clients: Option<(PathBuf, Arc<Clients>)>,
    /// What the files held when they were last looked at.
    seen: Vec<Option<Vec<u8>>>,
}

impl Reload {
    /// Looks at the files from time to time until cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(RELOAD);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.look();
        }
    }

    /// Reads the files if they changed. They are a few kilobytes on a local disk, for which no thread is worth its while.
    fn look(&mut self) {
        let now = contents(&self.files, self.clients.as_ref().map(|(path, _)| path.as_path()));
        if now != self.seen {
            self.reload();
            self.seen = now;
        }
    }

    /// What is no good leaves the old in place.
    fn reload(&self) {
        match read_certificate(&self.files, &self.provider) {
            Ok(certificate) => {
                self.certificate.0.store(certificate);
                info!(path = %self.files.certificate.display(), "serving a new certificate");
            }
            Err(error) => warn!(%error, "keeping the present serving certificate"),
        }
        if let Some((path, clients)) = &self.clients {
            match read_authority(path, &self.provider) {
                Ok(verifier) => clients.0.store(Arc::new(verifier)),
                Err(error) => warn!(%error, "keeping the present authority of clients"),
            }
        }
    }
}

fn contents(files: &CertificateFiles, client_ca: Option<&Path>) -> Vec<Option<Vec<u8>>> {
    let files = [files.certificate.as_path(), files.key.as_path()];
    files.into_iter().chain(client_ca).map(|path| std::fs::read(path).ok()).collect()
}

/// The certificate that is served now.
#[derive(Debug)]
struct Served(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// The authority that clients are verified by now.
#[derive(Debug)]
struct Clients(ArcSwap<Arc<dyn ClientCertVerifier>>);

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// No hints: they would have to outlive a reload, and a client that has one certificate needs none.
    fn root_hint_subjects(&self) -> &[rustls::DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.0.load().verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.load().verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.load().verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.load().supported_verify_schemes()
    }
}

fn read_certificate(files: &CertificateFiles, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = read_certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_slice(&read(&files.key)?)
        .map_err(|error| TlsError::Malformed { path: files.key.clone(), why: error.to_string() })?;
    Ok(Arc::new(CertifiedKey::from_der(chain, key, provider)?))
}

fn read_authority(path: &Path, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(path)? {
        roots.add(certificate)?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|error| TlsError::Malformed { path: path.to_owned(), why: error.to_string() })
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let malformed = |why: String| TlsError::Malformed { path: path.to_owned(), why };
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<_, _>>()
        .map_err(|error| malformed(error.to_string()))?;
    if certificates.is_empty() {
        return Err(malformed("holds no certificate".to_owned()));
    }
    Ok(certificates)
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::File { path: path.to_owned(), source })
}

/// The certificate of a kubelet that was given none: `kubelet.crt` and `kubelet.key` in `directory`, self-signed for these names and addresses, made anew
/// when they are missing, name others, or are near their end.
///
/// An API server that verifies kubelets by an authority does not accept it; it is for those that don't, as upstream's by default.
///
/// # Errors
/// When it can't be made or written.
pub fn self_signed(
    directory: &Path,
    node: &str,
    addresses: &[IpAddr],
    now: Timestamp,
) -> Result<CertificateFiles, TlsError> {
    let files = CertificateFiles { certificate: directory.join("kubelet.crt"), key: directory.join("kubelet.key") };
    let mut names = vec![node.to_owned()];
    names.extend(addresses.iter().map(IpAddr::to_string));
    if is_good(&files, &names, now) {
        return Ok(files);
    }
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("{node}@{}", now.as_second()));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    let at =
        |seconds: i64| time::OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    params.not_before = at(now.as_second() - 3600);
    params.not_after = at(now.as_second() + SELF_SIGNED_DAYS * 86_400);
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::File { path, source }
    };
    std::fs::create_dir_all(directory).map_err(failed(directory))?;
    write(&files.key, &key.serialize_pem(), 0o600).map_err(failed(&files.key))?;
    write(&files.certificate, &certificate.pem(), 0o644).map_err(failed(&files.certificate))?;
    Ok(files)
}

fn is_good(files: &CertificateFiles, names: &[String], now: Timestamp) -> bool {
    let provider = rustls::crypto::ring::default_provider();
    let Ok(certified) = read_certificate(files, &provider) else { return false };
    let Some((_, certificate)) = certified.cert.first().and_then(|leaf| X509Certificate::from_der(leaf).ok()) else {
        return false;
    };
    let renew = now.checked_add((RENEW_DAYS * 24).hours()).unwrap_or(now);
    if certificate.validity().not_after.timestamp() < renew.as_second() {
        return false;
    }
    let there: Vec<String> = certificate
        .subject_alternative_name()
        .ok()
        .flatten()
        .map(|names| names.value.general_names.iter().filter_map(name_of).collect())
        .unwrap_or_default();
    names.iter().all(|name| there.contains(name))
}

fn name_of(name: &x509_parser::extensions::GeneralName<'_>) -> Option<String> {
    use x509_parser::extensions::GeneralName;
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => Some(IpAddr::from(<[u8; 4]>::try_from(*bytes).ok()?).to_string()),
            16 => Some(IpAddr::from(<[u8; 16]>::try_from(*bytes).ok()?).to_string()),
            _ => None,
        },
        _ => None,
    }
}

/// Replaces a file in one step, so that a reader sees all of it or the one before.
fn write(path: &Path, content: &str, mode: u32) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_self_signed_certificate_is_kept_until_its_end_is_near_or_its_names_change() {
        let directory = tempfile::tempdir().unwrap();
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let make = |addresses: &[IpAddr], now| {
            let files = self_signed(directory.path(), "node-1", addresses, now).unwrap();
            std::fs::read_to_string(files.certificate).unwrap()
        };
        let first = make(&[], now);
        assert_eq!(make(&[], now), first);
        let named = make(&["10.0.0.1".parse().unwrap()], now);
        assert_ne!(named, first);
        assert_eq!(make(&["10.0.0.1".parse().unwrap()], now), named);
        assert_ne!(make(&["10.0.0.1".parse().unwrap()], now + (340 * 24).hours()), named);
    }

    #[test]
    fn a_certificate_without_its_key_does_not_replace_the_one_served() {
        let directory = tempfile::tempdir().unwrap();
        let files = self_signed(directory.path(), "node-1", &[], Timestamp::now()).unwrap();
        let (_, mut reload) = server_config(files.clone(), None).unwrap();
        let before = reload.certificate.0.load_full();
        std::fs::write(&files.key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
        reload.look();
        assert!(Arc::ptr_eq(&before, &reload.certificate.0.load_full()));
        std::fs::remove_file(&files.key).unwrap();
        self_signed(directory.path(), "node-1", &[], Timestamp::now()).unwrap();
        reload.look();
        assert!(!Arc::ptr_eq(&before, &reload.certificate.0.load_full()));
    }
}

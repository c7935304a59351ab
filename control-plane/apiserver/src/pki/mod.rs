//! Keys and certificates of a cluster: made once, kept in the data directory, renewed when their end is near.
//!
//! Layout of `pki/`: `ca.crt/.key` (signs servers and clients), `sa.key/.pub` (signs service accounts' tokens), `apiserver.crt/.key`,
//! `apiserver-kubelet-client.crt/.key`. Keys are readable by their owner only.

mod credentials;
mod tls;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use jiff::{Timestamp, ToSpan};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate};

use crate::auth::token::SigningKey;

pub use credentials::{Credentials, kubeconfig};
pub use tls::ServerTls;

/// How long the authority lives.
const CA_DAYS: i64 = 3650;
/// How long everything it signs lives.
const LEAF_DAYS: i64 = 365;
/// What has less than this left is made anew.
const RENEW_DAYS: i64 = 90;

/// Why keys or certificates can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file can't be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A certificate can't be made or read.
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A file does not hold what its name says.
    #[error("{}: {why}", path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// TLS does not take the certificates.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// The cluster's authority and what it has signed for this server.
pub struct Pki {
    directory: PathBuf,
    ca_pem: String,
    ca_key_pem: String,
    now: Timestamp,
}

impl Pki {
    /// Opens a directory, and makes what is not there. `names` are the serving certificate's names and addresses besides those that every API server has.
    ///
    /// # Errors
    /// When files can't be used.
    pub fn open_or_create(directory: &Path, names: &[String], now: Timestamp) -> Result<Self, Error> {
        let failed = |source| Error::File { path: directory.to_owned(), source };
        fs::create_dir_all(directory).map_err(failed)?;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).map_err(failed)?;
        let (certificate, key) = (directory.join("ca.crt"), directory.join("ca.key"));
        if !certificate.exists() {
            let (pem, key_pem) = new_authority(now)?;
            // The key first: a certificate that is there has its key.
            write(&key, &key_pem, 0o600)?;
            write(&certificate, &pem, 0o644)?;
        }
        let this = Self { directory: directory.to_owned(), ca_pem: read(&certificate)?, ca_key_pem: read(&key)?, now };
        this.ensure_signing_key()?;
        let mut all: Vec<String> = [
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            "localhost",
            "127.0.0.1",
            "::1",
        ]
        .map(str::to_owned)
        .to_vec();
        all.extend(names.iter().filter(|name| !all.contains(name)).cloned().collect::<Vec<_>>());
        this.ensure_leaf("apiserver", || server_params(&all), &all)?;
        let client = || client_params("kube-apiserver-kubelet-client", None);
        this.ensure_leaf("apiserver-kubelet-client", client, &[])?;
        Ok(this)
    }

    /// The authority's certificate, which clients trust.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The key pair of service accounts' tokens.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn service_account_key(&self) -> Result<SigningKey, Error> {
        let path = self.directory.join("sa.key");
        let private_pem = read(&path)?;
        let pair = KeyPair::from_pem(&private_pem)?;
        if pair.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(Error::Malformed { path, why: "it is no P-256 key".to_owned() });
        }
        Ok(SigningKey { public_pem: pair.public_key_pem(), point: pair.public_key_raw().to_vec(), private_pem })
    }

    /// A client certificate and its key, as PEM, signed by the authority.
    ///
    /// # Errors
    /// When signing fails.
    pub fn client(&self, name: &str, group: Option<&str>) -> Result<Credentials, Error> {
        let (certificate, key) = self.sign(client_params(name, group)?)?;
        Ok(Credentials { certificate, key })
    }

    /// A certificate that serves under names and addresses, as a kubelet's; it is no client's.
    ///
    /// # Errors
    /// When a name is none, or signing fails.
    pub fn server(&self, common_name: &str, group: Option<&str>, names: &[String]) -> Result<Credentials, Error> {
        let mut params = server_params(names)?;
        subject(&mut params, common_name, group);
        let (certificate, key) = self.sign(params)?;
        Ok(Credentials { certificate, key })
    }

    fn ensure_signing_key(&self) -> Result<(), Error> {
        let path = self.directory.join("sa.key");
        if path.exists() {
            return Ok(());
        }
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        write(&path, &pair.serialize_pem(), 0o600)?;
        write(&self.directory.join("sa.pub"), &pair.public_key_pem(), 0o644)
    }

    fn ensure_leaf(
        &self,
        name: &str,
        params: impl FnOnce() -> Result<CertificateParams, Error>,
        names: &[String],
    ) -> Result<(), Error> {
        let (certificate, key) =
            (self.directory.join(format!("{name}.crt")), self.directory.join(format!("{name}.key")));
        if certificate.exists() && key.exists() && self.is_good(&certificate, &key, names)? {
            return Ok(());
        }
        let (pem, key_pem) = self.sign(params()?)?;
        write(&key, &key_pem, 0o600)?;
        write(&certificate, &pem, 0o644)
    }

    /// Whether a certificate belongs to its key and to the authority, has all names, and its end is not near.
    fn is_good(&self, path: &Path, key: &Path, names: &[String]) -> Result<bool, Error> {
        let pem = read(path)?;
        let malformed = |why: String| Error::Malformed { path: path.to_owned(), why };
        let (_, pem) =
            x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|error| malformed(error.to_string()))?;
        let (_, parsed) = X509Certificate::from_der(&pem.contents).map_err(|error| malformed(error.to_string()))?;
        // A stop between writing the two leaves a new key with an old certificate.
        let paired = KeyPair::from_pem(&read(key)?)
            .is_ok_and(|key| key.public_key_raw() == parsed.public_key().subject_public_key.data.as_ref());
        if !paired || !self.has_issued(&parsed)? {
            return Ok(false);
        }
        let renew = self.now.checked_add((RENEW_DAYS * 24).hours()).unwrap_or(self.now);
        if parsed.validity().not_after.timestamp() < renew.as_second() {
            return Ok(false);
        }
        let there: Vec<String> = parsed
            .subject_alternative_name()
            .ok()
            .flatten()
            .map(|names| names.value.general_names.iter().filter_map(name_of).collect())
            .unwrap_or_default();
        Ok(names.iter().all(|name| there.contains(name)))
    }

    /// Whether a certificate names the present authority's key as its issuer's.
    fn has_issued(&self, leaf: &X509Certificate<'_>) -> Result<bool, Error> {
        let malformed = |why: String| Error::Malformed { path: self.path("ca.crt"), why };
        let (_, pem) =
            x509_parser::pem::parse_x509_pem(self.ca_pem.as_bytes()).map_err(|error| malformed(error.to_string()))?;
        let (_, authority) = X509Certificate::from_der(&pem.contents).map_err(|error| malformed(error.to_string()))?;
        let own = authority.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
            _ => None,
        });
        let issuer = leaf.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0),
            _ => None,
        });
        Ok(own.is_some() && own == issuer && leaf.issuer() == authority.subject())
    }

    fn sign(&self, mut params: CertificateParams) -> Result<(String, String), Error> {
        let issuer = Issuer::from_ca_cert_pem(&self.ca_pem, KeyPair::from_pem(&self.ca_key_pem)?)?;
        validity(&mut params, self.now, LEAF_DAYS);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.signed_by(&key, &issuer)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

fn new_authority(now: Timestamp) -> Result<(String, String), Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "skep-ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    validity(&mut params, now, CA_DAYS);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.self_signed(&key)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn server_params(names: &[String]) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::new(names)?;
    subject(&mut params, "kube-apiserver", None);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}

fn client_params(name: &str, group: Option<&str>) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::default();
    subject(&mut params, name, group);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

/// Common name and organisation: a user and its group.
fn subject(params: &mut CertificateParams, name: &str, group: Option<&str>) {
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    if let Some(group) = group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
}

/// A few minutes of slack before, since clocks differ.
fn validity(params: &mut CertificateParams, now: Timestamp, days: i64) {
    let at =
        |seconds: i64| time::OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    params.not_before = at(now.as_second() - 300);
    params.not_after = at(now.as_second() + days * 86_400);
}

fn name_of(name: &x509_parser::extensions::GeneralName<'_>) -> Option<String> {
    use x509_parser::extensions::GeneralName;
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|b| std::net::IpAddr::from(b).to_string()),
            16 => <[u8; 16]>::try_from(*bytes).ok().map(|b| std::net::IpAddr::from(b).to_string()),
            _ => None,
        },
        _ => None,
    }
}

fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::File { path: path.to_owned(), source })
}

/// Writes a file whole or not at all.
pub(crate) fn write(path: &Path, content: &str, mode: u32) -> Result<(), Error> {
    let failed = |source| Error::File { path: path.to_owned(), source };
    let temporary = path.with_extension(format!("new-{}", std::process::id()));
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary).map_err(failed)?;
    file.write_all(content.as_bytes()).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    fs::rename(&temporary, path).map_err(failed)
}

#[cfg(test)]
mod tests;

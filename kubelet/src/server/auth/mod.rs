//! Who asks, and whether they may: client certificates, bearer tokens by TokenReview, and SubjectAccessReview for every request, as upstream's webhook
//! modes of authentication and authorization.
//!
//! Verdicts are kept for a while in bounded caches, so that a client that asks often costs the API server little. Invariant: a failure to ask is never a
//! permission.

mod attributes;
mod cache;
mod reviews;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, Method, header};
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use tracing::{debug, warn};
use x509_parser::prelude::{FromDer, X509Certificate};

pub use attributes::Attributes;
use cache::Cache;
pub use reviews::{ApiReviews, Reviews};

/// Verdicts kept of each sort.
const CACHED: usize = 1024;

/// Longer tokens are none.
const TOKEN_LIMIT: usize = 16 * 1024;

/// Somebody who was authenticated.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct User {
    /// Their name.
    pub name: String,
    /// Their unique number, if the authenticator knows one.
    pub uid: String,
    /// The groups they are in.
    pub groups: Vec<String>,
    /// What else the authenticator says.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// How the kubelet authenticates (KubeletConfiguration's `authentication` and `authorization`).
#[derive(Debug, Clone)]
pub struct AuthSettings {
    /// Whether clients without credentials are let in as `system:anonymous`, to be authorized like anybody.
    pub anonymous: bool,
    /// Whether bearer tokens are welcome, which the API server is asked about.
    pub tokens: bool,
    /// Who may do what.
    pub authorization: Authorization,
    /// How long the API server's word on a token holds.
    pub token_ttl: Duration,
    /// How long a permission holds.
    pub allowed_ttl: Duration,
    /// How long a refusal holds.
    pub denied_ttl: Duration,
}

/// Who may do what (KubeletConfiguration's `authorization.mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Authorization {
    /// Everybody who is authenticated may do everything: for tests and machines of one's own.
    AlwaysAllow,
    /// The API server says.
    #[default]
    Webhook,
}

impl Default for AuthSettings {
    /// Upstream's defaults of a kubelet that is configured by file.
    fn default() -> Self {
        Self {
            anonymous: false,
            tokens: true,
            authorization: Authorization::Webhook,
            token_ttl: Duration::from_secs(120),
            allowed_ttl: Duration::from_secs(300),
            denied_ttl: Duration::from_secs(30),
        }
    }
}

/// Judges requests.
pub struct Auth {
    node: String,
    settings: AuthSettings,
    reviews: Arc<dyn Reviews>,
    tokens: Cache<[u8; 32], Option<User>>,
    verdicts: Cache<(User, Attributes), bool>,
}

/// Why a request is not answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Denial {
    /// Nobody known asks.
    Unauthenticated,
    /// They may not; the text is the answer.
    Forbidden(String),
    /// The API server could not be asked; the text is the answer.
    Failed(String),
}

impl Auth {
    /// Judges for the node of this name by asking `reviews`.
    #[must_use]
    pub fn new(node: &str, reviews: Arc<dyn Reviews>, settings: AuthSettings) -> Self {
        Self { node: node.to_owned(), settings, reviews, tokens: Cache::new(CACHED), verdicts: Cache::new(CACHED) }
    }

    /// Judges by asking the API server.
    #[must_use]
    pub fn webhook(node: &str, client: kube::Client, settings: AuthSettings) -> Self {
        Self::new(node, Arc::new(ApiReviews::new(client)), settings)
    }

    /// Whether a client may do this. `certified` is what its certificate says, which TLS has verified.
    pub(super) async fn check(
        &self,
        certified: Option<User>,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<(), Denial> {
        let user = match certified {
            Some(user) => user,
            None => self.authenticate(headers).await?,
        };
        match self.settings.authorization {
            Authorization::AlwaysAllow => Ok(()),
            Authorization::Webhook => self.authorize(&user, method, path).await,
        }
    }

    async fn authenticate(&self, headers: &HeaderMap) -> Result<User, Denial> {
        let Some(token) = bearer(headers) else {
            if !self.settings.anonymous || headers.contains_key(header::AUTHORIZATION) {
                return Err(Denial::Unauthenticated);
            }
            return Ok(User {
                name: "system:anonymous".to_owned(),
                groups: vec!["system:unauthenticated".to_owned()],
                ..User::default()
            });
        };
        if !self.settings.tokens || token.len() > TOKEN_LIMIT {
            return Err(Denial::Unauthenticated);
        }
        let key: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(known) = self.tokens.get(&key, Instant::now()) {
            return known.ok_or(Denial::Unauthenticated);
        }
        match self.reviews.token(token).await {
            Ok(user) => {
                self.tokens.put(key, user.clone(), Instant::now() + self.settings.token_ttl);
                user.ok_or(Denial::Unauthenticated)
            }
            Err(error) => {
                warn!(%error, "can't have a token reviewed");
                Err(Denial::Unauthenticated)
            }
        }
    }

    /// Any of the path's attributes suffices, the finer one being asked first (KEP-2862).
    async fn authorize(&self, user: &User, method: &Method, path: &str) -> Result<(), Denial> {
        let verb = attributes::verb(method);
        let subresources = attributes::subresources(path);
        for subresource in &subresources {
            let attributes = Attributes { node: self.node.clone(), verb, subresource };
            let key = (user.clone(), attributes);
            if let Some(allowed) = self.verdicts.get(&key, Instant::now()) {
                if allowed {
                    return Ok(());
                }
                continue;
            }
            match self.reviews.access(user, &key.1).await {
                Ok(allowed) => {
                    let ttl = if allowed { self.settings.allowed_ttl } else { self.settings.denied_ttl };
                    self.verdicts.put(key, allowed, Instant::now() + ttl);
                    if allowed {
                        return Ok(());
                    }
                }
                Err(error) => {
                    warn!(%error, user = user.name, "can't have an access reviewed");
                    return Err(Denial::Failed(format!(
                        "Authorization error (user={}, verb={verb}, resource=nodes, subresource={subresource})",
                        user.name
                    )));
                }
            }
        }
        debug!(user = user.name, verb, path, "forbidden");
        Err(Denial::Forbidden(format!(
            "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{}])\n",
            user.name,
            subresources.join(" ")
        )))
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// The user that a certificate names: the common name, in the groups that are its organisations (upstream's CommonNameUserConversion).
pub(super) fn user_of_certificate(certificate: &CertificateDer<'_>) -> Option<User> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    if name.is_empty() {
        return None;
    }
    let mut groups: Vec<String> =
        subject.iter_organization().filter_map(|group| group.as_str().ok()).map(str::to_owned).collect();
    groups.push("system:authenticated".to_owned());
    Some(User { name, groups, ..User::default() })
}

#[cfg(test)]
mod tests;

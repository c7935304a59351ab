//! Which credentials a registry is asked with: those of pull secrets, matched by repository.
//!
//! Invariant: pure, and never printed. Matching as upstream's `pkg/credentialprovider/keyring.go`.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use k8s_openapi::api::core::v1::Secret;
use serde::{Deserialize, Serialize};

use super::Reference;

const DEFAULT_REGISTRY: &str = "index.docker.io";

/// What a registry is shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RegistryAuth {
    /// With the password.
    pub username: String,
    /// With the user name.
    pub password: String,
    /// Which registry it is for; empty: the image's.
    pub server_address: String,
    /// To get a token with.
    pub identity_token: String,
    /// A bearer token.
    pub registry_token: String,
    /// The pull secret that it is from; none is the node's own.
    pub source: Option<CredentialSource>,
}

/// The secret that a credential is from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialSource {
    /// The secret's UID.
    pub uid: String,
    /// The secret's namespace.
    pub namespace: String,
    /// The secret's name.
    pub name: String,
}

/// Names whose it is, and keeps the secrets.
impl fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryAuth").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Credentials by the registry or repository that they are for.
#[derive(Debug, Clone, Default)]
pub struct Keyring {
    entries: BTreeMap<String, Vec<RegistryAuth>>,
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    auth: String,
}

impl Keyring {
    /// Adds what a pull secret holds; a secret of another type holds nothing.
    ///
    /// # Errors
    /// When its data is not a configuration.
    pub fn add_secret(&mut self, secret: &Secret) -> Result<(), String> {
        let data = |key: &str| Some(&secret.data.as_ref()?.get(key)?.0).filter(|data| !data.is_empty());
        let source = CredentialSource {
            uid: secret.metadata.uid.clone().unwrap_or_default(),
            namespace: secret.metadata.namespace.clone().unwrap_or_default(),
            name: secret.metadata.name.clone().unwrap_or_default(),
        };
        match secret.type_.as_deref() {
            Some("kubernetes.io/dockerconfigjson") => {
                let Some(text) = data(".dockerconfigjson") else { return Ok(()) };
                let config: DockerConfig = parse(text)?;
                self.add_entries(config.auths, Some(&source))
            }
            Some("kubernetes.io/dockercfg") => {
                let Some(text) = data(".dockercfg") else { return Ok(()) };
                self.add_entries(parse(text)?, Some(&source))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Adds the `auths` of a Docker `config.json` of the node's own.
    ///
    /// # Errors
    /// When it is not one.
    pub fn add_docker_config(&mut self, text: &[u8]) -> Result<(), String> {
        let config: DockerConfig = parse(text)?;
        self.add_entries(config.auths, None)
    }

    /// The credentials for an image, those for the longest match first; empty for an image without any.
    pub fn lookup(&self, image: &Reference) -> Vec<RegistryAuth> {
        let repository = image.repository();
        let matching = self.entries.iter().rev().filter(|(key, _)| matches(key, &repository));
        let found: Vec<RegistryAuth> = matching.flat_map(|(_, auths)| auths.clone()).collect();
        if found.is_empty() && image.domain == "docker.io" {
            return self.entries.get(DEFAULT_REGISTRY).cloned().unwrap_or_default();
        }
        found
    }

    fn add_entries(
        &mut self,
        entries: BTreeMap<String, Entry>,
        source: Option<&CredentialSource>,
    ) -> Result<(), String> {
        for (registry, entry) in entries {
            let (username, password) = match entry.auth.trim() {
                "" => (entry.username, entry.password),
                auth => decode(auth)?,
            };
            let auth = RegistryAuth { username, password, source: source.cloned(), ..RegistryAuth::default() };
            self.entries.entry(key(&registry)).or_default().push(auth);
        }
        Ok(())
    }
}

fn parse<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, String> {
    // The error's own text may quote the secret.
    serde_json::from_slice(text).map_err(|error| format!("invalid at line {} column {}", error.line(), error.column()))
}

fn decode(auth: &str) -> Result<(String, String), String> {
    let engine = if auth.ends_with('=') { &STANDARD } else { &STANDARD_NO_PAD };
    let decoded = engine.decode(auth).map_err(|error| error.to_string())?;
    let decoded = String::from_utf8_lossy(&decoded);
    let pair = decoded.split_once(':').map(|(user, password)| (user.to_owned(), password.to_owned()));
    pair.ok_or_else(|| "unable to parse auth field, must be formatted as base64(username:password)".to_owned())
}

/// Host and path; `/v1/` and `/v2/` are the host itself (Docker's own client did so).
fn key(registry: &str) -> String {
    let bare = registry.strip_prefix("https://").or_else(|| registry.strip_prefix("http://")).unwrap_or(registry);
    let (host, path) = bare.split_at(bare.find('/').unwrap_or(bare.len()));
    let path = if path.starts_with("/v2/") || path.starts_with("/v1/") { &path[3..] } else { path };
    if path == "/" { host.to_owned() } else { format!("{host}{path}") }
}

/// A `*` stands for a part of a host name's label; the path is a prefix.
fn matches(key: &str, repository: &str) -> bool {
    let split = |text: &str| {
        let (host, path) = text.split_at(text.find('/').unwrap_or(text.len()));
        let (name, port) = host.rsplit_once(':').unwrap_or((host, ""));
        (name.to_owned(), port.to_owned(), path.to_owned())
    };
    let ((key_name, key_port, key_path), (name, port, path)) = (split(key), split(repository));
    let labels = key_name.split('.').count() == name.split('.').count();
    let same = key_name.split('.').zip(name.split('.')).all(|(glob, label)| glob_matches(glob, label));
    key_port == port && labels && same && path.starts_with(&key_path)
}

fn glob_matches(glob: &str, label: &str) -> bool {
    let Some((before, after)) = glob.split_once('*') else { return glob == label };
    let Some(rest) = label.strip_prefix(before) else { return false };
    (0..=rest.len()).any(|at| rest.is_char_boundary(at) && glob_matches(after, &rest[at..]))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    fn users(config: &str, image: &str) -> Vec<String> {
        let mut keyring = Keyring::default();
        keyring.add_docker_config(config.as_bytes()).unwrap();
        let found = keyring.lookup(&Reference::parse(image).unwrap());
        found.into_iter().map(|auth| auth.username).collect()
    }

    #[test]
    fn the_longest_match_is_tried_first() {
        let config = r#"{"auths": {"quay.io": {"username": "all"}, "https://quay.io/team/": {"username": "team"}, "x.io": {"username": "x"}}}"#;
        assert_eq!(users(config, "quay.io/team/app"), ["team", "all"]);
        assert_eq!(users(config, "quay.io/other/app"), ["all"]);
        assert!(users(config, "quay.io:5000/team/app").is_empty());
    }

    #[test]
    fn a_star_stands_for_a_part_of_a_label() {
        let config = r#"{"auths": {"*.dkr.ecr.*.amazonaws.com": {"username": "aws"}}}"#;
        assert_eq!(users(config, "12.dkr.ecr.eu-west-1.amazonaws.com/app"), ["aws"]);
        assert!(users(config, "dkr.ecr.eu-west-1.amazonaws.com/app").is_empty());
    }

    #[test]
    fn short_names_use_docker_hubs_entry() {
        let config = r#"{"auths": {"https://index.docker.io/v1/": {"auth": "dXNlcjpwYTpzcw=="}}}"#;
        assert_eq!(users(config, "busybox"), ["user"]);
        assert!(users(config, "quay.io/busybox").is_empty());
    }

    #[test]
    fn a_secret_of_another_type_holds_nothing() {
        let data = [(".dockerconfigjson".to_owned(), ByteString(b"no config".to_vec()))].into();
        let secret = Secret { type_: Some("Opaque".to_owned()), data: Some(data), ..Secret::default() };
        let mut keyring = Keyring::default();
        keyring.add_secret(&secret).unwrap();
        let typed = Secret { type_: Some("kubernetes.io/dockerconfigjson".to_owned()), ..secret };
        assert_eq!(keyring.add_secret(&typed).unwrap_err(), "invalid at line 1 column 2");
    }

    #[test]
    fn a_password_is_not_printed() {
        let auth = RegistryAuth { password: "hunter2".to_owned(), ..RegistryAuth::default() };
        assert!(!format!("{auth:?}").contains("hunter2"));
    }
}

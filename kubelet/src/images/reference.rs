//! Image names: what a pod's `image` means, and the name that containerd's image store has for it.
//!
//! Invariant: pure. The grammar and the messages are those of the distribution project's `reference` package
//! (`ParseNormalizedNamed`), which upstream's kubelet and containerd both use.

use std::fmt;

const DEFAULT_DOMAIN: &str = "docker.io";
const OFFICIAL: &str = "library/";
const INVALID: &str = "invalid reference format";

/// An image's name in full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The registry's host, with its port if it has one.
    pub domain: String,
    /// The repository on it.
    pub path: String,
    /// None only when there is a digest.
    pub tag: Option<String>,
    /// As `sha256:…`.
    pub digest: Option<String>,
}

impl Reference {
    /// Reads a pod's `image`; without a tag and a digest it is the tag `latest`.
    ///
    /// # Errors
    /// Upstream's sentence of what is wrong with it.
    pub fn parse(image: &str) -> Result<Self, String> {
        if image.len() == 64 && image.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)) {
            return Err(format!("invalid repository name ({image}), cannot specify 64-byte hexadecimal strings"));
        }
        let (domain, rest) = split_domain(image);
        let (name, digest) = match rest.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (rest.as_str(), None),
        };
        let last = name.rfind('/').map_or(0, |slash| slash + 1);
        let (path, tag) = match name[last..].find(':') {
            Some(colon) => (&name[..last + colon], Some(&name[last + colon + 1..])),
            None => (name, None),
        };
        if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(format!("{INVALID}: repository name ({path}) must be lowercase"));
        }
        let valid = is_domain(&domain) && path.split('/').all(is_component) && tag.is_none_or(is_tag);
        if !valid {
            return Err(INVALID.to_owned());
        }
        if path.len() > 255 {
            return Err("repository name must not be more than 255 characters".to_owned());
        }
        digest.map_or(Ok(()), check_digest)?;
        let tag = tag.or_else(|| digest.is_none().then_some("latest")).map(str::to_owned);
        Ok(Self { domain, path: path.to_owned(), tag, digest: digest.map(str::to_owned) })
    }

    /// The repository with its registry, as credentials are looked up by.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }
}

/// The name in containerd's image store: a digest makes the tag beside it moot (`ParseDockerRef`).
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.path)?;
        match (&self.digest, &self.tag) {
            (Some(digest), _) => write!(f, "@{digest}"),
            (None, Some(tag)) => write!(f, ":{tag}"),
            (None, None) => Ok(()),
        }
    }
}

/// What comes before the first `/` is a registry, if it looks like a host; else it belongs to the path on the default one.
fn split_domain(image: &str) -> (String, String) {
    let host = |first: &str| {
        first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|byte| byte.is_ascii_uppercase())
    };
    let (domain, path) = match image.split_once('/') {
        Some((first, path)) if host(first) => (first, path),
        Some(_) | None => (DEFAULT_DOMAIN, image),
    };
    let domain = if domain == "index.docker.io" { DEFAULT_DOMAIN } else { domain };
    let official = domain == DEFAULT_DOMAIN && !path.contains('/');
    (domain.to_owned(), if official { format!("{OFFICIAL}{path}") } else { path.to_owned() })
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, rest)) => {
            let valid = !v6.is_empty() && v6.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':');
            return valid && (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port));
        }
        None => match domain.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (domain, None),
        },
    };
    let label = |label: &str| {
        let inner = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        inner && !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
    };
    host.split('.').all(label) && port.is_none_or(is_port)
}

fn is_port(port: &str) -> bool {
    !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
}

/// Lower-case letters and digits, with a `.`, a `_` or `__`, or any number of `-` between them.
fn is_component(component: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let separator = |text: &str| matches!(text, "." | "_" | "__") || text.bytes().all(|byte| byte == b'-');
    let edge = |byte: Option<u8>| byte.is_some_and(alphanumeric);
    if !edge(component.bytes().next()) || !edge(component.bytes().last()) {
        return false;
    }
    component
        .split(|character: char| character.is_ascii_lowercase() || character.is_ascii_digit())
        .filter(|between| !between.is_empty())
        .all(separator)
}

fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let rest = |byte: u8| word(byte) || byte == b'.' || byte == b'-';
    tag.len() <= 128 && tag.bytes().next().is_some_and(word) && tag.bytes().all(rest)
}

fn check_digest(digest: &str) -> Result<(), String> {
    let Some((algorithm, hex)) = digest.split_once(':') else { return Err(INVALID.to_owned()) };
    if hex.len() < 32 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(INVALID.to_owned());
    }
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return Err("unsupported digest algorithm".to_owned()),
    };
    if hex.len() != length {
        return Err("invalid checksum digest length".to_owned());
    }
    if hex.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err("invalid checksum digest format".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    #[test]
    fn short_names_are_completed() {
        for (image, name) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36"),
            ("a/b", "docker.io/a/b:latest"),
            ("index.docker.io/b", "docker.io/library/b:latest"),
            ("localhost/b", "localhost/b:latest"),
            ("localhost:5000/b:v1", "localhost:5000/b:v1"),
            ("[::1]:5000/b", "[::1]:5000/b:latest"),
            (
                "registry.k8s.io/e2e-test-images/agnhost__x:2.5_a-b",
                "registry.k8s.io/e2e-test-images/agnhost__x:2.5_a-b",
            ),
        ] {
            assert_eq!(Reference::parse(image).unwrap().to_string(), name);
        }
    }

    #[test]
    fn a_digest_makes_the_tag_moot() {
        let reference = Reference::parse(&format!("busybox:1@{DIGEST}")).unwrap();
        assert_eq!(reference.to_string(), format!("docker.io/library/busybox@{DIGEST}"));
        assert_eq!(reference.tag.as_deref(), Some("1"));
    }

    #[test]
    fn what_is_wrong_is_said_in_upstreams_words() {
        let hex = "a".repeat(64);
        for (image, message) in [
            ("", INVALID),
            ("Busybox", "invalid reference format: repository name (library/Busybox) must be lowercase"),
            ("a b", INVALID),
            ("a..b", INVALID),
            ("a___b", INVALID),
            ("-a", INVALID),
            ("a:", INVALID),
            ("a/", INVALID),
            ("a:b:c", INVALID),
            ("a@sha256:12", INVALID),
            ("https://a.b/c", INVALID),
            ("a@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "invalid checksum digest length"),
            (&hex, &format!("invalid repository name ({hex}), cannot specify 64-byte hexadecimal strings")),
        ] {
            assert_eq!(Reference::parse(image).unwrap_err(), message, "{image}");
        }
    }

    proptest::proptest! {
        /// Whatever a user writes is a name or an error, and a full name means itself.
        #[test]
        fn any_text_is_read_without_a_panic(text in "[a-zA-Z0-9:/@._\\[\\]é-]{0,40}") {
            if let Ok(reference) = Reference::parse(&text) {
                let again = Reference::parse(&reference.to_string()).unwrap();
                proptest::prop_assert_eq!(again.to_string(), reference.to_string());
            }
        }
    }
}

//! Names of images (github.com/distribution/reference), as far as defaults depend on them.

/// `Always` for the tag `latest`, said or implied; `IfNotPresent` for any other tag, a digest, or what is no image name.
pub(super) fn pull_policy(image: &str) -> &'static str {
    if image_tag(image).is_some_and(|tag| tag == "latest") { "Always" } else { "IfNotPresent" }
}

/// The tag of an image reference (github.com/distribution/reference), `latest` when it has neither tag nor digest; `None` when it has only a
/// digest or is malformed.
fn image_tag(image: &str) -> Option<&str> {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    let (repository, tag) = match name[last..].rfind(':') {
        Some(colon) => (&name[..last + colon], Some(&name[last + colon + 1..])),
        None => (name, None),
    };
    let (domain, path) = match repository.split_once('/') {
        Some((domain, path))
            if domain.contains(['.', ':']) || domain == "localhost" || domain != domain.to_lowercase() =>
        {
            (Some(domain), path)
        }
        _ => (None, repository),
    };
    // A bare name is one of the default registry's `library/`.
    let implied = if domain.is_none() && !path.contains('/') { "library/".len() } else { 0 };
    let valid = domain.is_none_or(is_domain) && digest.is_none_or(is_digest) && path.split('/').all(is_path_component);
    if implied + path.len() > 255 || !valid {
        return None;
    }
    match tag {
        Some(tag) => {
            let valid = tag.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-'));
            (valid && !tag.is_empty() && tag.len() <= 128 && !tag.starts_with(['.', '-'])).then_some(tag)
        }
        None if digest.is_some() => None,
        // Sixty-four hexadecimal digits are an image's id and not a name.
        None if image.len() == 64 && image.bytes().all(|c| c.is_ascii_hexdigit()) => None,
        None => Some("latest"),
    }
}

/// A host name or a bracketed IPv6 address, with or without a port.
fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.rfind(':').filter(|colon| !domain[*colon..].contains(']')) {
        Some(colon) => (&domain[..colon], Some(&domain[colon + 1..])),
        None => (domain, None),
    };
    let plain = |c: char| c.is_ascii_alphanumeric();
    let label =
        |part: &str| part.starts_with(plain) && part.ends_with(plain) && part.chars().all(|c| plain(c) || c == '-');
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let valid = match address {
        Some(address) => !address.is_empty() && address.chars().all(|c| c.is_ascii_hexdigit() || c == ':'),
        None => host.split('.').all(label),
    };
    valid && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|c| c.is_ascii_digit()))
}

/// `sha256:` and 64 hexadecimal digits, or their longer kin.
fn is_digest(digest: &str) -> bool {
    let Some((algorithm, hex)) = digest.split_once(':') else { return false };
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return false,
    };
    hex.len() == length && hex.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
}

/// Lower-case letters and digits, with a dot, one or two underscores or any number of dashes between.
fn is_path_component(part: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let ends = part.starts_with(plain) && part.ends_with(plain);
    let separator = |s: &str| s.is_empty() || matches!(s, "." | "_" | "__") || s.bytes().all(|c| c == b'-');
    ends && part.split(plain).all(separator)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pull_policy_follows_the_tag() {
        let table = [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.2", "IfNotPresent"),
            ("localhost:5000/a/b", "Always"),
            ("localhost:5000/a/b:v1", "IfNotPresent"),
            (&format!("nginx@sha256:{}", "a".repeat(64)), "IfNotPresent"),
            (&format!("nginx:latest@sha256:{}", "a".repeat(64)), "Always"),
            ("nginx:latest@sha256:abc", "IfNotPresent"),
            ("[::1]:5000/a", "Always"),
            ("a./b", "IfNotPresent"),
            ("Nginx", "IfNotPresent"),
            ("a..b", "IfNotPresent"),
            ("a__b.c--d", "Always"),
            (&"a".repeat(250), "IfNotPresent"),
            ("Registry/nginx", "Always"),
            ("", "IfNotPresent"),
        ];
        for (image, policy) in table {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }
}

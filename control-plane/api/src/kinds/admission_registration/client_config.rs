//! Where a webhook is reached: validation of URLs and references to Services (k8s.io/apiserver/pkg/util/webhook/validation.go), used by admission
//! webhooks and by those that convert custom resources.

use serde_json::Value;

use crate::field::{Error, ErrorList, Path};
use crate::kinds::tree::{integer, text};
use crate::names::{is_dns1123_subdomain, is_port_number};

/// What is wrong with a webhook's URL.
#[must_use]
pub fn validate_webhook_url(url: &str, path: &Path) -> ErrorList {
    const FORM: &str = "; desired format: https://host[/path]";
    let mut errors = ErrorList::new();
    if let Some(bad) = url.chars().find(|c| c.is_control() || *c == ' ') {
        let what = if bad == ' ' {
            "invalid character \" \" in host name"
        } else {
            "net/url: invalid control character in URL"
        };
        let message = format!("url must be a valid URL: parse {url:?}: {what}{FORM}");
        errors.push(Error::required(path, message));
        return errors;
    }
    let parts = Url::split(url);
    if parts.scheme != "https" {
        let message = format!("'https' is the only allowed URL scheme{FORM}");
        errors.push(Error::invalid(path, parts.scheme, message));
    }
    if parts.host.is_empty() {
        errors.push(Error::invalid(path, parts.host, format!("host must be specified{FORM}")));
    }
    if let Some(user) = parts.user {
        errors.push(Error::invalid(path, user, "user information is not permitted in the URL"));
    }
    if !parts.fragment.is_empty() {
        errors.push(Error::invalid(path, parts.fragment, "fragments are not permitted in the URL"));
    }
    if !parts.query.is_empty() {
        errors.push(Error::invalid(path, parts.query, "query parameters are not permitted in the URL"));
    }
    errors
}

/// The parts of a URL as Go's net/url takes it apart.
struct Url<'a> {
    scheme: &'a str,
    user: Option<&'a str>,
    host: &'a str,
    query: &'a str,
    fragment: &'a str,
}

impl<'a> Url<'a> {
    fn split(url: &'a str) -> Self {
        let (rest, fragment) = url.split_once('#').unwrap_or((url, ""));
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let is_scheme = |scheme: &str| {
            scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
        };
        let (scheme, rest) = rest.split_once(':').filter(|(scheme, _)| is_scheme(scheme)).unwrap_or(("", rest));
        let authority = rest.strip_prefix("//").map_or("", |rest| rest.split('/').next().unwrap_or_default());
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        Self { scheme, user, host, query, fragment }
    }
}

/// What is wrong with a reference to the Service of a webhook. Upstream's callers hand over the name and the namespace in the other's place,
/// so that an empty one is reported as the other: so do we.
#[must_use]
pub fn validate_webhook_service(service: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if text(&service["namespace"]).is_empty() {
        errors.push(Error::required(&path.child("name"), ""));
    }
    if text(&service["name"]).is_empty() {
        errors.push(Error::required(&path.child("namespace"), ""));
    }
    let port = integer(&service["port"]);
    let wrong = is_port_number(port);
    if !wrong.is_empty() {
        let message = format!("port is not valid: {}", wrong.join(", "));
        errors.push(Error::invalid(&path.child("port"), port, message));
    }
    if let Some(url_path) = service["path"].as_str() {
        errors.extend(validate_url_path(url_path, &path.child("path")));
    }
    errors
}

fn validate_url_path(url_path: &str, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if url_path.is_empty() || url_path == "/" {
        return errors;
    }
    if url_path == "//" {
        errors.push(Error::invalid(path, url_path, "segment[0] may not be empty"));
        return errors;
    }
    if !url_path.starts_with('/') {
        errors.push(Error::invalid(path, url_path, "must start with a '/'"));
    }
    // Upstream drops the first character, whatever it is.
    let mut characters = url_path.chars();
    characters.next();
    let steps = characters.as_str();
    for (index, step) in steps.strip_suffix('/').unwrap_or(steps).split('/').enumerate() {
        if step.is_empty() {
            errors.push(Error::invalid(path, url_path, format!("segment[{index}] may not be empty")));
            continue;
        }
        for why in is_dns1123_subdomain(step) {
            errors.push(Error::invalid(path, url_path, format!("segment[{index}]: {why}")));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::messages;
    use serde_json::json;

    #[test]
    fn a_webhooks_url_has_a_host_and_nothing_secret() {
        let path = Path::new("url");
        assert!(validate_webhook_url("https://127.0.0.1:8443/validate", &path).is_empty());
        assert_eq!(
            messages(&validate_webhook_url("http://ann:secret@example.com/a?b=c#d", &path)),
            [
                "url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
                "url: Invalid value: \"ann:secret\": user information is not permitted in the URL",
                "url: Invalid value: \"d\": fragments are not permitted in the URL",
                "url: Invalid value: \"b=c\": query parameters are not permitted in the URL",
            ]
        );
        assert_eq!(
            messages(&validate_webhook_url("https:///a", &path)),
            ["url: Invalid value: \"\": host must be specified; desired format: https://host[/path]"]
        );
    }

    #[test]
    fn a_webhooks_service_has_a_port_and_a_path_of_names() {
        let path = Path::new("service");
        let of = |service: Value| messages(&validate_webhook_service(&service, &path));
        assert!(of(json!({"namespace": "a", "name": "b", "port": 443, "path": "/c/d/"})).is_empty());
        assert_eq!(
            of(json!({"namespace": "a", "name": "b", "port": 65536, "path": "//"})),
            [
                "service.port: Invalid value: 65536: port is not valid: must be between 1 and 65535, inclusive",
                "service.path: Invalid value: \"//\": segment[0] may not be empty",
            ]
        );
    }
}

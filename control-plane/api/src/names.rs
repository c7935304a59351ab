//! What names, keys and addresses may look like: upstream's k8s.io/apimachinery/pkg/util/validation, messages included.
//!
//! Invariant: each `is_…` function takes the value and returns what is wrong with it, in upstream's words and order; nothing is wrong
//! when the list is empty. Lengths are in bytes. No check allocates unless it fails.

use std::net::{IpAddr, Ipv6Addr};

/// The longest DNS label (RFC 1123, RFC 1035), in bytes.
pub const DNS_LABEL_MAX_LENGTH: usize = 63;
/// The longest DNS subdomain (RFC 1123), in bytes.
pub const DNS_SUBDOMAIN_MAX_LENGTH: usize = 253;
/// The longest value of a label, and the longest name part of its key, in bytes.
pub const LABEL_VALUE_MAX_LENGTH: usize = 63;

const LABEL_FORMAT: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const LABEL_MESSAGE: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
const SUBDOMAIN_FORMAT: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const SUBDOMAIN_MESSAGE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
const SUBDOMAIN_UNDERSCORE_FORMAT: &str = r"_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*";
const SUBDOMAIN_UNDERSCORE_MESSAGE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character";
const DNS1035_FORMAT: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const DNS1035_MESSAGE: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character";
const WILDCARD_FORMAT: &str = r"\*\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const WILDCARD_MESSAGE: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character";
const LABEL_KEY_FORMAT: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const LABEL_KEY_MESSAGE: &str =
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const LABEL_VALUE_FORMAT: &str = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?";
const LABEL_VALUE_MESSAGE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const C_IDENTIFIER_MESSAGE: &str = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_'";
const PERCENT_MESSAGE: &str = "a valid percent string must be a numeric string followed by an ending '%'";
const HTTP_HEADER_MESSAGE: &str = "a valid HTTP header must consist of alphanumeric characters or '-'";
const ENV_VAR_MESSAGE: &str = "a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.', and must not start with a digit";
const RELAXED_ENV_VAR_MESSAGE: &str =
    "a valid environment variable name must consist only of printable ASCII characters other than '='";
const CONFIG_KEY_MESSAGE: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";

/// `IsDNS1123Label`: names of namespaces, containers, volumes.
#[must_use]
pub fn is_dns1123_label(value: &str) -> Vec<String> {
    let mut errors = longer_than(value, DNS_LABEL_MAX_LENGTH);
    if !matches_label(value) {
        if value.split('.').all(matches_label) {
            errors.push("must not contain dots".into());
        } else {
            errors.push(regex_error(LABEL_MESSAGE, LABEL_FORMAT, &["my-name", "123-abc"]));
        }
    }
    errors
}

/// `IsDNS1123Subdomain`: names of most objects.
#[must_use]
pub fn is_dns1123_subdomain(value: &str) -> Vec<String> {
    let mut errors = longer_than(value, DNS_SUBDOMAIN_MAX_LENGTH);
    if !value.split('.').all(matches_label) {
        errors.push(regex_error(SUBDOMAIN_MESSAGE, SUBDOMAIN_FORMAT, &["example.com"]));
    }
    errors
}

/// `IsDNS1123SubdomainWithUnderscore`: search domains of a pod's resolver.
#[must_use]
pub fn is_dns1123_subdomain_with_underscore(value: &str) -> Vec<String> {
    let mut errors = longer_than(value, DNS_SUBDOMAIN_MAX_LENGTH);
    let label = |part: &str| {
        let part = part.strip_prefix('_').unwrap_or(part);
        bounded(part, is_lower_alphanumeric, |c| is_lower_alphanumeric(c) || c == b'-' || c == b'_')
    };
    if !value.split('.').all(label) {
        let message = regex_error(SUBDOMAIN_UNDERSCORE_MESSAGE, SUBDOMAIN_UNDERSCORE_FORMAT, &["example.com"]);
        errors.push(message);
    }
    errors
}

/// `IsDNS1035Label`: names of Services.
#[must_use]
pub fn is_dns1035_label(value: &str) -> Vec<String> {
    let mut errors = longer_than(value, DNS_LABEL_MAX_LENGTH);
    if !(matches_label(value) && value.as_bytes()[0].is_ascii_lowercase()) {
        errors.push(regex_error(DNS1035_MESSAGE, DNS1035_FORMAT, &["my-name", "abc-123"]));
    }
    errors
}

/// `IsWildcardDNS1123Subdomain`: a host such as `*.example.com` (RFC 1034, 4.3.3).
#[must_use]
pub fn is_wildcard_dns1123_subdomain(value: &str) -> Vec<String> {
    let mut errors = longer_than(value, DNS_SUBDOMAIN_MAX_LENGTH);
    if !value.strip_prefix("*.").is_some_and(|rest| rest.split('.').all(matches_label)) {
        errors.push(regex_error(WILDCARD_MESSAGE, WILDCARD_FORMAT, &["*.example.com"]));
    }
    errors
}

/// `IsQualifiedName` (a label key): an optional DNS subdomain and a slash, and a name.
#[must_use]
pub fn is_qualified_name(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let name = match value.split_once('/') {
        None => value,
        Some((_, name)) if name.contains('/') => {
            let message = regex_error(LABEL_KEY_MESSAGE, LABEL_KEY_FORMAT, &["MyName", "my.name", "123-abc"]);
            return vec![format!(
                "a valid label key {message} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
        Some(("", name)) => {
            errors.push("prefix part must be non-empty".into());
            name
        }
        Some((prefix, name)) => {
            if prefix.len() > DNS_SUBDOMAIN_MAX_LENGTH {
                errors.push(format!("prefix part must be no more than {DNS_SUBDOMAIN_MAX_LENGTH} bytes"));
            }
            if !prefix.split('.').all(matches_label) {
                let message = regex_error(SUBDOMAIN_MESSAGE, SUBDOMAIN_FORMAT, &["example.com"]);
                errors.push(format!("prefix part {message}"));
            }
            name
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".into());
    } else if name.len() > LABEL_VALUE_MAX_LENGTH {
        errors.push(format!("name part must be no more than {LABEL_VALUE_MAX_LENGTH} bytes"));
    }
    if !matches_label_key_name(name) {
        let message = regex_error(LABEL_KEY_MESSAGE, LABEL_KEY_FORMAT, &["MyName", "my.name", "123-abc"]);
        errors.push(format!("name part {message}"));
    }
    errors
}

/// `IsPrefixedLabelKey`: a qualified name that has a prefix.
#[must_use]
pub fn is_prefixed_label_key(value: &str) -> Vec<String> {
    let errors = is_qualified_name(value);
    if errors.is_empty() && !value.contains('/') {
        return vec!["must include a prefix (e.g. 'example.com/key')".into()];
    }
    errors
}

/// `IsValidLabelValue`.
#[must_use]
pub fn is_label_value(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > LABEL_VALUE_MAX_LENGTH {
        errors.push(format!("must be no more than {LABEL_VALUE_MAX_LENGTH} bytes"));
    }
    if !(value.is_empty() || matches_label_key_name(value)) {
        errors.push(regex_error(LABEL_VALUE_MESSAGE, LABEL_VALUE_FORMAT, &["MyValue", "my_value", "12345"]));
    }
    errors
}

/// `IsCIdentifier`.
#[must_use]
pub fn is_c_identifier(value: &str) -> Vec<String> {
    let first = value.bytes().next().is_some_and(|c| c.is_ascii_alphabetic() || c == b'_');
    if first && value.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_') {
        return Vec::new();
    }
    vec![regex_error(C_IDENTIFIER_MESSAGE, "[A-Za-z_][A-Za-z0-9_]*", &["my_name", "MY_NAME", "MyName"])]
}

/// `IsValidPortNum`.
#[must_use]
pub fn is_port_number(port: i64) -> Vec<String> {
    in_range(port, 1, 65535)
}

/// `IsValidGroupID`.
#[must_use]
pub fn is_group_id(gid: i64) -> Vec<String> {
    in_range(gid, 0, i64::from(i32::MAX))
}

/// `IsValidUserID`.
#[must_use]
pub fn is_user_id(uid: i64) -> Vec<String> {
    in_range(uid, 0, i64::from(i32::MAX))
}

/// `IsInRange`, both ends included.
#[must_use]
pub fn in_range(value: i64, low: i64, high: i64) -> Vec<String> {
    if (low..=high).contains(&value) { Vec::new() } else { vec![range_message(low, high)] }
}

/// `InclusiveRangeError`.
#[must_use]
pub fn range_message(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

/// `IsValidPortName`: an IANA service name (RFC 6335), in lower case.
#[must_use]
pub fn is_port_name(value: &str) -> Vec<String> {
    let mut errors = longer_than(value, 15);
    if value.is_empty() || !value.bytes().all(|c| is_lower_alphanumeric(c) || c == b'-') {
        errors.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into());
    }
    if !value.bytes().any(|c| c.is_ascii_lowercase()) {
        errors.push("must contain at least one letter (a-z)".into());
    }
    if value.contains("--") {
        errors.push("must not contain consecutive hyphens".into());
    }
    if value.starts_with('-') || value.ends_with('-') {
        errors.push("must not begin or end with a hyphen".into());
    }
    errors
}

/// `IsValidPercent`.
#[must_use]
pub fn is_percent(value: &str) -> Vec<String> {
    let digits = value.strip_suffix('%').unwrap_or("");
    if !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit()) {
        return Vec::new();
    }
    vec![regex_error(PERCENT_MESSAGE, "[0-9]+%", &["1%", "93%"])]
}

/// `IsHTTPHeaderName`.
#[must_use]
pub fn is_http_header_name(value: &str) -> Vec<String> {
    if !value.is_empty() && value.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-') {
        return Vec::new();
    }
    vec![regex_error(HTTP_HEADER_MESSAGE, "[-A-Za-z0-9]+", &["X-Header-Name"])]
}

/// `IsEnvVarName`: the narrow form, of shells.
#[must_use]
pub fn is_env_var_name(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let starts = value.bytes().next().is_some_and(|c| !c.is_ascii_digit());
    if !(starts && value.bytes().all(is_config_key_byte)) {
        let examples = ["my.env-name", "MY_ENV.NAME", "MyEnvName1"];
        errors.push(regex_error(ENV_VAR_MESSAGE, "[-._a-zA-Z][-._a-zA-Z0-9]*", &examples));
    }
    errors.extend(has_parent_prefix(value));
    errors
}

/// `IsRelaxedEnvVarName`: what container environments accept (KEP-4369).
#[must_use]
pub fn is_relaxed_env_var_name(value: &str) -> Vec<String> {
    if value.is_empty() {
        return vec!["environment variable name must be non-empty".into()];
    }
    if value.bytes().all(|c| (b' '..=b'~').contains(&c) && c != b'=') {
        return Vec::new();
    }
    vec![RELAXED_ENV_VAR_MESSAGE.into()]
}

/// `IsConfigMapKey`: a key of a ConfigMap or Secret.
#[must_use]
pub fn is_config_map_key(value: &str) -> Vec<String> {
    let mut errors = longer_than(value, DNS_SUBDOMAIN_MAX_LENGTH);
    if value.is_empty() || !value.bytes().all(is_config_key_byte) {
        let examples = ["key.name", "KEY_NAME", "key-name"];
        errors.push(regex_error(CONFIG_KEY_MESSAGE, "[-._a-zA-Z0-9]+", &examples));
    }
    errors.extend(has_parent_prefix(value));
    errors
}

/// `IsPathSegmentName`: a name that can stand in a URL path. With `prefix`, something will be appended to it.
#[must_use]
pub fn is_path_segment(value: &str, prefix: bool) -> Vec<String> {
    if !prefix && (value == "." || value == "..") {
        return vec![format!("may not be '{value}'")];
    }
    ["/", "%"].iter().filter(|part| value.contains(**part)).map(|part| format!("may not contain '{part}'")).collect()
}

/// `IsValidIPForLegacyField` in its strict form: any notation of an address that all software reads alike.
#[must_use]
pub fn is_ip(value: &str) -> Vec<String> {
    let Some(address) = parse_ip_sloppy(value) else {
        return vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".into()];
    };
    if value.parse::<IpAddr>().is_err() {
        return vec!["must not have leading 0s".into()];
    }
    match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => vec!["must not be an IPv4-mapped IPv6 address".into()],
        _ => Vec::new(),
    }
}

/// `IsValidIP`: an address in its canonical form (RFC 5952).
#[must_use]
pub fn is_canonical_ip(value: &str) -> Vec<String> {
    let errors = is_ip(value);
    match value.parse::<IpAddr>() {
        Ok(address) if errors.is_empty() && address.to_string() != value => {
            vec![format!("must be in canonical form (\"{address}\")")]
        }
        _ => errors,
    }
}

/// `IsValidCIDRForLegacyField` in its strict form.
#[must_use]
pub fn is_cidr(value: &str) -> Vec<String> {
    let Some((address, length)) = parse_cidr_sloppy(value) else {
        return vec!["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".into()];
    };
    let strict = value
        .split_once('/')
        .is_some_and(|(ip, digits)| ip.parse::<IpAddr>().is_ok() && (digits.len() == 1 || !digits.starts_with('0')));
    if !strict {
        return vec!["must not have leading 0s in IP or prefix length".into()];
    }
    if matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()) {
        return vec!["must not have an IPv4-mapped IPv6 address".into()];
    }
    if masked(address, length) != address {
        return vec!["must not have bits set beyond the prefix length".into()];
    }
    Vec::new()
}

/// `IsValidCIDR`: a subnet in canonical form.
#[must_use]
pub fn is_canonical_cidr(value: &str) -> Vec<String> {
    let errors = is_cidr(value);
    match parse_cidr_sloppy(value) {
        Some((address, length)) if errors.is_empty() && format!("{address}/{length}") != value => {
            vec![format!("must be in canonical form (\"{address}/{length}\")")]
        }
        _ => errors,
    }
}

/// Reads an address as old versions of Go did: leading zeros in IPv4 octets are ignored (`ParseIPSloppy`).
#[must_use]
pub fn parse_ip_sloppy(value: &str) -> Option<IpAddr> {
    if let Ok(address) = value.parse() {
        return Some(address);
    }
    // An embedded IPv4 address is the part behind the last colon.
    let (head, tail) = match value.rfind(':') {
        Some(colon) => value.split_at(colon + 1),
        None => ("", value),
    };
    let octets: Vec<&str> = tail.split('.').collect();
    if octets.len() != 4 || octets.iter().any(|o| o.is_empty() || !o.bytes().all(|c| c.is_ascii_digit())) {
        return None;
    }
    let plain: Vec<&str> =
        octets.iter().map(|o| Some(o.trim_start_matches('0')).filter(|s| !s.is_empty()).unwrap_or("0")).collect();
    format!("{head}{}", plain.join(".")).parse().ok()
}

/// Reads `address/length`, with leading zeros ignored in both (`ParseCIDRSloppy`); the address is not masked.
#[must_use]
pub fn parse_cidr_sloppy(value: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = value.split_once('/')?;
    let address = parse_ip_sloppy(address)?;
    let digits = !length.is_empty() && length.bytes().all(|c| c.is_ascii_digit());
    let length: u8 = digits
        .then(|| length.trim_start_matches('0'))
        .map_or(Some(0), |s| if s.is_empty() { Some(0) } else { s.parse().ok() })?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    (digits && length <= longest).then_some((address, length))
}

/// The network of an address: every bit behind the first `length` ones cleared.
#[must_use]
pub fn masked(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0);
            IpAddr::V4((u32::from(v4) & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length.min(128))).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from(u128::from(v6) & mask))
        }
    }
}

/// `NameIsDNSSubdomain`: the check of most objects' names. A `prefix` (generateName) may end in a dash.
#[must_use]
pub fn name_is_dns_subdomain(name: &str, prefix: bool) -> Vec<String> {
    with_masked_dash(name, prefix, is_dns1123_subdomain)
}

/// `NameIsDNSLabel`: the check of namespaces' names. A `prefix` (generateName) may end in a dash.
#[must_use]
pub fn name_is_dns_label(name: &str, prefix: bool) -> Vec<String> {
    with_masked_dash(name, prefix, is_dns1123_label)
}

/// `NameIsDNS1035Label`: the check of Services' names. A `prefix` (generateName) may end in a dash.
#[must_use]
pub fn name_is_dns1035_label(name: &str, prefix: bool) -> Vec<String> {
    with_masked_dash(name, prefix, is_dns1035_label)
}

/// `RegexError`: a message with examples and the expression, which clients see.
#[must_use]
pub fn regex_error(message: &str, format: &str, examples: &[&str]) -> String {
    if examples.is_empty() {
        return format!("{message} (regex used for validation is '{format}')");
    }
    let quoted: Vec<String> = examples.iter().map(|example| format!("'{example}', ")).collect();
    format!("{message} (e.g. {}regex used for validation is '{format}')", quoted.join(" or "))
}

fn with_masked_dash(name: &str, prefix: bool, check: fn(&str) -> Vec<String>) -> Vec<String> {
    match name.strip_suffix('-') {
        // Upstream's maskTrailingDash drops the byte before the dash as well.
        Some(rest) if prefix && !rest.is_empty() => {
            let mut masked: String = rest.to_owned();
            masked.pop();
            masked.push('a');
            check(&masked)
        }
        _ => check(name),
    }
}

fn longer_than(value: &str, max: usize) -> Vec<String> {
    if value.len() > max { vec![format!("must be no more than {max} characters")] } else { Vec::new() }
}

/// Non-empty, `edge` at both ends and `inner` between.
fn bounded(value: &str, edge: fn(u8) -> bool, inner: impl Fn(u8) -> bool) -> bool {
    match value.as_bytes() {
        [] => false,
        [only] => edge(*only),
        [first, middle @ .., last] => edge(*first) && edge(*last) && middle.iter().all(|c| inner(*c)),
    }
}

fn matches_label(value: &str) -> bool {
    bounded(value, is_lower_alphanumeric, |c| is_lower_alphanumeric(c) || c == b'-')
}

fn matches_label_key_name(value: &str) -> bool {
    bounded(value, |c| c.is_ascii_alphanumeric(), is_config_key_byte)
}

fn is_lower_alphanumeric(c: u8) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

fn is_config_key_byte(c: u8) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.')
}

fn has_parent_prefix(value: &str) -> Option<String> {
    match value {
        "." => Some("must not be '.'".into()),
        ".." => Some("must not be '..'".into()),
        _ if value.starts_with("..") => Some("must not start with '..'".into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_says_what_it_must_look_like() {
        assert!(is_dns1123_label("a-1").is_empty());
        assert_eq!(is_dns1123_label("a.b"), ["must not contain dots"]);
        assert_eq!(
            is_dns1123_label("A"),
            [
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            ]
        );
        assert_eq!(is_dns1123_label(&"a".repeat(64)), ["must be no more than 63 characters"]);
    }

    #[test]
    fn valid_and_invalid_values_of_each_form() {
        type Check = fn(&str) -> Vec<String>;
        let table: &[(Check, &[&str], &[&str])] = &[
            (is_dns1123_subdomain, &["a", "a.b-c.0"], &["", ".", "a..b", "a_b", "-a", "a.", "A"]),
            (is_dns1123_subdomain_with_underscore, &["_tcp.a", "a_b"], &["", "__a", "a_", "-a"]),
            (is_dns1035_label, &["a", "a1-b"], &["", "1a", "a.b", "a-"]),
            (is_wildcard_dns1123_subdomain, &["*.a.b"], &["*", "a.b", "*.*.a", "*a.b"]),
            (is_qualified_name, &["a", "A_b.c", "example.com/a"], &["", "/a", "a/", "a/b/c", "-a", "A/b"]),
            (is_prefixed_label_key, &["a.b/c"], &["c", "/c"]),
            (is_label_value, &["", "a", "A.b_c-d"], &["-a", "a b", "a/b"]),
            (is_c_identifier, &["_a1"], &["", "1a", "a-b"]),
            (is_port_name, &["a", "http-80"], &["", "1", "a--b", "-a", "a-", "A", "abcdefghijklmnop"]),
            (is_percent, &["1%", "100%"], &["", "%", "1", "a%", "-1%"]),
            (is_http_header_name, &["X-A"], &["", "a:", "a b"]),
            (is_env_var_name, &["a.b", "_A"], &["", "1a", "..", "..a", ".", "a=b"]),
            (is_relaxed_env_var_name, &["1a", "a b"], &["", "a=b", "ä", "a\n"]),
            (is_config_map_key, &["a", ".a", "A_b-c"], &["", ".", "..", "..a", "a/b"]),
            (is_ip, &["1.2.3.4", "::1", "FE80::1"], &["", "1.2.3", "01.2.3.4", "::ffff:1.2.3.4", "::1%eth0"]),
            (is_canonical_ip, &["1.2.3.4", "fe80::1"], &["FE80::1", "0:0::1"]),
            (is_cidr, &["10.0.0.0/8", "::/0"], &["10.0.0.1/8", "10.0.0.0", "10.0.0.0/33", "10.0.0.0/08", "a/8"]),
            (is_canonical_cidr, &["fe80::/64"], &["FE80::/64"]),
        ];
        for (row, (check, good, bad)) in table.iter().enumerate() {
            for value in *good {
                assert_eq!(check(value), Vec::<String>::new(), "row {row}: {value:?} is valid");
            }
            for value in *bad {
                assert!(!check(value).is_empty(), "row {row}: {value:?} is not valid");
            }
        }
    }

    #[test]
    fn a_generated_name_may_have_a_prefix_that_ends_in_a_dash() {
        assert!(name_is_dns_subdomain("web-", true).is_empty());
        assert!(!name_is_dns_subdomain("web-", false).is_empty());
        assert!(!name_is_dns_subdomain("-", true).is_empty());
    }

    #[test]
    fn addresses_are_told_what_is_wrong() {
        assert_eq!(is_ip("010.0.0.1"), ["must not have leading 0s"]);
        assert_eq!(is_ip("::ffff:1.2.3.4"), ["must not be an IPv4-mapped IPv6 address"]);
        assert_eq!(is_canonical_ip("2001:DB8::0"), ["must be in canonical form (\"2001:db8::\")"]);
        assert_eq!(is_cidr("10.1.0.0/8"), ["must not have bits set beyond the prefix length"]);
        assert_eq!(is_cidr("10.0.0.0/08"), ["must not have leading 0s in IP or prefix length"]);
    }
}

//! What the downward API says: fields of the pod and amounts of its containers.
//!
//! Invariant: pure. Upstream: `podFieldSelectorRuntimeValue`, `fieldpath.ExtractFieldPathAsString` and
//! `resource.ExtractContainerResourceValue`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, ObjectFieldSelector, Pod, ResourceFieldSelector};
use skep_api::names;
use skep_api::quantity::Quantity;

use super::resources::{ResourceAmounts, amount, is_pod_level};
use super::{ConfigError, NodeContext};

/// The value of `fieldRef` in a variable: unlike in a volume, it may be one that only the kubelet knows.
pub fn variable_field(
    field: &ObjectFieldSelector,
    pod: &Pod,
    pod_ips: &[IpAddr],
    node: &NodeContext,
) -> Result<String, ConfigError> {
    if let Some(version) = field.api_version.as_deref().filter(|version| !matches!(*version, "" | "v1")) {
        return Err(ConfigError::new(format!("unsupported pod version: {version}")));
    }
    let path = field.field_path.as_str();
    let subscripted = ["metadata.annotations['", "metadata.labels['"].iter().any(|prefix| path.starts_with(prefix));
    if !subscripted && !VARIABLE_FIELDS.contains(&path) {
        return Err(ConfigError::new(format!("field label not supported: {path}")));
    }
    let spec = pod.spec.as_ref();
    // The node's own family comes first (upstream: `sortPodIPs`).
    let mut pod_ips = pod_ips.to_vec();
    pod_ips.sort_by_key(|ip| node.addresses.first().is_some_and(|of_node| of_node.is_ipv4() != ip.is_ipv4()));
    let first = |addresses: &[IpAddr]| addresses.first().map(ToString::to_string).unwrap_or_default();
    let all = |addresses: &[IpAddr]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    Ok(match path {
        "spec.nodeName" | "spec.host" => spec.and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
        "spec.serviceAccountName" => spec.and_then(|spec| spec.service_account_name.clone()).unwrap_or_default(),
        "status.hostIP" => first(&node.addresses),
        "status.hostIPs" => all(&node.addresses),
        "status.podIP" => first(&pod_ips),
        "status.podIPs" => all(&pod_ips),
        _ => return volume_field(path, pod),
    })
}

/// What `ConvertDownwardAPIFieldLabel` admits.
const VARIABLE_FIELDS: [&str; 15] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.host",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "spec.schedulerName",
    "status.phase",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// The value of `fieldRef` in a downward API volume.
pub fn volume_field(path: &str, pod: &Pod) -> Result<String, ConfigError> {
    let metadata = &pod.metadata;
    if let Some((map, key)) = subscript(path) {
        let (values, checked) = match map {
            "metadata.annotations" => (&metadata.annotations, key.to_lowercase()),
            "metadata.labels" => (&metadata.labels, key.to_owned()),
            _ => return Err(ConfigError::new(format!("fieldPath {path:?} does not support subscript"))),
        };
        let problems = names::is_qualified_name(&checked);
        if !problems.is_empty() {
            return Err(ConfigError::new(format!("invalid key subscript in {path}: {}", problems.join(";"))));
        }
        return Ok(values.as_ref().and_then(|values| values.get(key).cloned()).unwrap_or_default());
    }
    let text = |value: &Option<String>| Ok(value.clone().unwrap_or_default());
    match path {
        "metadata.annotations" => Ok(format_map(metadata.annotations.as_ref())),
        "metadata.labels" => Ok(format_map(metadata.labels.as_ref())),
        "metadata.name" => text(&metadata.name),
        "metadata.namespace" => text(&metadata.namespace),
        "metadata.uid" => text(&metadata.uid),
        _ => Err(ConfigError::new(format!("unsupported fieldPath: {path}"))),
    }
}

/// The value of `resourceFieldRef`, in units of its divisor and rounded up. `own` is the container that asks; a limit
/// that is not set is what the pod, or the node, can give.
pub fn resource_field(
    field: &ResourceFieldSelector,
    pod: &Pod,
    own: Option<&Container>,
    allocatable: &ResourceAmounts,
) -> Result<String, ConfigError> {
    let named = field.container_name.as_deref().filter(|name| !name.is_empty());
    let container = match (named, own) {
        (None, Some(own)) => own,
        (name, _) => {
            let name = name.unwrap_or_default();
            let spec = pod.spec.iter();
            let mut all = spec.flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
            all.find(|container| container.name == name)
                .ok_or_else(|| ConfigError::new(format!("container {name} not found")))?
        }
    };
    let unsupported = || ConfigError::new(format!("unsupported container resource : {}", field.resource));
    let (list, name) = field.resource.split_once('.').ok_or_else(unsupported)?;
    if !(matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-")) {
        return Err(unsupported());
    }
    let resources = container.resources.as_ref();
    let value = match list {
        "limits" => {
            let limit = amount(resources.and_then(|resources| resources.limits.as_ref()), name);
            if limit.is_zero() && !name.starts_with("hugepages-") {
                default_limit(pod, name, allocatable)
            } else {
                limit
            }
        }
        "requests" => amount(resources.and_then(|resources| resources.requests.as_ref()), name),
        _ => return Err(unsupported()),
    };
    let divisor = field.divisor.as_ref().and_then(|divisor| divisor.0.parse::<Quantity>().ok());
    let divisor = divisor.filter(|divisor| !divisor.is_zero()).unwrap_or(Quantity::new(1, value.format()));
    let (value, divisor) = match name {
        "cpu" => (value.milli_value(), divisor.milli_value()),
        _ => (value.value(), divisor.value()),
    };
    Ok(ceiling(value, divisor).to_string())
}

/// Upstream: `defaultPodLimitsForDownwardAPI`.
fn default_limit(pod: &Pod, name: &str, allocatable: &ResourceAmounts) -> Quantity {
    let of_node = allocatable.get(name).copied().unwrap_or_default();
    let limits = pod.spec.as_ref().and_then(|spec| spec.resources.as_ref()).and_then(|all| all.limits.as_ref());
    let of_pod = if is_pod_level(name) { amount(limits, name) } else { Quantity::ZERO };
    if of_pod.is_zero() || of_node.is_zero() { of_node } else { of_pod }
}

fn ceiling(value: i64, divisor: i64) -> i64 {
    let divisor = divisor.max(1);
    value / divisor + i64::from(value % divisor > 0)
}

/// Takes `map['key']` apart.
fn subscript(path: &str) -> Option<(&str, &str)> {
    path.strip_suffix("']")?.split_once("['").filter(|(map, _)| !map.is_empty())
}

/// A line `key="value"` a pair, quoted as Go does (upstream: `fieldpath.FormatMap`).
fn format_map(map: Option<&BTreeMap<String, String>>) -> String {
    let lines = map.into_iter().flatten().map(|(key, value)| format!("{key}={}", quoted(value)));
    lines.collect::<Vec<_>>().join("\n")
}

/// Go's `strconv.Quote`.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        let code = u32::from(c);
        let simple = match c {
            '"' => "\\\"",
            '\\' => "\\\\",
            '\x07' => "\\a",
            '\x08' => "\\b",
            '\x0c' => "\\f",
            '\n' => "\\n",
            '\r' => "\\r",
            '\t' => "\\t",
            '\x0b' => "\\v",
            _ => "",
        };
        // Writing to a String can't fail.
        let _ = match c {
            _ if !simple.is_empty() => write!(out, "{simple}"),
            _ if code < 0x20 || code == 0x7f => write!(out, "\\x{code:02x}"),
            ' ' => write!(out, " "),
            _ if (c.is_control() || c.is_whitespace()) && code < 0x1_0000 => write!(out, "\\u{code:04x}"),
            _ => write!(out, "{c}"),
        };
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"a": "1", "b": "x\"y\n"},
                "annotations": {"E.com/Key": "v"}},
            "spec": {"nodeName": "node-1", "serviceAccountName": "sa", "containers": [
                {"name": "c", "resources": {"limits": {"cpu": "1500m", "memory": "100Mi"}, "requests": {"cpu": "250m"}}},
                {"name": "d"},
            ]},
        }))
        .unwrap()
    }

    fn node() -> NodeContext {
        NodeContext {
            addresses: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            ..NodeContext::default()
        }
    }

    fn field(path: &str) -> Result<String, String> {
        let field = ObjectFieldSelector { field_path: path.to_owned(), ..ObjectFieldSelector::default() };
        variable_field(&field, &pod(), &["fd01::7".parse().unwrap(), "10.1.0.7".parse().unwrap()], &node())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn fields_are_read_as_upstream_does() {
        for (path, value) in [
            ("metadata.name", "p"),
            ("metadata.uid", "u"),
            ("metadata.labels", "a=\"1\"\nb=\"x\\\"y\\n\""),
            ("metadata.labels['a']", "1"),
            ("metadata.labels['none']", ""),
            ("metadata.annotations['E.com/Key']", "v"),
            ("spec.nodeName", "node-1"),
            ("spec.serviceAccountName", "sa"),
            ("status.hostIP", "10.0.0.1"),
            ("status.hostIPs", "10.0.0.1,fd00::1"),
            ("status.podIP", "10.1.0.7"),
            ("status.podIPs", "10.1.0.7,fd01::7"),
        ] {
            assert_eq!(field(path).as_deref(), Ok(value), "{path}");
        }
        assert_eq!(field("spec.containers").unwrap_err(), "field label not supported: spec.containers");
        assert_eq!(field("status.phase").unwrap_err(), "unsupported fieldPath: status.phase");
        assert!(
            field("metadata.labels['']").unwrap_err().starts_with("invalid key subscript in metadata.labels['']: ")
        );
    }

    fn amount_of(field: Value) -> Result<String, String> {
        let allocatable = [("cpu", "4"), ("memory", "1Gi")];
        let allocatable = allocatable.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).into();
        let (pod, field) = (pod(), serde_json::from_value(field).unwrap());
        let own = &pod.spec.as_ref().unwrap().containers[0];
        resource_field(&field, &pod, Some(own), &allocatable).map_err(|error| error.to_string())
    }

    #[test]
    fn amounts_are_divided_and_rounded_up() {
        for (field, value) in [
            (json!({"resource": "limits.cpu"}), "2"),
            (json!({"resource": "limits.cpu", "divisor": "1m"}), "1500"),
            (json!({"resource": "requests.cpu", "divisor": "0"}), "1"),
            (json!({"resource": "limits.memory", "divisor": "1Mi"}), "100"),
            (json!({"resource": "requests.memory"}), "0"),
            (json!({"resource": "limits.cpu", "containerName": "d"}), "4"),
            (json!({"resource": "limits.memory", "containerName": "d", "divisor": "1Mi"}), "1024"),
        ] {
            assert_eq!(amount_of(field.clone()).as_deref(), Ok(value), "{field}");
        }
        let wrong = amount_of(json!({"resource": "limits.gpu"}));
        assert_eq!(wrong.unwrap_err(), "unsupported container resource : limits.gpu");
        let wrong = amount_of(json!({"resource": "limits.cpu", "containerName": "x"}));
        assert_eq!(wrong.unwrap_err(), "container x not found");
    }
}

//! What the author of a pod should know though it is valid: upstream's pkg/api/pod/warnings.go.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::containers_with_path;
use super::prepare::{APP_ARMOR_ANNOTATION, app_armor_profile};
use crate::field::Path;
use crate::kinds::tree::{integer, is_empty, items, text};
use crate::names;
use crate::quantity::Quantity;

/// Warnings for a new pod; a changed one gets none, since controllers change pods often and nobody reads.
pub(super) fn pod_warnings(pod: &Value, old: Option<&Value>) -> Vec<String> {
    if old.is_some() {
        return Vec::new();
    }
    let mut warnings = Vec::new();
    let messages = names::is_dns1123_label(text(&pod["metadata"]["name"]));
    if !messages.is_empty() {
        warnings.push(format!(
            "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [{}]",
            messages.join(" ")
        ));
    }
    warnings.extend(template_warnings(pod, &Path::default()));
    warnings
}

/// Warnings for a pod template at `path`, such as `spec.template`.
#[must_use]
pub fn template_warnings(template: &Value, path: &Path) -> Vec<String> {
    let (spec, at) = (&template["spec"], path.child("spec"));
    let mut warnings = node_label_warnings(spec, &at);
    let annotations_path = path.child("metadata").child("annotations");
    for (key, message) in DEPRECATED_ANNOTATIONS {
        if template["metadata"]["annotations"][key].is_string() {
            warnings.push(format!("{}: {message}", annotations_path.key(key)));
        }
    }
    warnings.extend(volume_warnings(spec, &at));
    warnings.extend(duplicate_warnings(spec, &at));
    warnings.extend(fraction_warnings(&spec["overhead"], &at.child("overhead")));
    warnings.extend(seccomp_warnings(template, &annotations_path));
    let is_template = *path != Path::default();
    for (container, at) in containers_with_path(spec, &at) {
        if is_template {
            warnings.extend(app_armor_warning(template, container, &annotations_path));
        }
        for list in ["limits", "requests"] {
            warnings.extend(fraction_warnings(&container["resources"][list], &at.child("resources").child(list)));
        }
        warnings.extend(env_warnings(container, &at.child("env")));
    }
    warnings.extend(port_warnings(spec, &at));
    if spec["terminationGracePeriodSeconds"].as_i64().is_some_and(|seconds| seconds < 0) {
        let at = at.child("terminationGracePeriodSeconds");
        warnings.push(format!("{at}: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    warnings.extend(affinity_warnings(&spec["affinity"], &at.child("affinity")));
    warnings
}

const DEPRECATED_ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    ("security.alpha.kubernetes.io/unsafe-sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
];

/// What is said of a label of nodes that has a successor.
fn deprecated_node_label(key: &str) -> Option<&'static str> {
    Some(match key {
        "beta.kubernetes.io/arch" => "deprecated since v1.14; use \"kubernetes.io/arch\" instead",
        "beta.kubernetes.io/os" => "deprecated since v1.14; use \"kubernetes.io/os\" instead",
        "failure-domain.beta.kubernetes.io/region" => {
            "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead"
        }
        "failure-domain.beta.kubernetes.io/zone" => {
            "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"
        }
        "beta.kubernetes.io/instance-type" => {
            "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"
        }
        "app.kubernetes.io/created-by" => "deprecated since v1.9",
        "scheduler.alpha.kubernetes.io/preferAvoidPods" => "deprecated since v1.22; use Taints and Tolerations instead",
        "node-role.kubernetes.io/master" => "use \"node-role.kubernetes.io/control-plane\" instead",
        _ => return None,
    })
}

fn node_label_warnings(spec: &Value, path: &Path) -> Vec<String> {
    let mut warnings = Vec::new();
    for key in spec["nodeSelector"].as_object().into_iter().flatten().map(|(key, _)| key) {
        if let Some(message) = deprecated_node_label(key) {
            warnings.push(format!("{}: {message}", path.child("nodeSelector").key(key)));
        }
    }
    let affinity = &spec["affinity"]["nodeAffinity"];
    let at = path.child("affinity").child("nodeAffinity");
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    for (index, term) in items(&affinity[required]["nodeSelectorTerms"]).iter().enumerate() {
        let at = at.child(required).child("nodeSelectorTerms").index(index);
        warnings.extend(node_term_warnings(term, false, &at));
    }
    let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
    for (index, term) in items(&affinity[preferred]).iter().enumerate() {
        let at = at.child(preferred).index(index).child("preference");
        warnings.extend(node_term_warnings(&term["preference"], true, &at));
    }
    for (index, constraint) in items(&spec["topologySpreadConstraints"]).iter().enumerate() {
        let at = path.child("topologySpreadConstraints").index(index);
        let key = text(&constraint["topologyKey"]);
        if let Some(message) = deprecated_node_label(key) {
            warnings.push(format!("{}: {key} is {message}", at.child("topologyKey")));
        }
        if constraint["labelSelector"].is_null() {
            warnings.push(null_selector(&at.child("labelSelector")));
        }
    }
    warnings
}

fn node_term_warnings(term: &Value, check_values: bool, path: &Path) -> Vec<String> {
    let mut warnings = Vec::new();
    for (index, expression) in items(&term["matchExpressions"]).iter().enumerate() {
        let at = path.child("matchExpressions").index(index);
        let key = text(&expression["key"]);
        if let Some(message) = deprecated_node_label(key) {
            warnings.push(format!("{}: {key} is {message}", at.child("key")));
        }
        for (index, value) in items(&expression["values"]).iter().map(text).enumerate().filter(|_| check_values) {
            let at = at.child("values").index(index);
            warnings.extend(names::is_label_value(value).into_iter().map(|m| format!("{at}: {value} is invalid, {m}")));
        }
    }
    warnings
}

fn null_selector(path: &Path) -> String {
    format!("{path}: a null labelSelector results in matching no pod")
}

fn volume_warnings(spec: &Value, path: &Path) -> Vec<String> {
    const DEPRECATED: [(&str, &str, &str); 9] = [
        ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
        ("gitRepo", "gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
        ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
        ("flocker", "flocker", "deprecated in v1.22, non-functional in v1.25+"),
        ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
        ("quobyte", "quobyte", "deprecated in v1.22, non-functional in v1.25+"),
        ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
        ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
        ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
    ];
    let mut warnings = Vec::new();
    for (index, volume) in items(&spec["volumes"]).iter().enumerate() {
        for (field, shown, message) in DEPRECATED {
            if !volume[field].is_null() {
                warnings.push(format!("{}: {message}", path.child("volumes").index(index).child(shown)));
            }
        }
    }
    for volume in items(&spec["volumes"]) {
        warnings.extend(overlap_warnings(volume));
    }
    warnings
}

/// Files of one volume that would lie at, above or below one another.
fn overlap_warnings(volume: &Value) -> Vec<String> {
    let name = text(&volume["name"]);
    let (description, paths) = match () {
        () if volume["configMap"]["items"].is_array() => {
            let source = &volume["configMap"];
            (format!("ConfigMap \"{}\"", text(&source["name"])), item_paths(source, ""))
        }
        () if volume["secret"]["items"].is_array() => {
            let source = &volume["secret"];
            (format!("Secret \"{}\"", text(&source["secretName"])), item_paths(source, ""))
        }
        () if volume["downwardAPI"]["items"].is_array() => {
            ("DownwardAPI".to_owned(), item_paths(&volume["downwardAPI"], ""))
        }
        () => {
            let sources = items(&volume["projected"]["sources"]);
            let mut warnings: Vec<String> = Vec::new();
            if sources.iter().any(is_empty) {
                warnings.push(format!("volume \"{name}\" (Projected) has no sources provided"));
            }
            let paths = sources.iter().flat_map(projected_paths).collect();
            warnings.extend(
                overlaps(paths).map(|overlap| format!("volume \"{name}\" (Projected): overlapping paths: {overlap}")),
            );
            return warnings;
        }
    };
    overlaps(paths).map(|overlap| format!("volume \"{name}\" ({description}): overlapping paths: {overlap}")).collect()
}

/// A path, and how it is shown.
type ShownPath = (String, String);

fn shown(path: &str, source: &str) -> ShownPath {
    let path = path.trim_end_matches('/');
    let shown = if source.is_empty() { format!("\"{path}\"") } else { format!("\"{path}\" ({source})") };
    (path.to_owned(), shown)
}

fn item_paths(source: &Value, description: &str) -> Vec<ShownPath> {
    items(&source["items"]).iter().map(|item| shown(text(&item["path"]), description)).collect()
}

fn projected_paths(source: &Value) -> Vec<ShownPath> {
    for (field, kind) in [("configMap", "ConfigMap"), ("secret", "Secret")] {
        if source[field]["items"].is_array() {
            return item_paths(&source[field], &format!("{kind} \"{}\"", text(&source[field]["name"])));
        }
    }
    if source["downwardAPI"]["items"].is_array() {
        return item_paths(&source["downwardAPI"], "DownwardAPI");
    }
    if source["serviceAccountToken"].is_object() {
        return vec![shown(text(&source["serviceAccountToken"]["path"]), "ServiceAccountToken")];
    }
    let bundle = &source["clusterTrustBundle"];
    if bundle.is_object() {
        let name = bundle["name"].as_str().unwrap_or_else(|| text(&bundle["signerName"]));
        return vec![shown(text(&bundle["path"]), &format!("ClusterTrustBundle \"{name}\""))];
    }
    let certificate = &source["podCertificate"];
    let files = [("certificateChainPath", "chain"), ("keyPath", "key"), ("credentialBundlePath", "credential bundle")];
    let given = files.iter().filter(|(field, _)| !text(&certificate[*field]).is_empty());
    given.map(|(field, what)| shown(text(&certificate[*field]), &format!("PodCertificate {what}"))).collect()
}

fn overlaps(paths: Vec<ShownPath>) -> impl Iterator<Item = String> {
    let mut found = Vec::new();
    for (index, (path, shown)) in paths.iter().enumerate().filter(|(_, (path, _))| !path.is_empty()) {
        for (other, other_shown) in paths[..index].iter().filter(|(other, _)| !other.is_empty()) {
            let (here, there) = (format!("{path}/"), format!("{other}/"));
            if here.starts_with(&there) || there.starts_with(&here) {
                found.push(format!("{shown} with {other_shown}"));
            }
        }
    }
    found.into_iter()
}

fn duplicate_warnings(spec: &Value, path: &Path) -> Vec<String> {
    let mut warnings = Vec::new();
    for (list, field, what) in [("hostAliases", "ip", "ip"), ("imagePullSecrets", "name", "name")] {
        let mut seen = BTreeSet::new();
        for (index, item) in items(&spec[list]).iter().enumerate() {
            let value = text(&item[field]);
            if !seen.insert(value) {
                let at = path.child(list).index(index).child(field);
                warnings.push(format!("{at}: duplicate {what} \"{value}\""));
            }
        }
    }
    for (index, _) in items(&spec["imagePullSecrets"]).iter().enumerate().filter(|(_, s)| text(&s["name"]).is_empty()) {
        let at = path.child("imagePullSecrets").index(index).child("name");
        warnings.push(format!("{at}: invalid empty name \"\""));
    }
    warnings
}

/// Bytes come whole.
fn fraction_warnings(list: &Value, path: &Path) -> Vec<String> {
    let mut warnings = Vec::new();
    for name in ["memory", "ephemeral-storage"] {
        if let Ok(quantity) = Quantity::from_value(&list[name])
            && quantity.milli_value() % 1000 != 0
        {
            let at = path.key(name);
            warnings.push(format!("{at}: fractional byte value \"{quantity}\" is invalid, must be an integer"));
        }
    }
    warnings
}

fn seccomp_warnings(template: &Value, annotations_path: &Path) -> Vec<String> {
    let annotations = &template["metadata"]["annotations"];
    let spec = &template["spec"];
    let pod_key = "seccomp.security.alpha.kubernetes.io/pod".to_owned();
    let mut keys = vec![(pod_key, &spec["securityContext"])];
    for (container, _) in containers_with_path(spec, annotations_path) {
        let key = format!("container.seccomp.security.alpha.kubernetes.io/{}", text(&container["name"]));
        keys.push((key, &container["securityContext"]));
    }
    let outdated =
        keys.into_iter().filter(|(key, context)| annotations[key].is_string() && context["seccompProfile"].is_null());
    outdated
        .map(|(key, _)| {
            let at = annotations_path.key(&key);
            format!("{at}: non-functional in v1.27+; use the \"seccompProfile\" field instead")
        })
        .collect()
}

/// An AppArmor annotation that says something else than the fields.
fn app_armor_warning(template: &Value, container: &Value, annotations_path: &Path) -> Option<String> {
    let key = format!("{APP_ARMOR_ANNOTATION}{}", text(&container["name"]));
    let annotation = template["metadata"]["annotations"][&key].as_str()?;
    let of_pod = &template["spec"]["securityContext"]["appArmorProfile"];
    let said = !container["securityContext"]["appArmorProfile"].is_null()
        || (!of_pod.is_null() && app_armor_profile(annotation).as_ref() == Some(of_pod));
    let at = annotations_path.key(&key);
    (!said).then(|| format!("{at}: deprecated since v1.30; use the \"appArmorProfile\" field instead"))
}

fn env_warnings(container: &Value, path: &Path) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut seen = BTreeSet::new();
    for (index, variable) in items(&container["env"]).iter().enumerate() {
        let name = text(&variable["name"]);
        if seen.insert(name) {
            continue;
        }
        let (value, reference) = (text(&variable["value"]), format!("$({name})"));
        if !variable["valueFrom"].is_null() || value == reference || !value.contains(&reference) {
            let at = path.index(index);
            warnings
                .push(format!("{at}: hides previous definition of \"{name}\", which may be dropped when using apply"));
        }
    }
    warnings
}

fn port_warnings(spec: &Value, path: &Path) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut by_port: BTreeMap<(i64, &str), Vec<(Path, &Value)>> = BTreeMap::new();
    let ports: Vec<(&Value, Path)> = containers_with_path(spec, path)
        .into_iter()
        .flat_map(|(container, at)| {
            let at = at.child("ports");
            items(&container["ports"]).iter().enumerate().map(move |(index, port)| (port, at.index(index)))
        })
        .collect();
    for (port, at) in &ports {
        let others = by_port.entry((integer(&port["containerPort"]), text(&port["protocol"]))).or_default();
        for (other_at, other) in others.iter() {
            let (host_ip, other_ip) = (text(&port["hostIP"]), text(&other["hostIP"]));
            let (host_port, other_port) = (integer(&port["hostPort"]), integer(&other["hostPort"]));
            let what = if host_ip == other_ip && host_port == other_port {
                "duplicate"
            } else if host_port == 0 || other_port == 0 {
                "overlapping"
            } else if host_port == other_port && host_ip.is_empty() != other_ip.is_empty() {
                "dangerously ambiguous"
            } else {
                continue;
            };
            warnings.push(format!("{at}: {what} port definition with {other_at}"));
        }
        others.push((at.clone(), port));
    }
    let mut by_name: BTreeMap<&str, &Path> = BTreeMap::new();
    for (port, at) in ports.iter().filter(|(port, _)| !text(&port["name"]).is_empty()) {
        let name = text(&port["name"]);
        match by_name.get(name) {
            Some(other) => warnings.push(format!(
                "{at}: duplicate port name \"{name}\" with {other}, services and probes that select ports by name will use {other}"
            )),
            None => {
                by_name.insert(name, at);
            }
        }
    }
    warnings
}

fn affinity_warnings(affinity: &Value, path: &Path) -> Vec<String> {
    let mut warnings = Vec::new();
    for kind in ["podAffinity", "podAntiAffinity"] {
        let (required, preferred) =
            ("requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution");
        let at = path.child(kind);
        for (index, term) in items(&affinity[kind][required]).iter().enumerate() {
            if term["labelSelector"].is_null() {
                warnings.push(null_selector(&at.child(required).index(index).child("labelSelector")));
            }
        }
        for (index, term) in items(&affinity[kind][preferred]).iter().enumerate() {
            if term["podAffinityTerm"]["labelSelector"].is_null() {
                let at = at.child(preferred).index(index).child("podAffinityTerm").child("labelSelector");
                warnings.push(null_selector(&at));
            }
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{pod, pod_with, pod_with_container};
    use super::*;

    #[test]
    fn a_plain_pod_needs_no_warning() {
        assert_eq!(pod_warnings(&pod(), None), [""; 0]);
    }

    #[test]
    fn doubtful_pods_are_warned_about() {
        let table = [
            (
                pod_with(json!({"nodeSelector": {"beta.kubernetes.io/os": "linux"}})),
                "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
            ),
            (
                pod_with(json!({"imagePullSecrets": [{"name": ""}]})),
                "spec.imagePullSecrets[0].name: invalid empty name \"\"",
            ),
            (
                pod_with_container(json!({"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]})),
                "spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply",
            ),
            (
                pod_with_container(json!({"resources": {"limits": {"memory": "100m"}}})),
                "spec.containers[0].resources.limits[memory]: fractional byte value \"100m\" is invalid, must be an integer",
            ),
            (
                pod_with_container(json!({"ports": [{"containerPort": 80}, {"containerPort": 80}]})),
                "spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]",
            ),
            (
                pod_with(json!({"volumes": [{"name": "v", "configMap": {"name": "c", "items":
                    [{"key": "a", "path": "x"}, {"key": "b", "path": "x/y"}]}}]})),
                "volume \"v\" (ConfigMap \"c\"): overlapping paths: \"x/y\" with \"x\"",
            ),
            (
                pod_with(json!({"volumes": [{"name": "v", "gitRepo": {"repository": "r"}}]})),
                "spec.volumes[0].gitRepo: deprecated in v1.11, and disabled by default in v1.33+",
            ),
        ];
        for (pod, expected) in table {
            assert_eq!(pod_warnings(&pod, None)[0], expected);
        }
    }

    #[test]
    fn a_name_with_dots_is_no_good_hostname() {
        let mut dotted = pod();
        dotted["metadata"]["name"] = json!("a.b");
        assert_eq!(
            pod_warnings(&dotted, None),
            [
                "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [must not contain dots]"
            ]
        );
        assert_eq!(pod_warnings(&dotted, Some(&pod())), [""; 0], "nobody reads the warnings of an update");
    }
}

//! Rules for pods and pod templates: upstream's `ValidatePodSpec` and what it calls, in its order. The rules of metadata are the engine's.

mod annotations;
mod claims;
mod containers;
mod env;
mod mounts;
mod names;
mod node;
mod probes;
mod projected;
mod scheduling;
mod security;
pub(super) mod status;
pub(super) mod update;
mod volumes;
mod windows;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use self::names::{check, check_optional, one_of};
use super::{is_mirror, resources};
use crate::field::{Error, ErrorList, Path};
use crate::kinds::tree::{flag, items, length, text};
use crate::meta;
use crate::names as syntax;

pub(in crate::kinds) use self::claims::{validate_access_modes, validate_spec as validate_claim_spec};
pub use self::scheduling::{validate_node_selector, validate_tolerations};
pub(in crate::kinds) use self::volumes::validate_kind as validate_volume_source;

/// What the rules for a container need to know of the pod around it.
struct Surroundings<'a> {
    /// Valid volumes by name.
    volumes: BTreeMap<&'a str, &'a Value>,
    /// Names of the pod's resource claims.
    claims: BTreeSet<&'a str>,
    /// `terminationGracePeriodSeconds`
    grace_period: Option<i64>,
    /// `restartPolicy` of the pod.
    restart_policy: &'a str,
    /// Whether the pod runs in the host's user namespace.
    host_users: bool,
}

/// How upstream prints the path of an object as a whole in messages about static pods.
pub(in crate::kinds::core::pod) const NOWHERE: &str = "[]";

/// Whose spec is checked.
#[derive(Clone, Copy)]
enum Owner<'a> {
    /// A pod, whose metadata count as well.
    Pod(&'a Value),
    /// A pod template: some fields may still be missing.
    Template,
}

/// Upstream's `ValidatePodCreate`, without metadata.
pub(super) fn validate_create(pod: &Value) -> ErrorList {
    let mut errors = validate_pod(pod);
    let (spec, path) = (&pod["spec"], Path::new("spec"));
    if length(&spec["ephemeralContainers"]) > 0 {
        errors.push(Error::forbidden(&path.child("ephemeralContainers"), "cannot be set on create"));
    }
    if !text(&spec["nodeName"]).is_empty() && length(&spec["schedulingGates"]) > 0 {
        let detail = "cannot be set until all schedulingGates have been cleared";
        errors.push(Error::forbidden(&path.child("nodeName"), detail));
    }
    errors.extend(annotations::validate_matching_fields(&pod["metadata"], spec, &path));
    errors
}

/// Upstream's `ValidatePodTemplateSpec`: the template at `path`, such as `spec.template`.
#[must_use]
pub fn validate_pod_template(template: &Value, path: &Path) -> ErrorList {
    let (metadata, spec, spec_path) = (&template["metadata"], &template["spec"], path.child("spec"));
    let mut errors = meta::validate_labels(&metadata["labels"], &path.child("labels"));
    let annotations_path = path.child("annotations");
    errors.extend(meta::validate_annotations(&metadata["annotations"], &annotations_path));
    errors.extend(annotations::validate(&metadata["annotations"], spec, &annotations_path));
    errors.extend(validate_spec_of(spec, Owner::Template, &spec_path));
    errors.extend(annotations::validate_matching_fields(metadata, spec, &spec_path));
    if length(&spec["ephemeralContainers"]) > 0 {
        let detail = "ephemeral containers not allowed in pod template";
        errors.push(Error::forbidden(&spec_path.child("ephemeralContainers"), detail));
    }
    errors
}

/// Upstream's `ValidatePodSpec` for a spec that is not of a pod.
#[must_use]
pub fn validate_spec(spec: &Value, path: &Path) -> ErrorList {
    validate_spec_of(spec, Owner::Template, path)
}

/// Upstream's `validatePodMetadataAndSpec`, without what holds for any metadata.
pub(super) fn validate_pod(pod: &Value) -> ErrorList {
    let (spec, path) = (&pod["spec"], Path::new("spec"));
    let annotations_path = Path::new("metadata").child("annotations");
    let mut errors = annotations::validate(&pod["metadata"]["annotations"], spec, &annotations_path);
    errors.extend(validate_spec_of(spec, Owner::Pod(pod), &path));
    if text(&spec["serviceAccountName"]).is_empty() {
        for (index, volume) in items(&spec["volumes"]).iter().enumerate() {
            let at = path.child("volumes").index(index).child("projected").child("sources");
            for (index, source) in items(&volume["projected"]["sources"]).iter().enumerate() {
                if source["serviceAccountToken"].is_object() {
                    let detail = "must not be specified when serviceAccountName is not set";
                    errors.push(Error::forbidden(&at.index(index).child("serviceAccountToken"), detail));
                }
            }
        }
    }
    if let Some(seconds) = spec["terminationGracePeriodSeconds"].as_i64().filter(|seconds| *seconds < 0) {
        let at = path.child("terminationGracePeriodSeconds");
        errors.push(Error::invalid(&at, seconds, "must be greater than or equal to 0"));
    }
    for list in ["containers", "initContainers"] {
        for (index, container) in items(&spec[list]).iter().enumerate() {
            errors.extend(containers::validate_only_for_pod(container, &path.child(list).index(index)));
        }
    }
    errors
}

fn validate_spec_of(spec: &Value, owner: Owner<'_>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let grace_period = spec["terminationGracePeriodSeconds"].as_i64();
    if grace_period.is_none() {
        errors.push(Error::required(&path.child("terminationGracePeriodSeconds"), ""));
    }
    let pod = match owner {
        Owner::Pod(pod) => Some(pod),
        Owner::Template => None,
    };
    let pod_name = pod.map_or("", meta::name);
    let (volumes, volume_errors) = volumes::validate(&spec["volumes"], pod_name, &path.child("volumes"));
    errors.extend(volume_errors);
    let claims =
        items(&spec["resourceClaims"]).iter().map(|claim| text(&claim["name"])).filter(|name| !name.is_empty());
    let around = Surroundings {
        volumes,
        claims: claims.collect(),
        grace_period,
        restart_policy: text(&spec["restartPolicy"]),
        host_users: spec["hostUsers"].as_bool().unwrap_or(true),
    };
    errors.extend(validate_resource_claims(spec, pod.is_some_and(is_mirror), &path.child("resourceClaims")));
    errors.extend(containers::validate_all(spec, &around, path));
    errors.extend(resources::validate_pod_requirements(spec, &around.claims, path));
    errors.extend(node::validate_host_ports(spec, pod.is_some(), path));
    errors.extend(one_of(&spec["restartPolicy"], &["Always", "OnFailure", "Never"], &path.child("restartPolicy")));
    let dns_policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    errors.extend(one_of(&spec["dnsPolicy"], &dns_policies, &path.child("dnsPolicy")));
    errors.extend(meta::validate_labels(&spec["nodeSelector"], &path.child("nodeSelector")));
    errors.extend(security::validate_pod_context(spec, &path.child("securityContext")));
    if flag(&spec["shareProcessNamespace"]) && flag(&spec["hostPID"]) {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(Error::invalid(&path.child("shareProcessNamespace"), true, detail));
    }
    errors.extend(scheduling::validate_affinity(&spec["affinity"], &path.child("affinity")));
    errors.extend(node::validate_dns_config(spec, &path.child("dnsConfig")));
    errors.extend(scheduling::validate_gates(spec, path));
    let spread_path = path.child("topologySpreadConstraints");
    errors.extend(scheduling::validate_topology_spread(&spec["topologySpreadConstraints"], &spread_path));
    errors.extend(windows::validate_host_process(spec, path));
    errors.extend(security::validate_host_users(spec, path));
    errors.extend(node::validate_hostname_override(spec, path));
    errors.extend(validate_names(spec, path));
    errors.extend(node::validate_os(spec, path));
    errors.extend(mounts::validate_file_key_volumes(spec, path));
    errors
}

/// The plain fields, from `serviceAccountName` to `overhead`.
fn validate_names(spec: &Value, path: &Path) -> ErrorList {
    let subdomain: fn(&str) -> Vec<String> = syntax::is_dns1123_subdomain;
    let label: fn(&str) -> Vec<String> = syntax::is_dns1123_label;
    let mut errors = check_optional(spec, "serviceAccountName", path, subdomain);
    let account = text(&spec["serviceAccountName"]);
    if text(&spec["serviceAccount"]) != account {
        let detail = format!("must be the same as serviceAccountName: \"{account}\"");
        errors.push(Error::invalid(&path.child("deprecatedServiceAccount"), text(&spec["serviceAccount"]), detail));
    }
    errors.extend(check_optional(spec, "nodeName", path, subdomain));
    if let Some(seconds) = spec["activeDeadlineSeconds"].as_i64() {
        let at = path.child("activeDeadlineSeconds");
        let messages = syntax::in_range(seconds, 1, i64::from(i32::MAX));
        errors.extend(messages.into_iter().map(|message| Error::invalid(&at, seconds, message)));
    }
    errors.extend(check_optional(spec, "hostname", path, label));
    errors.extend(check_optional(spec, "subdomain", path, label));
    errors.extend(validate_tolerations(&spec["tolerations"], &path.child("tolerations")));
    errors.extend(node::validate_host_aliases(&spec["hostAliases"], &path.child("hostAliases")));
    errors.extend(check_optional(spec, "priorityClassName", path, subdomain));
    if let Some(class) = spec["runtimeClassName"].as_str() {
        errors.extend(check(class, &path.child("runtimeClassName"), subdomain));
    }
    if !spec["preemptionPolicy"].is_null() {
        let policies = ["PreemptLowerPriority", "Never"];
        errors.extend(one_of(&spec["preemptionPolicy"], &policies, &path.child("preemptionPolicy")));
    }
    if !spec["overhead"].is_null() {
        let as_limits = serde_json::json!({ "limits": spec["overhead"] });
        errors.extend(resources::validate_container_requirements(
            &as_limits,
            &BTreeSet::new(),
            &path.child("overhead"),
        ));
    }
    errors
}

/// Upstream's `validatePodResourceClaims`.
fn validate_resource_claims(spec: &Value, mirror: bool, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut seen = BTreeSet::new();
    for (index, claim) in items(&spec["resourceClaims"]).iter().enumerate() {
        if mirror {
            errors.push(Error::forbidden(&Path::new(NOWHERE), "static pods do not support resource claims"));
            continue;
        }
        let (path, name) = (path.index(index), text(&claim["name"]));
        if name.is_empty() {
            errors.push(Error::required(&path.child("name"), ""));
        } else if !seen.insert(name) {
            errors.push(Error::duplicate(&path.child("name"), name));
        } else {
            errors.extend(check(name, &path.child("name"), syntax::is_dns1123_label));
        }
        let sources = ["resourceClaimName", "resourceClaimTemplateName"];
        match sources.iter().filter(|source| !claim[**source].is_null()).count() {
            0 => {
                let detail = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
                errors.push(Error::invalid(&path, claim.clone(), detail));
            }
            1 => {}
            _ => {
                let detail = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
                errors.push(Error::invalid(&path, claim.clone(), detail));
            }
        }
        for source in sources {
            if let Some(name) = claim[source].as_str() {
                errors.extend(check(name, &path.child(source), syntax::is_dns1123_subdomain));
            }
        }
    }
    errors
}

#[cfg(test)]
mod tests;

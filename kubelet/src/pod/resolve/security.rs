//! Who a container runs as, and what it may do.
//!
//! Invariant: pure; a container's own setting comes before its pod's (upstream: `DetermineEffectiveSecurityContext`).
//! SELinux options have no effect, as on every node without SELinux.

use k8s_openapi::api::core::v1::{Container, Pod, PodSecurityContext};

use super::{ConfigError, UserIds};
use crate::runtime::host::CAPABILITIES;
use crate::runtime::spec::DEFAULT_CAPABILITIES;

/// Whom to look up in the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRequest {
    /// `user[:group]` by name or number. A user that is there without a group has that of the image's `/etc/passwd`, and
    /// group 0 if it isn't in there.
    pub user: String,
    /// The user's groups in the image's `/etc/group` count too (`supplementalGroupsPolicy: Merge`).
    pub with_image_groups: bool,
}

/// Whom a container is to run as, once `runAsNonRoot` was checked (upstream: `verifyRunAsNonRoot`, `getImageUser`; the
/// group in the image's user is not heeded there either).
///
/// # Errors
/// When the user is root, or might be, and must not.
pub fn user_request(pod: &Pod, container: &Container, image_user: &str) -> Result<UserRequest, ConfigError> {
    let of_pod = pod_context(pod);
    let own = container.security_context.as_ref();
    let run_as_user = own.and_then(|own| own.run_as_user).or(of_pod.and_then(|pod| pod.run_as_user));
    let run_as_group = own.and_then(|own| own.run_as_group).or(of_pod.and_then(|pod| pod.run_as_group));
    let non_root = own.and_then(|own| own.run_as_non_root).or(of_pod.and_then(|pod| pod.run_as_non_root));
    let image_user = image_user.split(':').next().unwrap_or_default();
    let image_user = if image_user.is_empty() { "0" } else { image_user };
    if non_root == Some(true) {
        refuse_root(pod, container, run_as_user, image_user)?;
    }
    let user = run_as_user.map_or_else(|| image_user.to_owned(), |uid| uid.to_string());
    let user = run_as_group.map_or_else(|| user.clone(), |gid| format!("{user}:{gid}"));
    let policy = of_pod.and_then(|pod| pod.supplemental_groups_policy.as_deref());
    Ok(UserRequest { user, with_image_groups: policy != Some("Strict") })
}

/// The supplemental groups of the process: its own, those of the image, and those that the pod adds.
///
/// # Errors
/// When a number is no group.
pub fn groups(pod: &Pod, ids: &UserIds) -> Result<Vec<u32>, ConfigError> {
    let context = pod_context(pod);
    let added = context
        .iter()
        .flat_map(|context| context.fs_group.iter().chain(context.supplemental_groups.iter().flatten()).copied());
    let mut groups = vec![ids.gid];
    groups.extend(&ids.groups);
    for group in added {
        groups.push(u32::try_from(group).map_err(|_| ConfigError::new(format!("{group} is no group")))?);
    }
    let mut seen = std::collections::BTreeSet::new();
    groups.retain(|group| seen.insert(*group));
    Ok(groups)
}

/// Whether it may do anything on the node.
pub fn is_privileged(container: &Container) -> bool {
    container.security_context.as_ref().and_then(|context| context.privileged).unwrap_or(false)
}

/// The capabilities of a container, in the kernel's order; `all` is what there is on the node, none of it means everything.
pub fn capabilities(container: &Container, all: &[String]) -> Vec<String> {
    let asked = container.security_context.as_ref().and_then(|context| context.capabilities.as_ref());
    let named = |list: Option<&Vec<String>>| -> Vec<String> {
        let upper = list.into_iter().flatten().map(|name| name.to_uppercase());
        upper.map(|name| if name.starts_with("CAP_") { name } else { format!("CAP_{name}") }).collect()
    };
    let add = named(asked.and_then(|asked| asked.add.as_ref()));
    let drop = named(asked.and_then(|asked| asked.drop.as_ref()));
    let has = |list: &[String], name: &str| list.iter().any(|entry| entry == name);
    let on_node = |name: &&&str| all.is_empty() || has(all, name);
    let everything = is_privileged(container) || (has(&add, "CAP_ALL") && !has(&drop, "CAP_ALL"));
    let nothing = !everything && has(&drop, "CAP_ALL");
    let given = |name: &&&str| {
        // As containerd does: ALL first, then what is added, then what is dropped.
        let base = everything || (!nothing && DEFAULT_CAPABILITIES.contains(*name));
        is_privileged(container) || ((base || has(&add, name)) && !has(&drop, name))
    };
    CAPABILITIES.iter().filter(on_node).filter(given).map(|name| (*name).to_owned()).collect()
}

/// Which system calls a container may make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seccomp {
    /// All.
    Unconfined,
    /// The runtime's profile.
    RuntimeDefault,
    /// A file below the kubelet's seccomp folder.
    Localhost(String),
}

/// The profile that a container asks for (upstream: `getSeccompProfile`).
///
/// # Errors
/// When it is to be a file of the node that isn't named.
pub fn seccomp(pod: &Pod, container: &Container, default: bool) -> Result<Seccomp, ConfigError> {
    let own = container.security_context.as_ref().and_then(|context| context.seccomp_profile.as_ref());
    let profile = own.or_else(|| pod_context(pod).and_then(|context| context.seccomp_profile.as_ref()));
    if is_privileged(container) {
        return Ok(Seccomp::Unconfined);
    }
    match profile.map(|profile| (profile.type_.as_str(), profile.localhost_profile.as_deref())) {
        None if default => Ok(Seccomp::RuntimeDefault),
        None => Ok(Seccomp::Unconfined),
        Some(("RuntimeDefault", _)) => Ok(Seccomp::RuntimeDefault),
        Some(("Localhost", Some(file))) if !file.is_empty() => Ok(Seccomp::Localhost(file.to_owned())),
        Some(("Localhost", _)) => {
            Err(ConfigError::new("localhostProfile must be set if seccompProfile type is Localhost."))
        }
        Some(_) => Ok(Seccomp::Unconfined),
    }
}

fn refuse_root(
    pod: &Pod,
    container: &Container,
    run_as_user: Option<i64>,
    image_user: &str,
) -> Result<(), ConfigError> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let metadata = &pod.metadata;
    let pod = format!("{}_{}({})", text(&metadata.name), text(&metadata.namespace), text(&metadata.uid));
    let of = format!("(pod: {pod:?}, container: {})", container.name);
    let message = match (run_as_user, image_user.parse::<i64>()) {
        (Some(0), _) => format!("container's runAsUser breaks non-root policy {of}"),
        (Some(_), _) => return Ok(()),
        (None, Err(_)) => format!(
            "container has runAsNonRoot and image has non-numeric user ({image_user}), cannot verify user is non-root {of}"
        ),
        (None, Ok(0)) => format!("container has runAsNonRoot and image will run as root {of}"),
        (None, Ok(uid)) if (1..=i64::from(i32::MAX)).contains(&uid) => return Ok(()),
        (None, Ok(uid)) => format!(
            "container has runAsNonRoot and image has an invalid user id ({uid}). (Must be 1-({max})): must be between 0 and \
             {max}, inclusive {of}",
            max = i32::MAX
        ),
    };
    Err(ConfigError::new(message))
}

fn pod_context(pod: &Pod) -> Option<&PodSecurityContext> {
    pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(pod: Value, container: Value) -> (Pod, Container) {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"securityContext": pod, "containers": [{"name": "c", "securityContext": container}]},
        }))
        .unwrap();
        let container = pod.spec.as_ref().unwrap().containers[0].clone();
        (pod, container)
    }

    fn user(of_pod: Value, own: Value, image: &str) -> Result<String, String> {
        let (pod, container) = pod(of_pod, own);
        user_request(&pod, &container, image).map(|request| request.user).map_err(|error| error.to_string())
    }

    #[test]
    fn the_containers_user_comes_before_the_pods_and_the_images() {
        for (of_pod, own, image, wanted) in [
            (json!({}), json!({}), "", "0"),
            (json!({}), json!({}), "nobody:100", "nobody"),
            (json!({"runAsUser": 5}), json!({}), "nobody", "5"),
            (json!({"runAsUser": 5, "runAsGroup": 6}), json!({"runAsUser": 7}), "", "7:6"),
            (json!({}), json!({"runAsGroup": 6}), "1000", "1000:6"),
            (json!({"runAsNonRoot": true}), json!({}), "1000", "1000"),
            (json!({"runAsNonRoot": true}), json!({"runAsNonRoot": false}), "", "0"),
        ] {
            assert_eq!(user(of_pod.clone(), own.clone(), image).as_deref(), Ok(wanted), "{of_pod} {own} {image}");
        }
    }

    #[test]
    fn root_is_refused_where_it_must_not_be() {
        let of = "(pod: \"p_n(u)\", container: c)";
        for (own, image, wanted) in [
            (json!({"runAsUser": 0}), "", format!("container's runAsUser breaks non-root policy {of}")),
            (json!({}), "", format!("container has runAsNonRoot and image will run as root {of}")),
            (
                json!({}),
                "www",
                format!(
                    "container has runAsNonRoot and image has non-numeric user (www), cannot verify user is non-root {of}"
                ),
            ),
        ] {
            assert_eq!(user(json!({"runAsNonRoot": true}), own, image), Err(wanted));
        }
    }

    #[test]
    fn groups_are_put_together_without_doubles() {
        let (pod, _) = pod(json!({"fsGroup": 2000, "supplementalGroups": [30, 10]}), json!({}));
        let ids = UserIds { uid: 1, gid: 10, groups: vec![20, 30] };
        assert_eq!(groups(&pod, &ids), Ok(vec![10, 20, 30, 2000]));
    }

    #[test]
    fn capabilities_are_added_and_dropped_as_the_runtime_does() {
        let of = |own: Value| capabilities(&pod(json!({}), own).1, &[]);
        assert_eq!(of(json!({})).len(), DEFAULT_CAPABILITIES.len());
        assert_eq!(
            of(json!({"capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE", "CAP_chown"]}})),
            ["CAP_CHOWN", "CAP_NET_BIND_SERVICE"]
        );
        assert_eq!(of(json!({"capabilities": {"add": ["ALL"], "drop": ["SYS_ADMIN"]}})).len(), 40);
        assert!(!of(json!({"capabilities": {"drop": ["KILL"]}})).contains(&"CAP_KILL".to_owned()));
        assert_eq!(of(json!({"privileged": true})).len(), 41);
        let few = ["CAP_CHOWN", "CAP_DAC_OVERRIDE"].map(str::to_owned);
        assert_eq!(
            capabilities(&pod(json!({}), json!({"privileged": true})).1, &few),
            ["CAP_CHOWN", "CAP_DAC_OVERRIDE"]
        );
    }

    #[test]
    fn the_seccomp_profile_is_the_containers_else_the_pods_else_the_nodes_default() {
        let of = |of_pod: Value, own: Value, default: bool| {
            let (pod, container) = pod(of_pod, own);
            seccomp(&pod, &container, default)
        };
        let profile = |kind: &str| json!({"seccompProfile": {"type": kind}});
        assert_eq!(of(json!({}), json!({}), false), Ok(Seccomp::Unconfined));
        assert_eq!(of(json!({}), json!({}), true), Ok(Seccomp::RuntimeDefault));
        assert_eq!(of(profile("RuntimeDefault"), json!({}), false), Ok(Seccomp::RuntimeDefault));
        assert_eq!(of(profile("RuntimeDefault"), profile("Unconfined"), true), Ok(Seccomp::Unconfined));
        assert!(of(json!({}), profile("Localhost"), true).is_err());
        assert_eq!(of(profile("RuntimeDefault"), json!({"privileged": true}), true), Ok(Seccomp::Unconfined));
    }
}

//! Folders that must be in a read-only volume because another volume is mounted onto them.
//!
//! Upstream: `getNestedMountpoints`.

use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod};

use super::error::Cause;

/// Paths relative to the volume, outermost ones only.
pub(super) fn mountpoints(pod: &Pod, volume: &str) -> Result<Vec<PathBuf>, Cause> {
    let Some(spec) = &pod.spec else { return Ok(vec![]) };
    let mut found = vec![];
    for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
        found.extend(of_container(container, volume)?);
    }
    Ok(found)
}

fn of_container(container: &Container, volume: &str) -> Result<Vec<PathBuf>, Cause> {
    let mounts = container.volume_mounts.as_deref().unwrap_or_default();
    let has_part = |path: &Option<String>| path.as_deref().is_some_and(|path| !path.is_empty());
    let mut points: Vec<&Path> = mounts.iter().map(|mount| Path::new(mount.mount_path.as_str())).collect();
    points.sort();
    let mut found: Vec<PathBuf> = vec![];
    let whole = mounts.iter().filter(|mount| mount.name == volume);
    for own in whole.filter(|mount| !has_part(&mount.sub_path) && !has_part(&mount.sub_path_expr)) {
        let mut of_own: Vec<&Path> = vec![];
        for nested in points.iter().filter_map(|point| point.strip_prefix(&own.mount_path).ok()) {
            if nested.components().any(|part| part == Component::ParentDir) {
                let message = format!("mount path {:?} of container {:?} leads out", own.mount_path, container.name);
                return Err(Cause::refused(message));
            }
            if !nested.as_os_str().is_empty() && !of_own.iter().any(|outer| nested.starts_with(outer)) {
                of_own.push(nested);
            }
        }
        found.extend(of_own.into_iter().map(Path::to_owned));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_the_outermost_points_inside_the_volume_are_made() {
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [{"name": "c", "volumeMounts": [
            {"name": "v", "mountPath": "/dir"}, {"name": "x", "mountPath": "/dir/a/b"},
            {"name": "y", "mountPath": "/dir/a/b/c"}, {"name": "z", "mountPath": "/dirt"},
        ]}]}}))
        .unwrap();
        assert_eq!(mountpoints(&pod, "v").unwrap(), [Path::new("a/b")]);
        assert!(mountpoints(&pod, "y").unwrap().is_empty());
    }
}

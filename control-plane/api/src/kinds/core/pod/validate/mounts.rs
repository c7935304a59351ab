//! Rules for what a container mounts: volumes as directories and as block devices.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::names::{descending, no_backsteps};
use crate::field::{Error, ErrorList, Path};
use crate::kinds::core::pod::containers_with_path;
use crate::kinds::tree::{flag, items, text};

/// Upstream's `ValidateVolumeMounts` and `ValidateVolumeDevices`, for the container at `path`.
pub(super) fn validate(container: &Value, volumes: &BTreeMap<&str, &Value>, path: &Path) -> ErrorList {
    let mut errors = validate_mounts(container, volumes, &path.child("volumeMounts"));
    errors.extend(validate_devices(container, volumes, &path.child("volumeDevices")));
    errors
}

/// Upstream's `validateFileKeyRefVolumes`: variables are read from files of emptyDir volumes only.
pub(super) fn validate_file_key_volumes(spec: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (container, at) in containers_with_path(spec, path) {
        for (index, variable) in items(&container["env"]).iter().enumerate() {
            let reference = &variable["valueFrom"]["fileKeyRef"];
            if reference.is_null() {
                continue;
            }
            let at = at.child("env").index(index).child("valueFrom").child("fileKeyRef").child("volumeName");
            let name = text(&reference["volumeName"]);
            match items(&spec["volumes"]).iter().rfind(|volume| text(&volume["name"]) == name) {
                None => errors.push(Error::not_found(&at, name)),
                Some(volume) if volume["emptyDir"].is_null() => {
                    errors.push(Error::invalid(&at, name, "referenced volume must be of type emptyDir"));
                }
                Some(_) => {}
            }
        }
    }
    errors
}

fn validate_mounts(container: &Value, volumes: &BTreeMap<&str, &Value>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let devices = items(&container["volumeDevices"]);
    let mut seen = BTreeSet::new();
    for (index, mount) in items(&container["volumeMounts"]).iter().enumerate() {
        let at = path.index(index);
        let (name, mount_path) = (text(&mount["name"]), text(&mount["mountPath"]));
        if name.is_empty() {
            errors.push(Error::required(&at.child("name"), ""));
        }
        if !volumes.contains_key(name) {
            errors.push(Error::not_found(&at.child("name"), name));
        }
        if mount_path.is_empty() {
            errors.push(Error::required(&at.child("mountPath"), ""));
        }
        if !seen.insert(mount_path) {
            errors.push(Error::invalid(&at.child("mountPath"), mount_path, "must be unique"));
        }
        if devices.iter().any(|device| text(&device["name"]) == name) {
            errors.push(Error::invalid(&at.child("name"), name, "must not already exist in volumeDevices"));
        }
        if devices.iter().any(|device| text(&device["devicePath"]) == mount_path) {
            let detail = "must not already exist as a path in volumeDevices";
            errors.push(Error::invalid(&at.child("mountPath"), mount_path, detail));
        }
        errors.extend(validate_sub_path(mount, path, &at));
        errors.extend(validate_propagation(mount, container, &path.child("mountPropagation")));
        errors.extend(validate_recursive_read_only(mount, &path.child("recursiveReadOnly")));
    }
    errors
}

/// Upstream names the path of the list in some of these messages, and the path of the mount (`at`) in others.
fn validate_sub_path(mount: &Value, path: &Path, at: &Path) -> ErrorList {
    let (sub_path, expression) = (text(&mount["subPath"]), text(&mount["subPathExpr"]));
    let mut errors = ErrorList::new();
    if !sub_path.is_empty() {
        errors.extend(descending(sub_path, &path.child("subPath")));
    }
    if !expression.is_empty() {
        if !sub_path.is_empty() {
            let detail = "subPathExpr and subPath are mutually exclusive";
            errors.push(Error::invalid(&at.child("subPathExpr"), expression, detail));
        }
        errors.extend(descending(expression, &path.child("subPathExpr")));
    }
    errors
}

fn validate_propagation(mount: &Value, container: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let Some(mode) = mount["mountPropagation"].as_str() else { return errors };
    let modes = ["Bidirectional", "HostToContainer", "None"];
    if !modes.contains(&mode) {
        errors.push(Error::not_supported(path, mode, &modes));
    }
    if mode == "Bidirectional" && !flag(&container["securityContext"]["privileged"]) {
        let detail = "Bidirectional mount propagation is available only to privileged containers";
        errors.push(Error::forbidden(path, detail));
    }
    errors
}

fn validate_recursive_read_only(mount: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    match mount["recursiveReadOnly"].as_str() {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if !flag(&mount["readOnly"]) {
                errors.push(Error::forbidden(path, "may only be specified when readOnly is true"));
            }
            if mount["mountPropagation"].as_str().is_some_and(|mode| mode != "None") {
                let detail = "may only be specified when mountPropagation is None or not specified";
                errors.push(Error::forbidden(path, detail));
            }
        }
        Some(other) => errors.push(Error::not_supported(path, other, &["Disabled", "Enabled", "IfPossible"])),
    }
    errors
}

fn validate_devices(container: &Value, volumes: &BTreeMap<&str, &Value>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mounts = items(&container["volumeMounts"]);
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    for (index, device) in items(&container["volumeDevices"]).iter().enumerate() {
        let at = path.index(index);
        let (name_path, device_path_path) = (at.child("name"), at.child("devicePath"));
        let (name, device_path) = (text(&device["name"]), text(&device["devicePath"]));
        if name.is_empty() {
            errors.push(Error::required(&name_path, ""));
        }
        if names.contains(name) {
            errors.push(Error::invalid(&name_path, name, "must be unique"));
        }
        match volumes.get(name) {
            None => errors.push(Error::not_found(&name_path, name)),
            Some(volume) if volume["persistentVolumeClaim"].is_null() && volume["ephemeral"].is_null() => {
                let detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.push(Error::invalid(&name_path, name, detail));
            }
            Some(_) => {}
        }
        if device_path.is_empty() {
            errors.push(Error::required(&device_path_path, ""));
        }
        if paths.contains(device_path) {
            errors.push(Error::invalid(&device_path_path, device_path, "must be unique"));
        }
        if no_backsteps(device_path, path).is_some() {
            errors.push(Error::invalid(&device_path_path, device_path, "can not contain backsteps ('..')"));
        } else {
            paths.insert(device_path);
        }
        if mounts.iter().any(|mount| text(&mount["name"]) == name) {
            errors.push(Error::invalid(&name_path, name, "must not already exist in volumeMounts"));
        }
        if mounts.iter().any(|mount| text(&mount["mountPath"]) == device_path) {
            let detail = "must not already exist as a path in volumeMounts";
            errors.push(Error::invalid(&device_path_path, device_path, detail));
        }
        if !name.is_empty() {
            names.insert(name);
        }
    }
    errors
}

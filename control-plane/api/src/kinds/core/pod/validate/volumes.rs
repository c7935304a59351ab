//! Rules for the volumes of a pod: one source each, and what each source needs.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::names::{check, check_number, check_optional, check_required, descending, file_mode, no_backsteps};
use super::names::{not_reserved, one_of_optional, required};
use super::{claims, containers, env, projected};
use crate::field::{Error, ErrorList, Path};
use crate::kinds::tree::{flag, integer, items, length, text};
use crate::names;
use crate::quantity::Quantity;

/// Upstream's `ValidateVolumes`: the valid volumes by name, and what is wrong with the others. `pod_name` is empty for a template.
pub(super) fn validate<'a>(
    volumes: &'a Value,
    pod_name: &str,
    path: &Path,
) -> (BTreeMap<&'a str, &'a Value>, ErrorList) {
    let mut valid = BTreeMap::new();
    let mut errors = ErrorList::new();
    let created: BTreeSet<String> = items(volumes)
        .iter()
        .filter(|volume| !pod_name.is_empty() && !volume["ephemeral"].is_null())
        .map(|volume| format!("{pod_name}-{}", text(&volume["name"])))
        .collect();
    for (index, volume) in items(volumes).iter().enumerate() {
        let at = path.index(index);
        let name = text(&volume["name"]);
        let mut found = validate_source(volume, pod_name, &at);
        found.extend(check_required(volume, "name", &at, names::is_dns1123_label));
        if valid.contains_key(name) {
            found.push(Error::duplicate(&at.child("name"), name));
        }
        if found.is_empty() {
            valid.insert(name, volume);
        }
        errors.extend(found);
        let claim = text(&volume["persistentVolumeClaim"]["claimName"]);
        if created.contains(claim) {
            let at = at.child("persistentVolumeClaim").child("claimName");
            errors.push(Error::invalid(
                &at,
                claim,
                "must not reference a PVC that gets created for an ephemeral volume",
            ));
        }
    }
    (valid, errors)
}

/// The kinds of sources in upstream's order: field, the name in "more than one" messages, the name in all others.
const SOURCES: [(&str, &str, &str); 30] = [
    ("emptyDir", "emptyDir", "emptyDir"),
    ("hostPath", "hostPath", "hostPath"),
    ("gitRepo", "gitRepo", "gitRepo"),
    ("gcePersistentDisk", "gcePersistentDisk", "persistentDisk"),
    ("awsElasticBlockStore", "awsElasticBlockStore", "awsElasticBlockStore"),
    ("secret", "secret", "secret"),
    ("nfs", "nfs", "nfs"),
    ("iscsi", "iscsi", "iscsi"),
    ("glusterfs", "glusterfs", "glusterfs"),
    ("flocker", "flocker", "flocker"),
    ("persistentVolumeClaim", "persistentVolumeClaim", "persistentVolumeClaim"),
    ("rbd", "rbd", "rbd"),
    ("cinder", "cinder", "cinder"),
    ("cephfs", "cephFS", "cephfs"),
    ("quobyte", "quobyte", "quobyte"),
    ("downwardAPI", "downwarAPI", "downwardAPI"),
    ("fc", "fc", "fc"),
    ("flexVolume", "flexVolume", "flexVolume"),
    ("configMap", "configMap", "configMap"),
    ("azureFile", "azureFile", "azureFile"),
    ("vsphereVolume", "vsphereVolume", "vsphereVolume"),
    ("photonPersistentDisk", "photonPersistentDisk", "photonPersistentDisk"),
    ("portworxVolume", "portworxVolume", "portworxVolume"),
    ("azureDisk", "azureDisk", "azureDisk"),
    ("storageos", "storageos", "storageos"),
    ("projected", "projected", "projected"),
    ("scaleIO", "scaleIO", "scaleIO"),
    ("csi", "csi", "csi"),
    ("ephemeral", "ephemeral", "ephemeral"),
    ("image", "image", "image"),
];

fn validate_source(volume: &Value, pod_name: &str, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut count = 0;
    for (field, forbidden, shown) in SOURCES {
        let source = &volume[field];
        if source.is_null() {
            continue;
        }
        count += 1;
        if count > 1 {
            errors.push(Error::forbidden(&path.child(forbidden), "may not specify more than 1 volume type"));
        } else {
            errors.extend(validate_kind(field, source, &path.child(shown)));
        }
        if field == "iscsi" {
            errors.extend(validate_iscsi_length(volume, path));
        }
        if field == "ephemeral" && count == 1 {
            errors.extend(validate_claim_name(text(&volume["name"]), pod_name, &path.child("name")));
        }
    }
    if count == 0 {
        errors.push(Error::required(path, "must specify a volume type"));
    }
    errors
}

/// One source of the kind that its field names.
pub(in crate::kinds) fn validate_kind(kind: &str, source: &Value, path: &Path) -> ErrorList {
    match kind {
        "emptyDir" => validate_empty_dir(source, path),
        "hostPath" => validate_host_path(source, path),
        "gitRepo" => {
            let mut errors = required(source, &["repository"], path);
            errors.extend(descending(text(&source["directory"]), &path.child("directory")));
            errors
        }
        "gcePersistentDisk" => validate_disk(source, "pdName", path),
        "awsElasticBlockStore" => validate_disk(source, "volumeID", path),
        "secret" => validate_files(source, "secretName", path),
        "configMap" => validate_files(source, "name", path),
        "nfs" => validate_nfs(source, path),
        "iscsi" => validate_iscsi(source, path),
        "glusterfs" => required(source, &["endpoints", "path"], path),
        "flocker" => validate_flocker(source, path),
        "persistentVolumeClaim" => required(source, &["claimName"], path),
        "rbd" => {
            let mut errors = required_list(source, "monitors", path);
            errors.extend(required(source, &["image"], path));
            errors
        }
        "cinder" => {
            let mut errors = required(source, &["volumeID"], path);
            errors.extend(validate_secret_reference(source, path));
            errors
        }
        "cephfs" => required_list(source, "monitors", path),
        "quobyte" => validate_quobyte(source, path),
        "downwardAPI" => {
            let mut errors = validate_modes(source, path);
            for file in items(&source["items"]) {
                errors.extend(validate_downward_file(file, path));
            }
            errors
        }
        "fc" => validate_fibre_channel(source, path),
        "flexVolume" => validate_flex(source, path),
        "azureFile" => required(source, &["secretName", "shareName"], path),
        "vsphereVolume" => required(source, &["volumePath"], path),
        "photonPersistentDisk" => required(source, &["pdID"], path),
        "portworxVolume" => required(source, &["volumeID"], path),
        "azureDisk" => validate_azure_disk(source, path),
        "storageos" => {
            let mut errors = check_required(source, "volumeName", path, names::is_dns1123_label);
            errors.extend(check_optional(source, "volumeNamespace", path, names::is_dns1123_label));
            errors.extend(validate_secret_reference(source, path));
            errors
        }
        "projected" => projected::validate(source, path),
        "scaleIO" => required(source, &["gateway", "system", "volumeName"], path),
        "csi" => validate_csi(source, path),
        "ephemeral" => claims::validate_template(&source["volumeClaimTemplate"], &path.child("volumeClaimTemplate")),
        "image" => {
            let mut errors = required(source, &["reference"], path);
            errors.extend(containers::validate_pull_policy(&source["pullPolicy"], &path.child("pullPolicy")));
            errors
        }
        _ => ErrorList::new(),
    }
}

fn validate_empty_dir(source: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let limit = &source["sizeLimit"];
    if !limit.is_null() && !Quantity::from_value(limit).is_ok_and(|limit| !limit.is_negative()) {
        let detail = "SizeLimit field must be a valid resource quantity";
        errors.push(Error::forbidden(&path.child("sizeLimit"), detail));
    }
    if let Some(mode) = source["mode"].as_i64().filter(|mode| !(0..=0o1777).contains(mode)) {
        let detail = "must be a number between 0 and 01777 (octal), both inclusive";
        errors.push(Error::invalid(&path.child("mode"), mode, detail));
    }
    errors
}

fn validate_host_path(source: &Value, path: &Path) -> ErrorList {
    let mut errors = required(source, &["path"], path);
    if errors.is_empty() {
        errors.extend(no_backsteps(text(&source["path"]), &path.child("path")));
        let types =
            ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
        errors.extend(one_of_optional(&source["type"], &types, &path.child("type")));
    }
    errors
}

fn validate_disk(source: &Value, name: &str, path: &Path) -> ErrorList {
    let mut errors = required(source, &[name], path);
    let partition = integer(&source["partition"]);
    if !(0..=255).contains(&partition) {
        errors.push(Error::invalid(&path.child("partition"), partition, names::range_message(1, 255)));
    }
    errors
}

/// A Secret or ConfigMap as files.
fn validate_files(source: &Value, name: &str, path: &Path) -> ErrorList {
    let mut errors = required(source, &[name], path);
    errors.extend(validate_modes(source, path));
    errors.extend(validate_items(source, path));
    errors
}

fn validate_modes(source: &Value, path: &Path) -> ErrorList {
    let mut errors: ErrorList = file_mode(source, "defaultMode", path).into_iter().collect();
    errors.extend(check_number(source, "defaultUser", path, names::is_user_id));
    errors
}

/// Upstream's `validateKeyToPath`, for every item.
pub(super) fn validate_items(source: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (index, item) in items(&source["items"]).iter().enumerate() {
        let path = path.child("items").index(index);
        errors.extend(required(item, &["key", "path"], &path));
        errors.extend(not_reserved(text(&item["path"]), &path.child("path")));
        errors.extend(file_mode(item, "mode", &path));
        errors.extend(check_number(item, "user", &path, names::is_user_id));
    }
    errors
}

/// Upstream's `validateDownwardAPIVolumeFile`.
pub(super) fn validate_downward_file(file: &Value, path: &Path) -> ErrorList {
    let mut errors = required(file, &["path"], path);
    errors.extend(not_reserved(text(&file["path"]), &path.child("path")));
    let (field, resource) = (&file["fieldRef"], &file["resourceFieldRef"]);
    if !field.is_null() {
        errors.extend(env::validate_field_reference(field, &env::VOLUME_FIELDS, &path.child("fieldRef")));
        if !resource.is_null() {
            let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
            errors.push(Error::invalid(path, "resource", detail));
        }
    } else if !resource.is_null() {
        errors.extend(env::validate_resource_reference(resource, true, &path.child("resourceFieldRef")));
    } else {
        errors.push(Error::required(path, "one of fieldRef and resourceFieldRef is required"));
    }
    errors.extend(file_mode(file, "mode", path));
    errors.extend(check_number(file, "user", path, names::is_user_id));
    errors
}

fn validate_nfs(source: &Value, path: &Path) -> ErrorList {
    let mut errors = required(source, &["server", "path"], path);
    let directory = text(&source["path"]);
    if !directory.starts_with('/') {
        errors.push(Error::invalid(&path.child("path"), directory, "must be an absolute path"));
    }
    errors
}

fn validate_iscsi(source: &Value, path: &Path) -> ErrorList {
    let mut errors = required(source, &["targetPortal", "iqn"], path);
    errors.extend(validate_iscsi_name(source, "iqn", path));
    let lun = integer(&source["lun"]);
    if !(0..=255).contains(&lun) {
        errors.push(Error::invalid(&path.child("lun"), lun, names::range_message(0, 255)));
    }
    let authenticated = flag(&source["chapAuthDiscovery"]) || flag(&source["chapAuthSession"]);
    if authenticated && source["secretRef"].is_null() {
        errors.push(Error::required(&path.child("secretRef"), ""));
    }
    if source["initiatorName"].is_string() {
        let renamed = serde_json::json!({ "initiatorname": source["initiatorName"] });
        errors.extend(validate_iscsi_name(&renamed, "initiatorname", path));
    }
    errors
}

/// Names of RFC 3720: `iqn.2001-04.com.example:storage`, `eui.` and 16 or `naa.` and 32 characters.
fn validate_iscsi_name(source: &Value, field: &str, path: &Path) -> Option<Error> {
    let name = text(&source[field]);
    let alphanumeric =
        |rest: &str, length: usize| rest.len() == length && rest.bytes().all(|c| c.is_ascii_alphanumeric());
    let detail = match name.get(..3) {
        _ if name.is_empty() => return None,
        Some("iqn") if is_iqn(name) => return None,
        Some("eui") if alphanumeric(name.get(4..).unwrap_or(""), 16) => return None,
        Some("naa") if alphanumeric(name.get(4..).unwrap_or(""), 32) => return None,
        Some("iqn" | "eui" | "naa") => "must be valid format",
        _ => "must be valid format starting with iqn, eui, or naa",
    };
    Some(Error::invalid(&path.child(field), name, detail))
}

fn is_iqn(name: &str) -> bool {
    let Some((authority, rest)) = name.split_once(':') else { return false };
    let parts: Vec<&str> = authority.splitn(3, '.').collect();
    let [_, date, domain] = parts[..] else { return false };
    let dated = date.len() == 7
        && date.bytes().enumerate().all(|(index, c)| if index == 4 { c == b'-' } else { c.is_ascii_digit() });
    let plain = domain.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.'));
    let valid_rest = !rest.contains([',', ';', '*', '&', '$', '|']) && !rest.contains(char::is_whitespace);
    dated && plain && !domain.is_empty() && valid_rest && !rest.is_empty()
}

fn validate_iscsi_length(volume: &Value, path: &Path) -> Option<Error> {
    let (name, iscsi) = (text(&volume["name"]), &volume["iscsi"]);
    let length = name.len() + 1 + text(&iscsi["targetPortal"]).len();
    (iscsi["initiatorName"].is_string() && length > 64).then(|| {
        let detail = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";
        Error::invalid(&path.child("name"), name, detail)
    })
}

fn validate_flocker(source: &Value, path: &Path) -> ErrorList {
    let (name, uuid) = (text(&source["datasetName"]), text(&source["datasetUUID"]));
    let mut errors = ErrorList::new();
    if name.is_empty() && uuid.is_empty() {
        errors.push(Error::required(path, "one of datasetName and datasetUUID is required"));
    }
    if !name.is_empty() && !uuid.is_empty() {
        let detail = "datasetName and datasetUUID can not be specified simultaneously";
        errors.push(Error::invalid(path, "resource", detail));
    }
    if name.contains('/') {
        errors.push(Error::invalid(&path.child("datasetName"), name, "must not contain '/'"));
    }
    errors
}

fn validate_quobyte(source: &Value, path: &Path) -> ErrorList {
    let registry = text(&source["registry"]);
    let detail = "must be a host:port pair or multiple pairs separated by commas";
    let mut errors = ErrorList::new();
    if registry.is_empty() {
        errors.push(Error::required(&path.child("registry"), detail));
    } else if text(&source["tenant"]).len() >= 65 {
        let detail = "must be a UUID and may not exceed a length of 64 characters";
        errors.push(Error::required(&path.child("tenant"), detail));
    } else {
        let host_and_port = |pair: &&str| pair.matches(':').count() == 1 || pair.contains("]:");
        let wrong = registry.split(',').filter(|pair| !host_and_port(pair));
        errors.extend(wrong.map(|_| Error::invalid(&path.child("registry"), registry, detail)));
    }
    errors.extend(required(source, &["volume"], path));
    errors
}

fn validate_fibre_channel(source: &Value, path: &Path) -> ErrorList {
    let (targets, wwids) = (length(&source["targetWWNs"]), length(&source["wwids"]));
    let at = path.child("targetWWNs");
    let mut errors = ErrorList::new();
    if targets == 0 && wwids == 0 {
        errors.push(Error::required(&at, "must specify either targetWWNs or wwids, but not both"));
    }
    if targets > 0 && wwids > 0 {
        let detail = "targetWWNs and wwids can not be specified simultaneously";
        errors.push(Error::invalid(&at, source["targetWWNs"].clone(), detail));
    }
    if targets > 0 {
        match source["lun"].as_i64() {
            None => errors.push(Error::required(&path.child("lun"), "lun is required if targetWWNs is specified")),
            Some(0..=255) => {}
            Some(lun) => errors.push(Error::invalid(&path.child("lun"), lun, names::range_message(0, 255))),
        }
    }
    errors
}

fn validate_flex(source: &Value, path: &Path) -> ErrorList {
    let mut errors = required(source, &["driver"], path);
    for key in source["options"].as_object().into_iter().flatten().map(|(key, _)| key) {
        let namespace = format!(".{}", key.split('/').next().unwrap_or(key).to_lowercase());
        if namespace.ends_with(".kubernetes.io") || namespace.ends_with(".k8s.io") {
            let at = path.child("options").key(key);
            errors.push(Error::invalid(&at, key.as_str(), "kubernetes.io and k8s.io namespaces are reserved"));
        }
    }
    errors
}

fn validate_azure_disk(source: &Value, path: &Path) -> ErrorList {
    let mut errors = required(source, &["diskName", "diskURI"], path);
    let modes = ["None", "ReadOnly", "ReadWrite"];
    errors.extend(one_of_optional(&source["cachingMode"], &modes, &path.child("cachingMode")));
    errors.extend(one_of_optional(&source["kind"], &["Dedicated", "Managed", "Shared"], &path.child("kind")));
    let uri = text(&source["diskURI"]);
    let expected = match source["kind"].as_str() {
        Some("Managed") if !uri.starts_with("/subscriptions/") => {
            "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"
        }
        Some(kind) if kind != "Managed" && !uri.starts_with("https://") => {
            "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"
        }
        _ => return errors,
    };
    errors.push(Error::not_supported(&path.child("diskURI"), uri, &[expected]));
    errors
}

fn validate_csi(source: &Value, path: &Path) -> ErrorList {
    let mut errors = validate_driver_name(text(&source["driver"]), &path.child("driver"));
    let secret = &source["nodePublishSecretRef"];
    if !secret.is_null() {
        let name = text(&secret["name"]);
        if name.is_empty() {
            errors.push(Error::required(&path.child("nodePublishSecretRef").child("name"), ""));
        } else {
            errors.extend(check(name, &path.child("name"), names::is_dns1123_subdomain));
        }
    }
    errors
}

/// Upstream's `ValidateCSIDriverName`.
fn validate_driver_name(driver: &str, path: &Path) -> ErrorList {
    if driver.is_empty() {
        return vec![Error::required(path, "")];
    }
    let mut errors = ErrorList::new();
    if driver.len() > 63 {
        errors.push(Error::too_long(path, 63));
    }
    let messages = names::is_dns1123_subdomain(&driver.to_lowercase());
    errors.extend(messages.into_iter().map(|message| Error::invalid(path, driver, message)));
    errors
}

fn validate_secret_reference(source: &Value, path: &Path) -> Option<Error> {
    let secret = &source["secretRef"];
    let nameless = !secret.is_null() && text(&secret["name"]).is_empty();
    nameless.then(|| Error::required(&path.child("secretRef").child("name"), ""))
}

fn required_list(source: &Value, field: &str, path: &Path) -> ErrorList {
    if length(&source[field]) == 0 { vec![Error::required(&path.child(field), "")] } else { ErrorList::new() }
}

/// The claim that is made for an ephemeral volume is named for the pod and the volume.
fn validate_claim_name(volume: &str, pod_name: &str, path: &Path) -> ErrorList {
    if pod_name.is_empty() || volume.is_empty() {
        return ErrorList::new();
    }
    let claim = format!("{pod_name}-{volume}");
    let messages = names::is_dns1123_subdomain(&claim);
    messages.into_iter().map(|m| Error::invalid(path, volume, format!("PVC name \"{claim}\": {m}"))).collect()
}

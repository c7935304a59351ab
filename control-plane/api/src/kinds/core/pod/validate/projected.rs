//! Rules for projected volumes: several sources in one directory, without two files at one path.

use std::collections::BTreeSet;

use serde_json::Value;

use super::names::{check_number, file_mode, not_reserved, required};
use super::volumes::{validate_downward_file, validate_items};
use crate::field::{Error, ErrorList, Path};
use crate::kinds::certificates::pod_request::longest_lifetime;
use crate::kinds::certificates::trust_bundle;
use crate::kinds::fields::{signer_name, user_annotations};
use crate::kinds::tree::{items, text};
use crate::{meta, names};

/// Upstream's `validateProjectedVolumeSource`.
pub(super) fn validate(source: &Value, path: &Path) -> ErrorList {
    let mut errors: ErrorList = file_mode(source, "defaultMode", path).into_iter().collect();
    errors.extend(check_number(source, "defaultUser", path, names::is_user_id));
    let mut taken = Paths { seen: BTreeSet::new(), volume: path.clone() };
    for (index, projection) in items(&source["sources"]).iter().enumerate() {
        let at = path.child("sources").index(index);
        errors.extend(validate_projection(projection, &mut taken, &at));
        let kinds = KINDS.iter().filter(|kind| !projection[**kind].is_null());
        if kinds.count() > 1 {
            errors.push(Error::forbidden(&at, "may not specify more than 1 volume type per source"));
        }
    }
    errors
}

const KINDS: [&str; 6] =
    ["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate"];

/// The paths of the volume so far.
struct Paths<'a> {
    seen: BTreeSet<&'a str>,
    volume: Path,
}

impl<'a> Paths<'a> {
    /// Takes a path; `shown` is what the message names if another source has it.
    fn take(&mut self, path: &'a str, shown: &str) -> Option<Error> {
        (!self.seen.insert(path)).then(|| Error::invalid(&self.volume, shown, "conflicting duplicate paths"))
    }
}

fn validate_projection<'a>(projection: &'a Value, taken: &mut Paths<'a>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for kind in KINDS {
        let (source, path) = (&projection[kind], path.child(kind));
        if source.is_null() {
            continue;
        }
        match kind {
            "secret" | "configMap" => {
                errors.extend(required(source, &["name"], &path));
                errors.extend(validate_items(source, &path));
                for item in items(&source["items"]).iter().map(|item| text(&item["path"])).filter(|p| !p.is_empty()) {
                    errors.extend(taken.take(item, text(&source["name"])));
                }
            }
            "downwardAPI" => {
                for file in items(&source["items"]) {
                    errors.extend(validate_downward_file(file, &path));
                    let file = text(&file["path"]);
                    if !file.is_empty() {
                        errors.extend(taken.take(file, file));
                    }
                }
            }
            "serviceAccountToken" => errors.extend(validate_token(source, &taken.volume, &path)),
            "clusterTrustBundle" => {
                errors.extend(validate_trust_bundle(source, &path));
                let file = text(&source["path"]);
                errors.extend(taken.take(file, file));
            }
            _ => errors.extend(validate_pod_certificate(source, taken, &path)),
        }
    }
    errors
}

/// Upstream names the volume itself as the place of the token's path.
fn validate_token(source: &Value, volume: &Path, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let at = path.child("expirationSeconds");
    match source["expirationSeconds"].as_i64() {
        None => errors.push(Error::required(&at, "")),
        Some(seconds) if seconds < 600 => {
            errors.push(Error::invalid(&at, seconds, "may not specify a duration less than 10 minutes"));
        }
        Some(seconds) if seconds > 1 << 32 => {
            errors.push(Error::invalid(&at, seconds, "may not specify a duration larger than 2^32 seconds"));
        }
        Some(_) => {}
    }
    match text(&source["path"]) {
        "" => errors.push(Error::required(&volume.child("path"), "")),
        file => errors.extend(not_reserved(file, &volume.child("path"))),
    }
    errors.extend(check_number(source, "user", path, names::is_user_id));
    errors
}

fn validate_trust_bundle(source: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    match (source["name"].as_str(), source["signerName"].as_str()) {
        (Some(_), Some(_)) => {
            errors.push(Error::invalid(path, source.clone(), "only one of name and signerName may be used"));
        }
        (Some(name), None) => {
            let at = path.child("name");
            if name.is_empty() {
                errors.push(Error::required(&at, "must be a valid object name"));
            }
            let signer = name.rsplit_once(':').map_or_else(String::new, |(signer, _)| signer.replace(':', "/"));
            for message in trust_bundle::name_of_signer(&signer, name, false) {
                errors.push(Error::invalid(&at, name, format!("not a valid clustertrustbundlename: {message}")));
            }
            if !source["labelSelector"].is_null() {
                let detail = "labelSelector must be unset if name is specified";
                errors.push(Error::invalid(&path.child("labelSelector"), source["labelSelector"].clone(), detail));
            }
        }
        (None, Some(signer)) => {
            let at = path.child("signerName");
            if signer.is_empty() {
                errors.push(Error::required(&at, "must be a valid signer name"));
            }
            errors.extend(signer_name(signer, &at));
            errors.extend(meta::validate_label_selector(&source["labelSelector"], &path.child("labelSelector")));
        }
        (None, None) => errors.push(Error::required(path, "either name or signerName must be specified")),
    }
    errors.extend(required(source, &["path"], path));
    errors.extend(check_number(source, "user", path, names::is_user_id));
    errors.extend(not_reserved(text(&source["path"]), &path.child("path")));
    errors
}

fn validate_pod_certificate<'a>(source: &'a Value, taken: &mut Paths<'a>, path: &Path) -> ErrorList {
    let signer = text(&source["signerName"]);
    let mut errors = signer_name(signer, &path.child("signerName"));
    errors.extend(user_annotations(&source["userAnnotations"], &path.child("userAnnotations")));
    errors.extend(check_number(source, "user", path, names::is_user_id));
    let types = ["RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"];
    let key_type = text(&source["keyType"]);
    if !types.contains(&key_type) {
        errors.push(Error::not_supported(&path.child("keyType"), key_type, &types));
    }
    if let Some(seconds) = source["maxExpirationSeconds"].as_i64() {
        let at = path.child("maxExpirationSeconds");
        let most = longest_lifetime(signer);
        if seconds < 3600 {
            errors.push(Error::invalid(&at, seconds, "if provided, maxExpirationSeconds must be >= 3600"));
        }
        if seconds > most {
            let detail = format!("if provided, maxExpirationSeconds must be <= {most}");
            errors.push(Error::invalid(&at, seconds, detail));
        }
    }
    let mut count = 0;
    for field in ["credentialBundlePath", "keyPath", "certificateChainPath"] {
        let file = text(&source[field]);
        if !file.is_empty() {
            count += 1;
            errors.extend(not_reserved(file, &path.child(field)));
            errors.extend(taken.take(file, file));
        }
    }
    if count == 0 {
        let detail = "specify at least one of credentialBundlePath, keyPath, and certificateChainPath";
        errors.push(Error::required(path, detail));
    }
    errors
}

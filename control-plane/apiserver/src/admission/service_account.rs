//! ServiceAccount: a pod without one gets `default`, its account must be there, and its token comes as a projected volume.

use serde_json::{Value, json};
use skep_api::{GroupResource, Status};

use super::{Objects, Operation, Plugin, Request};

const MIRROR: &str = "kubernetes.io/config.mirror";
const MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
/// An hour and 7 seconds: upstream's mark of a token that only looks like it lives an hour.
const LIFETIME: i64 = 3607;

pub(super) struct ServiceAccount;

impl Plugin for ServiceAccount {
    fn admit(&self, request: &Request<'_>, pod: &mut Value, objects: &dyn Objects) -> Result<(), Status> {
        if request.operation != Operation::Create || !request.is_core("pods") {
            return Ok(());
        }
        if pod["metadata"]["annotations"].get(MIRROR).is_some() {
            return check_mirror(request, pod);
        }
        let spec = &mut pod["spec"];
        let name = spec["serviceAccountName"].as_str().filter(|name| !name.is_empty()).unwrap_or("default").to_owned();
        spec["serviceAccountName"] = name.as_str().into();
        spec["serviceAccount"] = name.as_str().into();
        let resource = GroupResource::new("", "serviceaccounts");
        let Some(account) = objects.get(&resource, request.namespace, &name) else {
            let missing = Status::not_found(&resource, &name);
            let why = format!("error looking up service account {}/{name}: {missing}", request.namespace);
            return Err(request.forbidden(&why));
        };
        let wants = spec["automountServiceAccountToken"]
            .as_bool()
            .or_else(|| account["automountServiceAccountToken"].as_bool());
        if wants.unwrap_or(true) {
            mount_token(spec);
        }
        let has_secrets = spec["imagePullSecrets"].as_array().is_some_and(|secrets| !secrets.is_empty());
        if let Some(secrets) =
            account["imagePullSecrets"].as_array().filter(|secrets| !secrets.is_empty() && !has_secrets)
        {
            spec["imagePullSecrets"] = secrets.clone().into();
        }
        Ok(())
    }
}

/// A static pod's mirror may not reach into the API.
fn check_mirror(request: &Request<'_>, pod: &Value) -> Result<(), Status> {
    if pod["spec"]["serviceAccountName"].as_str().is_some_and(|name| !name.is_empty()) {
        return Err(request.forbidden("a mirror pod may not reference service accounts"));
    }
    for volume in pod["spec"]["volumes"].as_array().into_iter().flatten() {
        if volume["secret"].is_object() {
            return Err(request.forbidden("a mirror pod may not reference secrets"));
        }
        let sources = volume["projected"]["sources"].as_array();
        if sources.into_iter().flatten().any(|source| source["serviceAccountToken"].is_object()) {
            return Err(request.forbidden("a mirror pod may not use ServiceAccountToken volume projections"));
        }
    }
    Ok(())
}

fn mount_token(spec: &mut Value) {
    let there =
        spec["volumes"].as_array().into_iter().flatten().find_map(|volume| {
            volume["name"].as_str().filter(|name| name.starts_with(VOLUME_PREFIX)).map(str::to_owned)
        });
    let name = there
        .clone()
        .unwrap_or_else(|| skep_api::meta::generate_name(VOLUME_PREFIX, uuid::Uuid::new_v4().as_u64_pair().0));
    let mut mounted = false;
    for containers in ["initContainers", "containers"] {
        for container in spec[containers].as_array_mut().into_iter().flatten() {
            let mounts = &mut container["volumeMounts"];
            let has = mounts.as_array().is_some_and(|mounts| mounts.iter().any(|mount| mount["mountPath"] == MOUNT));
            if has {
                continue;
            }
            mounted = true;
            let mount = json!({ "name": name, "readOnly": true, "mountPath": MOUNT });
            match mounts.as_array_mut() {
                Some(mounts) => mounts.push(mount),
                None => *mounts = json!([mount]),
            }
        }
    }
    if !mounted || there.is_some() {
        return;
    }
    let volume = json!({
        "name": name,
        "projected": {
            "defaultMode": 420,
            "sources": [
                { "serviceAccountToken": { "expirationSeconds": LIFETIME, "path": "token" } },
                { "configMap": { "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
                { "downwardAPI": { "items": [{ "path": "namespace", "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.namespace" } }] } },
            ],
        },
    });
    match spec["volumes"].as_array_mut() {
        Some(volumes) => volumes.push(volume),
        None => spec["volumes"] = json!([volume]),
    }
}

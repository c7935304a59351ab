//! RuntimeClass, DefaultStorageClass, DefaultIngressClass: what the class that an object names, or the default one, gives it.

use serde_json::{Value, json};
use skep_api::kinds::networking::ingress;
use skep_api::kinds::storage::class;
use skep_api::{GroupResource, Status};

use super::{Objects, Operation, Plugin, Request};

/// A pod gets the overhead, the node selector and the tolerations of its runtime class.
pub(super) struct RuntimeClass;

impl Plugin for RuntimeClass {
    fn admit(&self, request: &Request<'_>, pod: &mut Value, objects: &dyn Objects) -> Result<(), Status> {
        if request.operation != Operation::Create || !request.is_core("pods") {
            return Ok(());
        }
        let spec = &mut pod["spec"];
        let Some(class) = class_of(request, spec, objects)? else { return Ok(()) };
        let fixed = &class["overhead"]["podFixed"];
        if !fixed.is_null() {
            if spec["overhead"].as_object().is_some_and(|overhead| !overhead.is_empty()) && spec["overhead"] != *fixed {
                let why = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
                return Err(request.forbidden(why));
            }
            spec["overhead"] = fixed.clone();
        }
        for (key, value) in class["scheduling"]["nodeSelector"].as_object().into_iter().flatten() {
            let own = &spec["nodeSelector"][key];
            if !own.is_null() && own != value {
                let why = format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                    value.as_str().unwrap_or_default(),
                    own.as_str().unwrap_or_default()
                );
                return Err(request.forbidden(&why));
            }
            spec["nodeSelector"][key] = value.clone();
        }
        let mut tolerations = spec["tolerations"].as_array().cloned().unwrap_or_default();
        for toleration in class["scheduling"]["tolerations"].as_array().into_iter().flatten() {
            if !tolerations.contains(toleration) {
                tolerations.push(toleration.clone());
            }
        }
        if !tolerations.is_empty() {
            spec["tolerations"] = tolerations.into();
        }
        Ok(())
    }

    fn validate(&self, request: &Request<'_>, pod: &Value, objects: &dyn Objects) -> Result<(), Status> {
        if request.operation != Operation::Create || !request.is_core("pods") {
            return Ok(());
        }
        let spec = &pod["spec"];
        let class = class_of(request, spec, objects)?;
        let fixed = class.as_ref().map_or(&Value::Null, |class| &class["overhead"]["podFixed"]);
        let has = |value: &Value| value.as_object().is_some_and(|list| !list.is_empty());
        if has(&spec["overhead"]) && !has(fixed) {
            let why = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
            return Err(request.forbidden(why));
        }
        Ok(())
    }
}

fn class_of(
    request: &Request<'_>,
    spec: &Value,
    objects: &dyn Objects,
) -> Result<Option<std::sync::Arc<Value>>, Status> {
    let Some(name) = spec["runtimeClassName"].as_str() else { return Ok(None) };
    let classes = GroupResource::new("node.k8s.io", "runtimeclasses");
    match objects.get(&classes, "", name) {
        Some(class) => Ok(Some(class)),
        None => Err(request.forbidden(&format!("pod rejected: RuntimeClass {name:?} not found"))),
    }
}

/// A claim that names no class gets the default one: the youngest, and of several the first by name.
pub(super) struct DefaultStorageClass;

impl Plugin for DefaultStorageClass {
    fn admit(&self, request: &Request<'_>, claim: &mut Value, objects: &dyn Objects) -> Result<(), Status> {
        if request.operation != Operation::Create || !request.is_core("persistentvolumeclaims") {
            return Ok(());
        }
        let old_annotation = &claim["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"];
        if !claim["spec"]["storageClassName"].is_null() || !old_annotation.is_null() {
            return Ok(());
        }
        let classes = objects.list(&GroupResource::new("storage.k8s.io", "storageclasses"), None);
        if let Some(name) = youngest(classes.iter().filter(|c| class::is_default(c)).map(|c| &**c)) {
            claim["spec"]["storageClassName"] = name;
        }
        Ok(())
    }
}

/// An Ingress that names no class gets the default one.
pub(super) struct DefaultIngressClass;

impl Plugin for DefaultIngressClass {
    fn admit(&self, request: &Request<'_>, object: &mut Value, objects: &dyn Objects) -> Result<(), Status> {
        let kind = request.kind;
        let is_ingress = kind.group_version.group == "networking.k8s.io" && kind.plural == "ingresses";
        if request.operation != Operation::Create || !is_ingress || request.subresource.is_some() {
            return Ok(());
        }
        let annotated = !object["metadata"]["annotations"][ingress::CLASS_ANNOTATION].is_null();
        if annotated || !object["spec"]["ingressClassName"].is_null() {
            return Ok(());
        }
        let classes = objects.list(&GroupResource::new("networking.k8s.io", "ingressclasses"), None);
        let is_default = |class: &Value| class["metadata"]["annotations"][ingress::DEFAULT_CLASS_ANNOTATION] == "true";
        if let Some(name) = youngest(classes.iter().filter(|c| is_default(c)).map(|c| &**c)) {
            object["spec"]["ingressClassName"] = name;
        }
        Ok(())
    }
}

fn youngest<'a>(classes: impl Iterator<Item = &'a Value>) -> Option<Value> {
    let created = |class: &Value| class["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned();
    let name = |class: &Value| class["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let best = classes.max_by(|a, b| created(a).cmp(&created(b)).then_with(|| name(b).cmp(&name(a))));
    best.map(|class| json!(name(class)))
}

/// A CertificateSigningRequest says who asked.
pub(super) struct Requestor;

impl Plugin for Requestor {
    fn admit(&self, request: &Request<'_>, object: &mut Value, _: &dyn Objects) -> Result<(), Status> {
        let is_request = request.kind.plural == "certificatesigningrequests"
            && request.kind.group_version.group == "certificates.k8s.io";
        if request.operation != Operation::Create || !is_request {
            return Ok(());
        }
        let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return Ok(()) };
        let user = request.user;
        for field in ["username", "uid", "groups", "extra"] {
            spec.remove(field);
        }
        spec.insert("username".to_owned(), json!(user.name));
        if !user.uid.is_empty() {
            spec.insert("uid".to_owned(), json!(user.uid));
        }
        if !user.groups.is_empty() {
            spec.insert("groups".to_owned(), json!(user.groups));
        }
        if !user.extra.is_empty() {
            spec.insert("extra".to_owned(), json!(user.extra));
        }
        Ok(())
    }
}

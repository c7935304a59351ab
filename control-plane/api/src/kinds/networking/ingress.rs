//! Ingress and IngressClass: HTTP from outside, and who serves it.

use serde_json::{Value, json};

use super::V1;
use crate::field::{Error, ErrorList, Path};
use crate::kinds::cells::{age_cell, first_three, name_cell};
use crate::kinds::declaration::{Column, Kind, Scope, Strategy};
use crate::kinds::fields::{domain_prefixed_path, form, local_reference, optional};
use crate::kinds::tree::{fill_text, immutable, integer, items, length, text};
use crate::kinds::{Subresource, WriteContext, names};
use crate::names::{
    is_dns1123_label, is_dns1123_subdomain, is_ip, is_port_name, is_port_number, is_wildcard_dns1123_subdomain,
    parse_ip_sloppy,
};

/// The annotation of the class for Ingresses that name none.
pub const DEFAULT_CLASS_ANNOTATION: &str = "ingressclass.kubernetes.io/is-default-class";
/// The annotation that named the class before the field did.
pub const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

/// `networking.k8s.io/v1 Ingress`
#[must_use]
pub fn ingress() -> Kind {
    Kind {
        short_names: names(&["ing"]),
        subresources: vec![Subresource::Status],
        has_generation: true,
        columns: vec![
            Column::name(),
            Column::new("Class", "string", "Who serves it."),
            Column::new("Hosts", "string", "The hosts that it is for."),
            Column::new("Address", "string", "Where it is served."),
            Column::new("Ports", "string", "The ports that it is served on."),
            Column::age(),
        ],
        ..Kind::new(V1, "Ingress", "ingresses", "io.k8s.api.networking.v1.Ingress", Ingress)
    }
}

struct Ingress;

impl Strategy for Ingress {
    fn prepare_create(&self, object: &mut Value, _: &WriteContext<'_>) {
        object["status"] = json!({ "loadBalancer": {} });
    }

    fn validate_create(&self, object: &Value) -> ErrorList {
        let mut errors = validate_spec(&object["spec"], &Path::new("spec"));
        let annotation = object["metadata"]["annotations"][CLASS_ANNOTATION].as_str();
        let name = object["spec"]["ingressClassName"].as_str();
        if let (Some(annotation), Some(name)) = (annotation, name)
            && annotation != name
        {
            let at = Path::new("annotations").child(CLASS_ANNOTATION);
            let message = "must match `ingressClassName` when both are specified";
            errors.push(Error::invalid(&at, annotation, message));
        }
        errors
    }

    fn validate_update(&self, object: &Value, _: &Value) -> ErrorList {
        validate_spec(&object["spec"], &Path::new("spec"))
    }

    fn validate_status_update(&self, object: &Value, _: &Value) -> ErrorList {
        let path = Path::new("status").child("loadBalancer").child("ingress");
        let mut errors = ErrorList::new();
        for (index, point) in items(&object["status"]["loadBalancer"]["ingress"]).iter().enumerate() {
            let at = path.index(index);
            errors.extend(optional(point, "ip", &at, is_ip));
            errors.extend(optional(point, "hostname", &at, is_dns1123_subdomain));
            let hostname = text(&point["hostname"]);
            if parse_ip_sloppy(hostname).is_some() {
                let message = "must be a DNS name, not an IP address";
                errors.push(Error::invalid(&at.child("hostname"), hostname, message));
            }
        }
        errors
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let annotation = &object["metadata"]["annotations"][CLASS_ANNOTATION];
        if old.is_some() || annotation.is_null() {
            return Vec::new();
        }
        vec![format!("annotation \"{CLASS_ANNOTATION}\" is deprecated, please use 'spec.ingressClassName' instead")]
    }

    fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let hosts: Vec<String> = items(&spec["rules"])
            .iter()
            .map(|rule| text(&rule["host"]).to_owned())
            .filter(|host| !host.is_empty())
            .collect();
        let mut addresses: Vec<&str> = items(&status["loadBalancer"]["ingress"])
            .iter()
            .map(|point| Some(text(&point["ip"])).filter(|ip| !ip.is_empty()).unwrap_or(text(&point["hostname"])))
            .filter(|address| !address.is_empty())
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        vec![
            name_cell(object),
            spec["ingressClassName"].as_str().unwrap_or("<none>").into(),
            if hosts.is_empty() { "*".into() } else { first_three(&hosts).into() },
            addresses.join(",").into(),
            if length(&spec["tls"]) > 0 { "80, 443" } else { "80" }.into(),
            age_cell(object, now),
        ]
    }
}

/// `ValidateIngressSpec`
fn validate_spec(spec: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if length(&spec["rules"]) == 0 && spec["defaultBackend"].is_null() {
        let message = "either `defaultBackend` or `rules` must be specified";
        errors.push(Error::invalid(path, spec["rules"].clone(), message));
    }
    if !spec["defaultBackend"].is_null() {
        errors.extend(validate_backend(&spec["defaultBackend"], &path.child("defaultBackend")));
    }
    for (index, rule) in items(&spec["rules"]).iter().enumerate() {
        let at = path.child("rules").index(index);
        let host = text(&rule["host"]);
        if !host.is_empty() {
            if parse_ip_sloppy(host).is_some() {
                errors.push(Error::invalid(&at.child("host"), host, "must be a DNS name, not an IP address"));
            }
            errors.extend(validate_host(host, &at.child("host")));
        }
        if rule["http"].is_object() {
            let (paths, at) = (items(&rule["http"]["paths"]), at.child("http").child("paths"));
            if paths.is_empty() {
                errors.push(Error::required(&at, ""));
            }
            for (index, entry) in paths.iter().enumerate() {
                errors.extend(validate_path(entry, &at.index(index)));
            }
        }
    }
    for (index, tls) in items(&spec["tls"]).iter().enumerate() {
        let at = path.child("tls").index(index);
        for (index, host) in items(&tls["hosts"]).iter().enumerate() {
            errors.extend(validate_host(text(host), &at.child("hosts").index(index)));
        }
        errors.extend(optional(tls, "secretName", &at, is_dns1123_subdomain));
    }
    if let Some(class) = spec["ingressClassName"].as_str() {
        errors.extend(form(class, &path.child("ingressClassName"), is_dns1123_subdomain));
    }
    errors
}

fn validate_host(host: &str, path: &Path) -> ErrorList {
    if host.contains('*') {
        form(host, path, is_wildcard_dns1123_subdomain)
    } else {
        form(host, path, is_dns1123_subdomain)
    }
}

fn validate_path(entry: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let (value, at) = (text(&entry["path"]), path.child("path"));
    let mut invalid = |message: String| errors.push(Error::invalid(&at, value, message));
    match entry["pathType"].as_str() {
        None => return vec![Error::required(&path.child("pathType"), "pathType must be specified")],
        Some("Exact" | "Prefix") => {
            if !value.starts_with('/') {
                invalid("must be an absolute path".to_owned());
            }
            for sequence in ["//", "/./", "/../", "%2f", "%2F"].iter().filter(|sequence| value.contains(**sequence)) {
                invalid(format!("must not contain '{sequence}'"));
            }
            for suffix in ["/..", "/."].iter().filter(|suffix| value.ends_with(**suffix)) {
                invalid(format!("cannot end with '{suffix}'"));
            }
        }
        Some("ImplementationSpecific") => {
            if !value.is_empty() && !value.starts_with('/') {
                invalid("must be an absolute path".to_owned());
            }
        }
        Some(other) => {
            let supported = ["Exact", "ImplementationSpecific", "Prefix"];
            errors.push(Error::not_supported(&path.child("pathType"), other, &supported));
        }
    }
    errors.extend(validate_backend(&entry["backend"], &path.child("backend")));
    errors
}

fn validate_backend(backend: &Value, path: &Path) -> ErrorList {
    let (resource, service) = (&backend["resource"], &backend["service"]);
    match (resource.is_object(), service.is_object()) {
        (true, true) => return vec![Error::invalid(path, "", "cannot set both resource and service backends")],
        (true, false) => return local_reference(resource, &path.child("resource")),
        (false, false) => return vec![Error::invalid(path, "", "resource or service backend is required")],
        (false, true) => {}
    }
    let at = path.child("service");
    let mut errors = match text(&service["name"]) {
        "" => vec![Error::required(&at.child("name"), "")],
        name => form(name, &at.child("name"), is_dns1123_label),
    };
    let (name, number) = (text(&service["port"]["name"]), integer(&service["port"]["number"]));
    match (name.is_empty(), number == 0) {
        (false, false) => errors.push(Error::invalid(path, "", "cannot set both port name & port number")),
        (false, true) => errors.extend(form(name, &at.child("port").child("name"), is_port_name)),
        (true, false) => {
            let at = at.child("port").child("number");
            errors.extend(is_port_number(number).into_iter().map(|message| Error::invalid(&at, number, message)));
        }
        (true, true) => errors.push(Error::required(path, "port name or number is required")),
    }
    errors
}

/// `networking.k8s.io/v1 IngressClass`
#[must_use]
pub fn ingress_class() -> Kind {
    Kind {
        scope: Scope::Cluster,
        has_generation: true,
        columns: vec![
            Column::name(),
            Column::new("Controller", "string", "Who serves its Ingresses."),
            Column::new("Parameters", "string", "An object with more configuration."),
            Column::age(),
        ],
        ..Kind::new(V1, "IngressClass", "ingressclasses", "io.k8s.api.networking.v1.IngressClass", IngressClass)
    }
}

struct IngressClass;

impl Strategy for IngressClass {
    fn default(&self, object: &mut Value) {
        if object["spec"]["parameters"].is_object() {
            fill_text(&mut object["spec"]["parameters"], "scope", "Cluster");
        }
    }

    fn validate_create(&self, object: &Value) -> ErrorList {
        const LONGEST: usize = 250;
        let (spec, path) = (&object["spec"], Path::new("spec"));
        let controller = text(&spec["controller"]);
        let mut errors = ErrorList::new();
        if controller.len() > LONGEST {
            errors.push(Error::too_long(&path.child("controller"), LONGEST));
        }
        errors.extend(domain_prefixed_path(controller, &path.child("controller")));
        if spec["parameters"].is_object() {
            errors.extend(validate_parameters(&spec["parameters"], &path.child("parameters")));
        }
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value) -> ErrorList {
        let path = Path::new("spec").child("controller");
        let mut errors = immutable(&object["spec"]["controller"], &old["spec"]["controller"], &path);
        errors.extend(self.validate_create(object));
        errors
    }

    fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        let mut name = text(&object["metadata"]["name"]).to_owned();
        if object["metadata"]["annotations"][DEFAULT_CLASS_ANNOTATION] == "true" {
            name.push_str(" (default)");
        }
        let parameters = &object["spec"]["parameters"];
        let shown = if parameters.is_object() {
            let group = parameters["apiGroup"].as_str().map(|group| format!(".{group}")).unwrap_or_default();
            format!("{}{group}/{}", text(&parameters["kind"]), text(&parameters["name"]))
        } else {
            "<none>".to_owned()
        };
        vec![name.into(), text(&object["spec"]["controller"]).into(), shown.into(), age_cell(object, now)]
    }
}

fn validate_parameters(parameters: &Value, path: &Path) -> ErrorList {
    let mut errors = local_reference(parameters, path);
    let namespace = parameters["namespace"].as_str();
    let at = path.child("namespace");
    match (text(&parameters["scope"]), namespace) {
        ("Namespace", None) => errors.push(Error::required(&at, "`parameters.scope` is set to 'Namespace'")),
        ("Namespace", Some(namespace)) => errors.extend(form(namespace, &at, is_dns1123_label)),
        ("Cluster", Some(_)) => errors.push(Error::forbidden(&at, "`parameters.scope` is set to 'Cluster'")),
        ("Cluster", None) => {}
        (other, _) => {
            errors.push(Error::not_supported(&path.child("scope"), other, &["Cluster", "Namespace"]));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{NOW, messages, mutated};

    fn base() -> Value {
        json!({"metadata": {"name": "i"}, "spec": {"rules": [{"host": "a.example", "http": {"paths": [
            {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "s", "port": {"number": 80}}}},
        ]}}]}})
    }

    #[test]
    fn mistakes_are_named() {
        for (spec, expected) in [
            (json!({}), vec![]),
            (
                json!({"rules": null}),
                vec!["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"],
            ),
            (
                json!({"defaultBackend": {}}),
                vec!["spec.defaultBackend: Invalid value: \"\": resource or service backend is required"],
            ),
            (
                json!({"rules": [{"http": {"paths": [{"pathType": "Exact", "path": "a//b", "backend": {"service": {"name": "s", "port": {}}}}]}}]}),
                vec![
                    "spec.rules[0].http.paths[0].path: Invalid value: \"a//b\": must be an absolute path",
                    "spec.rules[0].http.paths[0].path: Invalid value: \"a//b\": must not contain '//'",
                    "spec.rules[0].http.paths[0].backend: Required value: port name or number is required",
                ],
            ),
        ] {
            let object = mutated(&base(), &json!({ "spec": spec }));
            assert_eq!(messages(&Ingress.validate_create(&object)), expected);
        }
        assert_eq!(Ingress.row(&base(), NOW)[..5], ["i", "<none>", "a.example", "", "80"]);
    }

    #[test]
    fn a_class_names_its_controller() {
        let object = json!({"metadata": {"name": "c"}, "spec": {"controller": "example.com/i"}});
        assert!(IngressClass.validate_create(&object).is_empty());
        let wrong = mutated(&object, &json!({"spec": {"controller": "i"}}));
        assert_eq!(
            messages(&IngressClass.validate_create(&wrong)),
            ["spec.controller: Invalid value: \"i\": must be a domain-prefixed path (such as \"acme.io/foo\")",]
        );
        assert_eq!(IngressClass.row(&object, NOW)[..3], ["c", "example.com/i", "<none>"]);
    }
}

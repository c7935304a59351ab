//! The operations of a kind: what may be asked, with which parameters.

use serde_json::{Map, Value, json};

use crate::kinds::{Kind, Scope, Subresource, Verb};

/// Which OpenAPI the operations are for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    V2,
    V3,
}

/// Every path of a kind.
pub(super) fn of(kind: &Kind, form: Form) -> Map<String, Value> {
    let root = format!("/{}", super::group_path(&kind.group_version));
    let plural = &kind.plural;
    let collection = match kind.scope {
        Scope::Cluster => format!("{root}/{plural}"),
        Scope::Namespaced => format!("{root}/namespaces/{{namespace}}/{plural}"),
    };
    let mut out = Map::new();
    let at_collection = [
        (Verb::List, "get", "list"),
        (Verb::Create, "post", "post"),
        (Verb::DeleteCollection, "delete", "deletecollection"),
    ];
    add(&mut out, kind, form, &collection, &at_collection);
    if kind.scope == Scope::Namespaced {
        add(&mut out, kind, form, &format!("{root}/{plural}"), &[(Verb::List, "get", "list")]);
    }
    let at_object = [
        (Verb::Get, "get", "get"),
        (Verb::Update, "put", "put"),
        (Verb::Patch, "patch", "patch"),
        (Verb::Delete, "delete", "delete"),
    ];
    let object = format!("{collection}/{{name}}");
    add(&mut out, kind, form, &object, &at_object);
    for subresource in &kind.subresources {
        let verbs: &[(Verb, &str, &str)] = match subresource {
            Subresource::Status
            | Subresource::Scale
            | Subresource::EphemeralContainers
            | Subresource::Resize
            | Subresource::Approval => {
                &[(Verb::Get, "get", "get"), (Verb::Update, "put", "put"), (Verb::Patch, "patch", "patch")]
            }
            Subresource::Finalize => &[(Verb::Update, "put", "put")],
            Subresource::Binding | Subresource::Eviction | Subresource::Token => &[(Verb::Create, "post", "post")],
            // Streams have no schema.
            Subresource::Log
            | Subresource::Exec
            | Subresource::Attach
            | Subresource::PortForward
            | Subresource::Proxy => &[],
        };
        add(&mut out, kind, form, &format!("{object}/{}", subresource.as_str()), verbs);
    }
    out
}

/// The type that a subresource is read and written as, where it is not its kind's own: group, version, kind and definition.
pub(super) fn seen_as(subresource: Subresource) -> Option<[&'static str; 4]> {
    match subresource {
        Subresource::Scale => Some(["autoscaling", "v1", "Scale", "io.k8s.api.autoscaling.v1.Scale"]),
        Subresource::Binding => Some(["", "v1", "Binding", "io.k8s.api.core.v1.Binding"]),
        Subresource::Eviction => Some(["policy", "v1", "Eviction", "io.k8s.api.policy.v1.Eviction"]),
        Subresource::Token => {
            Some(["authentication.k8s.io", "v1", "TokenRequest", "io.k8s.api.authentication.v1.TokenRequest"])
        }
        Subresource::Status
        | Subresource::Finalize
        | Subresource::Log
        | Subresource::Exec
        | Subresource::Attach
        | Subresource::PortForward
        | Subresource::Proxy
        | Subresource::EphemeralContainers
        | Subresource::Resize
        | Subresource::Approval => None,
    }
}

/// The definition of the body of a patch.
pub(super) const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";

/// What a patch may be sent as; the last is for built-in kinds only.
const PATCHES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

fn add(out: &mut Map<String, Value>, kind: &Kind, form: Form, path: &str, verbs: &[(Verb, &str, &str)]) {
    let mut item = Map::new();
    for (verb, method, action) in verbs.iter().filter(|(verb, _, _)| kind.verbs.contains(verb)) {
        item.insert((*method).to_owned(), operation(kind, form, path, *verb, action));
    }
    if item.is_empty() {
        return;
    }
    let mut parameters = Vec::new();
    if path.contains("{name}") {
        parameters.push(parameter(form, "name", "path", "string", "name of the object"));
    }
    if path.contains("{namespace}") {
        parameters.push(parameter(
            form,
            "namespace",
            "path",
            "string",
            "object name and auth scope, such as for teams and projects",
        ));
    }
    parameters.push(parameter(form, "pretty", "query", "string", "If 'true', then the output is pretty printed."));
    item.insert("parameters".to_owned(), parameters.into());
    out.insert(path.to_owned(), Value::Object(item));
}

fn parameter(form: Form, name: &str, place: &str, type_: &str, description: &str) -> Value {
    let mut out = json!({ "name": name, "in": place, "description": description });
    match form {
        Form::V2 => {
            out["type"] = type_.into();
            out["uniqueItems"] = true.into();
        }
        Form::V3 => out["schema"] = json!({ "type": type_, "uniqueItems": true }),
    }
    if place == "path" {
        out["required"] = true.into();
    }
    out
}

fn operation(kind: &Kind, form: Form, path: &str, verb: Verb, action: &str) -> Value {
    // `rbac.authorization.k8s.io` is RbacAuthorization in names of operations, and rbacAuthorization in tags.
    let group = kind.group_version.group.strip_suffix(".k8s.io").unwrap_or(&kind.group_version.group);
    let group = if group.is_empty() { "core" } else { group };
    let words: String = group.split('.').map(capitalised).collect();
    let mut tag = words.clone();
    tag[..1].make_ascii_lowercase();
    let tag = format!("{tag}_{}", kind.group_version.version);
    let gv = words + &capitalised(&kind.group_version.version);
    let scope = if path.contains("{namespace}") { "Namespaced" } else { "" };
    let subresource = kind.subresources.iter().find(|sub| path.ends_with(&format!("}}/{}", sub.as_str())));
    let sub = subresource.map(|sub| capitalised(sub.as_str())).unwrap_or_default();
    let own = [&kind.group_version.group, &kind.group_version.version, &*kind.kind, &*kind.schema];
    let [seen_group, seen_version, seen_kind, seen_schema] = subresource.and_then(|sub| seen_as(*sub)).unwrap_or(own);
    let for_all =
        if kind.scope == Scope::Namespaced && !path.contains("{namespace}") { "ForAllNamespaces" } else { "" };
    let (verb_name, collection) = match verb {
        Verb::Get => ("read", ""),
        Verb::Update => ("replace", ""),
        Verb::DeleteCollection => ("delete", "Collection"),
        other => (other.as_str(), ""),
    };
    let mut parameters = Vec::new();
    let mut query = |name: &str, type_: &str, description: &str| {
        parameters.push(parameter(form, name, "query", type_, description))
    };
    if matches!(verb, Verb::List | Verb::DeleteCollection) {
        query("allowWatchBookmarks", "boolean", "allowWatchBookmarks requests watch events with type \"BOOKMARK\".");
        query("continue", "string", "The continue option should be set when retrieving more results from the server.");
        query("fieldSelector", "string", "A selector to restrict the list of returned objects by their fields.");
        query("labelSelector", "string", "A selector to restrict the list of returned objects by their labels.");
        query("limit", "integer", "limit is a maximum number of responses to return for a list call.");
        query(
            "resourceVersion",
            "string",
            "resourceVersion sets a constraint on what resource versions a request may be served from.",
        );
        query(
            "resourceVersionMatch",
            "string",
            "resourceVersionMatch determines how resourceVersion is applied to list calls.",
        );
        query("sendInitialEvents", "boolean", "sendInitialEvents=true may be set together with watch=true.");
        query("timeoutSeconds", "integer", "Timeout for the list/watch call.");
        query("watch", "boolean", "Watch for changes to the described resources.");
    }
    if matches!(verb, Verb::Create | Verb::Update | Verb::Patch | Verb::Delete | Verb::DeleteCollection) {
        query("dryRun", "string", "When present, indicates that modifications should not be persisted.");
    }
    if matches!(verb, Verb::Create | Verb::Update | Verb::Patch) {
        query(
            "fieldManager",
            "string",
            "fieldManager is a name associated with the actor or entity that is making these changes.",
        );
        query(
            "fieldValidation",
            "string",
            "fieldValidation instructs the server on how to handle objects in the request containing unknown or duplicate fields.",
        );
    }
    if verb == Verb::Patch {
        query("force", "boolean", "Force is going to \"force\" Apply requests.");
    }
    if matches!(verb, Verb::Delete | Verb::DeleteCollection) {
        query("gracePeriodSeconds", "integer", "The duration in seconds before the object should be deleted.");
        query("orphanDependents", "boolean", "Deprecated: please use the PropagationPolicy.");
        query("propagationPolicy", "string", "Whether and how garbage collection will be performed.");
    }
    let result = match verb {
        Verb::List => super::schemas::list_name(kind),
        Verb::Delete | Verb::DeleteCollection => "io.k8s.apimachinery.pkg.apis.meta.v1.Status".to_owned(),
        _ => seen_schema.to_owned(),
    };
    let prefix = if form == Form::V3 { "#/components/schemas/" } else { "#/definitions/" };
    let reference = json!({ "$ref": format!("{prefix}{result}") });
    let mut out = json!({
        "operationId": format!("{verb_name}{gv}{collection}{scope}{}{sub}{for_all}", kind.kind),
        "description": format!("{verb_name} {} {}", kind.kind, sub.to_lowercase()).trim_end().to_owned(),
        "tags": [tag],
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": {
            "group": seen_group, "version": seen_version, "kind": seen_kind,
        },
    });
    let body = match verb {
        Verb::Create | Verb::Update => Some(seen_schema.to_owned()),
        Verb::Patch => Some(PATCH.to_owned()),
        Verb::Delete | Verb::DeleteCollection => Some("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions".to_owned()),
        _ => None,
    };
    let body_schema = body.map(|name| json!({ "$ref": format!("{prefix}{name}") }));
    match form {
        Form::V3 => {
            out["responses"] = json!({
                "200": { "description": "OK", "content": { "application/json": { "schema": reference } } },
                "401": { "description": "Unauthorized" },
            });
            if let Some(schema) = body_schema {
                let types: &[&str] = match verb {
                    // Clients choose by this: no schema says how custom objects' lists are merged strategically.
                    Verb::Patch if kind.custom.is_some() => &PATCHES[..3],
                    Verb::Patch => &PATCHES,
                    _ => &["*/*"],
                };
                let content: Map<String, Value> =
                    types.iter().map(|type_| ((*type_).to_owned(), json!({ "schema": schema }))).collect();
                out["requestBody"] = json!({ "content": content });
            }
        }
        Form::V2 => {
            out["consumes"] = json!(["*/*"]);
            out["produces"] = json!(["application/json", "application/yaml"]);
            out["schemes"] = json!(["https"]);
            out["responses"] = json!({ "200": { "description": "OK", "schema": reference }, "401": { "description": "Unauthorized" } });
            if let Some(schema) = body_schema {
                parameters.insert(
                    0,
                    json!({ "name": "body", "in": "body", "schema": schema, "required": verb != Verb::Delete }),
                );
            }
        }
    }
    out["parameters"] = parameters.into();
    out
}

fn capitalised(word: &str) -> String {
    let mut characters = word.chars();
    characters.next().map(|first| first.to_uppercase().collect::<String>() + characters.as_str()).unwrap_or_default()
}

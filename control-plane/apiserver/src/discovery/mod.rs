//! What a client can ask this server for: `/api`, `/apis` and below, plain and aggregated (KEP-3352). Made from the table of kinds, once for each change of it. Pure.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use skep_api::GroupVersion;
use skep_api::kinds::{Kind, Scope, Subresource, Verb};

use crate::registry::{GroupVersions, Table};

/// `/api`: the versions of the core group.
#[must_use]
pub fn core_versions(server_address: &str) -> Value {
    json!({
        "kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{ "clientCIDR": "0.0.0.0/0", "serverAddress": server_address }],
    })
}

/// `/apis`: every group but core.
#[must_use]
pub fn groups(table: &Table) -> Value {
    let groups: Vec<Value> = named(table).map(group).collect();
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
}

/// `/apis/GROUP`.
#[must_use]
pub fn one_group(table: &Table, name: &str) -> Option<Value> {
    let mut found = named(table).find(|group| group.group == name).map(group)?;
    found["kind"] = "APIGroup".into();
    found["apiVersion"] = "v1".into();
    Some(found)
}

fn named(table: &Table) -> impl Iterator<Item = &GroupVersions> {
    table.groups().iter().filter(|group| !group.group.is_empty())
}

fn group(group: &GroupVersions) -> Value {
    let versions: Vec<Value> =
        group.versions.iter().map(|(gv, _)| json!({ "groupVersion": gv.to_string(), "version": gv.version })).collect();
    json!({ "name": group.group, "versions": versions, "preferredVersion": versions[0] })
}

/// `/api/v1` or `/apis/GROUP/VERSION`.
#[must_use]
pub fn resources(table: &Table, wanted: &GroupVersion) -> Option<Value> {
    let kinds =
        table.groups().iter().flat_map(|group| &group.versions).find(|(gv, _)| gv == wanted).map(|(_, kinds)| kinds)?;
    let mut resources = Vec::new();
    for kind in kinds {
        let mut entry = json!({
            "name": kind.plural, "singularName": kind.singular, "namespaced": kind.scope == Scope::Namespaced,
            "kind": kind.kind, "verbs": verbs(kind), "storageVersionHash": storage_version_hash(kind),
        });
        if kind.verbs == [Verb::Create] {
            entry.as_object_mut().map(|entry| entry.remove("storageVersionHash"));
        }
        add_names(&mut entry, kind);
        resources.push(entry);
        for subresource in &kind.subresources {
            let (response, verbs) = response_kind(kind, *subresource);
            let mut entry = json!({
                "name": format!("{}/{}", kind.plural, subresource.as_str()), "singularName": "",
                "namespaced": kind.scope == Scope::Namespaced, "kind": response.kind, "verbs": verbs,
            });
            if response.group_version != *wanted {
                entry["group"] = response.group_version.group.to_string().into();
                entry["version"] = response.group_version.version.to_string().into();
            }
            resources.push(entry);
        }
    }
    Some(json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": wanted.to_string(), "resources": resources,
    }))
}

/// The aggregated form (`apidiscovery.k8s.io/v2`): everything below `/api` or `/apis` in one document.
#[must_use]
pub fn aggregated(table: &Table, core: bool) -> Value {
    let groups: Vec<Value> = table
        .groups()
        .iter()
        .filter(|group| group.group.is_empty() == core)
        .map(|group| {
            let versions: Vec<Value> = group
                .versions
                .iter()
                .map(|(gv, kinds)| {
                    let resources: Vec<Value> = kinds.iter().map(|kind| aggregated_resource(kind)).collect();
                    json!({ "version": gv.version, "resources": resources, "freshness": "Current" })
                })
                .collect();
            let mut metadata = json!({ "creationTimestamp": null });
            if !group.group.is_empty() {
                metadata["name"] = group.group.as_str().into();
            }
            json!({ "metadata": metadata, "versions": versions })
        })
        .collect();
    json!({ "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": groups })
}

fn aggregated_resource(kind: &Kind) -> Value {
    let scope = match kind.scope {
        Scope::Cluster => "Cluster",
        Scope::Namespaced => "Namespaced",
    };
    let gvk = |gv: &GroupVersion, kind: &str| json!({ "group": gv.group, "version": gv.version, "kind": kind });
    let mut entry = json!({
        "resource": kind.plural, "singularResource": kind.singular, "scope": scope, "verbs": verbs(kind),
        "responseKind": gvk(&kind.group_version, &kind.kind),
    });
    add_names(&mut entry, kind);
    let subresources: Vec<Value> = kind
        .subresources
        .iter()
        .map(|subresource| {
            let (response, verbs) = response_kind(kind, *subresource);
            json!({
                "subresource": subresource.as_str(), "responseKind": gvk(&response.group_version, &response.kind), "verbs": verbs,
            })
        })
        .collect();
    if !subresources.is_empty() {
        entry["subresources"] = subresources.into();
    }
    entry
}

fn verbs(kind: &Kind) -> Vec<&'static str> {
    // While its definition is being deleted, a kind's objects can be changed still, for their finalizers' sake, but upstream does not tell.
    let ends = kind.custom.as_ref().is_some_and(|custom| custom.terminating);
    let told = |verb: &Verb| kind.verbs.contains(verb) && !(ends && matches!(verb, Verb::Patch | Verb::Update));
    Verb::ALL.iter().filter(|verb| told(verb)).map(|verb| verb.as_str()).collect()
}

fn add_names(entry: &mut Value, kind: &Kind) {
    if !kind.short_names.is_empty() {
        entry["shortNames"] = kind.short_names.iter().map(|name| Value::from(&**name)).collect();
    }
    if !kind.categories.is_empty() {
        entry["categories"] = kind.categories.iter().map(|name| Value::from(&**name)).collect();
    }
}

struct Response {
    group_version: GroupVersion,
    kind: String,
}

/// What a subresource answers with, and what may be asked of it.
fn response_kind(kind: &Kind, subresource: Subresource) -> (Response, &'static [&'static str]) {
    let own = |name: &str| Response { group_version: kind.group_version.clone(), kind: name.to_owned() };
    let other = |group, version, name: &str| Response {
        group_version: GroupVersion::new(group, version),
        kind: name.to_owned(),
    };
    match subresource {
        Subresource::Status | Subresource::EphemeralContainers | Subresource::Resize | Subresource::Approval => {
            (own(&kind.kind), &["get", "patch", "update"])
        }
        Subresource::Finalize => (own(&kind.kind), &["update"]),
        Subresource::Scale => (other("autoscaling", "v1", "Scale"), &["get", "patch", "update"]),
        Subresource::Binding => (other("", "v1", "Binding"), &["create"]),
        Subresource::Eviction => (other("policy", "v1", "Eviction"), &["create"]),
        Subresource::Log => (own(&kind.kind), &["get"]),
        Subresource::Exec => (own("PodExecOptions"), &["create", "get"]),
        Subresource::Attach => (own("PodAttachOptions"), &["create", "get"]),
        Subresource::PortForward => (own("PodPortForwardOptions"), &["create", "get"]),
        Subresource::Proxy => {
            (own(&format!("{}ProxyOptions", kind.kind)), &["create", "delete", "get", "patch", "update"])
        }
        Subresource::Token => (other("authentication.k8s.io", "v1", "TokenRequest"), &["create"]),
    }
}

/// Upstream's discovery.StorageVersionHash: changes when objects are stored in another version.
fn storage_version_hash(kind: &Kind) -> String {
    use base64::Engine as _;
    let gv = &kind.group_version;
    let sum = Sha256::digest(format!("{}/{}/{}", gv.group, gv.version, kind.kind));
    base64::engine::general_purpose::STANDARD.encode(&sum[..8])
}

/// The paths that `/` lists.
#[must_use]
pub fn paths(table: &Table) -> Value {
    let mut paths = vec![
        "/.well-known/openid-configuration".to_owned(),
        "/api".to_owned(),
        "/api/v1".to_owned(),
        "/apis".to_owned(),
    ];
    for group in named(table) {
        paths.push(format!("/apis/{}", group.group));
        paths.extend(group.versions.iter().map(|(gv, _)| format!("/apis/{gv}")));
    }
    for path in
        ["/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/openid/v1/jwks", "/readyz", "/version"]
    {
        paths.push(path.to_owned());
    }
    paths.sort();
    json!({ "paths": paths })
}

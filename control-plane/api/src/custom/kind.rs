//! The kinds of a definition: one for each served version.

use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::json_path::JsonPath;
use super::strategy::{Cell, Rules};
use super::{Custom, Schema, graph};
use crate::gvk::{GroupVersion, Name};
use crate::kinds::{Column, Kind, ScalePaths, Scope, Subresource, Verb};

/// The kinds that a definition declares, the stored version included even where it is not served (`served` says which are); none before its names are accepted.
#[must_use]
pub fn kinds(definition: &Value) -> Vec<Kind> {
    let spec = &definition["spec"];
    if !condition(definition, "Established") {
        return Vec::new();
    }
    let versions: Vec<&Value> = spec["versions"].as_array().into_iter().flatten().collect();
    let Some(stored) = versions.iter().find(|version| version["storage"] == true) else { return Vec::new() };
    let stored = group_version(spec, stored);
    versions.into_iter().map(|version| kind(definition, version, &stored)).collect()
}

/// Whether a condition of a definition is true.
fn condition(definition: &Value, type_: &str) -> bool {
    let conditions = definition["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|condition| condition["type"] == type_ && condition["status"] == "True")
}

fn group_version(spec: &Value, version: &Value) -> GroupVersion {
    GroupVersion { group: text(&spec["group"]).to_owned().into(), version: text(&version["name"]).to_owned().into() }
}

fn kind(definition: &Value, version: &Value, stored_as: &GroupVersion) -> Kind {
    let spec = &definition["spec"];
    let names = &definition["status"]["acceptedNames"];
    let group_version = group_version(spec, version);
    let props = &version["schema"]["openAPIV3Schema"];
    let mut schema = Schema::read(props);
    // Old definitions keep unknown fields everywhere.
    schema.preserve_unknown |= spec["preserveUnknownFields"] == true;
    let name = definition_name(&group_version, text(&names["kind"]));
    let terminating = condition(definition, "Terminating");
    let subresources = &version["subresources"];
    let scale = scale(&subresources["scale"]);
    let (columns, cells) = columns(version);
    let paths: Vec<Name> = list(&version["selectableFields"])
        .map(|field| Name::Owned(text(&field["jsonPath"]).trim_start_matches('.').to_owned()))
        .collect();
    let selectable = paths.iter().filter_map(|path| JsonPath::parse(path).ok()).collect();
    let has_status = subresources["status"].is_object();
    let graph = graph::graph(&name, &schema);
    let custom = Arc::new(Custom {
        definition: text(&definition["metadata"]["name"]).to_owned(),
        uid: text(&definition["metadata"]["uid"]).to_owned(),
        fingerprint: fingerprint(&group_version, version),
        graph,
        stored_as: stored_as.clone(),
        webhook: (spec["conversion"]["strategy"] == "Webhook").then(|| Arc::new(spec["conversion"]["webhook"].clone())),
        terminating,
        deprecation: (version["deprecated"] == true).then(|| {
            let told = version["deprecationWarning"].as_str().map(str::to_owned);
            told.unwrap_or_else(|| format!("{group_version} {} is deprecated", text(&names["kind"])))
        }),
        published: props.clone(),
        schema,
    });
    let strings = |value: &Value| list(value).map(|name| Name::Owned(text(name).to_owned())).collect();
    let mut kind = Kind {
        list_kind: text(&names["listKind"]).to_owned().into(),
        singular: text(&names["singular"]).to_owned().into(),
        short_names: strings(&names["shortNames"]),
        categories: strings(&names["categories"]),
        scope: if spec["scope"] == "Namespaced" { Scope::Namespaced } else { Scope::Cluster },
        verbs: Verb::ALL.to_vec(),
        columns,
        selectable: paths,
        unconditional_update: false,
        has_generation: true,
        custom: Some(custom.clone()),
        ..Kind::new(group_version, "", "", "", Rules::new(custom, cells, selectable, scale.clone(), has_status))
    };
    kind.kind = text(&names["kind"]).to_owned().into();
    kind.plural = text(&names["plural"]).to_owned().into();
    kind.schema = name.into();
    if has_status {
        kind.subresources.push(Subresource::Status);
    }
    if scale.is_some() {
        kind.subresources.push(Subresource::Scale);
    }
    kind.scale = scale;
    if terminating {
        kind.verbs.retain(|verb| *verb != Verb::Create);
    }
    kind.served = version["served"] == true;
    kind
}

/// The name of a definition in OpenAPI: the group's domain turned around, the version, the kind (`util.ToRESTFriendlyName`).
fn definition_name(group_version: &GroupVersion, kind: &str) -> String {
    let mut parts: Vec<&str> = group_version.group.split('.').collect();
    parts.reverse();
    format!("{}.{}.{kind}", parts.join("."), group_version.version)
}

fn fingerprint(group_version: &GroupVersion, version: &Value) -> String {
    let mut hash = Sha256::new();
    hash.update(group_version.to_string());
    hash.update(version["schema"].to_string());
    hash.update(version["selectableFields"].to_string());
    hash.finalize()[..12].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn scale(scale: &Value) -> Option<ScalePaths> {
    let path = |field: &str| Name::Owned(text(&scale[field]).trim_start_matches('.').to_owned());
    scale.is_object().then(|| ScalePaths {
        spec_replicas: path("specReplicasPath"),
        status_replicas: path("statusReplicasPath"),
        selector: path("labelSelectorPath"),
    })
}

/// The columns of a table, and what is in their cells. Without columns of its own, a kind has its age (`GetColumnsForVersion`).
fn columns(version: &Value) -> (Vec<Column>, Vec<Cell>) {
    let mut columns = vec![Column::name()];
    let mut cells = Vec::new();
    for column in list(&version["additionalPrinterColumns"]) {
        let Ok(path) = JsonPath::parse(text(&column["jsonPath"])) else { continue };
        let description = match text(&column["description"]) {
            "" => format!("Custom resource definition column (in JSONPath format): {}", text(&column["jsonPath"])),
            given => given.to_owned(),
        };
        columns.push(Column {
            name: text(&column["name"]).to_owned().into(),
            type_: text(&column["type"]).to_owned().into(),
            format: text(&column["format"]).to_owned().into(),
            description: description.into(),
            priority: column["priority"].as_i64().and_then(|priority| u8::try_from(priority).ok()).unwrap_or_default(),
        });
        cells.push(Cell::new(path, text(&column["type"])));
    }
    if cells.is_empty() {
        columns.push(Column { type_: "date".into(), ..Column::age() });
        if let Ok(path) = JsonPath::parse(".metadata.creationTimestamp") {
            cells.push(Cell::new(path, "date"));
        }
    }
    (columns, cells)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

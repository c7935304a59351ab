//! `/scale`: an object seen as an autoscaling/v1 Scale.

use std::sync::LazyLock;

use serde_json::{Value, json};
use skep_api::apply::{self, Fields, Managers, Node, Versions, Writer};
use skep_api::decode::{Media, decode_type};
use skep_api::field::{Error as FieldError, Path};
use skep_api::gvk::{GroupKind, Name};
use skep_api::kinds::{Kind, ScalePaths};
use skep_api::schema::{Schemas, Type};
use skep_api::selector::LabelSelector;
use skep_api::{GroupVersion, Reason, Status};

use super::owners::{self, Ownership};
use super::patch::PatchType;
use super::{Answer, Call, Engine, Payload, served};

impl Engine {
    /// `get` of a Scale.
    ///
    /// # Errors
    /// 404.
    pub async fn get_scale(&self, call: &Call<'_>) -> Result<Answer, Status> {
        let object = self.newest(call).await?;
        Ok(Answer::ok(Payload::Value(of(call.kind, &served(call.kind, &object)))))
    }

    /// `update` of a Scale: sets the replicas of the object.
    ///
    /// # Errors
    /// 400, 404, 409, 422.
    pub async fn update_scale(&self, call: &Call<'_>, body: &[u8], media: Media) -> Result<Answer, Status> {
        let scale = decode_type(body, media, "io.k8s.api.autoscaling.v1.Scale")?;
        self.change_scale(call, Ownership::Scaled, |_| Ok((scale.clone(), None))).await
    }

    /// `patch` of a Scale.
    ///
    /// # Errors
    /// 400, 404, 409, 415, 422.
    pub async fn patch_scale(&self, call: &Call<'_>, body: &[u8], type_: PatchType) -> Result<Answer, Status> {
        if type_ == PatchType::Apply {
            return self.apply_scale(call, body).await;
        }
        let patch: Value = serde_json::from_slice(body)
            .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))?;
        self.change_scale(call, Ownership::Scaled, |old| {
            let old = of(call.kind, old);
            // A Scale has no lists with keys: strategic merge is merge.
            let patched = match type_ {
                PatchType::Json => skep_api::patch::json(&old, &patch),
                PatchType::Merge | PatchType::Strategic | PatchType::Apply => skep_api::patch::merge(&old, &patch),
            };
            Ok((patched?, None))
        })
        .await
    }

    /// Server-side apply of a Scale: of the object's replicas, whose owners are the Scale's.
    async fn apply_scale(&self, call: &Call<'_>, body: &[u8]) -> Result<Answer, Status> {
        let (applied, _) = super::apply::read(body)?;
        super::apply::check_type(&applied, &GroupVersion::new("autoscaling", "v1"), "Scale")?;
        let (manager, now) = (call.query.manager(), super::rfc3339(call.now));
        let replicas = paths(call.kind).spec_replicas;
        let path: Vec<&str> = replicas.split('.').collect();
        self.change_scale(call, Ownership::Given, |old| {
            let parent = match old["metadata"]["managedFields"].as_array() {
                Some(list) => Managers::parse(list).map_err(|why| {
                    Status::new(500, Reason::Unknown, format!("failed to decode managed fields: {why}"))
                })?,
                None => Managers::default(),
            };
            let writer = Writer {
                manager: &manager,
                subresource: "scale",
                api_version: "autoscaling/v1",
                now: Some(&now),
                reset: &Fields::default(),
            };
            let before = of(call.kind, old);
            let owners = apply::scale_managers(&parent, &path);
            let force = call.query.force.unwrap_or(false);
            let outcome = apply::apply(owners, &before, &applied, &ScaleVersions, &writer, force)?;
            let version = call.kind.group_version.to_string();
            let owners = apply::parent_managers(parent, outcome.managers, &path, &version);
            Ok((outcome.object.unwrap_or(before), Some(owners.into_value())))
        })
        .await
    }

    async fn change_scale(
        &self,
        call: &Call<'_>,
        ownership: Ownership,
        change: impl Fn(&Value) -> Result<(Value, Option<Value>), Status>,
    ) -> Result<Answer, Status> {
        let answer = self
            .change_owned(call, false, ownership, |old| {
                let before = of(call.kind, old);
                let (scale, managers) = change(old)?;
                let replicas = replicas(call, &scale)?;
                let mut object = old.clone();
                set(&mut object, &paths(call.kind).spec_replicas, replicas);
                if ownership == Ownership::Given {
                    owners::put(&mut object, managers);
                }
                let version = &scale["metadata"]["resourceVersion"];
                let metadata = super::metadata::of(&mut object);
                if version.as_str().is_none_or(str::is_empty) || *version == before["metadata"]["resourceVersion"] {
                    metadata.remove("resourceVersion");
                } else {
                    metadata.insert("resourceVersion".to_owned(), version.clone());
                }
                Ok((object, Vec::new()))
            })
            .await?;
        let scale = of(call.kind, &Self::tree(call.kind, &answer.payload));
        Ok(Answer::with(answer.code, Payload::Value(scale), answer.warnings))
    }
}

/// A Scale has one version.
struct ScaleVersions;

impl Versions for ScaleVersions {
    fn node(&self) -> Node<'_> {
        static ROOT: LazyLock<Type> =
            LazyLock::new(|| Schemas::builtin().id("io.k8s.api.autoscaling.v1.Scale").map_or(Type::Raw, Type::Struct));
        Node::root(Schemas::builtin(), &ROOT)
    }

    fn node_of(&self, _: &str) -> Option<Node<'_>> {
        None
    }

    fn convert(&self, _: &Value, _: &str) -> Option<Value> {
        None
    }

    fn may_change(&self) -> bool {
        false
    }
}

fn replicas(call: &Call<'_>, scale: &Value) -> Result<i64, Status> {
    let replicas = match &scale["spec"]["replicas"] {
        Value::Null => 0,
        value => value.as_i64().filter(|count| i32::try_from(*count).is_ok()).ok_or_else(|| {
            Status::bad_request("Scale in version \"v1\" cannot be handled as a Scale: json: cannot unmarshal into Go struct field ScaleSpec.spec.replicas of type int32")
        })?,
    };
    if replicas < 0 {
        let path = Path::new("spec").child("replicas");
        let errors = vec![FieldError::invalid(&path, replicas, "must be greater than or equal to 0")];
        let kind = GroupKind { group: Name::Borrowed("autoscaling"), kind: Name::Borrowed("Scale") };
        return Err(Status::invalid(&kind, call.name, &errors));
    }
    Ok(replicas)
}

fn paths(kind: &Kind) -> ScalePaths {
    kind.scale.clone().unwrap_or(ScalePaths::BUILTIN)
}

/// Sets the wanted number of replicas.
pub(super) fn set_replicas(kind: &Kind, object: &mut Value, replicas: i64) {
    set(object, &paths(kind).spec_replicas, replicas);
}

/// What is at a dotted path.
fn at<'a>(object: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(object, |value, name| &value[name])
}

/// Sets a number at a dotted path.
fn set(object: &mut Value, path: &str, number: i64) {
    let mut at = object;
    for name in path.split('.') {
        if !at.is_object() {
            *at = json!({});
        }
        at = &mut at[name];
    }
    *at = number.into();
}

/// An object as a Scale.
pub(super) fn of(kind: &Kind, object: &Value) -> Value {
    let paths = paths(kind);
    let metadata = &object["metadata"];
    let mut kept = serde_json::Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = metadata.get(field) {
            kept.insert(field.to_owned(), value.clone());
        }
    }
    let mut status = json!({ "replicas": at(object, &paths.status_replicas).as_i64().unwrap_or(0) });
    let given = if paths.selector.is_empty() { &Value::Null } else { at(object, &paths.selector) };
    // Custom objects have it in selector syntax.
    let text = match given {
        Value::String(text) => text.clone(),
        structure => {
            LabelSelector::from_object(&selector(structure)).map(|selector| selector.to_string()).unwrap_or_default()
        }
    };
    if !text.is_empty() {
        status["selector"] = text.into();
    }
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": kept,
        "spec": { "replicas": at(object, &paths.spec_replicas).as_i64().unwrap_or(0) },
        "status": status,
    })
}

/// A ReplicationController's selector is a plain map of labels.
fn selector(selector: &Value) -> Value {
    let plain = selector.as_object().is_some_and(|map| !map.is_empty() && map.values().all(Value::is_string));
    if plain { json!({ "matchLabels": selector }) } else { selector.clone() }
}

//! Reads the `schemars` schemas of `k8s-openapi`'s types into a [`Schemas`].

use std::collections::HashMap;

use k8s_openapi::api;
use k8s_openapi::apimachinery::pkg::apis::meta;
use schemars::SchemaGenerator;
use serde_json::{Map, Value};

use super::{Field, Instead, ListType, PatchStrategy, Schemas, Struct, StructId, Type};

const LISTS: &str = include_str!("lists.txt");
const PROTOBUF: &str = include_str!("protobuf.txt");
const META: &str = "io.k8s.apimachinery.pkg.";

/// Every type that a built-in kind, a subresource or an option needs.
pub(super) fn builtin() -> Schemas {
    let mut generator = SchemaGenerator::default();
    macro_rules! add {
        ($($type:ty),* $(,)?) => {
            $( generator.subschema_for::<$type>(); )*
        };
    }
    add!(
        api::admissionregistration::v1::MutatingAdmissionPolicy,
        api::admissionregistration::v1::MutatingAdmissionPolicyBinding,
        api::admissionregistration::v1::MutatingWebhookConfiguration,
        api::admissionregistration::v1::ValidatingAdmissionPolicy,
        api::admissionregistration::v1::ValidatingAdmissionPolicyBinding,
        api::admissionregistration::v1::ValidatingWebhookConfiguration,
        api::apps::v1::ControllerRevision,
        api::apps::v1::DaemonSet,
        api::apps::v1::Deployment,
        api::apps::v1::ReplicaSet,
        api::apps::v1::StatefulSet,
        api::authentication::v1::SelfSubjectReview,
        api::authentication::v1::TokenRequest,
        api::authentication::v1::TokenReview,
        api::authorization::v1::LocalSubjectAccessReview,
        api::authorization::v1::SelfSubjectAccessReview,
        api::authorization::v1::SelfSubjectRulesReview,
        api::authorization::v1::SubjectAccessReview,
        api::autoscaling::v1::HorizontalPodAutoscaler,
        api::autoscaling::v1::Scale,
        api::autoscaling::v2::HorizontalPodAutoscaler,
        api::batch::v1::CronJob,
        api::batch::v1::Job,
        api::certificates::v1::CertificateSigningRequest,
        api::certificates::v1::ClusterTrustBundle,
        api::certificates::v1::PodCertificateRequest,
        api::coordination::v1::Lease,
        api::core::v1::Binding,
        api::core::v1::ComponentStatus,
        api::core::v1::ConfigMap,
        api::core::v1::Endpoints,
        api::core::v1::Event,
        api::core::v1::LimitRange,
        api::core::v1::Namespace,
        api::core::v1::Node,
        api::core::v1::PersistentVolume,
        api::core::v1::PersistentVolumeClaim,
        api::core::v1::Pod,
        api::core::v1::PodTemplate,
        api::core::v1::ReplicationController,
        api::core::v1::ResourceQuota,
        api::core::v1::Secret,
        api::core::v1::Service,
        api::core::v1::ServiceAccount,
        api::discovery::v1::EndpointSlice,
        api::events::v1::Event,
        api::flowcontrol::v1::FlowSchema,
        api::flowcontrol::v1::PriorityLevelConfiguration,
        api::networking::v1::IPAddress,
        api::networking::v1::Ingress,
        api::networking::v1::IngressClass,
        api::networking::v1::NetworkPolicy,
        api::networking::v1::ServiceCIDR,
        api::node::v1::RuntimeClass,
        api::policy::v1::Eviction,
        api::policy::v1::PodDisruptionBudget,
        api::rbac::v1::ClusterRole,
        api::rbac::v1::ClusterRoleBinding,
        api::rbac::v1::Role,
        api::rbac::v1::RoleBinding,
        api::resource::v1::DeviceClass,
        api::resource::v1::DeviceTaintRule,
        api::resource::v1::ResourceClaim,
        api::resource::v1::ResourceClaimTemplate,
        api::resource::v1::ResourceSlice,
        api::scheduling::v1::PriorityClass,
        api::storage::v1::CSIDriver,
        api::storage::v1::CSINode,
        api::storage::v1::CSIStorageCapacity,
        api::storage::v1::StorageClass,
        api::storage::v1::VolumeAttachment,
        api::storage::v1::VolumeAttributesClass,
        api::storagemigration::v1::StorageVersionMigration,
        meta::v1::APIGroup,
        meta::v1::APIGroupList,
        meta::v1::APIResourceList,
        meta::v1::APIVersions,
        k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
        meta::v1::DeleteOptions,
        meta::v1::ListMeta,
        meta::v1::Status,
    );
    from_definitions(generator.take_definitions(true))
}

fn from_definitions(definitions: Map<String, Value>) -> Schemas {
    let mut schemas = Schemas::default();
    let is_struct = |schema: &Value| schema["properties"].is_object() || is_empty_object(schema);
    let mut names: Vec<&String> = definitions.iter().filter(|(_, s)| is_struct(s)).map(|(name, _)| name).collect();
    names.sort();
    for (at, name) in names.iter().enumerate() {
        schemas.by_name.insert((*name).clone(), StructId(u32::try_from(at).unwrap_or(u32::MAX)));
    }
    let facts = facts();
    let numbers = numbers();
    let is_atomic = |name: &str| facts.get(&(name, "-")).is_some_and(|fact| fact.map == Some(MapType::Atomic));
    for name in &names {
        let name = *name;
        let schema = &definitions[name];
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let mut fields: Vec<Field> = schema["properties"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(field, schema)| {
                let fact = facts.get(&(name.as_str(), field.as_str()));
                let number = numbers.get(&(name.as_str(), field.as_str()));
                let type_ = type_of(schema, &schemas.by_name);
                let required = required.contains(&field.as_str());
                let pointer = number.is_some_and(|number| number.pointer);
                let atomic_map = match (fact.and_then(|fact| fact.map), &type_) {
                    (Some(map), _) => map == MapType::Atomic,
                    (None, Type::Struct(id)) => is_atomic(names[id.0 as usize]),
                    (None, _) => false,
                };
                Field {
                    name: field.clone(),
                    description: text(schema),
                    required,
                    list: fact.map(|fact| fact.list.clone()).unwrap_or_default(),
                    atomic_map,
                    default: match fact.and_then(|fact| fact.default) {
                        Some("-") => None,
                        Some(text) => Some(Value::from(text)),
                        None if required && !pointer => zero(&type_),
                        None => None,
                    },
                    patch: fact.map(|fact| fact.patch.clone()).unwrap_or_default(),
                    protobuf: number.map(|number| number.path.clone()).unwrap_or_default(),
                    pointer,
                    type_,
                }
            })
            .collect();
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        schemas.structs.push(Struct {
            name: name.clone(),
            description: text(schema),
            fields,
            atomic: is_atomic(name),
            rest: None,
        });
    }
    schemas
}

fn text(schema: &Value) -> String {
    schema["description"].as_str().unwrap_or_default().to_owned()
}

/// `type: object` and nothing else: a struct without fields (`SelfSubjectReviewSpec` and the like), or free JSON where the name says so.
fn is_empty_object(schema: &Value) -> bool {
    schema["type"] == "object"
        && schema["additionalProperties"].is_null()
        && schema["x-kubernetes-preserve-unknown-fields"].is_null()
}

fn type_of(schema: &Value, structs: &HashMap<String, StructId>) -> Type {
    if let Some(reference) = schema["$ref"].as_str() {
        return referred(reference, structs);
    }
    // A reference with a description beside it may come wrapped.
    for wrapper in ["allOf", "anyOf"] {
        if let Some(inner) = schema[wrapper].as_array().and_then(|all| all.iter().find(|s| !s["$ref"].is_null())) {
            return type_of(inner, structs);
        }
    }
    if schema["x-kubernetes-int-or-string"] == true {
        return Type::IntOrString;
    }
    match (schema["type"].as_str(), schema["format"].as_str()) {
        (Some("string"), Some("byte")) => Type::Bytes,
        (Some("string"), _) => Type::String,
        (Some("boolean"), _) => Type::Bool,
        (Some("integer"), Some("int64")) => Type::Int64,
        (Some("integer"), _) => Type::Int32,
        (Some("number"), _) => Type::Float,
        (Some("array"), _) => Type::List(Box::new(type_of(&schema["items"], structs))),
        (Some("object"), _) if schema["additionalProperties"].is_object() => {
            Type::Map(Box::new(type_of(&schema["additionalProperties"], structs)))
        }
        _ => Type::Raw,
    }
}

fn referred(reference: &str, structs: &HashMap<String, StructId>) -> Type {
    let name = reference.rsplit('/').next().unwrap_or(reference);
    match name.strip_prefix(META) {
        Some("api.resource.Quantity") => return Type::Quantity,
        Some("util.intstr.IntOrString") => return Type::IntOrString,
        Some("apis.meta.v1.Time") => return Type::Time,
        Some("apis.meta.v1.MicroTime") => return Type::MicroTime,
        Some("apis.meta.v1.FieldsV1" | "runtime.RawExtension") => return Type::Raw,
        _ => {}
    }
    if name.ends_with(".apiextensions.v1.JSON") {
        return Type::Raw;
    }
    if let Some((package, instead)) = name.rsplit_once(".JSONSchemaPropsOr")
        && let Some(schema) = structs.get(&format!("{package}.JSONSchemaProps"))
    {
        let instead = match instead {
            "Bool" => Instead::Bool,
            "Array" => Instead::Schemas,
            _ => Instead::Names,
        };
        return Type::SchemaOr(*schema, instead);
    }
    structs.get(name).map_or(Type::Raw, |id| Type::Struct(*id))
}

/// What OpenAPI declares as the default of a field that Go always writes.
fn zero(type_: &Type) -> Option<Value> {
    match type_ {
        Type::String => Some(Value::from("")),
        Type::Bool => Some(Value::from(false)),
        Type::Int32 | Type::Int64 => Some(Value::from(0)),
        _ => None,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum MapType {
    Atomic,
    Granular,
}

#[derive(Default)]
struct Fact {
    list: ListType,
    patch: PatchStrategy,
    map: Option<MapType>,
    default: Option<&'static str>,
}

/// `lists.txt`: `definition field list=… keys=a,b patch=… merge=… map=… default=…`; the field `-` is the struct itself,
/// and the default `-` says that there is none.
fn facts() -> HashMap<(&'static str, &'static str), Fact> {
    LISTS
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let at = (words.next()?, words.next()?);
            let mut fact = Fact::default();
            let mut keys = Vec::new();
            let mut list = "";
            for (key, value) in words.filter_map(|word| word.split_once('=')) {
                match key {
                    "list" => list = value,
                    "keys" => keys = value.split(',').map(str::to_owned).collect(),
                    "patch" => {
                        fact.patch.merge = value.split(',').any(|strategy| strategy == "merge");
                        fact.patch.retain_keys = value.split(',').any(|strategy| strategy == "retainKeys");
                    }
                    "merge" => fact.patch.key = Some(value.to_owned()),
                    "map" => fact.map = Some(if value == "atomic" { MapType::Atomic } else { MapType::Granular }),
                    "default" => fact.default = Some(value),
                    _ => {}
                }
            }
            fact.list = match list {
                "set" => ListType::Set,
                "map" => ListType::Map(keys),
                _ => ListType::Atomic,
            };
            Some((at, fact))
        })
        .collect()
}

struct Number {
    path: Vec<u32>,
    pointer: bool,
}

/// `protobuf.txt`: `definition field=NUMBER field*=NUMBER field=OUTER.INNER …`; a star marks what Go holds by a pointer.
fn numbers() -> HashMap<(&'static str, &'static str), Number> {
    let mut numbers = HashMap::new();
    for line in PROTOBUF.lines() {
        let mut words = line.split(' ');
        let Some(definition) = words.next() else { continue };
        for (field, path) in words.filter_map(|word| word.split_once('=')) {
            let number = Number {
                path: path.split('.').filter_map(|n| n.parse().ok()).collect(),
                pointer: field.ends_with('*'),
            };
            numbers.insert((definition, field.trim_end_matches('*')), number);
        }
    }
    numbers
}

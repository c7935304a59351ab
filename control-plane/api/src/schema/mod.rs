//! The types of objects as a graph of nodes: what decoding, patching, OpenAPI and (later) server-side apply and CRDs know of a kind's fields.
//!
//! Built once, from the `schemars` schemas of `k8s-openapi`'s types, joined with what those lack: how lists and maps merge (`lists.txt`, the facts of
//! upstream's struct tags and OpenAPI extensions, one line a field). Invariant: a graph is immutable; a struct is referred to by its id.

mod build;

use std::collections::HashMap;
use std::sync::OnceLock;

/// A struct in a [`Schemas`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StructId(u32);

/// The type of a field, an item or a map's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// A Go `string`.
    String,
    /// `bool`
    Bool,
    /// `int32`
    Int32,
    /// `int64`
    Int64,
    /// `float64`
    Float,
    /// `[]byte`: base64 in JSON.
    Bytes,
    /// `metav1.Time`: RFC 3339 in seconds.
    Time,
    /// `metav1.MicroTime`: RFC 3339 in microseconds.
    MicroTime,
    /// `resource.Quantity`
    Quantity,
    /// `intstr.IntOrString`
    IntOrString,
    /// Any JSON: `runtime.RawExtension`, `FieldsV1`, `JSON`.
    Raw,
    /// An object with known fields.
    Struct(StructId),
    /// A list.
    List(Box<Type>),
    /// A map with string keys.
    Map(Box<Type>),
    /// A JSON schema, or what may stand in its place: `JSONSchemaPropsOrBool` and its like. The struct is that of the schema.
    SchemaOr(StructId, Instead),
}

/// What may stand where a JSON schema may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instead {
    /// `true` or `false`: `JSONSchemaPropsOrBool`.
    Bool,
    /// A list of schemas: `JSONSchemaPropsOrArray`.
    Schemas,
    /// A list of names: `JSONSchemaPropsOrStringArray`.
    Names,
}

/// How a list is merged by server-side apply: `x-kubernetes-list-type`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    /// Replaced whole.
    #[default]
    Atomic,
    /// Items are the keys.
    Set,
    /// Items are found by these fields.
    Map(Vec<String>),
}

/// How a list or a struct is merged by strategic merge patch: the `patchStrategy` and `patchMergeKey` tags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PatchStrategy {
    /// Lists are merged by item, not replaced.
    pub merge: bool,
    /// Fields that a patch's `$retainKeys` does not name are dropped.
    pub retain_keys: bool,
    /// The field that finds an item; lists of scalars have none.
    pub key: Option<String>,
}

/// A field of a struct.
#[derive(Clone, Debug)]
pub struct Field {
    /// Its name in JSON.
    pub name: String,
    /// Its type.
    pub type_: Type,
    /// What it is for.
    pub description: String,
    /// Whether the schema demands it.
    pub required: bool,
    /// For lists: how server-side apply merges it.
    pub list: ListType,
    /// Whether a map or struct is replaced whole by server-side apply. For a struct this says it all: the field may differ from [`Struct::atomic`].
    pub atomic_map: bool,
    /// What an item of a list is taken to have here when it leaves out this field and the field is a key of the list: the schema's default.
    pub default: Option<serde_json::Value>,
    /// How strategic merge patch treats it.
    pub patch: PatchStrategy,
    /// Its field numbers in protobuf, from the struct down: more than one where Go embeds a struct that JSON does not show. Empty when unknown.
    pub protobuf: Vec<u32>,
    /// Whether Go holds it by a pointer: then a zero value is a value, and else it is the same as none.
    pub pointer: bool,
}

/// A type with named fields.
#[derive(Clone, Debug)]
pub struct Struct {
    /// The definition's name, such as `io.k8s.api.apps.v1.DeploymentSpec`.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// By name, in order.
    pub fields: Vec<Field>,
    /// Whether server-side apply replaces it whole, where it is no field's: in lists and maps.
    pub atomic: bool,
    /// The type of fields that are not declared, where there may be any: a custom object's that keeps unknown fields.
    pub rest: Option<Type>,
}

impl Struct {
    /// A field by its JSON name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.binary_search_by(|field| field.name.as_str().cmp(name)).ok().map(|at| &self.fields[at])
    }

    /// The Go name: the last part of the definition's.
    #[must_use]
    pub fn go_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or(&self.name)
    }

    /// The Go name with its package, as decoding errors have it: `v1.DeploymentSpec`.
    #[must_use]
    pub fn qualified_go_name(&self) -> String {
        let mut parts = self.name.rsplit('.');
        let name = parts.next().unwrap_or_default();
        format!("{}.{name}", parts.next().unwrap_or_default())
    }
}

/// A graph of types.
#[derive(Debug, Default)]
pub struct Schemas {
    structs: Vec<Struct>,
    by_name: HashMap<String, StructId>,
}

impl Schemas {
    /// The types of every built-in kind.
    #[must_use]
    pub fn builtin() -> &'static Self {
        static BUILTIN: OnceLock<Schemas> = OnceLock::new();
        BUILTIN.get_or_init(build::builtin)
    }

    /// A struct by its definition's name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Struct> {
        self.by_name.get(name).map(|id| &self[*id])
    }

    /// The id of a struct.
    #[must_use]
    pub fn id(&self, name: &str) -> Option<StructId> {
        self.by_name.get(name).copied()
    }

    /// Adds a struct, whose name must be new.
    pub(crate) fn push(&mut self, added: Struct) -> StructId {
        let id = StructId(u32::try_from(self.structs.len()).unwrap_or(u32::MAX));
        self.by_name.insert(added.name.clone(), id);
        self.structs.push(added);
        id
    }

    /// Every struct.
    pub fn structs(&self) -> impl Iterator<Item = &Struct> {
        self.structs.iter()
    }
}

impl std::ops::Index<StructId> for Schemas {
    type Output = Struct;

    fn index(&self, id: StructId) -> &Struct {
        &self.structs[id.0 as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_merge_by_name_and_ports_by_port_and_protocol() {
        let schemas = Schemas::builtin();
        let spec = schemas.get("io.k8s.api.core.v1.PodSpec").unwrap();
        let containers = spec.field("containers").unwrap();
        assert_eq!(containers.list, ListType::Map(vec!["name".to_owned()]));
        assert_eq!(containers.patch.key.as_deref(), Some("name"));
        let Type::List(item) = &containers.type_ else { panic!("no list") };
        let Type::Struct(container) = **item else { panic!("no struct") };
        assert_eq!(schemas[container].qualified_go_name(), "v1.Container");
        let ports = schemas[container].field("ports").unwrap();
        assert_eq!(ports.list, ListType::Map(vec!["containerPort".to_owned(), "protocol".to_owned()]));
        assert!(spec.field("volumes").unwrap().patch.retain_keys);
    }

    #[test]
    fn scalars_have_their_go_types() {
        let schemas = Schemas::builtin();
        let of = |name: &str, field: &str| schemas.get(name).unwrap().field(field).unwrap().type_.clone();
        assert_eq!(of("io.k8s.api.apps.v1.DeploymentSpec", "replicas"), Type::Int32);
        assert_eq!(of("io.k8s.api.core.v1.Secret", "data"), Type::Map(Box::new(Type::Bytes)));
        assert_eq!(of("io.k8s.api.core.v1.ResourceRequirements", "limits"), Type::Map(Box::new(Type::Quantity)));
        assert_eq!(of("io.k8s.api.core.v1.ServicePort", "targetPort"), Type::IntOrString);
        assert_eq!(of("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "creationTimestamp"), Type::Time);
        assert_eq!(of("io.k8s.api.coordination.v1.LeaseSpec", "renewTime"), Type::MicroTime);
    }

    #[test]
    fn every_builtin_kind_has_its_schema() {
        for kind in crate::kinds::builtin() {
            assert!(Schemas::builtin().get(&kind.schema).is_some(), "{}", kind.schema);
        }
    }
}

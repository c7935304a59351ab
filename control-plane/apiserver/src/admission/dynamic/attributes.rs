//! A request as webhooks and policies see it (k8s.io/apiserver/pkg/admission `Attributes`).

use std::sync::Arc;

use serde_json::{Map, Value, json};
use skep_api::GroupVersionKind;
use skep_api::kinds::Kind;

use crate::admission::Operation;
use crate::auth::User;
use crate::registry::Table;

/// A resource in a version.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Resource {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) plural: String,
}

impl Resource {
    pub(crate) fn of(kind: &Kind) -> Self {
        Self {
            group: kind.group_version.group.to_string(),
            version: kind.group_version.version.to_string(),
            plural: kind.plural.to_string(),
        }
    }

    pub(crate) fn to_value(&self) -> Value {
        json!({"group": self.group, "version": self.version, "resource": self.plural})
    }
}

/// A request, but for the object, which admission changes on its way.
#[derive(Clone)]
pub(crate) struct Attributes<'a> {
    /// The kind that the path names.
    pub(crate) kind: &'a Arc<Kind>,
    /// What the object is: the kind itself, or what its subresource takes.
    pub(crate) object_kind: GroupVersionKind,
    /// Empty for the object itself.
    pub(crate) subresource: &'static str,
    /// What is done.
    pub(crate) operation: Operation,
    /// Empty for cluster-scoped kinds but Namespaces, whose namespace is themselves.
    pub(crate) namespace: &'a str,
    /// Empty for a create whose name is not made yet.
    pub(crate) name: &'a str,
    /// Who asks.
    pub(crate) user: &'a User,
    /// What was there.
    pub(crate) old: Option<&'a Value>,
    /// Whether nothing will be stored.
    pub(crate) dry_run: bool,
    /// CreateOptions, UpdateOptions, PatchOptions or DeleteOptions; null for connections.
    pub(crate) options: Value,
}

impl Attributes<'_> {
    pub(crate) fn is_of_namespaces(&self) -> bool {
        self.kind.group_version.group.is_empty() && self.kind.plural == "namespaces"
    }

    /// Whether webhooks and policies have no say: in what configures them themselves.
    pub(crate) fn is_exempt(&self) -> bool {
        const EXEMPT: [&str; 6] = [
            "ValidatingWebhookConfiguration",
            "MutatingWebhookConfiguration",
            "ValidatingAdmissionPolicy",
            "ValidatingAdmissionPolicyBinding",
            "MutatingAdmissionPolicy",
            "MutatingAdmissionPolicyBinding",
        ];
        self.kind.group_version.group == "admissionregistration.k8s.io" && EXEMPT.contains(&&*self.kind.kind)
    }

    /// The kinds in which the objects of this resource are served too, in the order of the table.
    pub(crate) fn equivalents(&self, table: &Table) -> Vec<Arc<Kind>> {
        let stored = self.kind.storage_resource();
        let own = Resource::of(self.kind);
        table
            .kinds()
            .filter(|kind| kind.is_stored() && kind.storage_resource() == stored && Resource::of(kind) != own)
            .cloned()
            .collect()
    }

    /// An object in the version of another kind. Objects of subresources with a shape of their own, and the options of connections, have but one version.
    pub(crate) fn converted(&self, object: &Value, to: &Kind) -> Value {
        if object.is_null() || self.has_own_shape() {
            return object.clone();
        }
        convert(self.kind, to, object)
    }

    /// An object back from the version of another kind.
    pub(crate) fn converted_back(&self, object: Value, from: &Kind) -> Value {
        if object.is_null() || self.has_own_shape() { object } else { convert(from, self.kind, &object) }
    }

    fn has_own_shape(&self) -> bool {
        self.object_kind.kind != self.kind.kind || self.object_kind.group != self.kind.group_version.group
    }

    /// The kind of the object in the version of another kind.
    pub(crate) fn kind_in(&self, kind: &Kind) -> GroupVersionKind {
        if self.has_own_shape() {
            return self.object_kind.clone();
        }
        GroupVersionKind {
            group: kind.group_version.group.clone(),
            version: kind.group_version.version.clone(),
            kind: kind.kind.clone(),
        }
    }

    /// The AdmissionRequest without uid and objects, in the version of `kind`.
    pub(crate) fn to_request(&self, kind: &Kind) -> Map<String, Value> {
        let mut request = Map::new();
        let mut put = |field: &str, value: Value| request.insert(field.to_owned(), value);
        put("kind", kind_value(&self.kind_in(kind)));
        put("resource", Resource::of(kind).to_value());
        put("requestKind", kind_value(&self.object_kind));
        put("requestResource", Resource::of(self.kind).to_value());
        if !self.subresource.is_empty() {
            put("subResource", self.subresource.into());
            put("requestSubResource", self.subresource.into());
        }
        if !self.name.is_empty() {
            put("name", self.name.into());
        }
        if !self.namespace.is_empty() {
            put("namespace", self.namespace.into());
        }
        put("operation", self.operation.as_str().into());
        put("userInfo", user_info(self.user));
        put("dryRun", self.dry_run.into());
        put("options", self.options.clone());
        request
    }
}

fn convert(from: &Kind, to: &Kind, object: &Value) -> Value {
    let mut object = object.clone();
    if from.group_version == to.group_version {
        return object;
    }
    if let Some(conversion) = &from.conversion {
        (conversion.to_storage)(&mut object);
    }
    if let Some(conversion) = &to.conversion {
        (conversion.from_storage)(&mut object);
    }
    object["apiVersion"] = to.group_version.to_string().into();
    object["kind"] = to.kind.to_string().into();
    object
}

fn kind_value(kind: &GroupVersionKind) -> Value {
    json!({"group": kind.group, "version": kind.version, "kind": kind.kind})
}

fn user_info(user: &User) -> Value {
    let mut info = json!({"username": user.name});
    if !user.uid.is_empty() {
        info["uid"] = user.uid.as_str().into();
    }
    if !user.groups.is_empty() {
        info["groups"] = json!(user.groups);
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}

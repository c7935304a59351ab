//! What a kind is to the engine: its declaration ([`Kind`]), its rules ([`Strategy`]), and the small vocabularies that both are written in.

use std::sync::Arc;

use serde_json::Value;

use crate::custom::Custom;
use crate::field::ErrorList;
use crate::gvk::{GroupKind, GroupResource, GroupVersion, Name};
use crate::schema::Schemas;

/// Whether objects of a kind live in namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One set of names for the whole cluster.
    Cluster,
    /// A set of names in each namespace.
    Namespaced,
}

/// What may be asked of a kind. The strings of [`Verb::as_str`] are those of discovery and RBAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are upstream's verbs")]
pub enum Verb {
    Create,
    Delete,
    DeleteCollection,
    Get,
    List,
    Patch,
    Update,
    Watch,
}

impl Verb {
    /// All eight, in the order of discovery.
    pub const ALL: &[Self] = &[
        Self::Create,
        Self::Delete,
        Self::DeleteCollection,
        Self::Get,
        Self::List,
        Self::Patch,
        Self::Update,
        Self::Watch,
    ];

    /// The verb as RBAC writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Get => "get",
            Self::List => "list",
            Self::Patch => "patch",
            Self::Update => "update",
            Self::Watch => "watch",
        }
    }
}

/// A part of an object with its own path, rights and rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subresource {
    /// `/status`: writes touch only `status` (and metadata where upstream lets them).
    Status,
    /// `/scale`: the object seen as an autoscaling/v1 Scale. The paths are of the replica count, the selector and the observed count.
    Scale,
    /// `/finalize` of a Namespace: writes touch only `spec.finalizers`.
    Finalize,
    /// `/binding` of a Pod: assigns it to a node.
    Binding,
    /// `/eviction` of a Pod.
    Eviction,
    /// `/log` of a Pod, answered by its kubelet.
    Log,
    /// `/exec` of a Pod, a stream to its kubelet.
    Exec,
    /// `/attach` of a Pod, a stream to its kubelet.
    Attach,
    /// `/portforward` of a Pod, a stream to its kubelet.
    PortForward,
    /// `/proxy` of a Pod, Service or Node.
    Proxy,
    /// `/token` of a ServiceAccount: a TokenRequest.
    Token,
    /// `/ephemeralcontainers` of a Pod.
    EphemeralContainers,
    /// `/resize` of a Pod.
    Resize,
    /// `/approval` of a CertificateSigningRequest: writes touch only its conditions.
    Approval,
}

impl Subresource {
    /// The last segment of its path.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Scale => "scale",
            Self::Finalize => "finalize",
            Self::Binding => "binding",
            Self::Eviction => "eviction",
            Self::Log => "log",
            Self::Exec => "exec",
            Self::Attach => "attach",
            Self::PortForward => "portforward",
            Self::Proxy => "proxy",
            Self::Token => "token",
            Self::EphemeralContainers => "ephemeralcontainers",
            Self::Resize => "resize",
            Self::Approval => "approval",
        }
    }
}

/// A column of the Table form (`kubectl get`): metav1.TableColumnDefinition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// The heading.
    pub name: Name,
    /// `string`, `integer`, `date`, `boolean` or `number`.
    pub type_: Name,
    /// `name` for the first column, else empty.
    pub format: Name,
    /// What the column shows.
    pub description: Name,
    /// 0 is always shown, 1 with `-o wide`.
    pub priority: u8,
}

impl Column {
    /// A column that is always shown.
    #[must_use]
    pub const fn new(name: &'static str, type_: &'static str, description: &'static str) -> Self {
        Self {
            name: Name::Borrowed(name),
            type_: Name::Borrowed(type_),
            format: Name::Borrowed(""),
            description: Name::Borrowed(description),
            priority: 0,
        }
    }

    /// The `Name` column that every table begins with.
    #[must_use]
    pub fn name() -> Self {
        let mut column = Self::new("Name", "string", NAME_DESCRIPTION);
        column.format = Name::Borrowed("name");
        column
    }

    /// The `Age` column: how long ago the object was created, as text.
    #[must_use]
    pub const fn age() -> Self {
        Self::new("Age", "string", CREATED_DESCRIPTION)
    }

    /// The `Created At` column of kinds without a table of their own.
    #[must_use]
    pub const fn created_at() -> Self {
        Self::new("Created At", "date", CREATED_DESCRIPTION)
    }

    /// The same column, shown only with `-o wide`.
    #[must_use]
    pub fn wide(mut self) -> Self {
        self.priority = 1;
        self
    }
}

const NAME_DESCRIPTION: &str = "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";

const CREATED_DESCRIPTION: &str = "When the server created the object, in RFC 3339 and UTC.";

/// What the engine needs to know of one write that is not in the objects.
#[derive(Clone, Debug)]
pub struct WriteContext<'a> {
    /// The time of the request, RFC 3339 in seconds (`2026-11-24T08:26:01Z`).
    pub now: &'a str,
    /// The name of the user who writes.
    pub user: &'a str,
}

/// The rules of a kind: pure functions on trees of values, each with an empty default. An object that reaches them has passed the schema:
/// every known field has the right JSON type, and unknown fields are gone.
///
/// The engine calls, on create: `default` → `prepare_create` → `validate_create`; on update (also patch): `default` → `prepare_update` →
/// `validate_update`; on a status write: `default` → `prepare_status_update` → `validate_status_update`. Object metadata (name, labels,
/// owner references, immutability of uid …) is checked by the engine for every kind, never here.
pub trait Strategy: Send + Sync + 'static {
    /// Fills in what upstream's defaulting fills in (`zz_generated.defaults.go`, `defaults.go`).
    fn default(&self, object: &mut Value) {
        let _ = object;
    }

    /// Drops what a creator may not set (status, generation …) and sets what is born with the object.
    fn prepare_create(&self, object: &mut Value, context: &WriteContext<'_>) {
        let _ = (object, context);
    }

    /// Carries over what an updater may not change silently (status, cluster-assigned fields).
    /// The engine itself keeps `status` when the kind has a status subresource, and bumps `generation` when anything but metadata and status changed.
    fn prepare_update(&self, object: &mut Value, old: &Value, context: &WriteContext<'_>) {
        let _ = (object, old, context);
    }

    /// The engine has already replaced everything but `status` (and metadata.managedFields) by the old object.
    fn prepare_status_update(&self, object: &mut Value, old: &Value, context: &WriteContext<'_>) {
        let _ = (object, old, context);
    }

    /// What is wrong with a new object.
    fn validate_create(&self, object: &Value) -> ErrorList {
        let _ = object;
        ErrorList::new()
    }

    /// What is wrong with an update, immutable fields included.
    fn validate_update(&self, object: &Value, old: &Value) -> ErrorList {
        let _ = old;
        self.validate_create(object)
    }

    /// What is wrong with a status update.
    fn validate_status_update(&self, object: &Value, old: &Value) -> ErrorList {
        let _ = (object, old);
        ErrorList::new()
    }

    /// What is wrong with a status update at this time, if `validate_status_update` found nothing.
    fn validate_status_time(&self, object: &Value, old: &Value, context: &WriteContext<'_>) -> ErrorList {
        let _ = (object, old, context);
        ErrorList::new()
    }

    /// Warnings for the client (`Warning` headers) about what it wrote: deprecated fields, doubtful values.
    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let _ = (object, old);
        Vec::new()
    }

    /// The cells of the kind's table row, one for each of [`Kind::columns`]. `now` is seconds since the epoch, for ages.
    fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        let _ = now;
        vec![object["metadata"]["name"].clone(), object["metadata"]["creationTimestamp"].clone()]
    }

    /// The values that field selectors match, besides metadata.name and metadata.namespace; every field of [`Kind::selectable`] in that order.
    fn selectable(&self, object: &Value) -> Vec<String> {
        let _ = object;
        Vec::new()
    }

    /// What is wrong with a name, in upstream's words; with `prefix`, something will be appended to it (generateName).
    /// Most kinds are named by DNS subdomains.
    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        crate::names::name_is_dns_subdomain(name, prefix)
    }
}

/// How objects of a served version are stored when another version (or group) is the storage version.
#[derive(Clone, Copy, Debug)]
pub struct Conversion {
    /// The resource under which the objects are stored, and whose declaration holds their watch cache.
    pub stored_as: (&'static str, &'static str),
    /// The stored `apiVersion` and `kind`.
    pub stored_type: (&'static str, &'static str),
    /// From this version to the stored one.
    pub to_storage: fn(&mut Value),
    /// From the stored version to this one.
    pub from_storage: fn(&mut Value),
}

/// Where the fields of an autoscaling/v1 Scale are in an object, as dotted paths without a leading dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalePaths {
    /// The wanted number of replicas, such as `spec.replicas`.
    pub spec_replicas: Name,
    /// The observed number of replicas, such as `status.replicas`.
    pub status_replicas: Name,
    /// The label selector of the replicas (a structure, or a string in selector syntax), such as `spec.selector`; empty where there is none.
    pub selector: Name,
}

impl ScalePaths {
    /// The paths of every built-in kind that scales.
    pub const BUILTIN: Self = Self {
        spec_replicas: Name::Borrowed("spec.replicas"),
        status_replicas: Name::Borrowed("status.replicas"),
        selector: Name::Borrowed("spec.selector"),
    };
}

/// The declaration of a kind in one version.
#[derive(Clone)]
pub struct Kind {
    /// Group and version.
    pub group_version: GroupVersion,
    /// `Pod`
    pub kind: Name,
    /// `PodList`
    pub list_kind: Name,
    /// `pods`
    pub plural: Name,
    /// `pod`
    pub singular: Name,
    /// `po`
    pub short_names: Vec<Name>,
    /// `all`
    pub categories: Vec<Name>,
    /// Cluster or namespaced.
    pub scope: Scope,
    /// What may be asked of it.
    pub verbs: Vec<Verb>,
    /// Its subresources.
    pub subresources: Vec<Subresource>,
    /// Where its Scale is, when it has that subresource.
    pub scale: Option<ScalePaths>,
    /// The name of its schema's definition, such as `io.k8s.api.core.v1.Pod`.
    pub schema: Name,
    /// Columns of its table form.
    pub columns: Vec<Column>,
    /// Field selectors it knows besides metadata.name and metadata.namespace.
    pub selectable: Vec<Name>,
    /// Whether an update without resourceVersion is taken as "whatever is there".
    pub unconditional_update: bool,
    /// Whether a PUT to a name that does not exist creates it.
    pub create_on_update: bool,
    /// Whether the kind has `metadata.generation` (set to 1 at creation, moved by spec changes).
    pub has_generation: bool,
    /// Seconds until an object goes away by itself (Events); `None` stays.
    pub ttl_seconds: Option<u64>,
    /// Set when another declaration is the storage version.
    pub conversion: Option<Conversion>,
    /// Whether clients may ask for this version; a version that is only stored is known to the engine alone.
    pub served: bool,
    /// Set for the kinds of CustomResourceDefinitions.
    pub custom: Option<Arc<Custom>>,
    /// Its rules.
    pub strategy: Arc<dyn Strategy>,
}

impl Kind {
    /// A namespaced kind with every verb, unconditional updates, no subresource, and the columns of a kind without a table of its own.
    /// List kind and singular follow from the kind.
    #[must_use]
    pub fn new(
        group_version: GroupVersion,
        kind: &'static str,
        plural: &'static str,
        schema: &'static str,
        strategy: impl Strategy,
    ) -> Self {
        Self {
            group_version,
            kind: Name::Borrowed(kind),
            list_kind: Name::Owned(format!("{kind}List")),
            plural: Name::Borrowed(plural),
            singular: Name::Owned(kind.to_ascii_lowercase()),
            short_names: Vec::new(),
            categories: Vec::new(),
            scope: Scope::Namespaced,
            verbs: Verb::ALL.to_vec(),
            subresources: Vec::new(),
            scale: None,
            schema: Name::Borrowed(schema),
            columns: vec![Column::name(), Column::created_at()],
            selectable: Vec::new(),
            unconditional_update: true,
            create_on_update: false,
            has_generation: false,
            ttl_seconds: None,
            conversion: None,
            served: true,
            custom: None,
            strategy: Arc::new(strategy),
        }
    }

    /// A kind that is answered and never stored: it can only be created, and its objects may have no name.
    #[must_use]
    pub fn review(
        group_version: GroupVersion,
        kind: &'static str,
        plural: &'static str,
        schema: &'static str,
        strategy: impl Strategy,
    ) -> Self {
        Self {
            scope: Scope::Cluster,
            verbs: vec![Verb::Create],
            ..Self::new(group_version, kind, plural, schema, strategy)
        }
    }

    /// The graph of types that the kind's schema is in.
    #[must_use]
    pub fn schemas(&self) -> &Schemas {
        match &self.custom {
            Some(custom) => &custom.graph,
            None => Schemas::builtin(),
        }
    }

    /// Whether objects of the kind are kept; a kind that can only be created is a question that the server answers.
    #[must_use]
    pub fn is_stored(&self) -> bool {
        self.verbs.contains(&Verb::Get)
    }

    /// `deployments.apps`
    #[must_use]
    pub fn group_resource(&self) -> GroupResource {
        GroupResource { group: self.group_version.group.clone(), resource: self.plural.clone() }
    }

    /// `Deployment.apps`
    #[must_use]
    pub fn group_kind(&self) -> GroupKind {
        GroupKind { group: self.group_version.group.clone(), kind: self.kind.clone() }
    }

    /// The resource under which its objects are stored.
    #[must_use]
    pub fn storage_resource(&self) -> GroupResource {
        match &self.conversion {
            Some(conversion) => GroupResource::new(conversion.stored_as.0, conversion.stored_as.1),
            None => self.group_resource(),
        }
    }

    /// Whether it has that subresource.
    #[must_use]
    pub fn has(&self, subresource: Subresource) -> bool {
        self.subresources.contains(&subresource)
    }
}

//! Admission around a write: the plug-ins of the server, then the policies and webhooks that are configured, in one or two rounds; and after the kind's own rules
//! those that only judge.
//!
//! Invariant: no lock is held while a webhook is asked. What a webhook changes is decoded and defaulted again, as if the client had sent it.

use serde_json::{Value, json};
use skep_api::decode::{FieldValidation, Media};
use skep_api::gvk::Name;
use skep_api::kinds::{Kind, Subresource};
use skep_api::{GroupVersionKind, Status};
use tracing::debug;

use super::{Call, DeleteOptions, Engine, scale};
use crate::admission::Operation;
use crate::admission::dynamic::{Attributes, Notes, Round};
use crate::admission::webhooks::Surroundings;

impl Engine {
    /// Lets admission change an object that is to be written. `old` is what was there.
    ///
    /// # Errors
    /// The first refusal.
    pub(super) async fn admit(
        &self,
        call: &Call<'_>,
        operation: Operation,
        old: Option<&Value>,
        object: &mut Value,
        notes: &mut Notes,
    ) -> Result<(), Status> {
        let request = Self::admission_request(call, operation, old);
        self.admission.admit(&request, object, &*self.cache)?;
        let Some(form) = Form::of(call) else { return Ok(()) };
        let old_view = old.map(|old| form.view(call.kind, old));
        let mut attributes = attributes(call, operation, old_view.as_ref(), form.kind(call.kind));
        attributes.options = write_options(call, operation);
        let (mut round, mut policy_round) = (Round::default(), Round::default());
        for again in [false, true] {
            if again {
                self.admission.admit(&request, object, &*self.cache)?;
            }
            let mut view = form.view(call.kind, object);
            let refine = |patched: &Value| form.refine(call, patched);
            let surroundings =
                Surroundings { objects: &*self.cache, table: &self.registry.table(), authorizer: &self.authorizer };
            policy_round.begin(again, &view);
            self.policies.admit(&attributes, &mut view, &surroundings, &refine, &mut policy_round)?;
            policy_round.end(&view);
            round.begin(again, &view);
            self.hooks.admit(&attributes, &mut view, &surroundings, &refine, &mut round, notes).await?;
            form.put(call.kind, view, object);
            round.end(&form.view(call.kind, object));
            if !round.is_another_due && !policy_round.is_another_due {
                break;
            }
        }
        Ok(())
    }

    /// Lets admission judge an object that has passed the kind's rules.
    ///
    /// # Errors
    /// The first refusal.
    pub(super) async fn judge(
        &self,
        call: &Call<'_>,
        operation: Operation,
        old: Option<&Value>,
        object: &Value,
        notes: &mut Notes,
    ) -> Result<(), Status> {
        let request = Self::admission_request(call, operation, old);
        self.admission.validate(&request, object, &*self.cache)?;
        let Some(form) = Form::of(call) else { return Ok(()) };
        let old_view = old.map(|old| form.view(call.kind, old));
        let mut attributes = attributes(call, operation, old_view.as_ref(), form.kind(call.kind));
        attributes.options = write_options(call, operation);
        self.judge_by_configuration(&attributes, &form.view(call.kind, object), notes).await
    }

    /// Lets policies and webhooks refuse a delete.
    ///
    /// # Errors
    /// The first refusal.
    pub(super) async fn judge_delete(
        &self,
        call: &Call<'_>,
        old: &Value,
        options: &DeleteOptions,
        notes: &mut Notes,
    ) -> Result<(), Status> {
        let request = Self::admission_request(call, Operation::Delete, Some(old));
        self.admission.validate(&request, old, &*self.cache)?;
        let mut attributes = attributes(call, Operation::Delete, Some(old), own_kind(call.kind));
        attributes.dry_run = options.is_dry_run();
        attributes.options = options.to_value();
        self.admit_fixed(&attributes, Value::Null, notes).await.map(|_| ())
    }

    /// Lets webhooks and policies have their say in what is no write of the object itself: a subresource that takes an object of its own, such as a Binding.
    ///
    /// # Errors
    /// The first refusal.
    pub(super) async fn admit_subresource(
        &self,
        call: &Call<'_>,
        object: Value,
        kind: (&'static str, &'static str, &'static str),
        notes: &mut Notes,
    ) -> Result<Value, Status> {
        let mut attributes = attributes(call, Operation::Create, None, named_kind(kind));
        attributes.options = write_options(call, Operation::Create);
        self.admit_fixed(&attributes, object, notes).await
    }

    /// Lets webhooks and policies have their say in a connection to a pod, a Service or a node.
    ///
    /// # Errors
    /// The first refusal.
    pub(crate) async fn admit_connect(&self, call: &Call<'_>, rest: &str, query: Option<&str>) -> Result<(), Status> {
        let Some((kind, options)) = connection(call, rest, query) else { return Ok(()) };
        let attributes = attributes(call, Operation::Connect, None, named_kind(("", "v1", kind)));
        let mut notes = Notes::default();
        self.admit_fixed(&attributes, options, &mut notes).await.map(|_| ())
    }

    /// Both halves at once, for objects that have no rules in between.
    async fn admit_fixed(
        &self,
        attributes: &Attributes<'_>,
        mut object: Value,
        notes: &mut Notes,
    ) -> Result<Value, Status> {
        let mut round = Round::default();
        for again in [false, true] {
            round.begin(again, &object);
            let refine = |patched: &Value| Ok(patched.clone());
            let surroundings =
                Surroundings { objects: &*self.cache, table: &self.registry.table(), authorizer: &self.authorizer };
            if !attributes.is_exempt() {
                self.hooks.admit(attributes, &mut object, &surroundings, &refine, &mut round, notes).await?;
            }
            round.end(&object);
            if !round.is_another_due {
                break;
            }
        }
        self.judge_by_configuration(attributes, &object, notes).await?;
        Ok(object)
    }

    async fn judge_by_configuration(
        &self,
        attributes: &Attributes<'_>,
        object: &Value,
        notes: &mut Notes,
    ) -> Result<(), Status> {
        if attributes.is_exempt() {
            return Ok(());
        }
        let surroundings =
            Surroundings { objects: &*self.cache, table: &self.registry.table(), authorizer: &self.authorizer };
        self.policies.validate(attributes, object, &surroundings, notes)?;
        self.hooks.validate(attributes, object, &surroundings, notes).await?;
        for (key, value) in &notes.annotations {
            debug!(key, value, "an annotation of admission");
        }
        Ok(())
    }
}

/// The object as admission by configuration sees it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// As it is.
    Whole,
    /// As a Scale.
    Scale,
}

impl Form {
    /// `None` for what configures admission itself, and for writes whose object has been admitted before.
    fn of(call: &Call<'_>) -> Option<Self> {
        let attributes = attributes(call, Operation::Update, None, own_kind(call.kind));
        if attributes.is_exempt() {
            return None;
        }
        match call.subresource {
            None
            | Some(
                Subresource::Status | Subresource::Finalize | Subresource::EphemeralContainers | Subresource::Resize,
            ) => Some(Self::Whole),
            Some(Subresource::Scale) => Some(Self::Scale),
            Some(_) => None,
        }
    }

    fn kind(self, kind: &Kind) -> GroupVersionKind {
        match self {
            Self::Whole => own_kind(kind),
            Self::Scale => named_kind(("autoscaling", "v1", "Scale")),
        }
    }

    fn view(self, kind: &Kind, object: &Value) -> Value {
        match self {
            Self::Whole => object.clone(),
            Self::Scale => scale::of(kind, object),
        }
    }

    fn put(self, kind: &Kind, view: Value, object: &mut Value) {
        match self {
            Self::Whole => *object = view,
            Self::Scale => scale::set_replicas(kind, object, view["spec"]["replicas"].as_i64().unwrap_or_default()),
        }
    }

    fn refine(self, call: &Call<'_>, patched: &Value) -> Result<Value, Status> {
        if self == Self::Scale {
            return Ok(patched.clone());
        }
        let bytes = serde_json::to_vec(patched).map_err(Status::internal)?;
        let decoded = skep_api::decode::decode(&bytes, Media::Json, call.kind, FieldValidation::Ignore)
            .map_err(|status| Status::internal(status.message))?;
        let mut object = decoded.object;
        call.kind.strategy.default(&mut object);
        Ok(object)
    }
}

fn attributes<'a>(
    call: &'a Call<'_>,
    operation: Operation,
    old: Option<&'a Value>,
    object_kind: GroupVersionKind,
) -> Attributes<'a> {
    let of_namespaces = call.kind.group_version.group.is_empty() && call.kind.plural == "namespaces";
    Attributes {
        kind: call.kind,
        object_kind,
        subresource: call.subresource.map_or("", Subresource::as_str),
        operation,
        namespace: if of_namespaces { call.name } else { call.namespace },
        name: call.name,
        user: call.user,
        old,
        dry_run: call.query.dry_run,
        options: Value::Null,
    }
}

fn own_kind(kind: &Kind) -> GroupVersionKind {
    GroupVersionKind {
        group: kind.group_version.group.clone(),
        version: kind.group_version.version.clone(),
        kind: kind.kind.clone(),
    }
}

fn named_kind((group, version, kind): (&'static str, &'static str, &'static str)) -> GroupVersionKind {
    GroupVersionKind { group: Name::Borrowed(group), version: Name::Borrowed(version), kind: Name::Borrowed(kind) }
}

/// CreateOptions or UpdateOptions of a request.
fn write_options(call: &Call<'_>, operation: Operation) -> Value {
    let kind = if operation == Operation::Create { "CreateOptions" } else { "UpdateOptions" };
    let mut options = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
    if call.query.dry_run {
        options["dryRun"] = json!(["All"]);
    }
    if !call.query.field_manager.is_empty() {
        options["fieldManager"] = call.query.field_manager.as_str().into();
    }
    match call.query.field_validation {
        Some(FieldValidation::Strict) => options["fieldValidation"] = "Strict".into(),
        Some(FieldValidation::Warn) => options["fieldValidation"] = "Warn".into(),
        Some(FieldValidation::Ignore) => options["fieldValidation"] = "Ignore".into(),
        None => {}
    }
    options
}

/// The options of a connection as an object: its kind, and its fields from the query.
fn connection(call: &Call<'_>, rest: &str, query: Option<&str>) -> Option<(&'static str, Value)> {
    let kind = match (&*call.kind.plural, call.subresource?) {
        ("pods", Subresource::Exec) => "PodExecOptions",
        ("pods", Subresource::Attach) => "PodAttachOptions",
        ("pods", Subresource::PortForward) => "PodPortForwardOptions",
        ("pods", Subresource::Proxy) => "PodProxyOptions",
        ("services", Subresource::Proxy) => "ServiceProxyOptions",
        ("nodes", Subresource::Proxy) => "NodeProxyOptions",
        _ => return None,
    };
    let mut options = json!({"kind": kind, "apiVersion": "v1"});
    if kind.ends_with("ProxyOptions") {
        options["path"] = rest.into();
        return Some((kind, options));
    }
    for (key, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        match key.as_ref() {
            "stdin" | "stdout" | "stderr" | "tty" => {
                let set = value != "false" && value != "0";
                options[key.as_ref()] = set.into();
            }
            "container" => options["container"] = value.as_ref().into(),
            "command" => push(&mut options, "command", value.as_ref().into()),
            "ports" => {
                for port in value.split(',').filter_map(|port| port.parse::<i32>().ok()) {
                    push(&mut options, "ports", port.into());
                }
            }
            _ => {}
        }
    }
    Some((kind, options))
}

fn push(options: &mut Value, field: &str, value: Value) {
    match options[field].as_array_mut() {
        Some(list) => list.push(value),
        None => options[field] = json!([value]),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use skep_api::kinds::Scope;

    use super::*;
    use crate::auth::User;
    use crate::rest::Query;

    fn kind(plural: &str) -> Arc<Kind> {
        Arc::new(skep_api::kinds::builtin().into_iter().find(|kind| kind.plural == plural).unwrap())
    }

    #[test]
    fn a_connection_is_shown_as_its_options() {
        let kind = kind("pods");
        let user = User::system("admin");
        let query = Query::default();
        let call = Call {
            kind: &kind,
            user: &user,
            namespace: "a",
            name: "p",
            subresource: Some(Subresource::Exec),
            query: &query,
            now: jiff::Timestamp::UNIX_EPOCH,
        };
        let (kind, options) = connection(&call, "", Some("command=ls&command=-l&stdin=true&container=c")).unwrap();
        assert_eq!(kind, "PodExecOptions");
        let expected = json!({
            "kind": "PodExecOptions", "apiVersion": "v1", "command": ["ls", "-l"], "stdin": true, "container": "c",
        });
        assert_eq!(options, expected);
        let log = Call { subresource: Some(Subresource::Log), ..call };
        assert!(connection(&log, "", None).is_none());
    }

    #[test]
    fn a_namespace_is_its_own() {
        let kind = kind("namespaces");
        assert_eq!(kind.scope, Scope::Cluster);
        let (user, query) = (User::system("admin"), Query::default());
        let call = Call {
            kind: &kind,
            user: &user,
            namespace: "",
            name: "a",
            subresource: None,
            query: &query,
            now: jiff::Timestamp::UNIX_EPOCH,
        };
        assert_eq!(attributes(&call, Operation::Create, None, own_kind(&kind)).namespace, "a");
    }
}

//! What a delete does to an object: removed now, or marked and left to its finalizers and its kubelet. Pure.
//!
//! Upstream: `rest.BeforeDelete`, `Store.Delete` and `deletionFinalizersForGarbageCollection` in k8s.io/apiserver/pkg/registry.

use jiff::{Timestamp, ToSpan};
use serde_json::Value;
use skep_api::kinds::Kind;
use skep_api::kinds::apiextensions;
use skep_api::kinds::core::pod;
use skep_api::{GroupResource, Status};

use super::metadata::next_generation;
use super::options::{DeleteOptions, Propagation};
use super::rfc3339;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Deletion {
    /// The object goes now.
    Remove,
    /// The object stays, with this content, until its finalizers are gone or its grace period is over.
    Mark(Value),
    /// It is being deleted already, and this request changes nothing.
    Pending,
}

/// Decides on a delete.
///
/// # Errors
/// 409 when a precondition does not hold.
pub fn plan(kind: &Kind, object: &Value, options: &DeleteOptions, now: Timestamp) -> Result<Deletion, Status> {
    check_preconditions(&kind.group_resource(), object, options)?;
    let mut marked = object.clone();
    if kind.plural == "customresourcedefinitions" && object["metadata"]["deletionTimestamp"].is_null() {
        marked = apiextensions::deletion_pending(object, &rfc3339(now));
    }
    let grace = grace_period(kind, object, options);
    let graceful = match begin_graceful(&mut marked, grace, options, now) {
        Graceful::No => false,
        Graceful::Begun => true,
        Graceful::Pending => return Ok(finish_pending(kind, object, marked, options)),
    };
    let changed = set_finalizers(&mut marked, options);
    let waits = has_finalizers(kind, &marked);
    if graceful && grace != Some(0) {
        return Ok(Deletion::Mark(marked));
    }
    if !waits {
        return Ok(Deletion::Remove);
    }
    if !graceful && !mark(&mut marked, now) && !changed {
        return Ok(Deletion::Pending);
    }
    Ok(Deletion::Mark(marked))
}

/// Whether an object that is being deleted has nothing left to wait for.
#[must_use]
pub fn is_finished(kind: &Kind, object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
        && object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
        && !has_finalizers(kind, object)
}

/// Marks an object as being deleted from now on; `false` if it was already.
fn mark(object: &mut Value, now: Timestamp) -> bool {
    let metadata = super::metadata::of(object);
    let fresh = metadata.get("deletionTimestamp").is_none_or(Value::is_null);
    let unfinished = metadata.get("deletionGracePeriodSeconds").and_then(Value::as_i64) != Some(0);
    if fresh {
        metadata.insert("deletionTimestamp".to_owned(), rfc3339(now).into());
    }
    metadata.insert("deletionGracePeriodSeconds".to_owned(), 0.into());
    if fresh {
        next_generation(object);
        if is_namespace(object) {
            object["status"]["phase"] = "Terminating".into();
        }
    }
    fresh || unfinished
}

enum Graceful {
    No,
    Begun,
    Pending,
}

fn begin_graceful(object: &mut Value, grace: Option<i64>, options: &DeleteOptions, now: Timestamp) -> Graceful {
    let Some(grace) = grace else { return Graceful::No };
    let deleting = object["metadata"]["deletionTimestamp"].as_str().map(str::to_owned);
    let period = object["metadata"]["deletionGracePeriodSeconds"].as_i64();
    match (deleting, period) {
        (None, _) => {
            let at = now.checked_add(grace.seconds()).unwrap_or(now);
            let metadata = super::metadata::of(object);
            metadata.insert("deletionTimestamp".to_owned(), rfc3339(at).into());
            metadata.insert("deletionGracePeriodSeconds".to_owned(), grace.into());
            next_generation(object);
            Graceful::Begun
        }
        // Once it is being deleted, the grace period can only get shorter.
        (Some(at), Some(period)) if options.grace_period_seconds.is_some() && grace < period => {
            let at: Timestamp = at.parse().unwrap_or(now);
            let at = at.checked_sub((period - grace).seconds()).unwrap_or(now);
            let metadata = super::metadata::of(object);
            metadata.insert("deletionTimestamp".to_owned(), rfc3339(at).into());
            metadata.insert("deletionGracePeriodSeconds".to_owned(), grace.into());
            Graceful::Begun
        }
        (Some(_), _) => Graceful::Pending,
    }
}

/// A repeated delete of an object that is being deleted gracefully: it may still change finalizers, and at a grace period of 0 it removes what nothing holds.
fn finish_pending(kind: &Kind, object: &Value, mut marked: Value, options: &DeleteOptions) -> Deletion {
    if is_finished(kind, object) {
        return Deletion::Remove;
    }
    if set_finalizers(&mut marked, options) { Deletion::Mark(marked) } else { Deletion::Pending }
}

/// How long the object may take to go, for kinds that end gracefully: only pods, which a kubelet runs.
fn grace_period(kind: &Kind, object: &Value, options: &DeleteOptions) -> Option<i64> {
    if kind.plural != "pods" || !kind.group_version.group.is_empty() {
        return None;
    }
    Some(pod::graceful_deletion_seconds(object, options.grace_period_seconds))
}

/// Adds and removes the finalizers that stand for a propagation policy; `true` if that changed anything.
fn set_finalizers(object: &mut Value, options: &DeleteOptions) -> bool {
    let policy = match (options.orphan_dependents, options.propagation_policy) {
        (Some(true), _) => Some(Propagation::Orphan),
        (Some(false), _) => Some(Propagation::Background),
        (None, policy) => policy,
    };
    let Some(policy) = policy else { return false };
    let (wanted, unwanted): (&[&str], &[&str]) = match policy {
        Propagation::Orphan => (&[ORPHAN], &[FOREGROUND]),
        Propagation::Foreground => (&[FOREGROUND], &[ORPHAN]),
        Propagation::Background => (&[], &[ORPHAN, FOREGROUND]),
    };
    let before: Vec<String> = finalizers(object).map(str::to_owned).collect();
    let mut after: Vec<String> = before.iter().filter(|name| !unwanted.contains(&name.as_str())).cloned().collect();
    for name in wanted {
        if !after.iter().any(|there| there == name) {
            after.push((*name).to_owned());
        }
    }
    if after == before {
        return false;
    }
    let metadata = super::metadata::of(object);
    if after.is_empty() {
        metadata.remove("finalizers");
    } else {
        metadata.insert("finalizers".to_owned(), after.into());
    }
    true
}

fn finalizers(object: &Value) -> impl Iterator<Item = &str> {
    object["metadata"]["finalizers"].as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn has_finalizers(kind: &Kind, object: &Value) -> bool {
    let of_spec = is_namespace_kind(kind)
        && object["spec"]["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty());
    of_spec || finalizers(object).next().is_some()
}

fn is_namespace_kind(kind: &Kind) -> bool {
    kind.plural == "namespaces" && kind.group_version.group.is_empty()
}

fn is_namespace(object: &Value) -> bool {
    object["kind"] == "Namespace" && object["apiVersion"] == "v1"
}

fn check_preconditions(resource: &GroupResource, object: &Value, options: &DeleteOptions) -> Result<(), Status> {
    let Some(preconditions) = &options.preconditions else { return Ok(()) };
    let name = super::metadata::text(object, "name");
    let checks =
        [("UID", &preconditions.uid, "uid"), ("ResourceVersion", &preconditions.resource_version, "resourceVersion")];
    for (what, wanted, field) in checks {
        let actual = super::metadata::text(object, field);
        if let Some(wanted) = wanted.as_deref().filter(|wanted| *wanted != actual) {
            let why = format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {actual}");
            return Err(Status::conflict(resource, name, &why));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::Arc;

    struct Plain;
    impl skep_api::kinds::Strategy for Plain {}

    fn kind(plural: &'static str) -> Kind {
        crate::testing::kind("", "v1", "Thing", plural, Arc::new(Plain))
    }

    fn now() -> Timestamp {
        "2026-11-24T08:00:00Z".parse().unwrap()
    }

    fn delete(plural: &'static str, object: &Value, options: &DeleteOptions) -> Deletion {
        plan(&kind(plural), object, options, now()).unwrap()
    }

    fn grace(seconds: i64) -> DeleteOptions {
        DeleteOptions { grace_period_seconds: Some(seconds), ..DeleteOptions::default() }
    }

    #[test]
    fn an_object_that_nothing_holds_goes_at_once() {
        assert_eq!(delete("configmaps", &json!({"metadata": {}}), &DeleteOptions::default()), Deletion::Remove);
    }

    #[test]
    fn finalizers_keep_an_object_marked() {
        let Deletion::Mark(marked) =
            delete("configmaps", &json!({"metadata": {"finalizers": ["x/y"], "generation": 3}}), &grace(5))
        else {
            panic!("not marked")
        };
        assert_eq!(marked["metadata"]["deletionTimestamp"], "2026-11-24T08:00:00Z");
        assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 0);
        assert_eq!(marked["metadata"]["generation"], 4);
        assert_eq!(delete("configmaps", &marked, &grace(5)), Deletion::Pending);
    }

    #[test]
    fn foreground_deletion_adds_its_finalizer() {
        let options = DeleteOptions { propagation_policy: Some(Propagation::Foreground), ..DeleteOptions::default() };
        let Deletion::Mark(marked) = delete("configmaps", &json!({"metadata": {}}), &options) else {
            panic!("not marked")
        };
        assert_eq!(marked["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    }

    #[test]
    fn a_running_pod_gets_its_grace_period_and_only_a_shorter_one_after() {
        let pod = json!({"metadata": {}, "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 30}});
        let Deletion::Mark(marked) = delete("pods", &pod, &DeleteOptions::default()) else { panic!("not marked") };
        assert_eq!(marked["metadata"]["deletionTimestamp"], "2026-11-24T08:00:30Z");
        assert_eq!(delete("pods", &marked, &DeleteOptions::default()), Deletion::Pending);
        assert_eq!(delete("pods", &marked, &grace(60)), Deletion::Pending);
        let Deletion::Mark(shorter) = delete("pods", &marked, &grace(10)) else { panic!("not shortened") };
        assert_eq!(shorter["metadata"]["deletionTimestamp"], "2026-11-24T08:00:10Z");
        assert_eq!(delete("pods", &marked, &grace(0)), Deletion::Remove);
    }

    #[test]
    fn a_pod_without_node_goes_at_once() {
        assert_eq!(delete("pods", &json!({"metadata": {}, "spec": {}}), &DeleteOptions::default()), Deletion::Remove);
    }

    #[test]
    fn a_namespace_waits_for_its_spec_finalizers() {
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {}, "spec": {"finalizers": ["kubernetes"]}});
        let Deletion::Mark(marked) = delete("namespaces", &namespace, &DeleteOptions::default()) else {
            panic!("not marked")
        };
        assert_eq!(marked["status"]["phase"], "Terminating");
        assert!(!is_finished(&kind("namespaces"), &marked));
        let mut free = marked;
        free["spec"]["finalizers"] = json!([]);
        assert!(is_finished(&kind("namespaces"), &free));
    }

    #[test]
    fn a_precondition_on_another_uid_conflicts() {
        let options = DeleteOptions {
            preconditions: Some(super::super::options::Preconditions {
                uid: Some("b".to_owned()),
                resource_version: None,
            }),
            ..DeleteOptions::default()
        };
        let status =
            plan(&kind("configmaps"), &json!({"metadata": {"uid": "a", "name": "x"}}), &options, now()).unwrap_err();
        assert_eq!(status.code, 409);
        assert!(status.message.ends_with("Precondition failed: UID in precondition: b, UID in object meta: a"));
    }
}

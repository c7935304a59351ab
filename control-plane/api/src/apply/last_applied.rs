//! Objects that `kubectl apply` once wrote from the client's side: their annotation lets kubectl go on with server-side apply without conflicts
//! (k8s.io/apimachinery/pkg/util/managedfields/internal/lastappliedmanager.go and lastappliedupdater.go).

use serde_json::Value;

use super::Writer;
use super::compare::{View, compare};
use super::conflict::Conflict;
use super::fields::Fields;
use super::owned::fields_of;
use super::server_side::Applied;
use super::shape::Node;

const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The manager that the annotation is kept for.
const KUBECTL: &str = "kubectl";
/// `TotalAnnotationSizeLimitB`
const ANNOTATIONS_LIMIT: usize = 256 * 1024;

/// The fields that were applied from the client's side and are so still: kubectl may take those over.
pub(super) fn allowed(live: &Value, node: Node<'_>, writer: &Writer<'_>) -> Option<Fields> {
    if writer.manager != KUBECTL {
        return None;
    }
    let text = annotation(live).filter(|text| !text.is_empty())?;
    let applied: Value = serde_json::from_str(text).ok()?;
    if applied["apiVersion"] != writer.api_version || super::conform::check(node, &applied).is_some() {
        return None;
    }
    let mut fields = fields_of(node, &applied);
    let differs = compare(node, &applied, live, View::Plain);
    for set in [&differs.modified, &differs.added, &differs.removed] {
        fields.subtract(set);
    }
    Some(fields)
}

/// The conflicts that are about other fields than the allowed.
pub(super) fn without(conflicts: Vec<Conflict>, allowed: &Fields) -> Vec<Conflict> {
    conflicts
        .into_iter()
        .map(|mut conflict| {
            conflict.fields.subtract(allowed);
            conflict
        })
        .filter(|conflict| !conflict.fields.is_empty())
        .collect()
}

/// Keeps the annotation true where there is one.
pub(super) fn refresh(outcome: &mut Applied, live: &Value, applied: &Value, writer: &Writer<'_>) {
    if writer.manager != KUBECTL {
        return;
    }
    let there = outcome.object.as_ref().unwrap_or(live);
    if annotation(there).is_none_or(str::is_empty) {
        return;
    }
    let mut plain = applied.clone();
    if let Some(annotations) = plain["metadata"].get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove(ANNOTATION);
        if annotations.is_empty()
            && let Some(metadata) = plain["metadata"].as_object_mut()
        {
            metadata.remove("annotations");
        }
    }
    // Upstream's encoder ends with a line break, and kubectl's own does as well.
    let text = format!("{plain}\n");
    if annotation(there) == Some(text.as_str()) {
        return;
    }
    let mut object = there.clone();
    if let Some(annotations) = object["metadata"]["annotations"].as_object_mut() {
        annotations.insert(ANNOTATION.to_owned(), text.into());
        let size: usize = annotations.iter().map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum();
        if size > ANNOTATIONS_LIMIT {
            annotations.remove(ANNOTATION);
        }
    }
    outcome.object = Some(object);
}

fn annotation(object: &Value) -> Option<&str> {
    object["metadata"]["annotations"][ANNOTATION].as_str()
}

//! The selectors of a request as a filter on cached objects.

use std::borrow::Cow;

use skep_api::Status;
use skep_api::kinds::Kind;
use skep_api::selector::{FieldSelector, LabelSelector};

use super::Query;
use crate::cache::Filter;
use crate::keys;
use crate::object::Object;

/// Where a field selector's value is found in an object.
enum Field {
    Name,
    Namespace,
    /// Position in [`crate::object::Index::fields`].
    Indexed(usize),
}

/// The filter that a request's namespace, name and selectors describe.
///
/// # Errors
/// 400 for selectors that can't be read, or name fields that the kind does not select by.
pub(crate) fn filter(kind: &Kind, namespace: &str, name: &str, query: &Query) -> Result<Filter, Status> {
    let labels = LabelSelector::parse(&query.label_selector).map_err(|error| Status::bad_request(error.to_string()))?;
    let fields = FieldSelector::parse(&query.field_selector).map_err(|error| Status::bad_request(error.to_string()))?;
    let mut wanted = Vec::new();
    for requirement in fields.requirements() {
        let field = match requirement.field.as_str() {
            "metadata.name" => Field::Name,
            "metadata.namespace" if matches!(kind.scope, skep_api::kinds::Scope::Namespaced) => Field::Namespace,
            other => Field::Indexed(
                kind.selectable
                    .iter()
                    .position(|known| known == other)
                    .ok_or_else(|| Status::bad_request(format!("field label not supported: {other}")))?,
            ),
        };
        wanted.push((field, requirement.value.clone(), requirement.equal));
    }
    let mut prefix = keys::range(&kind.storage_resource(), namespace).start;
    if !name.is_empty() {
        wanted.push((Field::Name, name.to_owned(), true));
    }
    // One object of one namespace: its own key is the whole range.
    if let Some((_, name, _)) = wanted.iter().find(|(field, _, equal)| matches!(field, Field::Name) && *equal)
        && (!namespace.is_empty() || matches!(kind.scope, skep_api::kinds::Scope::Cluster))
    {
        prefix = keys::object(&kind.storage_resource(), namespace, name);
    }
    if labels.is_everything() && wanted.is_empty() {
        return Ok(Filter { prefix, matches: None });
    }
    let custom = kind.custom.is_some().then(|| kind.clone());
    let by_fields = wanted.iter().any(|(field, ..)| matches!(field, Field::Indexed(_)));
    let matches = move |object: &Object| {
        let (namespace, name) = object.namespaced_name();
        // The index of a custom object is of the version and schema that it was written by.
        let fields = match &custom {
            Some(kind) if by_fields && !super::is_as_stored(kind, object) => {
                Cow::Owned(kind.strategy.selectable(&super::served(kind, object)))
            }
            _ => Cow::Borrowed(&object.index.fields),
        };
        wanted.iter().all(|(field, value, equal)| {
            let actual = match field {
                Field::Name => name,
                Field::Namespace => namespace,
                Field::Indexed(at) => fields.get(*at).map_or("", String::as_str),
            };
            (actual == value) == *equal
        }) && labels.matches(|key| {
            let at = object.index.labels.binary_search_by(|(k, _)| k.as_str().cmp(key)).ok()?;
            Some(object.index.labels[at].1.as_str())
        })
    };
    Ok(Filter { prefix, matches: Some(Box::new(matches)) })
}

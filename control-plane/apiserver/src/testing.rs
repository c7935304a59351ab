//! What this crate's tests share.

use std::sync::Arc;

use skep_api::GroupVersion;
use skep_api::gvk::Name;
use skep_api::kinds::{Kind, Scope, Strategy, Verb};

/// A namespaced kind with every verb.
pub(crate) fn kind(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    strategy: Arc<dyn Strategy>,
) -> Kind {
    let pod = skep_api::kinds::builtin().into_iter().next();
    let mut base = pod.expect("the table of built-in kinds is not empty");
    base.group_version = GroupVersion::new(group, version);
    base.kind = Name::Borrowed(kind);
    base.list_kind = Name::Owned(format!("{kind}List"));
    base.plural = Name::Borrowed(plural);
    base.scope = Scope::Namespaced;
    base.verbs = Verb::ALL.to_vec();
    base.has_generation = true;
    base.conversion = None;
    base.selectable = Vec::new();
    base.strategy = strategy;
    base
}

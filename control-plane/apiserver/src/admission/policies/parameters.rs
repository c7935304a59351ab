//! The parameters of a policy: the objects that a binding's `paramRef` names or selects (upstream's `CollectParams`).

use std::sync::Arc;

use serde_json::Value;
use skep_api::kinds::Scope;
use skep_api::selector::LabelSelector;

use super::policy::{Binding, Policy};
use crate::admission::dynamic::Attributes;
use crate::admission::webhooks::Surroundings;

/// One for each evaluation: `None` where there are no parameters. An empty list means that the policy has nothing to say.
///
/// # Errors
/// What is wrong with the reference, and that nothing was found where something must be.
pub(super) fn collect(
    policy: &Policy,
    binding: &Binding,
    attributes: &Attributes<'_>,
    surroundings: &Surroundings<'_>,
) -> Result<Vec<Option<Arc<Value>>>, String> {
    let reference = &binding.reference;
    let Some((api_version, kind)) = policy.params.as_ref().filter(|_| !reference.is_null()) else {
        return Ok(vec![None]);
    };
    let found = surroundings
        .table
        .kinds()
        .find(|there| there.kind == kind.as_str() && there.group_version.to_string() == *api_version)
        .ok_or_else(|| format!("paramKind kind `&ParamKind{{APIVersion:{api_version},Kind:{kind},}}` not known"))?;
    let resource = found.storage_resource();
    let given = reference["namespace"].as_str().unwrap_or_default();
    let namespace = match found.scope {
        Scope::Cluster if !given.is_empty() => {
            return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".to_owned());
        }
        Scope::Cluster => "",
        Scope::Namespaced if !given.is_empty() => given,
        Scope::Namespaced if attributes.namespace.is_empty() => {
            return Err(
                "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources".to_owned()
            );
        }
        Scope::Namespaced => attributes.namespace,
    };
    let params: Vec<Option<Arc<Value>>> = match reference["name"].as_str().filter(|name| !name.is_empty()) {
        Some(name) => surroundings.objects.get(&resource, namespace, name).map(Some).into_iter().collect(),
        None => {
            let selector = LabelSelector::from_object(&reference["selector"]).map_err(|error| error.to_string())?;
            let within = (found.scope == Scope::Namespaced).then_some(namespace);
            let all = surroundings.objects.list(&resource, within);
            all.into_iter().filter(|object| selector.matches_object(&object["metadata"]["labels"])).map(Some).collect()
        }
    };
    if params.is_empty() && reference["parameterNotFoundAction"] == "Deny" {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".to_owned());
    }
    Ok(params)
}

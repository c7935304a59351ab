//! What a request wants, as an authorizer sees it: k8s.io/apiserver/pkg/authorization/authorizer.Attributes.

use std::borrow::Cow;
use std::sync::Arc;

use super::User;

/// A wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Whose.
    pub user: Arc<User>,
    /// `get`, `list`, `create` …; for paths the method in lower case.
    pub verb: Cow<'static, str>,
    /// Of what.
    pub target: Target,
}

/// What a wish is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A resource.
    Resource {
        /// Empty for core.
        group: String,
        /// `v1`
        version: String,
        /// Plural.
        resource: String,
        /// Empty for the object itself.
        subresource: String,
        /// Empty for cluster-scoped resources and for all namespaces.
        namespace: String,
        /// Empty for collections.
        name: String,
    },
    /// A path that is no resource.
    Path(String),
}

impl Attributes {
    /// A wish about a resource, for the checks that admission makes on the way.
    #[must_use]
    pub fn resource(user: &User, verb: &'static str, group: &str, resource: &str, namespace: &str, name: &str) -> Self {
        Self {
            user: Arc::new(user.clone()),
            verb: verb.into(),
            target: Target::Resource {
                group: group.to_owned(),
                version: String::new(),
                resource: resource.to_owned(),
                subresource: String::new(),
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            },
        }
    }
}

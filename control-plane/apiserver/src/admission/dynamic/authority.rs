//! The server's authorizer, as expressions ask it.

use std::fmt;
use std::sync::Arc;

use skep_api::cel::admission::{Authority, Check, Ruling};

use super::Attributes;
use crate::auth::authz::{Authorizer, Decision};
use crate::auth::{self, Target, User};

/// Answers about the user of a request, or about a service account.
#[derive(Clone)]
pub(crate) struct UserAuthority {
    authorizer: Arc<dyn Authorizer>,
    user: Arc<User>,
}

impl fmt::Debug for UserAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserAuthority").field("user", &self.user.name).finish_non_exhaustive()
    }
}

impl UserAuthority {
    pub(crate) fn new(authorizer: Arc<dyn Authorizer>, user: &User) -> Self {
        Self { authorizer, user: Arc::new(user.clone()) }
    }

    /// What `authorizer.requestResource` is about.
    pub(crate) fn request_resource(attributes: &Attributes<'_>) -> Check {
        Check {
            group: attributes.kind.group_version.group.to_string(),
            resource: attributes.kind.plural.to_string(),
            subresource: attributes.subresource.to_owned(),
            namespace: attributes.namespace.to_owned(),
            name: attributes.name.to_owned(),
            ..Check::default()
        }
    }
}

impl Authority for UserAuthority {
    fn check(&self, check: &Check) -> Ruling {
        let user = match &check.service_account {
            None => self.user.clone(),
            Some((namespace, name)) => {
                let groups = vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
                let name = format!("{}{namespace}:{name}", auth::SERVICE_ACCOUNT_PREFIX);
                Arc::new(User::authenticated(name, groups))
            }
        };
        let target = match &check.path {
            Some(path) => Target::Path(path.clone()),
            None => Target::Resource {
                group: check.group.clone(),
                version: "*".to_owned(),
                resource: check.resource.clone(),
                subresource: check.subresource.clone(),
                namespace: check.namespace.clone(),
                name: check.name.clone(),
            },
        };
        let attributes = auth::Attributes { user, verb: check.verb.clone().into(), target };
        match self.authorizer.authorize(&attributes) {
            Decision::Allow { reason } => Ruling { allowed: true, reason },
            Decision::Deny { reason } | Decision::NoOpinion { reason } => Ruling { allowed: false, reason },
        }
    }
}

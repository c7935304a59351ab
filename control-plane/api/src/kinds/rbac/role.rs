//! Role and ClusterRole: rights with a name.

use crate::kinds::Scope;
use crate::kinds::declaration::{Kind, Strategy};
use crate::kinds::rbac::V1;

/// `rbac.authorization.k8s.io/v1 Role`
#[must_use]
pub fn role() -> Kind {
    Kind { create_on_update: true, ..Kind::new(V1, "Role", "roles", "io.k8s.api.rbac.v1.Role", Role) }
}

/// `rbac.authorization.k8s.io/v1 ClusterRole`
#[must_use]
pub fn cluster_role() -> Kind {
    Kind {
        scope: Scope::Cluster,
        create_on_update: true,
        ..Kind::new(V1, "ClusterRole", "clusterroles", "io.k8s.api.rbac.v1.ClusterRole", ClusterRole)
    }
}

struct Role;

impl Strategy for Role {}

struct ClusterRole;

impl Strategy for ClusterRole {}

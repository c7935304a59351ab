//! RoleBinding and ClusterRoleBinding: who has the rights of a role.

use crate::kinds::Scope;
use crate::kinds::declaration::{Column, Kind, Strategy};
use crate::kinds::rbac::V1;

/// `rbac.authorization.k8s.io/v1 RoleBinding`
#[must_use]
pub fn role_binding() -> Kind {
    Kind {
        create_on_update: true,
        columns: vec![
            Column::name(),
            Column::new("Role", "string", "The role that is given."),
            Column::age(),
            Column::new("Users", "string", "The users who get it.").wide(),
            Column::new("Groups", "string", "The groups that get it.").wide(),
            Column::new("ServiceAccounts", "string", "The service accounts that get it.").wide(),
        ],
        ..Kind::new(V1, "RoleBinding", "rolebindings", "io.k8s.api.rbac.v1.RoleBinding", RoleBinding)
    }
}

/// `rbac.authorization.k8s.io/v1 ClusterRoleBinding`
#[must_use]
pub fn cluster_role_binding() -> Kind {
    Kind {
        scope: Scope::Cluster,
        create_on_update: true,
        columns: vec![
            Column::name(),
            Column::new("Role", "string", "The role that is given."),
            Column::age(),
            Column::new("Users", "string", "The users who get it.").wide(),
            Column::new("Groups", "string", "The groups that get it.").wide(),
            Column::new("ServiceAccounts", "string", "The service accounts that get it.").wide(),
        ],
        ..Kind::new(
            V1,
            "ClusterRoleBinding",
            "clusterrolebindings",
            "io.k8s.api.rbac.v1.ClusterRoleBinding",
            ClusterRoleBinding,
        )
    }
}

struct RoleBinding;

impl Strategy for RoleBinding {}

struct ClusterRoleBinding;

impl Strategy for ClusterRoleBinding {}

//! Who a request is from ([`authn`]), and whether they may ([`authz`]).

mod attributes;
pub mod authn;
pub mod authz;
pub mod bootstrap;
pub mod reviews;
pub mod token;
mod user;

pub use attributes::{Attributes, Target};
pub use user::{
    ALL_AUTHENTICATED, ALL_UNAUTHENTICATED, ANONYMOUS, MASTERS, NODES, SERVICE_ACCOUNT_PREFIX, User,
    service_account_groups, service_account_name, split_service_account,
};

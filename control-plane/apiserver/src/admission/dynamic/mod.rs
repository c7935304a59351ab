//! What admission by configuration (webhooks and policies) has in common: the request as they see it, which of them it matches, and what becomes of the object
//! between them.

mod attributes;
mod authority;
mod matching;
mod round;

pub(crate) use attributes::{Attributes, Resource};
pub(crate) use authority::UserAuthority;
pub(crate) use matching::{Criteria, Matched};
pub(crate) use round::{Notes, Round};

//! The group `autoscaling`: HorizontalPodAutoscaler, stored as v2 and served as v1 too.

pub mod v1;
pub mod v2;

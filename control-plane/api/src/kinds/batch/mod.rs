//! The group `batch`: pods that run to an end.

pub mod cron_job;
mod indexes;
pub mod job;
mod job_status;

use crate::gvk::GroupVersion;

/// `batch/v1`
const V1: GroupVersion = GroupVersion::new("batch", "v1");

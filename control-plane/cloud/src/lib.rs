//! skep-cloud

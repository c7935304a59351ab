//! skep-scheduler

//! skep-benches

//! skep-apiserver

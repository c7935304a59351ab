//! skep-ebpf-common

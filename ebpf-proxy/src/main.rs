//! skep-ebpf-proxy
fn main() {}

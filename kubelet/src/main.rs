//! skep-kubelet
fn main() {}

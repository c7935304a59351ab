//! skep-control-plane
fn main() {}

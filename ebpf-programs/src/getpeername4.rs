//! A socket asks whom it is connected to (getpeername(2)): the service that it had addressed.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

use crate::lookup::reverse4;

#[cgroup_sock_addr(getpeername4)]
pub fn skep_getpeername4(ctx: SockAddrContext) -> i32 {
    reverse4(&ctx)
}

//! A stream or datagram socket is connected (connect(2)): a service's address becomes a backend's.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

use crate::lookup::forward4;

#[cgroup_sock_addr(connect4)]
pub fn skep_connect4(ctx: SockAddrContext) -> i32 {
    forward4(&ctx)
}

//! A datagram arrived: its source is shown as the service that the socket had addressed.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

use crate::lookup::reverse4;

#[cgroup_sock_addr(recvmsg4)]
pub fn skep_recvmsg4(ctx: SockAddrContext) -> i32 {
    reverse4(&ctx)
}

//! A datagram is sent from a socket that is not connected (sendto(2), sendmsg(2)).

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

use crate::lookup::forward4;

#[cgroup_sock_addr(sendmsg4)]
pub fn skep_sendmsg4(ctx: SockAddrContext) -> i32 {
    forward4(&ctx)
}

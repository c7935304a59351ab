//! The programs that Skep runs in the kernel: one module a hook, and the lookup that they share.
//!
//! Data flow: the agent fills the maps in [`maps`]; a program reads the service by what a socket or packet addresses, takes a
//! backend by [`lookup`], and rewrites the address; packets' translations are kept in [`flows`]. Invariant: every program may run
//! twice on one call (an old and a new one are attached together for a moment when the agent is replaced): a translated address is
//! no service's, so the second does nothing.

#![no_std]
#![no_main]

mod connect4;
mod flows;
mod getpeername4;
mod lookup;
mod maps;
mod nat_egress;
mod nat_ingress;
mod packet;
mod recvmsg4;
mod sendmsg4;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Some helpers may only be called by programs under a licence that the kernel deems compatible.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

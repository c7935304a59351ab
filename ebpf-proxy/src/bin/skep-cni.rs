//! `skep-cni`: the CNI plugin that a container runtime calls. It asks the node's agent, which owns addresses, links and routes.

use std::io::{Read, Write};
use std::process::ExitCode;

use skep_ebpf_proxy::cni::plugin;

/// A network configuration is a few hundred bytes; a previous result adds some more.
const LONGEST_INPUT: u64 = 1 << 20;

fn main() -> ExitCode {
    let mut input = Vec::new();
    let read = std::io::stdin().lock().take(LONGEST_INPUT).read_to_end(&mut input);
    let reply = match read {
        Ok(_) => plugin::call(&|name| std::env::var(name).ok(), &input),
        Err(error) => plugin::unreadable(&error),
    };
    let written = std::io::stdout().lock().write_all(reply.output.as_bytes());
    if reply.failed || written.is_err() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

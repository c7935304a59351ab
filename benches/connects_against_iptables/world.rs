//! One namespace whose every endpoint answers, and namespaces of clients, each joined to it by a veth of its own.

use std::io;
use std::net::TcpListener;
use std::thread::JoinHandle;

use anyhow::{Context as _, Result};
use rustix::net::Shutdown;
use skep_benches::netns::Netns;
use skep_benches::services::{ENDPOINT_NETWORK, TARGET_PORT};

use crate::pin;

/// The endpoints' namespace, and the one who accepts there until it is dropped.
pub(crate) struct Server {
    netns: Netns,
    listener: TcpListener,
    accepting: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start() -> Result<Self> {
        let netns = Netns::new()?;
        netns.ip(&format!("route add local {ENDPOINT_NETWORK} dev lo"))?;
        let listener = netns.within(|| TcpListener::bind(("0.0.0.0", TARGET_PORT)))?;
        let accepted = listener.try_clone()?;
        let accept = move || {
            pin::to_last();
            while !matches!(accepted.accept(), Err(error) if is_over(&error)) {}
        };
        Ok(Self { netns, listener, accepting: Some(std::thread::spawn(accept)) })
    }

    /// A namespace for clients; its number gives it an address.
    pub(crate) fn client(&self, number: u8) -> Result<Netns> {
        let netns = Netns::new()?;
        let link = format!("client{number}");
        self.netns.ip(&format!("link add {link} type veth peer name eth0 netns {}", netns.path()))?;
        self.netns.ip(&format!("address add 10.128.{number}.1/30 dev {link}"))?;
        self.netns.ip(&format!("link set {link} up"))?;
        netns.ip(&format!("address add 10.128.{number}.2/30 dev eth0"))?;
        netns.ip("link set eth0 up")?;
        // A Service's address needs a route too: it is looked up before the address is translated.
        netns.ip(&format!("route add default via 10.128.{number}.1")).context("can't add a route")?;
        Ok(netns)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Wakes the one who accepts.
        let _ = rustix::net::shutdown(&self.listener, Shutdown::Both);
        if let Some(thread) = self.accepting.take() {
            let _ = thread.join();
        }
    }
}

/// The listener was shut down (EINVAL); other errors are of clients that are gone already.
fn is_over(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidInput
}

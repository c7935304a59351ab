//! Dialing a port in a pod's network namespace: a thread of its own enters it, connects, and hands the socket back.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::net::TcpStream;

/// A listener that does not answer on loopback never will.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connects to a port on the loopback of the namespace at `netns`, or of the kubelet's own.
pub(super) async fn loopback(netns: Option<&Path>, port: u16) -> io::Result<TcpStream> {
    let netns = netns.map(Path::to_owned);
    let (tell, told) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("dial".to_owned()).spawn(move || {
        let connect = || {
            if let Some(path) = netns {
                let file = File::open(path)?;
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
            }
            dial(port)
        };
        // Nobody listens when the client left.
        let _ = tell.send(connect());
    })?;
    let stream = told.await.map_err(|_| io::Error::other("the dialing thread ended"))??;
    stream.set_nonblocking(true)?;
    TcpStream::from_std(stream)
}

fn dial(port: u16) -> io::Result<std::net::TcpStream> {
    let addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))];
    let mut first = None;
    for address in addresses {
        match std::net::TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => return Ok(stream),
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(first.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()))
}

//! A pod's veth pair, its address, neighbours and routes, by netlink.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use futures::TryStreamExt;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{LinkAttribute, LinkLayerType, LinkMessage};
use rtnetlink::packet_route::route::{RouteAttribute, RouteScope};
use rtnetlink::{Error, Handle, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::netns::within;
use super::{GATEWAY, PodError};
use crate::cni::wire::Attached;

/// Ethernet's own, where no uplink is named and there is no default route.
const DEFAULT_MTU: u32 = 1500;

/// Which pair.
#[derive(Clone)]
pub(super) struct Wanted {
    /// The node's end.
    pub(super) host: String,
    /// The pod's end.
    pub(super) ifname: String,
    /// The pod's namespace.
    pub(super) netns: PathBuf,
}

pub(crate) struct Link {
    pub(crate) index: u32,
    mac: Vec<u8>,
    mtu: u32,
    is_ethernet: bool,
}

/// Makes the pair anew; what an earlier attempt left is removed first.
pub(super) async fn create(
    node: &Path,
    wanted: &Wanted,
    address: Ipv4Addr,
    uplink: Option<String>,
) -> Result<Attached, PodError> {
    let pair = wanted.clone();
    let open = |source| PodError::Io { what: format!("can't open {}", wanted.netns.display()), source };
    let pod_netns = File::open(&wanted.netns).map_err(open)?;
    let (host, mtu) = within(node, async move |handle| {
        forward()?;
        remove(&handle, &pair.host).await?;
        let mtu = mtu(&handle, uplink).await?;
        // Until it has moved, the pod's end has a name that can't be another link's.
        let peer = pair.host.replacen("skep", "skpp", 1);
        let message = LinkVeth::new(&pair.host, &peer).build();
        handle.link().add(message).execute().await.map_err(refused("can't make the veth pair"))?;
        let (host, peer) = (link(&handle, &pair.host).await?, link(&handle, &peer).await?);
        set(&handle, LinkUnspec::new_with_index(host.index).mtu(mtu).up().build()).await?;
        let moved = LinkUnspec::new_with_index(peer.index).mtu(mtu).build();
        set(&handle, moved).await?;
        let moved = LinkUnspec::new_with_index(peer.index).name(pair.ifname).setns_by_fd(pod_netns.as_raw_fd());
        set(&handle, moved.build()).await?;
        Ok((host, mtu))
    })
    .await?;
    let (ifname, host_mac) = (wanted.ifname.clone(), host.mac.clone());
    let pod = within(&wanted.netns, async move |handle| {
        let lo = link(&handle, "lo").await?;
        set(&handle, LinkUnspec::new_with_index(lo.index).up().build()).await?;
        let pod = link(&handle, &ifname).await?;
        set(&handle, LinkUnspec::new_with_index(pod.index).up().build()).await?;
        let added = handle.address().add(pod.index, address.into(), 32).execute().await;
        added.map_err(refused("can't give the pod its address"))?;
        neighbour(&handle, pod.index, GATEWAY, &host_mac).await?;
        route(&handle, pod.index, GATEWAY).await?;
        let default = RouteMessageBuilder::<Ipv4Addr>::new().gateway(GATEWAY).output_interface(pod.index).build();
        let added = handle.route().add(default).execute().await;
        added.map_err(refused("can't give the pod its default route"))?;
        Ok(pod)
    })
    .await?;
    let (index, pod_mac) = (host.index, pod.mac.clone());
    within(node, async move |handle| {
        neighbour(&handle, index, address, &pod_mac).await?;
        route(&handle, index, address).await
    })
    .await?;
    Ok(attached(wanted, address, &host, &pod, mtu))
}

/// What the pair is, when it is whole.
pub(super) async fn inspect(node: &Path, wanted: &Wanted, address: Ipv4Addr) -> Result<Attached, PodError> {
    let name = wanted.host.clone();
    let host = within(node, async move |handle| {
        let host = link(&handle, &name).await?;
        let all = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let mut routes = handle.route().get(all).execute();
        while let Some(route) = routes.try_next().await.map_err(refused("can't read routes"))? {
            let goes = RouteAttribute::Oif(host.index);
            let to = RouteAttribute::Destination(rtnetlink::packet_route::route::RouteAddress::Inet(address));
            if route.attributes.contains(&goes) && route.attributes.contains(&to) {
                return Ok(host);
            }
        }
        Err(PodError::Differs(format!("the node has no route to {address}")))
    })
    .await?;
    let ifname = wanted.ifname.clone();
    let pod = within(&wanted.netns, async move |handle| {
        let pod = link(&handle, &ifname).await?;
        let mut addresses = handle.address().get().set_link_index_filter(pod.index).execute();
        while let Some(found) = addresses.try_next().await.map_err(refused("can't read addresses"))? {
            if found.attributes.contains(&AddressAttribute::Address(IpAddr::V4(address))) {
                return Ok(pod);
            }
        }
        Err(PodError::Differs(format!("{ifname} does not have the address {address}")))
    })
    .await?;
    let mtu = pod.mtu;
    Ok(attached(wanted, address, &host, &pod, mtu))
}

/// Removes the pair; its routes and neighbours go with it. No error when it is gone.
pub(super) async fn delete(node: &Path, host: &str) -> Result<(), PodError> {
    let host = host.to_owned();
    within(node, async move |handle| remove(&handle, &host).await).await
}

fn attached(wanted: &Wanted, address: Ipv4Addr, host: &Link, pod: &Link, mtu: u32) -> Attached {
    let shown = |mac: &[u8]| mac.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":");
    Attached {
        address,
        gateway: GATEWAY,
        host_interface: wanted.host.clone(),
        host_mac: shown(&host.mac),
        pod_mac: shown(&pod.mac),
        mtu,
    }
}

pub(crate) fn refused(what: &str) -> impl FnOnce(Error) -> PodError {
    let what = what.to_owned();
    move |source| PodError::Netlink { what, source }
}

/// Fails where the link is not there, or its packets have no Ethernet header, which the programs on the uplink rely on.
pub(super) async fn must_be_ethernet(netns: &Path, name: &str) -> Result<(), PodError> {
    let name = name.to_owned();
    within(netns, async move |handle| {
        if link(&handle, &name).await?.is_ethernet {
            Ok(())
        } else {
            Err(PodError::Differs(format!("the link {name} is not an Ethernet link")))
        }
    })
    .await
}

/// The setting belongs to the namespace of the thread that opens it.
pub(super) fn forward() -> Result<(), PodError> {
    let written = std::fs::write("/proc/sys/net/ipv4/ip_forward", "1");
    written.map_err(|source| PodError::Io { what: "can't let this node forward packets".to_owned(), source })
}

async fn mtu(handle: &Handle, uplink: Option<String>) -> Result<u32, PodError> {
    if let Some(uplink) = uplink {
        return Ok(link(handle, &uplink).await?.mtu);
    }
    let mut routes = handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build()).execute();
    let mut uplink = None;
    while let Some(route) = routes.try_next().await.map_err(refused("can't read routes"))? {
        if route.header.destination_prefix_length == 0 && uplink.is_none() {
            uplink = route.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Oif(index) => Some(*index),
                _ => None,
            });
        }
    }
    let Some(index) = uplink else { return Ok(DEFAULT_MTU) };
    let mut links = handle.link().get().match_index(index).execute();
    let found = links.try_next().await.map_err(refused("can't read the uplink"))?;
    Ok(found.map_or(DEFAULT_MTU, |message| read(&message).mtu))
}

pub(crate) async fn link(handle: &Handle, name: &str) -> Result<Link, PodError> {
    find(handle, name).await?.ok_or_else(|| PodError::NoLink(name.to_owned()))
}

async fn find(handle: &Handle, name: &str) -> Result<Option<Link>, PodError> {
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    match links.try_next().await {
        Ok(found) => Ok(found.as_ref().map(read)),
        Err(Error::NetlinkError(error)) if error.to_io().raw_os_error() == Some(NO_DEVICE) => Ok(None),
        Err(error) => Err(refused(&format!("can't read the link {name}"))(error)),
    }
}

/// ENODEV.
const NO_DEVICE: i32 = 19;

fn read(message: &LinkMessage) -> Link {
    let is_ethernet = message.header.link_layer_type == LinkLayerType::Ether;
    let mut link = Link { index: message.header.index, mac: Vec::new(), mtu: DEFAULT_MTU, is_ethernet };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Address(mac) => link.mac.clone_from(mac),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            _ => {}
        }
    }
    link
}

async fn remove(handle: &Handle, name: &str) -> Result<(), PodError> {
    let Some(link) = find(handle, name).await? else { return Ok(()) };
    match handle.link().del(link.index).execute().await {
        Err(Error::NetlinkError(error)) if error.to_io().raw_os_error() == Some(NO_DEVICE) => Ok(()),
        done => done.map_err(refused(&format!("can't remove the link {name}"))),
    }
}

async fn set(handle: &Handle, message: LinkMessage) -> Result<(), PodError> {
    handle.link().set(message).execute().await.map_err(refused("can't set up a link of the pod"))
}

async fn neighbour(handle: &Handle, index: u32, address: Ipv4Addr, mac: &[u8]) -> Result<(), PodError> {
    let request = handle.neighbours().add(index, address.into()).link_layer_address(mac).replace();
    request.execute().await.map_err(refused(&format!("can't set the neighbour {address}")))
}

async fn route(handle: &Handle, index: u32, address: Ipv4Addr) -> Result<(), PodError> {
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(address, 32)
        .output_interface(index)
        .scope(RouteScope::Link)
        .build();
    let request = handle.route().add(route).replace();
    request.execute().await.map_err(refused(&format!("can't set the route to {address}")))
}

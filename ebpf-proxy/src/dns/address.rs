//! The link-local address that names are served on: on the node's loopback link, so that pods and the node reach it the same way.

use std::net::IpAddr;
use std::path::Path;

use futures::TryStreamExt;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage, AddressProtocol};
use rtnetlink::{Handle, LinkUnspec};

use crate::pods::PodError;
use crate::pods::link::{link, refused};
use crate::pods::netns::within;

/// Marks an address as ours (`IFA_PROTO`), for [`remove`].
const PROTOCOL: AddressProtocol = AddressProtocol::Other(83);

/// Gives the loopback link of the namespace at `netns` those of `addresses` that are link-local IPv4 and that it hasn't. They stay
/// when the agent ends, so that the next one serves on them; [`remove`] takes them away.
///
/// # Errors
/// When the kernel refuses.
pub async fn add(netns: &Path, addresses: &[IpAddr]) -> Result<(), PodError> {
    let wanted: Vec<IpAddr> = addresses.iter().copied().filter(is_link_local).collect();
    within(netns, async move |handle| {
        let index = link(&handle, "lo").await?.index;
        let up = LinkUnspec::new_with_index(index).up().build();
        handle.link().set(up).execute().await.map_err(refused("can't set the loopback link up"))?;
        let have = read(&handle, index).await?;
        for address in wanted {
            if have.iter().any(|message| message.attributes.contains(&AddressAttribute::Local(address))) {
                continue;
            }
            let mut request = handle.address().add(index, address, 32);
            request.message_mut().attributes.push(AddressAttribute::Protocol(PROTOCOL));
            let what = format!("can't give the node the address {address}");
            request.execute().await.map_err(refused(&what))?;
        }
        Ok(())
    })
    .await
}

/// Takes away what [`add`] gave.
///
/// # Errors
/// When the kernel refuses.
pub async fn remove(netns: &Path) -> Result<(), PodError> {
    within(netns, async move |handle| {
        let index = link(&handle, "lo").await?.index;
        for message in read(&handle, index).await? {
            if message.attributes.contains(&AddressAttribute::Protocol(PROTOCOL)) {
                let removed = handle.address().del(message).execute().await;
                removed.map_err(refused("can't take away the address of the name server"))?;
            }
        }
        Ok(())
    })
    .await
}

fn is_link_local(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V4(address) if address.is_link_local())
}

async fn read(handle: &Handle, index: u32) -> Result<Vec<AddressMessage>, PodError> {
    let addresses = handle.address().get().set_link_index_filter(index).execute();
    addresses.try_collect().await.map_err(refused("can't read the addresses of the loopback link"))
}

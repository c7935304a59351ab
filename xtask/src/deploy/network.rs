//! The nodes' network: a bridge on the machine, and a network namespace with an uplink for each node. No packet filter is touched.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use super::layout::{Layout, Node};
use super::mounts;
use super::parts::UPLINK;
use super::subnet::Subnet;
use crate::shell;

/// A network for nodes that overlaps no route and no address of this machine.
///
/// # Errors
/// When there is none.
pub(crate) fn free() -> Result<Subnet> {
    let taken = taken()?;
    Subnet::choose(&taken).context("no private network is free: give one by --node-network")
}

/// Makes the bridge, unless it is there, with the machine's address.
///
/// # Errors
/// When `ip` refuses.
pub(crate) fn bridge(layout: &Layout) -> Result<()> {
    let bridge = layout.bridge();
    if !has_link(&bridge) {
        ip(&["link", "add", &bridge, "type", "bridge"])?;
    }
    let address = format!("{}/{}", layout.gateway(), layout.settings.node_network.prefix());
    ip(&["address", "replace", &address, "dev", &bridge])?;
    ip(&["link", "set", &bridge, "up"])
}

/// Makes a node's network namespace and its uplink, unless they are there.
///
/// # Errors
/// When `unshare`, `ip` or the kernel refuse.
pub(crate) fn node(layout: &Layout, node: &Node) -> Result<()> {
    let file = node.netns_file();
    namespace(&file)?;
    let within = |words: &[&str]| ip(&[&["-n", &node.netns], words].concat());
    if !has_link(&node.port) {
        ip(&["link", "add", &node.port, "type", "veth", "peer", "name", UPLINK, "netns", &node.netns])?;
    }
    ip(&["link", "set", &node.port, "master", &layout.bridge(), "up"])?;
    let address = format!("{}/{}", node.address, layout.settings.node_network.prefix());
    within(&["address", "replace", &address, "dev", UPLINK])?;
    within(&["link", "set", "lo", "up"])?;
    within(&["link", "set", UPLINK, "up"])?;
    within(&["route", "replace", "default", "via", &layout.gateway().to_string()])?;
    forward(&file)
}

/// Makes a network namespace that a file keeps, unless it is there.
///
/// # Errors
/// When `unshare` or the kernel refuse.
pub(crate) fn namespace(file: &Path) -> Result<()> {
    if !is_netns(file)? {
        // Not `ip netns add`: that mounts /run/netns on itself, for the whole machine and for good.
        fs::create_dir_all("/run/netns").context("can't make /run/netns")?;
        fs::write(file, "").with_context(|| format!("can't make {}", file.display()))?;
        quiet(Command::new("unshare").arg(format!("--net={}", file.display())).arg("true"))?;
    }
    Ok(())
}

/// Leads the machine to a node's pods: the API server is on the machine, and pods are asked by it (the proxies of pods and services,
/// webhooks, aggregated API servers). Returns a note where another network of the machine is in the way.
///
/// # Errors
/// When `ip` refuses.
pub(crate) fn pod_route(layout: &Layout, node: &Node, pods: Subnet) -> Result<Option<String>> {
    let (bridge, pods) = (layout.bridge(), pods.to_string());
    let routes = json(&["-j", "-4", "route", "show", "exact", &pods])?;
    let other = routes.as_array().into_iter().flatten().find(|route| route["dev"] != bridge.as_str());
    if let Some(dev) = other.map(|route| route["dev"].as_str().unwrap_or("another link")) {
        return Ok(Some(format!(
            "Note: {pods} is routed to {dev} on this machine: the API server does not reach the pods of {}. Another --cluster-cidr helps.",
            node.name
        )));
    }
    ip(&["route", "replace", &pods, "via", &node.address.to_string(), "dev", &bridge])?;
    Ok(None)
}

/// Lets a network namespace forward packets.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn forward(file: &Path) -> Result<()> {
    // /proc/sys/net is that of the namespace of whoever looks.
    let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward";
    quiet(Command::new("nsenter").arg(format!("--net={}", file.display())).args(["sh", "-c", forward]))
}

/// Removes a node's uplink and network namespace.
///
/// # Errors
/// When something stays.
pub(crate) fn remove_node(node: &Node) -> Result<()> {
    if has_link(&node.port) {
        ip(&["link", "delete", &node.port])?;
    }
    remove_namespace(&node.netns_file())
}

/// Removes a network namespace's file; the namespace goes with the last process in it.
///
/// # Errors
/// When something stays.
pub(crate) fn remove_namespace(file: &Path) -> Result<()> {
    mounts::unmount_below(file)?;
    mounts::remove(file)?;
    // `ip` makes this folder for /etc files of namespaces; ours have none. Both go only where they are empty.
    let _ = fs::remove_dir("/run/netns");
    Ok(())
}

/// Removes the bridge, and the routes over it.
///
/// # Errors
/// When `ip` refuses.
pub(crate) fn remove_bridge(layout: &Layout) -> Result<()> {
    if has_link(&layout.bridge()) {
        ip(&["link", "delete", &layout.bridge()])?;
    }
    Ok(())
}

/// What of this machine's own set-up comes between nodes, for a note: it is not ours to change.
pub(crate) fn obstacle(layout: &Layout) -> Option<String> {
    let setting = fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables").ok()?;
    let drops = shell::found("iptables")
        && shell::output(Command::new("iptables").args(["-S", "FORWARD"]))
            .is_ok_and(|rules| rules.contains("-P FORWARD DROP"));
    (setting.trim() == "1" && drops).then(|| {
        format!(
            "Note: this machine's iptables drop what it forwards, and apply to packets on bridges (net.bridge.bridge-nf-call-iptables is \
             1). If pods on different nodes don't reach each other: iptables -I FORWARD -i {bridge} -o {bridge} -j ACCEPT",
            bridge = layout.bridge()
        )
    })
}

/// What of a cluster's links and namespaces is there.
///
/// # Errors
/// When mounts can't be read.
pub(crate) fn there(layout: &Layout) -> Result<Vec<String>> {
    let mut found = Vec::new();
    if has_link(&layout.bridge()) {
        found.push(format!("link {}", layout.bridge()));
    }
    for node in layout.nodes() {
        if has_link(&node.port) {
            found.push(format!("link {}", node.port));
        }
        if node.netns_file().exists() {
            found.push(node.netns_file().display().to_string());
        }
    }
    Ok(found)
}

/// Networks of this machine's routes and addresses, the default route aside.
fn taken() -> Result<Vec<Subnet>> {
    let routes = json(&["-j", "-4", "route", "show", "table", "all"])?;
    let found = routes.as_array().into_iter().flatten().filter_map(|route| route["dst"].as_str()?.parse().ok());
    Ok(found.collect())
}

/// Whether the machine has a link.
pub(crate) fn has_link(name: &str) -> bool {
    Path::new("/sys/class/net").join(name).exists()
}

/// Whether a file keeps a network namespace, which can't be told by `/run/netns/NAME` being there.
fn is_netns(file: &Path) -> Result<bool> {
    let Ok(there) = fs::metadata(file) else { return Ok(false) };
    let own = fs::metadata("/proc/self/ns/net").context("can't read /proc/self/ns/net")?;
    Ok(there.dev() == own.dev())
}

/// Runs `ip`.
///
/// # Errors
/// When it refuses.
pub(crate) fn ip(words: &[&str]) -> Result<()> {
    quiet(Command::new("ip").args(words))
}

fn json(words: &[&str]) -> Result<Value> {
    let text = shell::output(Command::new("ip").args(words))?;
    // `ip` says nothing at all where a table is empty.
    let text = if text.trim().is_empty() { "[]" } else { &text };
    serde_json::from_str(text).with_context(|| format!("`ip {}` does not print JSON", words.join(" ")))
}

fn quiet(command: &mut Command) -> Result<()> {
    shell::output(command).map(drop)
}

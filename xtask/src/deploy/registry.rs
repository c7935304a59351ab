//! A registry on the machine's loopback (Debian's `docker-registry`) with the suite's images, for pods that pull whatever is there:
//! containerd asks it in the place of the registry of their names (containerd's `docs/hosts.md`).

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::layout::Layout;
use super::parts::{Part, Trees};
use super::processes;
use crate::image::suite::{REGISTRY, Suite};

const CONNECT: Duration = Duration::from_secs(1);

/// Starts the registry, unless it runs and serves these images, and leads containerd to it.
///
/// # Errors
/// When it does not answer.
pub(crate) fn start(layout: &Layout, trees: &Trees, suite: &Suite) -> Result<()> {
    let file = layout.registry_config();
    let known = fs::read_to_string(&file).ok().and_then(|text| address(&text));
    let runs = processes::find(layout, &Part::Registry).is_some();
    let here = match known {
        Some(known) if runs => known,
        Some(_) | None => free().context("no port of the loopback is free")?,
    };
    let wanted = configuration(here, suite.registry_storage());
    if !runs || fs::read_to_string(&file).ok().as_ref() != Some(&wanted) || !answers(here) {
        processes::stop(layout, &Part::Registry)?;
        write(&file, &wanted)?;
        let mut child = processes::start(layout, &Part::Registry, trees)?;
        processes::wait_until_ready(layout, &Part::Registry, &mut child, || answers(here))?;
    }
    // Read by containerd at each pull.
    write(&layout.containerd_hosts().join(REGISTRY).join("hosts.toml"), &hosts(here))
}

/// The registry's configuration: it serves a folder, and takes nothing.
pub(crate) fn configuration(address: SocketAddr, storage: &Path) -> String {
    let storage = serde_json::Value::from(storage.to_string_lossy());
    format!(
        "version: 0.1\n\
         log:\n  level: warn\n\
         storage:\n  filesystem:\n    rootdirectory: {storage}\n  maintenance:\n    readonly:\n      enabled: true\n\
         http:\n  addr: {address}\n"
    )
}

fn address(configuration: &str) -> Option<SocketAddr> {
    configuration.lines().find_map(|line| line.trim().strip_prefix("addr: ")?.parse().ok())
}

/// What leads containerd to it.
pub(crate) fn hosts(address: SocketAddr) -> String {
    format!(
        "server = \"https://{REGISTRY}\"\n\n[host.\"http://{address}\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
    )
}

fn free() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

fn answers(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, CONNECT).is_ok()
}

fn write(file: &Path, text: &str) -> Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
    }
    fs::write(file, text).with_context(|| format!("can't write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_that_runs_is_found_at_the_address_of_its_configuration() {
        let here: SocketAddr = "127.0.0.1:34567".parse().expect("an address");
        assert_eq!(address(&configuration(here, Path::new("/images"))), Some(here));
        assert_eq!(address("version: 0.1\n"), None);
    }

    #[test]
    fn containerd_asks_the_loopback_before_the_registry_of_the_name() {
        let text = hosts("127.0.0.1:34567".parse().expect("an address"));
        assert!(text.contains("[host.\"http://127.0.0.1:34567\"]"), "{text}");
        assert!(text.starts_with("server = \"https://registry.k8s.io\""), "{text}");
    }
}

//! What a cluster is: what was asked for, or what is remembered from the last time. Pure but for reading and writing the file.
//!
//! `cluster.json` in the data directory is written before anything else is made, and removed last: whatever is left of a
//! deployment that ended half-way can be found from it.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::subnet::Subnet;

const FILE: &str = "cluster.json";
/// A link's name has at most 15 bytes (`IFNAMSIZ`), and those of the nodes' uplinks are the cluster's and `-` and a number.
const LONGEST_NAME: usize = 10;

/// Everything that a cluster's processes and links follow from, besides where its data is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Settings {
    /// The first part of every name that is shared with the machine: links, network namespaces, cgroups, /run.
    pub(crate) name: String,
    /// How many nodes.
    pub(crate) nodes: u8,
    /// Where the API is served besides the nodes' network.
    pub(crate) listen: SocketAddr,
    /// The nodes' network; its first address is the machine's.
    pub(crate) node_network: Subnet,
    /// The pods' network.
    pub(crate) cluster_cidr: Subnet,
    /// Services' addresses.
    pub(crate) service_cidr: Subnet,
}

/// What the command line asks for; none means as it was, or the default.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wishes {
    pub(crate) name: Option<String>,
    pub(crate) nodes: Option<u8>,
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) node_network: Option<Subnet>,
    pub(crate) cluster_cidr: Option<Subnet>,
    pub(crate) service_cidr: Option<Subnet>,
}

impl Settings {
    /// The settings in a data directory; none where no cluster is.
    ///
    /// # Errors
    /// When the file can't be read, or is none of ours.
    pub(crate) fn read(data_dir: &Path) -> Result<Option<Self>> {
        let path = data_dir.join(FILE);
        match fs::read(&path) {
            Ok(text) => {
                serde_json::from_slice(&text).map(Some).with_context(|| format!("{} is damaged", path.display()))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("can't read {}", path.display())),
        }
    }

    /// Remembers the settings.
    ///
    /// # Errors
    /// When the file can't be written.
    pub(crate) fn write(&self, data_dir: &Path) -> Result<()> {
        let path = data_dir.join(FILE);
        let next = data_dir.join("cluster.json.next");
        fs::write(&next, serde_json::to_string_pretty(self)?)
            .with_context(|| format!("can't write {}", next.display()))?;
        fs::rename(&next, &path).with_context(|| format!("can't replace {}", path.display()))
    }

    /// The file's name in the data directory.
    pub(crate) const fn file() -> &'static str {
        FILE
    }

    /// Wishes over what is known over defaults; `free` finds a network for nodes that nothing else uses.
    ///
    /// # Errors
    /// When a wish is impossible, or contradicts a cluster that is there.
    pub(crate) fn resolve(known: Option<Self>, wishes: &Wishes, free: impl FnOnce() -> Result<Subnet>) -> Result<Self> {
        let settings = match known {
            None => Self {
                name: wishes.name.clone().unwrap_or_else(|| "skep".to_owned()),
                nodes: wishes.nodes.unwrap_or(2),
                listen: wishes.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 6443))),
                node_network: wishes.node_network.map_or_else(free, Ok)?,
                cluster_cidr: wishes.cluster_cidr.unwrap_or(Subnet::new([10, 244, 0, 0], 16)),
                service_cidr: wishes.service_cidr.unwrap_or(Subnet::new([10, 96, 0, 0], 16)),
            },
            Some(known) => {
                let fixed = [
                    ("--name", wishes.name.as_ref().is_some_and(|name| *name != known.name)),
                    ("--node-network", wishes.node_network.is_some_and(|network| network != known.node_network)),
                    ("--cluster-cidr", wishes.cluster_cidr.is_some_and(|network| network != known.cluster_cidr)),
                    ("--service-cidr", wishes.service_cidr.is_some_and(|network| network != known.service_cidr)),
                    ("--nodes (fewer)", wishes.nodes.is_some_and(|nodes| nodes < known.nodes)),
                ];
                if let Some((flag, _)) = fixed.iter().find(|(_, differs)| *differs) {
                    bail!("{flag} can't be changed while the cluster is there: take it away with --down first");
                }
                Self {
                    nodes: wishes.nodes.unwrap_or(known.nodes),
                    listen: wishes.listen.unwrap_or(known.listen),
                    ..known
                }
            }
        };
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<()> {
        check_name(&self.name)?;
        if self.nodes == 0 {
            bail!("--nodes 0: at least one");
        }
        if self.node_network.node(self.nodes).is_none() {
            bail!("--node-network {}: too small for {} nodes", self.node_network, self.nodes);
        }
        if self.listen.port() == 0 {
            bail!("--listen {}: a port that nodes can be told", self.listen);
        }
        let networks = [
            ("--node-network", self.node_network),
            ("--cluster-cidr", self.cluster_cidr),
            ("--service-cidr", self.service_cidr),
        ];
        for (index, (flag, network)) in networks.iter().enumerate() {
            if let Some((other, there)) = networks[..index].iter().find(|(_, there)| there.overlaps(*network)) {
                bail!("{flag} {network} overlaps {other} {there}");
            }
        }
        Ok(())
    }
}

/// Whether a cluster can have a name: it becomes part of links', folders' and cgroups' names.
///
/// # Errors
/// When it can't.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let letters = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    if name.is_empty() || name.len() > LONGEST_NAME || !letters || !name.as_bytes()[0].is_ascii_lowercase() {
        bail!("--name {name:?}: a letter, then up to {} lower-case letters and digits", LONGEST_NAME - 1);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: Subnet = Subnet::new([172, 30, 0, 0], 24);

    fn resolve(known: Option<Settings>, wishes: Wishes) -> Result<Settings> {
        Settings::resolve(known, &wishes, || Ok(FREE))
    }

    #[test]
    fn what_is_not_asked_for_is_as_it_was() {
        let first = resolve(None, Wishes { nodes: Some(3), ..Wishes::default() }).expect("settings");
        assert_eq!((first.nodes, first.node_network, first.name.as_str()), (3, FREE, "skep"));
        assert_eq!(resolve(Some(first.clone()), Wishes::default()).expect("settings"), first);
        let more = resolve(Some(first), Wishes { nodes: Some(4), ..Wishes::default() }).expect("settings");
        assert_eq!(more.nodes, 4);
    }

    #[test]
    fn what_a_running_cluster_can_not_change_is_refused_by_its_flag() {
        let known = resolve(None, Wishes::default()).expect("settings");
        let other = Wishes { node_network: Some(Subnet::new([172, 29, 0, 0], 24)), ..Wishes::default() };
        assert!(resolve(Some(known.clone()), other).expect_err("refused").to_string().contains("--node-network"));
        let fewer = Wishes { nodes: Some(1), ..Wishes::default() };
        assert!(resolve(Some(known), fewer).expect_err("refused").to_string().contains("--nodes"));
    }

    #[test]
    fn networks_that_overlap_are_refused() {
        let wishes = Wishes { cluster_cidr: Some(Subnet::new([172, 30, 0, 0], 16)), ..Wishes::default() };
        assert!(resolve(None, wishes).expect_err("refused").to_string().contains("overlaps"));
    }

    #[test]
    fn a_name_fits_into_the_name_of_a_link() {
        for name in ["", "Skep", "a/b", "..", "9a", "longerthan1"] {
            assert!(check_name(name).is_err(), "{name}");
        }
        assert!(check_name("skeptest").is_ok());
    }

    #[test]
    fn what_was_written_is_read_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = resolve(None, Wishes::default()).expect("settings");
        assert_eq!(Settings::read(folder.path()).expect("none"), None);
        settings.write(folder.path()).expect("written");
        assert_eq!(Settings::read(folder.path()).expect("read"), Some(settings));
    }
}

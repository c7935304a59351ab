//! Pod networking by CNI plugins: whole lists of them, as the specification 1.1 has a runtime do it.
//!
//! Invariant: the configuration is read anew at each addition; a deletion uses the one that its addition used. An
//! addition that fails is deleted again before its error is returned.
//! Data flow: [`configuration`] reads the folder, [`plugin`] calls the binaries, the cache keeps results for deletions.

pub mod configuration;
pub mod plugin;

mod cache;

use std::collections::HashSet;
use std::ffi::OsString;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use self::cache::{Cache, Entry};
use self::configuration::{ConfigurationError, Network};
use self::plugin::{Attachment, CallError};

/// The capability that `hostPort` needs.
const PORT_MAPPINGS: &str = "portMappings";

/// Why an attachment could not be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum CniError {
    /// The pod asks for ports of the node (`hostPort`), and nothing would lead them to it.
    #[error("network {0:?} has no plugin with the capability portMappings, which hostPort needs")]
    PortMappings(String),
    /// There is no usable configuration (upstream's words for it come first).
    #[error("cni plugin not initialized: {0}")]
    NotInitialized(#[from] ConfigurationError),
    /// A plugin's binary is in none of the folders.
    #[error("failed to find plugin {plugin:?} in path {folders:?}")]
    Missing {
        /// Its `type`.
        plugin: String,
        /// Where it was looked for.
        folders: Vec<PathBuf>,
    },
    /// A plugin failed (libcni's words).
    #[error("plugin type={plugin:?} failed ({}): {source}", command.to_lowercase())]
    Plugin {
        /// Its `type`.
        plugin: String,
        /// `ADD`, `DEL`, `STATUS` or `GC`.
        command: &'static str,
        /// What it said.
        source: CallError,
    },
    /// The result names no address.
    #[error("network {0:?} gave the pod no address")]
    NoAddress(String),
    /// The container id is not one that the specification allows.
    #[error("{0:?} is not a valid CNI container id")]
    ContainerId(String),
    /// The record of attachments could not be read or written.
    #[error("CNI attachment record in {folder}: {source}")]
    Cache {
        /// Where it is kept.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// An attachment to make.
#[derive(Debug, Clone)]
pub struct Attach<'a> {
    /// Unique on the node: letters, digits, `_`, `.` and `-`.
    pub container_id: &'a str,
    /// The pinned network namespace.
    pub netns: &'a Path,
    /// The interface's name in the namespace.
    pub interface: &'a str,
    /// Pairs as `K8S_POD_NAME=web;K8S_POD_NAMESPACE=default`.
    pub args: String,
    /// What plugins may ask for by name: `portMappings`, `bandwidth`, … (CNI conventions).
    pub capabilities: Map<String, Value>,
}

/// The node's pod network.
#[derive(Debug, Clone)]
pub struct Cni {
    configurations: PathBuf,
    binaries: Vec<PathBuf>,
    cache: Cache,
}

impl Cni {
    /// A network from the configurations of a folder (`/etc/cni/net.d`), plugins from others (`/opt/cni/bin`), and the
    /// record of attachments in `cache`, which outlives reboots and belongs to this node alone.
    pub fn new(configurations: PathBuf, binaries: Vec<PathBuf>, cache: PathBuf) -> Self {
        Self { configurations, binaries, cache: Cache { folder: cache } }
    }

    /// Says whether pods can be attached: the node's `NetworkReady`.
    ///
    /// # Errors
    /// Why not, for the node's condition.
    pub async fn status(&self) -> Result<(), String> {
        let network = Network::first_of(&self.configurations).map_err(CniError::from).map_err(|e| e.to_string())?;
        for (name, plugin) in network.plugins() {
            let binary = self.binary(name).map_err(|error| error.to_string())?;
            // Earlier versions know no STATUS.
            if network.version() < (1, 1) {
                continue;
            }
            let request = network.request(plugin, &Map::new(), None);
            let answer = plugin::call(&binary, "STATUS", None, &self.path(), &request).await;
            answer.map_err(|source| failed(name, "STATUS", source).to_string())?;
        }
        Ok(())
    }

    /// Attaches a namespace and returns the addresses that it got, the primary one first.
    ///
    /// # Errors
    /// When a plugin fails; what it had done is deleted as well as possible.
    pub async fn add(&self, attach: &Attach<'_>) -> Result<Vec<IpAddr>, CniError> {
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        let id = attach.container_id;
        if !id.bytes().all(valid) || !id.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric()) {
            return Err(CniError::ContainerId(id.to_owned()));
        }
        let network = Network::first_of(&self.configurations)?;
        if attach.capabilities.contains_key(PORT_MAPPINGS) && !network.has_capability(PORT_MAPPINGS) {
            return Err(CniError::PortMappings(network.name().to_owned()));
        }
        let mut entry = Entry {
            container_id: id.to_owned(),
            interface: attach.interface.to_owned(),
            args: attach.args.clone(),
            capabilities: attach.capabilities.clone(),
            network: network.list.clone(),
            result: None,
        };
        self.cache.write(&entry).map_err(|source| self.cache_error(source))?;
        let attached = async {
            let result = self.add_all(&network, &entry, attach.netns).await?;
            let addresses = addresses(&result, attach.interface);
            entry.result = Some(result);
            self.cache.write(&entry).map_err(|source| self.cache_error(source))?;
            if addresses.is_empty() { Err(CniError::NoAddress(network.name().to_owned())) } else { Ok(addresses) }
        }
        .await;
        if attached.is_err()
            && let Err(error) = self.del(id, Some(attach.netns)).await
        {
            tracing::warn!(container_id = id, %error, "a failed CNI attachment could not be deleted; tried again later");
        }
        attached
    }

    /// Deletes an attachment, if there is one; `netns` is none when the namespace is gone.
    ///
    /// # Errors
    /// When a plugin fails. The attachment stays recorded, so that it can be tried again.
    pub async fn del(&self, container_id: &str, netns: Option<&Path>) -> Result<(), CniError> {
        let Some(entry) = self.cache.read(container_id).map_err(|source| self.cache_error(source))? else {
            return Ok(());
        };
        let network = Network { list: entry.network.clone() };
        // Earlier versions know no previous result in deletions.
        let previous = entry.result.as_ref().filter(|_| network.version() >= (0, 4));
        for (name, plugin) in network.plugins().rev() {
            let request = network.request(plugin, &entry.capabilities, previous);
            let binary = self.binary(name)?;
            let answer = plugin::call(&binary, "DEL", Some(of(&entry, netns)), &self.path(), &request).await;
            answer.map_err(|source| failed(name, "DEL", source))?;
        }
        self.cache.remove(container_id).map_err(|source| self.cache_error(source))
    }

    /// Deletes the attachments of all container ids that are not `live`, and tells the plugins of specification 1.1
    /// which ones are (`GC`), so that they free what they hold for others.
    ///
    /// # Errors
    /// The first failure, after everything was tried.
    pub async fn collect(&self, live: &HashSet<String>) -> Result<(), CniError> {
        let recorded = self.cache.list().map_err(|source| self.cache_error(source))?;
        let (kept, stale): (Vec<_>, Vec<_>) = recorded.into_iter().partition(|id| live.contains(id));
        let mut outcome = Ok(());
        for id in stale {
            outcome = outcome.and(self.del(&id, None).await);
        }
        let network = Network::first_of(&self.configurations)?;
        if network.version() < (1, 1) || network.list["disableGC"].as_bool().unwrap_or(false) {
            return outcome;
        }
        let mut valid = Vec::new();
        for id in kept {
            let entry = self.cache.read(&id).map_err(|source| self.cache_error(source))?;
            let entry = entry.filter(|entry| entry.network["name"] == network.list["name"]);
            valid.extend(entry.map(|entry| json!({"containerID": entry.container_id, "ifname": entry.interface})));
        }
        for (name, plugin) in network.plugins() {
            let mut request = network.request(plugin, &Map::new(), None);
            request["cni.dev/valid-attachments"] = valid.clone().into();
            let answer = plugin::call(&self.binary(name)?, "GC", None, &self.path(), &request).await;
            outcome = outcome.and(answer.map(|_| ()).map_err(|source| failed(name, "GC", source)));
        }
        outcome
    }

    async fn add_all(&self, network: &Network, entry: &Entry, netns: &Path) -> Result<Value, CniError> {
        let mut result = Value::Null;
        for (name, plugin) in network.plugins() {
            let request = network.request(plugin, &entry.capabilities, Some(&result));
            let binary = self.binary(name)?;
            let answer = plugin::call(&binary, "ADD", Some(of(entry, Some(netns))), &self.path(), &request).await;
            result = answer.map_err(|source| failed(name, "ADD", source))?;
        }
        Ok(result)
    }

    fn binary(&self, name: &str) -> Result<PathBuf, CniError> {
        let found = self.binaries.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
        found.ok_or_else(|| CniError::Missing { plugin: name.to_owned(), folders: self.binaries.clone() })
    }

    /// `CNI_PATH`: where a plugin finds those that it delegates to.
    fn path(&self) -> OsString {
        self.binaries.iter().map(|folder| folder.as_os_str()).collect::<Vec<_>>().join(":".as_ref())
    }

    fn cache_error(&self, source: io::Error) -> CniError {
        CniError::Cache { folder: self.cache.folder.clone(), source }
    }
}

fn of<'a>(entry: &'a Entry, netns: Option<&'a Path>) -> Attachment<'a> {
    Attachment { container_id: &entry.container_id, netns, interface: &entry.interface, args: &entry.args }
}

fn failed(plugin: &str, command: &'static str, source: CallError) -> CniError {
    CniError::Plugin { plugin: plugin.to_owned(), command, source }
}

/// A result's addresses without their prefix lengths: those of the pod's `interface`, and those that name none. The first
/// of IPv4 comes first, the others in the plugin's order (containerd's default `ip_pref`). Before 0.3 a result had one of
/// each family at most.
fn addresses(result: &Value, interface: &str) -> Vec<IpAddr> {
    let inside = |ip: &&Value| {
        let Some(index) = ip["interface"].as_u64() else { return true };
        let of = &result["interfaces"][usize::try_from(index).unwrap_or(usize::MAX)];
        of["name"] == interface && of["sandbox"].as_str().is_some_and(|sandbox| !sandbox.is_empty())
    };
    let address = |text: &Value| text.as_str()?.split('/').next()?.parse().ok();
    let ips = result["ips"].as_array().into_iter().flatten().filter(inside).map(|ip| &ip["address"]);
    let old = ["ip4", "ip6"].iter().map(|family| &result[*family]["ip"]);
    let mut all: Vec<IpAddr> = ips.chain(old).filter_map(address).collect();
    if let Some(primary) = all.iter().position(IpAddr::is_ipv4) {
        all[..=primary].rotate_right(1);
    }
    all
}

#[cfg(test)]
mod tests;

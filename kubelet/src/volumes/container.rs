//! What one run of a container needs on the node before it can be made: the files that it gets, and parts of volumes.
//!
//! Invariant: what is made is named by the same pure functions as what is mounted ([`crate::pod::resolve::mounts`]). A file
//! that other containers of the pod have mounted is written in place, and only when its text changed.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::sub_path;
use crate::pod::resolve::env_file::{self, EnvFiles};
use crate::pod::resolve::{ConfigError, Context, Made, container_spec, environment, mounts, name_files};
use crate::runtime::spec::ContainerSpec;

/// The node's own, which containers in its network namespace get.
const NODE_HOSTS: &str = "/etc/hosts";

/// The largest file of variables, in bytes (KEP-3721).
const ENV_FILE_LIMIT: u64 = 64 << 10;

/// A container that is ready to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// Its specification, of which every source is there.
    pub spec: ContainerSpec,
    /// Reasons and messages of Warning events for the pod.
    pub warnings: Vec<(&'static str, String)>,
}

/// Makes the files and binds that a run needs, and its specification. Waits for the file system: to be called on a thread
/// that may wait. May be repeated for the same run; [`super::Volumes::tear_down`] removes all of it.
///
/// # Errors
/// As [`container_spec`], and when the file system refuses.
pub fn prepare(ctx: &Context<'_>) -> Result<Prepared, ConfigError> {
    let env_files = read_env_files(ctx);
    let environment = environment::environment(ctx, &env_files)?;
    let mounted = ctx.container.volume_mounts.as_deref().unwrap_or_default();
    let mut sub_paths: BTreeMap<usize, PathBuf> = BTreeMap::new();
    for part in mounts::sub_paths(ctx, &environment)? {
        let path = sub_path::prepare(ctx.pod_dir, &ctx.container.name, &part).map_err(|error| {
            tracing::warn!(%error, volume = part.volume, path = %part.path.display(), "a subPath can't be prepared");
            mounted
                .get(part.index)
                .map_or_else(|| ConfigError::new("no such mount"), |mount| mounts::unprepared(ctx, mount))
        })?;
        sub_paths.insert(part.index, path);
    }
    let spec = container_spec(ctx, &Made { env_files, sub_paths })?;
    let warnings = write_files(ctx)?;
    Ok(Prepared { spec, warnings })
}

/// What a container can't read is told without the node's reasons, as upstream does.
fn read_env_files(ctx: &Context<'_>) -> EnvFiles {
    let references = env_file::references(ctx.container).into_iter();
    let read = references.filter_map(|(volume, path)| {
        let root = &ctx.volumes.get(&volume)?.path;
        let text = sub_path::read(root, Path::new(&path), ENV_FILE_LIMIT).map_err(|error| {
            tracing::warn!(%error, volume, path, "a file of variables can't be read");
            "couldn't parse env file".to_owned()
        });
        Some(((volume, path), text))
    });
    read.collect()
}

fn write_files(ctx: &Context<'_>) -> Result<Vec<(&'static str, String)>, ConfigError> {
    let (pod, domain) = (ctx.pod, ctx.node.cluster_domain.as_str());
    let on_node = ctx.spec()?.host_network.unwrap_or(false);
    let node_hosts = if on_node { fs::read_to_string(NODE_HOSTS) } else { Ok(String::new()) };
    let node_hosts = node_hosts.map_err(|error| ConfigError::new(format!("open {NODE_HOSTS}: {error}")))?;
    let hosts = name_files::hosts(pod, ctx.pod_ips, domain, &node_hosts)?;
    let hostname = if on_node { ctx.node.hostname.clone() } else { name_files::pod_hostname(pod, domain)?.kernel };
    let resolver = name_files::resolver(pod, ctx.node);
    let message = mounts::termination_log(ctx.pod_dir, &ctx.container.name, ctx.attempt);
    if let Some(old) = ctx.attempt.checked_sub(2) {
        // The last run's is kept until this one ends. One that can't be removed goes with the pod.
        let _ = fs::remove_file(mounts::termination_log(ctx.pod_dir, &ctx.container.name, old));
    }
    let written = write(&mounts::hosts_file(ctx.pod_dir), &hosts, 0o644)
        .and_then(|()| write(&mounts::hostname_file(ctx.pod_dir), &format!("{hostname}\n"), 0o644))
        .and_then(|()| write(&mounts::resolver_file(ctx.pod_dir), &resolver.text, 0o644))
        // Any user of the container may write it.
        .and_then(|()| write(&message, "", 0o666));
    written.map_err(|error| ConfigError::new(format!("the container's files can't be written: {error}")))?;
    Ok(resolver.warnings)
}

fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let is_same = fs::read(path).is_ok_and(|old| old == text.as_bytes());
    if !is_same {
        fs::write(path, text)?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

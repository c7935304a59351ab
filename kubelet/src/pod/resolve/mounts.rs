//! What is mounted into a container: its volumes, and the files that each container gets.
//!
//! Invariant: pure; sources that have to be made first are named by [`sub_paths`] and by the functions for paths here, and
//! made by [`crate::volumes::container`].

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::VolumeMount;

use super::environment::Environment;
use super::{ConfigError, Context};
use crate::pod::expansion::expand;
use crate::runtime::spec::{BindMount, Propagation};
use crate::volumes::MountedVolume;

const HOSTS: &str = "/etc/hosts";
const HOSTNAME: &str = "/etc/hostname";
const RESOLVER: &str = "/etc/resolv.conf";
const TERMINATION_MESSAGE: &str = "/dev/termination-log";

/// A part of a volume that a container mounts instead of the whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubPath {
    /// Which of the container's volume mounts it is of.
    pub index: usize,
    /// The volume's name.
    pub volume: String,
    /// The volume on the node.
    pub root: PathBuf,
    /// Relative to the volume, without a step up. Symlinks in it may lead anywhere: it must be opened below the root.
    pub path: PathBuf,
}

/// The parts of volumes that have to be prepared before the container is made.
///
/// # Errors
/// When a volume is not there, a path leads out of it, or a variable of `subPathExpr` is not set.
pub fn sub_paths(ctx: &Context<'_>, environment: &Environment) -> Result<Vec<SubPath>, ConfigError> {
    let mut found = vec![];
    for (index, mount) in ctx.container.volume_mounts.iter().flatten().enumerate() {
        let path = match (non_empty(&mount.sub_path_expr), non_empty(&mount.sub_path)) {
            (Some(expression), _) => expand_all(expression, environment)?,
            (None, Some(path)) => path.to_owned(),
            (None, None) => continue,
        };
        if path.is_empty() {
            continue;
        }
        if path.starts_with('/') {
            return Err(ConfigError::new(format!("error SubPath `{path}` must not be an absolute path")));
        }
        if Path::new(&path).components().any(|part| part == Component::ParentDir) {
            return Err(ConfigError::new(format!("unable to provision SubPath `{path}`: must not contain '..'")));
        }
        let root = volume(ctx, mount)?.path.clone();
        found.push(SubPath { index, volume: mount.name.clone(), root, path: path.into() });
    }
    Ok(found)
}

/// The file on the node that a run writes its termination message into.
pub fn termination_log(pod_dir: &Path, container: &str, attempt: u32) -> PathBuf {
    pod_dir.join("containers").join(container).join(format!("termination-log-{attempt}"))
}

/// The pod's file for `/etc/hosts`.
pub fn hosts_file(pod_dir: &Path) -> PathBuf {
    pod_dir.join("etc-hosts")
}

/// The pod's file for `/etc/hostname`.
pub fn hostname_file(pod_dir: &Path) -> PathBuf {
    pod_dir.join("hostname")
}

/// The pod's file for `/etc/resolv.conf`.
pub fn resolver_file(pod_dir: &Path) -> PathBuf {
    pod_dir.join("resolv.conf")
}

/// Everything that is mounted, parents before what lies in them.
pub(super) fn mounts(
    ctx: &Context<'_>,
    environment: &Environment,
    sub_paths: &BTreeMap<usize, PathBuf>,
) -> Result<Vec<BindMount>, ConfigError> {
    let parts: BTreeMap<usize, SubPath> =
        self::sub_paths(ctx, environment)?.into_iter().map(|part| (part.index, part)).collect();
    let mut mounts = vec![];
    for (index, mount) in ctx.container.volume_mounts.iter().flatten().enumerate() {
        let volume = volume(ctx, mount)?;
        let source = match (parts.get(&index), sub_paths.get(&index)) {
            (None, _) => volume.path.clone(),
            (Some(_), Some(prepared)) => prepared.clone(),
            (Some(_), None) => return Err(unprepared(ctx, mount)),
        };
        refuse_recursive_read_only(mount)?;
        if mount.bind_mount_options.as_ref().is_some_and(|options| !options.is_empty()) {
            return Err(ConfigError::new("bindMountOptions is not supported by this node"));
        }
        mounts.push(BindMount {
            source,
            destination: Path::new("/").join(&mount.mount_path),
            read_only: mount.read_only.unwrap_or(false) || volume.read_only,
            no_exec: volume.no_exec,
            propagation: propagation(mount)?,
        });
    }
    mounts.extend(own_files(ctx, &mounts)?);
    // What lies deeper is mounted later; otherwise the order is the pod's.
    mounts.sort_by_key(|mount| mount.destination.components().count());
    Ok(mounts)
}

/// The message tells nothing of the node's files, which the pod must not learn of.
pub fn unprepared(ctx: &Context<'_>, mount: &VolumeMount) -> ConfigError {
    let (name, container) = (&mount.name, &ctx.container.name);
    ConfigError::new(format!("failed to prepare subPath for volumeMount {name:?} of container {container:?}"))
}

fn own_files(ctx: &Context<'_>, volumes: &[BindMount]) -> Result<Vec<BindMount>, ConfigError> {
    let of_volume = |path: &str| volumes.iter().any(|mount| mount.destination == Path::new(path));
    let context = ctx.container.security_context.as_ref();
    let read_only = context.and_then(|context| context.read_only_root_filesystem).unwrap_or(false);
    let mut files = vec![];
    let mut add = |source: PathBuf, destination: &str, read_only: bool| {
        if !of_volume(destination) {
            let destination = Path::new("/").join(destination);
            files.push(BindMount { source, destination, read_only, no_exec: false, propagation: Propagation::Private });
        }
    };
    if ctx.spec()?.host_network.unwrap_or(false) || !ctx.pod_ips.is_empty() {
        add(hosts_file(ctx.pod_dir), HOSTS, false);
    }
    add(hostname_file(ctx.pod_dir), HOSTNAME, read_only);
    add(resolver_file(ctx.pod_dir), RESOLVER, read_only);
    let message = non_empty(&ctx.container.termination_message_path).unwrap_or(TERMINATION_MESSAGE);
    add(termination_log(ctx.pod_dir, &ctx.container.name, ctx.attempt), message, false);
    Ok(files)
}

fn volume<'a>(ctx: &Context<'a>, mount: &VolumeMount) -> Result<&'a MountedVolume, ConfigError> {
    ctx.volumes.get(&mount.name).ok_or_else(|| {
        let (name, container) = (&mount.name, &ctx.container.name);
        ConfigError::new(format!("cannot find volume {name:?} to mount into container {container:?}"))
    })
}

fn propagation(mount: &VolumeMount) -> Result<Propagation, ConfigError> {
    match mount.mount_propagation.as_deref() {
        None | Some("None") => Ok(Propagation::Private),
        Some("HostToContainer") => Ok(Propagation::FromNode),
        Some("Bidirectional") => Ok(Propagation::Both),
        Some(other) => Err(ConfigError::new(format!("invalid MountPropagation mode: {other:?}"))),
    }
}

/// The runtime is not asked for recursively read-only mounts: where they must be, there are none (upstream:
/// `resolveRecursiveReadOnly`).
fn refuse_recursive_read_only(mount: &VolumeMount) -> Result<(), ConfigError> {
    let propagation = mount.mount_propagation.as_deref().filter(|mode| *mode != "None");
    let why = match (mount.recursive_read_only.as_deref(), propagation) {
        (None | Some("Disabled"), _) => return Ok(()),
        (Some(_), _) if !mount.read_only.unwrap_or(false) => "it is not read-only".to_owned(),
        (Some(_), Some(mode)) => format!("it is not compatible with propagation {mode:?}"),
        (Some("IfPossible"), None) => return Ok(()),
        (Some(_), None) => "it is not supported by the runtime".to_owned(),
    };
    Err(ConfigError::new(format!(
        "failed to resolve recursive read-only mode: volume {:?} requested recursive read-only mode, but {why}",
        mount.name
    )))
}

/// Unlike elsewhere, a variable that isn't set, or is empty, is an error here (upstream: `ExpandContainerVolumeMounts`).
fn expand_all(expression: &str, environment: &Environment) -> Result<String, ConfigError> {
    let missing = RefCell::new(BTreeSet::new());
    let expanded = expand(expression, |name| {
        let value = environment.get(name).filter(|value| !value.is_empty());
        if value.is_none() {
            missing.borrow_mut().insert(name.to_owned());
        }
        value
    });
    let missing: Vec<_> = missing.into_inner().into_iter().collect();
    match missing.is_empty() {
        true => Ok(expanded),
        false => Err(ConfigError::new(format!("missing value for {}", missing.join(", ")))),
    }
}

fn non_empty(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

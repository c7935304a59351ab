//! From a pod's specification to a container's: everything looked up, expanded and decided.
//!
//! Invariant: pure; what it reads of the cluster, the image and the node comes in by [`Context`]. The files and mounts that
//! the result names are made by [`crate::volumes::container`] from the same context.
//! Nothing that was asked for is left out silently: what can't be given is a [`ConfigError`].

pub mod env_file;
pub mod environment;
pub mod fields;
pub mod mounts;
pub mod name_files;
pub mod resources;
pub mod security;
pub mod services;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Container, EphemeralContainer, Pod, PodSpec, Secret};
use serde_json::Value;
use skep_client::slim::SlimService;

use self::env_file::EnvFiles;
use self::environment::Environment;
use self::name_files::ResolverConfig;
use self::resources::ResourceAmounts;
use super::expansion::expand;
use crate::runtime::spec::{ContainerSpec, PodNamespaces};
use crate::volumes::MountedVolume;

/// Why a container's configuration can't be made: the message of the waiting reason `CreateContainerConfigError`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    /// With upstream's message where upstream has one.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// What containers are told of the node, and what its configuration decides for them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeContext {
    /// The node's own hostname: what containers in its network namespace are told.
    pub hostname: String,
    /// The node's addresses, the primary one first.
    pub addresses: Vec<IpAddr>,
    /// What pods may use of the node.
    pub allocatable: ResourceAmounts,
    /// Bytes.
    pub memory_capacity: u64,
    /// All capabilities that there are on the node, with `CAP_`: what `ALL` means. Empty means every one that Linux has.
    pub capabilities: Vec<String>,
    /// The cluster's DNS domain, as `cluster.local`; empty if it has none.
    pub cluster_domain: String,
    /// The cluster's DNS servers.
    pub cluster_dns: Vec<IpAddr>,
    /// The node's own resolver configuration.
    pub resolver: ResolverConfig,
    /// Containers that name no seccomp profile have the runtime's (`--seccomp-default`).
    pub seccomp_default: bool,
}

/// What an image says of how it is run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageInfo {
    /// What comes before the arguments.
    pub entrypoint: Vec<String>,
    /// The default arguments.
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Empty is `/`.
    pub working_dir: String,
    /// `user[:group]`, by name or number; empty is root.
    pub user: String,
}

/// The identity that [`security::user_request`] was resolved to in the image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserIds {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// The groups that the image's `/etc/group` puts the user into.
    pub groups: Vec<u32>,
}

/// All that a container's specification follows from.
#[derive(Debug, Clone)]
pub struct Context<'a> {
    /// As the API has it.
    pub pod: &'a Pod,
    /// One of its containers or init containers.
    pub container: &'a Container,
    /// Which run it is, counted from 0.
    pub attempt: u32,
    /// The container's image.
    pub image: &'a ImageInfo,
    /// Who it runs as.
    pub ids: &'a UserIds,
    /// The pod's addresses, the primary one first; the node's for `hostNetwork`.
    pub pod_ips: &'a [IpAddr],
    /// The node.
    pub node: &'a NodeContext,
    /// By name, those that [`super::references::References::of_environment`] names, as far as they exist.
    pub config_maps: &'a BTreeMap<String, Arc<ConfigMap>>,
    /// As `config_maps`.
    pub secrets: &'a BTreeMap<String, Arc<Secret>>,
    /// Of the pod's namespace, and `default/kubernetes`; others are left out here.
    pub services: &'a [Arc<SlimService>],
    /// By name, the pod's volumes that are set up.
    pub volumes: &'a BTreeMap<String, MountedVolume>,
    /// The pod's own folder under the kubelet's root.
    pub pod_dir: &'a Path,
    /// The sandbox's.
    pub namespaces: &'a PodNamespaces,
    /// The sandbox's `/dev/shm`.
    pub shm: Option<&'a Path>,
    /// The container's cgroup.
    pub cgroup: &'a Path,
    /// The profile for what [`security::seccomp`] says, as the OCI specification's `linux.seccomp`.
    pub seccomp: Option<&'a Value>,
}

/// What was read and made on the node for one run, by [`crate::volumes::container::prepare`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Made {
    /// The files that variables come from.
    pub env_files: EnvFiles,
    /// By the index of the volume mount, where each of [`mounts::sub_paths`] is.
    pub sub_paths: BTreeMap<usize, PathBuf>,
}

impl Context<'_> {
    /// The pod's specification.
    ///
    /// # Errors
    /// When the pod has none, which the API server admits never.
    pub fn spec(&self) -> Result<&PodSpec, ConfigError> {
        self.pod.spec.as_ref().ok_or_else(|| ConfigError::new("the pod has no spec"))
    }

    fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }
}

/// An ephemeral container in the form of any other; which container it targets is for the sandbox to heed.
///
/// # Errors
/// Never for what the API server admits.
pub fn of_ephemeral(container: &EphemeralContainer) -> Result<Container, ConfigError> {
    // All of its fields but the target are a container's, by the API's own rule.
    let fields = serde_json::to_value(container).and_then(serde_json::from_value);
    fields.map_err(|error| ConfigError::new(format!("ephemeral container {:?}: {error}", container.name)))
}

/// The specification of a container.
///
/// # Errors
/// When something refers to what isn't there, breaks a rule of its own, or can't be given.
pub fn container_spec(ctx: &Context<'_>, made: &Made) -> Result<ContainerSpec, ConfigError> {
    refuse_unsupported(ctx)?;
    let spec = ctx.spec()?;
    let environment = environment::environment(ctx, &made.env_files)?;
    let context = ctx.container.security_context.as_ref();
    let privileged = security::is_privileged(ctx.container);
    let limits = resources::container_limits(ctx.pod, ctx.container);
    Ok(ContainerSpec {
        args: args(ctx, &environment)?,
        env: environment::with_defaults(ctx, &environment)?,
        cwd: working_dir(ctx),
        user: (ctx.ids.uid, ctx.ids.gid),
        groups: security::groups(ctx.pod, ctx.ids)?,
        capabilities: security::capabilities(ctx.container, &ctx.node.capabilities),
        no_new_privileges: context.and_then(|context| context.allow_privilege_escalation) == Some(false),
        read_only_root: context.and_then(|context| context.read_only_root_filesystem).unwrap_or(false),
        terminal: ctx.container.tty.unwrap_or(false),
        oom_score_adj: resources::oom_score_adj(ctx.pod, ctx.container, ctx.node.memory_capacity),
        mounts: mounts::mounts(ctx, &environment, &made.sub_paths)?,
        namespaces: ctx.namespaces.clone(),
        shm: if spec.host_ipc.unwrap_or(false) { None } else { ctx.shm.map(Path::to_owned) },
        privileged,
        unmasked_proc: context.and_then(|context| context.proc_mount.as_deref()) == Some("Unmasked"),
        seccomp: if privileged { None } else { ctx.seccomp.cloned() },
        cgroup: ctx.cgroup.to_owned(),
        cpu_shares: limits.cpu_shares,
        cpu_quota: limits.cpu_quota,
        memory_bytes: limits.memory_bytes,
        shim_group: ctx.pod.metadata.uid.clone().unwrap_or_default(),
    })
}

/// The command line: the container's own command, else the image's (upstream: `ExpandContainerCommandAndArgs`; which of
/// the image's parts is replaced is the runtime's rule, as in containerd's CRI plugin).
fn args(ctx: &Context<'_>, environment: &Environment) -> Result<Vec<String>, ConfigError> {
    let expanded = |list: &Option<Vec<String>>| -> Vec<String> {
        list.iter().flatten().map(|part| expand(part, |name| environment.get(name))).collect()
    };
    let (mut command, mut args) = (expanded(&ctx.container.command), expanded(&ctx.container.args));
    if command.is_empty() {
        if args.is_empty() {
            args.clone_from(&ctx.image.cmd);
        }
        command.clone_from(&ctx.image.entrypoint);
    }
    command.append(&mut args);
    match command.iter().find(|part| part.contains('\0')) {
        _ if command.is_empty() => Err(ConfigError::new("no command specified")),
        Some(_) => Err(ConfigError::new("the command contains a NUL byte")),
        None => Ok(command),
    }
}

fn working_dir(ctx: &Context<'_>) -> PathBuf {
    let own = ctx.container.working_dir.as_deref().filter(|path| !path.is_empty());
    Path::new("/").join(own.unwrap_or(&ctx.image.working_dir))
}

/// What this kubelet doesn't do must not look as if it were done.
fn refuse_unsupported(ctx: &Context<'_>) -> Result<(), ConfigError> {
    let spec = ctx.spec()?;
    let container = ctx.container;
    let claims = container.resources.as_ref().and_then(|resources| resources.claims.as_ref());
    let app_armor = |profile: &k8s_openapi::api::core::v1::AppArmorProfile| profile.type_ == "Localhost";
    let of_pod = spec.security_context.as_ref();
    let of_container = container.security_context.as_ref();
    let app_armor = match of_container.and_then(|context| context.app_armor_profile.as_ref()) {
        Some(profile) => app_armor(profile),
        None => of_pod.and_then(|context| context.app_armor_profile.as_ref()).is_some_and(app_armor),
    };
    let refused = [
        (spec.host_users == Some(false), "hostUsers: false"),
        (spec.share_process_namespace == Some(true), "shareProcessNamespace"),
        (container.volume_devices.as_ref().is_some_and(|devices| !devices.is_empty()), "volumeDevices"),
        (claims.is_some_and(|claims| !claims.is_empty()), "resources.claims"),
        (app_armor, "an AppArmor profile of the node (appArmorProfile.type: Localhost)"),
    ];
    match refused.iter().find(|(asked, _)| *asked) {
        Some((_, what)) => Err(ConfigError::new(format!("{what} is not supported by this node"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;

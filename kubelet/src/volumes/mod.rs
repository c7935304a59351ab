//! The volumes of this node's pods: made, kept up to date, and taken away.
//!
//! Invariant: everything of a pod lies below `pods/<uid>` of the root folder, and setting up may be repeated at any time:
//! what is there already stays, and projected files change only when their content does. Whatever kind of volume isn't
//! known here is refused by name.
//!
//! Data flow: `source` says what each volume of the pod is; [`payload`] makes files of API objects; [`atomic`] writes them.
//! [`container`] makes what only one container mounts. An image's volume is an empty folder until a container that mounts it
//! starts: then the image is here, and [`image`] mounts it.

pub mod atomic;
pub mod container;
mod empty_dir;
mod error;
mod host_path;
pub mod image;
mod mount_table;
mod nested;
mod ownership;
pub mod payload;
mod remove;
mod source;
mod sub_path;
mod usage;

pub use error::VolumeError;
pub use usage::Usage;

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::{FutureExt as _, StreamExt as _, stream};
use k8s_openapi::api::core::v1::{Pod, Volume};

use self::empty_dir::Medium;
use self::error::Cause;
use self::source::Source;
use crate::objects::{Freshness, Objects, TokenRequest};
use crate::pod::references::References;
use crate::pod::resolve::ConfigError;
use crate::pod::resolve::resources::ResourceAmounts;

/// How many volumes of a pod are set up at once.
const CONCURRENCY: usize = 8;
/// What a token is asked for with if the pod doesn't say for how long (the API's default).
const TOKEN_SECONDS: i64 = 3600;

/// A volume that is ready to be mounted into containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountedVolume {
    /// On the node.
    pub path: PathBuf,
    /// No container may write into it.
    pub read_only: bool,
    /// No container may execute what is in it.
    pub no_exec: bool,
}

/// The volumes below one root folder.
pub struct Volumes {
    root: PathBuf,
    objects: Arc<Objects>,
}

impl Volumes {
    /// Volumes below `root` (`--root-dir`), of objects that are read with `objects`.
    pub fn new(root: &Path, objects: Arc<Objects>) -> Self {
        Self { root: root.to_owned(), objects }
    }

    /// The folder of a pod.
    ///
    /// # Errors
    /// When `uid` is no name of a folder.
    pub fn pod_dir(&self, uid: &str) -> io::Result<PathBuf> {
        if uid.is_empty() || uid.starts_with('.') || uid.contains(['/', '\0']) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{uid:?} is no UID of a pod")));
        }
        Ok(self.root.join("pods").join(uid))
    }

    /// Makes the pod's volumes, or brings them up to date, and says where they are.
    ///
    /// A pod that starts is set up with [`Freshness::Now`]; to be called again each minute with an older one, so that
    /// tokens are renewed and changed objects reach the pod. `allocatable` is what downward API volumes are told.
    ///
    /// # Errors
    /// With the first volume that failed, after all were tried.
    pub async fn set_up(
        &self,
        pod: &Pod,
        allocatable: &ResourceAmounts,
        freshness: Freshness,
    ) -> Result<BTreeMap<String, MountedVolume>, VolumeError> {
        self.make_pod_dir(pod).await.map_err(|error| VolumeError::new("", error.into()))?;
        let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
        let set_up = |volume| self.set_up_one(pod, volume, allocatable, freshness).boxed();
        // Boxed at once: a closure that borrows what it is called with can't be sent between threads with its future.
        let set_up: Vec<_> = volumes.iter().map(set_up).collect();
        let results: Vec<_> = stream::iter(set_up).buffered(CONCURRENCY).collect().await;
        let named = volumes.iter().zip(results).map(|(volume, result)| match result {
            Ok(mounted) => Ok((volume.name.clone(), mounted)),
            Err(cause) => Err(VolumeError::new(&volume.name, cause)),
        });
        named.collect()
    }

    /// What each volume of the pod that lies in its folder takes of the node, by name; those that aren't set up are left out.
    ///
    /// # Errors
    /// When a volume can't be read.
    pub async fn usage(&self, pod: &Pod) -> io::Result<BTreeMap<String, Usage>> {
        let dir = self.pod_dir(pod.metadata.uid.as_deref().unwrap_or_default())?.join("volumes");
        let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
        let places = volumes.iter().filter_map(|volume| {
            let source = Source::of(volume).ok()?;
            // Images are counted as such.
            let plugin = source.plugin().filter(|_| !matches!(source, Source::Image))?;
            Some((volume.name.clone(), dir.join(plugin).join(&volume.name)))
        });
        let places: Vec<_> = places.collect();
        blocking(move || {
            let there = places.into_iter().filter(|(_, place)| place.is_dir());
            there.map(|(name, place)| Ok((name, usage::of(&place)?))).collect()
        })
        .await
    }

    /// Unmounts everything of a pod, and leaves its files; nothing being there is no error.
    ///
    /// # Errors
    /// When something can't be unmounted; to be tried again.
    pub async fn unmount(&self, uid: &str) -> io::Result<()> {
        let dir = self.pod_dir(uid)?;
        blocking(move || mount_table::unmount_below(&dir)).await
    }

    /// Unmounts and removes everything of a pod, with its folder; nothing being there is no error.
    ///
    /// # Errors
    /// When something can't be unmounted or removed; to be tried again.
    pub async fn tear_down(&self, uid: &str) -> io::Result<()> {
        self.objects.forget_tokens(uid);
        let dir = self.pod_dir(uid)?;
        blocking(move || {
            mount_table::unmount_below(&dir)?;
            remove::folder(&dir)
        })
        .await
    }

    /// The UIDs of all pods that have a folder.
    ///
    /// # Errors
    /// When the root folder can't be read.
    pub async fn list_uids(&self) -> io::Result<Vec<String>> {
        let pods = self.root.join("pods");
        blocking(move || match std::fs::read_dir(pods) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(vec![]),
            Err(error) => Err(error),
            Ok(entries) => entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect(),
        })
        .await
    }

    /// Only root may enter it: files in it may be readable for all.
    async fn make_pod_dir(&self, pod: &Pod) -> io::Result<()> {
        let dir = self.pod_dir(pod.metadata.uid.as_deref().unwrap_or_default())?;
        blocking(move || std::fs::DirBuilder::new().recursive(true).mode(0o750).create(dir)).await
    }

    async fn set_up_one(
        &self,
        pod: &Pod,
        volume: &Volume,
        allocatable: &ResourceAmounts,
        freshness: Freshness,
    ) -> Result<MountedVolume, Cause> {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let volumes = self.pod_dir(uid)?.join("volumes");
        let source = Source::of(volume)?;
        let dir = source.plugin().map(|plugin| volumes.join(plugin).join(&volume.name));
        let group = fs_group(pod)?;
        match (source, dir) {
            (Source::HostPath(source), _) => {
                let source = source.clone();
                let path = blocking(move || Ok(host_path::check(&source))).await??;
                Ok(MountedVolume { path, read_only: false, no_exec: false })
            }
            (Source::EmptyDir(source), Some(dir)) => {
                let request = empty_dir::Request::of(source, group)?;
                let path = dir.clone();
                blocking(move || empty_dir::set_up(&dir, &request)).await?;
                Ok(MountedVolume { path, read_only: false, no_exec: false })
            }
            (Source::Files(source, in_memory), Some(dir)) => {
                let payload = self.payload(pod, volume, source, allocatable, freshness).await?;
                let nested = nested::mountpoints(pod, &volume.name)?;
                let medium = if in_memory { Medium::Memory { bytes: None } } else { Medium::Disk };
                let request = empty_dir::Request { medium, mode: 0o777, group: None };
                let path = dir.clone();
                blocking(move || {
                    empty_dir::set_up(&dir, &request)?;
                    nested.iter().try_for_each(|nested| std::fs::create_dir_all(dir.join(nested)))?;
                    atomic::write(&dir, &payload, |dir| ownership::apply(dir, group, true))
                })
                .await?;
                Ok(MountedVolume { path, read_only: true, no_exec: false })
            }
            (Source::Image, Some(dir)) => {
                let path = dir.clone();
                blocking(move || std::fs::create_dir_all(dir)).await?;
                Ok(MountedVolume { path, read_only: true, no_exec: true })
            }
            (Source::EmptyDir(_) | Source::Files(..) | Source::Image, None) => {
                Err(Cause::refused("a volume without a folder"))
            }
        }
    }

    async fn payload(
        &self,
        pod: &Pod,
        volume: &Volume,
        source: payload::Files<'_>,
        allocatable: &ResourceAmounts,
        freshness: Freshness,
    ) -> Result<atomic::Payload, Cause> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let (config_maps, secrets) = self.objects.all(namespace, &References::of_volume(volume), freshness).await?;
        let mut tokens = vec![];
        for projection in source.tokens() {
            let text = |value: &Option<String>| value.clone().unwrap_or_default();
            let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone());
            let request = TokenRequest {
                namespace: namespace.to_owned(),
                service_account: account.filter(|name| !name.is_empty()).unwrap_or_else(|| "default".to_owned()),
                pod_name: text(&pod.metadata.name),
                pod_uid: text(&pod.metadata.uid),
                audience: projection.audience.clone().filter(|audience| !audience.is_empty()),
                expiration_seconds: projection.expiration_seconds.or(Some(TOKEN_SECONDS)),
            };
            tokens.push(self.objects.token(&request).await?.text);
        }
        let mut anchors = vec![];
        for projection in source.trust_bundles() {
            let read = self.objects.trust_anchors(projection).await;
            anchors.push(read.map_err(|error| ConfigError::new(error.to_string())));
        }
        let known = payload::Known {
            pod,
            config_maps: &config_maps,
            secrets: &secrets,
            tokens: &tokens,
            anchors: &anchors,
            allocatable,
        };
        payload::payload(source, &known).map_err(Cause::from)
    }
}

/// Runs file work on a thread that may wait.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        // Only the end of the process cancels it, and no file work here panics.
        Err(error) => Err(io::Error::other(error)),
    }
}

fn fs_group(pod: &Pod) -> Result<Option<u32>, Cause> {
    let group = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref()).and_then(|context| context.fs_group);
    group.map(|group| u32::try_from(group).map_err(|_| Cause::refused(format!("{group} is no group")))).transpose()
}

#[cfg(test)]
mod tests;

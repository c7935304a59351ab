//! Images: from a pod's `image` to what a container is made of, pulled if need be.
//!
//! Invariant: what is asked of containerd is never remembered; an [`Image`] that was returned was unpacked at that time.
//! Data flow: looking up and unpacking use containerd's native services; pulling, listing and removing use
//! the CRI image service of the same socket, which alone knows registries' mirrors and credentials on every containerd.

mod access;
mod error;
mod garbage;
mod keyring;
mod manifest;
mod reference;
mod store;

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use containerd_client::tonic::transport::Channel;
use containerd_client::tonic::{Code, Status};
use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::{
    AuthConfig, ImageFsInfoRequest, ImageSpec, ImageStatusRequest, ListImagesRequest, PullImageRequest,
    RemoveImageRequest,
};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use self::access::AccessRecords;
pub use self::error::ImageError;
use self::error::rpc_error;
pub use self::garbage::{Disk, Garbage, GarbagePolicy, ImageUses};
pub use self::keyring::{CredentialSource, Keyring, RegistryAuth};
pub use self::manifest::ImageConfig;
pub use self::reference::Reference;
use self::store::{Store, Stored};

/// A node's list of images may pass gRPC's default limit of 4 MiB (upstream: `maxMsgSize`).
const MAX_ANSWER: usize = 16 << 20;

/// When an image is pulled (`imagePullPolicy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PullPolicy {
    /// Each time, so that the registry decides who may have it, and a moved tag is followed.
    Always,
    /// Unless it is here.
    IfNotPresent,
    /// Not at all.
    Never,
}

/// An image that is here and unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its name in containerd's image store.
    pub reference: String,
    /// The digest of its configuration, as `sha256:…`.
    pub id: String,
    /// What a registry knows it by, as `docker.io/library/busybox@sha256:…`; none for one that came from no registry.
    pub repo_digest: Option<String>,
    /// The snapshot that containers' roots are prepared on; empty for an image without layers.
    pub chain_id: String,
    /// How it wants to be run.
    pub config: ImageConfig,
}

/// An image that was pulled just now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The image.
    pub image: Image,
    /// How long the pull took.
    pub took: Duration,
    /// With the wait for its turn.
    pub took_with_waiting: Duration,
    /// On disk, as containerd counts.
    pub size_bytes: u64,
}

impl Pulled {
    /// What upstream's event `Pulled` says; `image` is what the pod calls it.
    pub fn message(&self, image: &str) -> String {
        let [took, waiting] = [self.took, self.took_with_waiting].map(go_duration);
        let size = self.size_bytes;
        format!(
            "Successfully pulled image {image:?} in {took} ({waiting} including waiting). Image size: {size} bytes."
        )
    }
}

/// An image as the node's status lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeImage {
    /// The digest of its configuration.
    pub id: String,
    /// With digests, then with tags.
    pub names: Vec<String>,
    /// On disk, as containerd counts.
    pub size_bytes: u64,
    /// Not to be removed by garbage collection.
    pub pinned: bool,
}

/// What images use of a file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFileSystem {
    /// Where it is mounted.
    pub mount_point: String,
    /// Bytes used by images.
    pub used_bytes: u64,
    /// Inodes used by images.
    pub inodes_used: u64,
}

/// The images of a node.
#[derive(Debug, Clone)]
pub struct Images {
    store: Store,
    service: ImageServiceClient<Channel>,
    access: Option<AccessRecords>,
    pulls: Arc<Semaphore>,
    /// One a name that is being pulled; gone with the last that waits for it.
    pulling: Arc<Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>>,
}

impl Images {
    /// Connects to containerd. The namespace is the one of its CRI plugin (`k8s.io`), the snapshotter the one that
    /// containers' roots are made with, and `parallel_pulls` how many images are pulled at a time.
    ///
    /// # Errors
    /// When nothing answers at the socket.
    pub async fn connect(
        socket: &Path,
        namespace: &str,
        snapshotter: &str,
        parallel_pulls: usize,
    ) -> Result<Self, ImageError> {
        let failed = |error: String| ImageError::Runtime(format!("containerd at {}: {error}", socket.display()));
        let channel = containerd_client::connect(socket).await.map_err(|error| failed(error.to_string()))?;
        let namespace = namespace.parse().map_err(|_| failed(format!("{namespace:?} is not a valid namespace")))?;
        Ok(Self {
            service: ImageServiceClient::new(channel.clone()).max_decoding_message_size(MAX_ANSWER),
            store: Store { channel, namespace, snapshotter: snapshotter.to_owned() },
            access: None,
            pulls: Arc::new(Semaphore::new(parallel_pulls.clamp(1, Semaphore::MAX_PERMITS))),
            pulling: Arc::default(),
        })
    }

    /// Keeps records in a folder of which pull secrets a private image was pulled with, and lets only pods with such a one
    /// use it without asking its registry (KEP-2535). Without records whatever is on the node is for every pod.
    #[must_use]
    pub fn with_access_records(mut self, folder: &Path) -> Self {
        self.access = Some(AccessRecords::new(folder));
        self
    }

    /// What upstream's event `Pulled` says of an image that need not be pulled; `image` is what the pod calls it.
    pub fn present_message(&self, image: &str) -> String {
        let access = if self.access.is_some() { " and can be accessed by the pod" } else { "" };
        format!("Container image {image:?} already present on machine{access}")
    }

    /// Returns an image, pulled if `policy` and its presence ask for it.
    ///
    /// # Errors
    /// With upstream's reason and message: [`ImageError::reason`].
    pub async fn ensure(&self, image: &str, policy: PullPolicy, auth: &[RegistryAuth]) -> Result<Image, ImageError> {
        match self.present(image, policy, auth).await? {
            Some(present) => Ok(present),
            None => Ok(self.pull(image, policy, auth).await?.image),
        }
    }

    /// Returns an image that is here, open to a pod with these credentials, and need not be pulled; none means that
    /// [`Self::pull`] is next. Apart from [`Self::ensure`] for callers that tell of a pull before they begin it.
    ///
    /// # Errors
    /// When the name is invalid, the image may not be pulled, or containerd can't say.
    pub async fn present(
        &self,
        image: &str,
        policy: PullPolicy,
        auth: &[RegistryAuth],
    ) -> Result<Option<Image>, ImageError> {
        let reference = parse(image)?;
        let found = match policy {
            PullPolicy::Always => return Ok(None),
            PullPolicy::IfNotPresent | PullPolicy::Never => self.find_open(image, &reference, auth).await?,
        };
        match (found, policy) {
            (None, PullPolicy::Never) => Err(ImageError::NeverPull { image: image.to_owned() }),
            (found, _) => Ok(found),
        }
    }

    /// Pulls an image, trying each of the credentials, or none if there are none. One pull an image at a time; who
    /// waited for another's pull takes what it brought unless the policy is `Always`.
    ///
    /// # Errors
    /// When no credential led to the image.
    pub async fn pull(&self, image: &str, policy: PullPolicy, auth: &[RegistryAuth]) -> Result<Pulled, ImageError> {
        let reference = parse(image)?;
        let asked = Instant::now();
        let turn = self.turn(&reference.to_string());
        let (_turn, waited) = match Arc::clone(&turn).try_lock_owned() {
            Ok(turn) => (turn, false),
            Err(_) => (turn.lock_owned().await, true),
        };
        let took_from_another = match waited && policy != PullPolicy::Always {
            true => self.find_open(image, &reference, auth).await?,
            false => None,
        };
        let (found, took) = match took_from_another {
            Some(found) => (Some(found), Duration::ZERO),
            None => {
                // Never closed.
                let _pull = self.pulls.acquire().await.map_err(|error| ImageError::Runtime(error.to_string()))?;
                let begun = Instant::now();
                (self.pull_recorded(image, &reference, auth).await?, begun.elapsed())
            }
        };
        let found = found.ok_or_else(|| ImageError::Inspect {
            image: image.to_owned(),
            message: format!("{reference} was pulled but is not in containerd's image store"),
        })?;
        let size_bytes = self.size(&found.reference).await?;
        Ok(Pulled { image: found, took, took_with_waiting: asked.elapsed(), size_bytes })
    }

    /// All images of the node, the largest first (upstream's order in the node's status).
    ///
    /// # Errors
    /// When the image service doesn't answer.
    pub async fn list(&self) -> Result<Vec<NodeImage>, ImageError> {
        let answer = self.service.clone().list_images(ListImagesRequest::default()).await.map_err(runtime)?;
        let image = |image: k8s_cri::v1::Image| NodeImage {
            id: image.id,
            names: image.repo_digests.into_iter().chain(image.repo_tags).collect(),
            size_bytes: image.size,
            pinned: image.pinned,
        };
        let mut images: Vec<NodeImage> = answer.into_inner().images.into_iter().map(image).collect();
        images.sort_by(|a, b| b.size_bytes.cmp(&a.size_bytes).then_with(|| a.names.cmp(&b.names)));
        Ok(images)
    }

    /// Removes an image with all its names; one that is not there is no error. Containers that run keep their files.
    ///
    /// # Errors
    /// When the image service doesn't answer.
    pub async fn remove(&self, id: &str) -> Result<(), ImageError> {
        let image = ImageSpec { image: id.to_owned(), ..ImageSpec::default() };
        self.service.clone().remove_image(RemoveImageRequest { image: Some(image) }).await.map_err(runtime)?;
        let forgotten = self.access.as_ref().map_or(Ok(()), |records| records.forget(id));
        forgotten.map_err(|error| ImageError::Runtime(error.to_string()))
    }

    /// What images use of their file systems.
    ///
    /// # Errors
    /// When the image service doesn't answer.
    pub async fn file_systems(&self) -> Result<Vec<ImageFileSystem>, ImageError> {
        let answer = self.service.clone().image_fs_info(ImageFsInfoRequest {}).await.map_err(runtime)?;
        let usage = |usage: k8s_cri::v1::FilesystemUsage| ImageFileSystem {
            mount_point: usage.fs_id.map(|id| id.mountpoint).unwrap_or_default(),
            used_bytes: usage.used_bytes.map_or(0, |bytes| bytes.value),
            inodes_used: usage.inodes_used.map_or(0, |inodes| inodes.value),
        };
        Ok(answer.into_inner().image_filesystems.into_iter().map(usage).collect())
    }

    /// Finds an image that a pod with these credentials may use.
    async fn find_open(
        &self,
        image: &str,
        reference: &Reference,
        auth: &[RegistryAuth],
    ) -> Result<Option<Image>, ImageError> {
        let Some(found) = self.find(image, reference).await? else { return Ok(None) };
        let Some(records) = &self.access else { return Ok(Some(found)) };
        let open = records.allow(&found.id, &found.reference, &reference.repository(), auth);
        let failed = |error: io::Error| ImageError::Inspect { image: image.to_owned(), message: error.to_string() };
        Ok(open.map_err(failed)?.then_some(found))
    }

    async fn pull_recorded(
        &self,
        image: &str,
        reference: &Reference,
        auth: &[RegistryAuth],
    ) -> Result<Option<Image>, ImageError> {
        let Some(records) = &self.access else {
            self.pull_now(image, reference, auth).await?;
            return self.find(image, reference).await;
        };
        let failed = |error: io::Error| ImageError::Pull {
            message: format!("Failed to record image pull intent for container image {image:?}: {error}"),
        };
        let name = reference.to_string();
        records.begin(&name).map_err(failed)?;
        let pulled = self.pull_now(image, reference, auth).await;
        let found = match pulled {
            Ok(accepted) => {
                let found = self.find(image, reference).await?;
                if let Some(found) = &found {
                    records.accepted(&found.id, &reference.repository(), accepted).map_err(failed)?;
                }
                Ok(found)
            }
            Err(error) => Err(error),
        };
        records.end(&name).map_err(failed)?;
        found
    }

    async fn find(&self, image: &str, reference: &Reference) -> Result<Option<Image>, ImageError> {
        let failed = |status: Status| ImageError::Inspect { image: image.to_owned(), message: rpc_error(&status) };
        let name = reference.to_string();
        let Some(stored) = self.store.image(&name).await.map_err(failed)? else { return Ok(None) };
        let chain_id = match self.store.unpack(&stored).await {
            Ok(chain_id) => chain_id,
            // A layer's content is missing: an image that was only begun.
            Err(status) if status.code() == Code::NotFound => return Ok(None),
            Err(status) => return Err(failed(status)),
        };
        let repo_digest = self.repo_digest(reference, &stored).await.map_err(failed)?;
        let Stored { config, configuration, .. } = stored;
        Ok(Some(Image { reference: name, id: config.digest, repo_digest, chain_id, config: configuration.config }))
    }

    /// containerd's CRI plugin gives what it pulls a name with the digest beside the one with the tag.
    async fn repo_digest(&self, reference: &Reference, stored: &Stored) -> Result<Option<String>, Status> {
        let name = format!("{}@{}", reference.repository(), stored.target);
        Ok(self.store.target(&name).await?.map(|_| name))
    }

    async fn size(&self, name: &str) -> Result<u64, ImageError> {
        let image = ImageSpec { image: name.to_owned(), ..ImageSpec::default() };
        let request = ImageStatusRequest { image: Some(image), verbose: false };
        let answer = self.service.clone().image_status(request).await.map_err(runtime)?;
        Ok(answer.into_inner().image.map_or(0, |image| image.size))
    }

    /// Pulls with each credential in turn, and returns the one that was accepted; none if none was needed.
    async fn pull_now<'a>(
        &self,
        image: &str,
        reference: &Reference,
        auth: &'a [RegistryAuth],
    ) -> Result<Option<&'a RegistryAuth>, ImageError> {
        let attempts: Vec<Option<&RegistryAuth>> =
            if auth.is_empty() { vec![None] } else { auth.iter().map(Some).collect() };
        let mut failures = Vec::new();
        for credentials in attempts {
            let spec = ImageSpec {
                image: reference.to_string(),
                user_specified_image: image.to_owned(),
                ..ImageSpec::default()
            };
            let auth = credentials.map(auth_config);
            let request = PullImageRequest { image: Some(spec), auth, sandbox_config: None };
            match self.service.clone().pull_image(request).await {
                Ok(_) => return Ok(credentials),
                Err(status) => failures.push(status),
            }
        }
        Err(ImageError::pull(image, &failures))
    }

    fn turn(&self, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut pulling = self.pulling.lock();
        pulling.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = pulling.get(name).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::default();
        pulling.insert(name.to_owned(), Arc::downgrade(&turn));
        turn
    }
}

fn parse(image: &str) -> Result<Reference, ImageError> {
    Reference::parse(image).map_err(|message| ImageError::InvalidName { image: image.to_owned(), message })
}

fn auth_config(auth: &RegistryAuth) -> AuthConfig {
    AuthConfig {
        username: auth.username.clone(),
        password: auth.password.clone(),
        server_address: auth.server_address.clone(),
        identity_token: auth.identity_token.clone(),
        registry_token: auth.registry_token.clone(),
        ..AuthConfig::default()
    }
}

fn runtime(status: Status) -> ImageError {
    ImageError::Runtime(rpc_error(&status))
}

/// As Go prints a duration in whole milliseconds: `345ms`, `1.2s`, `2m0.5s`.
fn go_duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    if milliseconds < 1000 {
        return if milliseconds == 0 { "0s".to_owned() } else { format!("{milliseconds}ms") };
    }
    let (hours, minutes) = (milliseconds / 3_600_000, milliseconds / 60_000 % 60);
    let fraction = format!("{:03}", milliseconds % 1000);
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    let seconds = format!("{}{point}{fraction}s", milliseconds / 1000 % 60);
    match (hours, minutes) {
        (0, 0) => seconds,
        (0, _) => format!("{minutes}m{seconds}"),
        (_, _) => format!("{hours}h{minutes}m{seconds}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_printed_as_go_does() {
        for (milliseconds, text) in
            [(0, "0s"), (345, "345ms"), (1000, "1s"), (1050, "1.05s"), (120_500, "2m0.5s"), (3_600_000, "1h0m0s")]
        {
            assert_eq!(go_duration(Duration::from_millis(milliseconds)), text);
        }
    }
}

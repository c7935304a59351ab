//! containerd's own image, content and snapshot stores: what an image is made of, and its unpacking.
//!
//! Invariant: nothing is cached. What is unpacked is held by a lease until the image's configuration refers to it, so
//! that containerd's garbage collection never sees a part of it without an owner.

use std::collections::HashMap;

use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::diff_client::DiffClient;
use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::leases_client::LeasesClient;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::snapshots::{
    CommitSnapshotRequest, PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest,
};
use containerd_client::services::v1::{
    ApplyRequest, CreateRequest, DeleteRequest, GetImageRequest, Info, ReadContentRequest, UpdateRequest,
};
use containerd_client::tonic::metadata::{Ascii, MetadataValue};
use containerd_client::tonic::transport::Channel;
use containerd_client::tonic::{Code, Request, Status};
use containerd_client::types;
use jiff::{SignedDuration, Timestamp};

use super::manifest::{self, Configuration, Content, Descriptor};

/// The most that is read of a manifest or configuration (containerd's own limit for them).
const MAX_DOCUMENT: usize = 8 << 20;
/// An index may lead to another, but not for ever.
const MAX_DEPTH: usize = 4;
/// An unpacking that a crash interrupted is collected after this.
const LEASE_LIFE: SignedDuration = SignedDuration::from_hours(1);

/// A connection to the stores of one containerd namespace.
#[derive(Debug, Clone)]
pub(super) struct Store {
    pub(super) channel: Channel,
    pub(super) namespace: MetadataValue<Ascii>,
    pub(super) snapshotter: String,
}

/// An image whose parts are all here; its layers may not be unpacked.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    /// Of what the name points to, an index or a manifest: what a registry calls the image by.
    pub(super) target: String,
    pub(super) config: Descriptor,
    pub(super) layers: Vec<Descriptor>,
    pub(super) configuration: Configuration,
}

impl Store {
    /// Looks an image up by its name in the store; none if it or a part of it other than layers is missing.
    pub(super) async fn image(&self, name: &str) -> Result<Option<Stored>, Status> {
        let Some(target) = self.target(name).await? else { return Ok(None) };
        let mut candidates = vec![target.clone()];
        for _ in 0..MAX_DEPTH {
            match self.first_present(&candidates).await? {
                None => return Ok(None),
                Some(Content::Index(manifests)) => candidates = manifests,
                Some(Content::Manifest { config, layers }) => {
                    let Some(text) = self.read(&config.digest).await? else { return Ok(None) };
                    let configuration = manifest::read_configuration(&text);
                    let configuration = configuration.map_err(|problem| invalid(&config, &problem))?;
                    if configuration.diff_ids.len() != layers.len() {
                        return Err(invalid(&config, "it has not one diff id for each layer"));
                    }
                    return Ok(Some(Stored { target: target.digest, config, layers, configuration }));
                }
            }
        }
        Err(Status::failed_precondition(format!("{name}: indexes of images are nested too deeply")))
    }

    /// The digest that a name points to, none if there is no such name.
    pub(super) async fn target(&self, name: &str) -> Result<Option<Descriptor>, Status> {
        let request = self.request(GetImageRequest { name: name.to_owned() });
        let Some(answer) = found(ImagesClient::new(self.channel.clone()).get(request).await)? else { return Ok(None) };
        let target = answer.into_inner().image.and_then(|image| image.target);
        Ok(target.map(|is| Descriptor { media_type: is.media_type, digest: is.digest, size: is.size, platform: None }))
    }

    /// Makes sure that the image's layers are unpacked, and returns the chain id of the uppermost; empty for no layers.
    pub(super) async fn unpack(&self, image: &Stored) -> Result<String, Status> {
        let chain = manifest::chain_ids(&image.configuration.diff_ids);
        let Some(top) = chain.last().cloned() else { return Ok(String::new()) };
        if self.has_snapshot(&top).await? {
            return Ok(top);
        }
        let lease = format!("skep-unpack-{}", uuid::Uuid::new_v4());
        let expires = (Timestamp::now() + LEASE_LIFE).to_string();
        let labels = HashMap::from([("containerd.io/gc.expire".to_owned(), expires)]);
        let create = self.request(CreateRequest { id: lease.clone(), labels });
        let mut leases = LeasesClient::new(self.channel.clone());
        leases.create(create).await?;
        let unpacked = self.unpack_under(&lease, image, &chain).await;
        // Left behind, it expires.
        let _ = leases.delete(self.request(DeleteRequest { id: lease, sync: false })).await;
        unpacked.map(|()| top)
    }

    async fn unpack_under(&self, lease: &str, image: &Stored, chain: &[String]) -> Result<(), Status> {
        let mut parent = "";
        for ((layer, diff_id), name) in image.layers.iter().zip(&image.configuration.diff_ids).zip(chain) {
            if !self.has_snapshot(name).await? {
                self.unpack_layer(lease, layer, diff_id, parent, name).await?;
            }
            parent = name;
        }
        // As containerd's own unpacking does: the configuration holds the snapshot.
        let label = format!("containerd.io/gc.ref.snapshot.{}", self.snapshotter);
        let labels = HashMap::from([(label.clone(), parent.to_owned())]);
        let info = Info { digest: image.config.digest.clone(), labels, ..Info::default() };
        let mut update = UpdateRequest { info: Some(info), update_mask: Some(Default::default()) };
        if let Some(mask) = &mut update.update_mask {
            mask.paths.push(format!("labels.{label}"));
        }
        ContentClient::new(self.channel.clone()).update(self.leased(lease, update)?).await?;
        Ok(())
    }

    async fn unpack_layer(
        &self,
        lease: &str,
        layer: &Descriptor,
        diff_id: &str,
        parent: &str,
        name: &str,
    ) -> Result<(), Status> {
        let mut snapshots = SnapshotsClient::new(self.channel.clone());
        let key = format!("{lease} {name}");
        let prepare = PrepareSnapshotRequest {
            snapshotter: self.snapshotter.clone(),
            key: key.clone(),
            parent: parent.to_owned(),
            labels: HashMap::new(),
        };
        let mounts = snapshots.prepare(self.leased(lease, prepare)?).await?.into_inner().mounts;
        let committed = async {
            let diff = types::Descriptor {
                media_type: layer.media_type.clone(),
                digest: layer.digest.clone(),
                size: layer.size,
                annotations: HashMap::new(),
            };
            let apply = ApplyRequest { diff: Some(diff), mounts, ..ApplyRequest::default() };
            let applied = DiffClient::new(self.channel.clone()).apply(self.leased(lease, apply)?).await?.into_inner();
            if applied.applied.is_none_or(|applied| applied.digest != diff_id) {
                return Err(invalid(layer, &format!("it doesn't unpack to {diff_id}")));
            }
            let commit = CommitSnapshotRequest {
                snapshotter: self.snapshotter.clone(),
                name: name.to_owned(),
                key: key.clone(),
                ..CommitSnapshotRequest::default()
            };
            SnapshotsClient::new(self.channel.clone()).commit(self.leased(lease, commit)?).await.map(|_| ())
        };
        let outcome = committed.await;
        if outcome.is_err() {
            let remove = RemoveSnapshotRequest { snapshotter: self.snapshotter.clone(), key };
            // Left behind, it goes with the lease.
            let _ = snapshots.remove(self.request(remove)).await;
        }
        match outcome {
            // Someone else was faster.
            Err(status) if status.code() == Code::AlreadyExists => Ok(()),
            other => other,
        }
    }

    async fn has_snapshot(&self, key: &str) -> Result<bool, Status> {
        let stat = StatSnapshotRequest { snapshotter: self.snapshotter.clone(), key: key.to_owned() };
        let answer = SnapshotsClient::new(self.channel.clone()).stat(self.request(stat)).await;
        Ok(found(answer)?.is_some())
    }

    async fn first_present(&self, candidates: &[Descriptor]) -> Result<Option<Content>, Status> {
        for candidate in candidates {
            if let Some(text) = self.read(&candidate.digest).await? {
                return manifest::read(&text).map(Some).map_err(|problem| invalid(candidate, &problem));
            }
        }
        Ok(None)
    }

    async fn read(&self, digest: &str) -> Result<Option<Vec<u8>>, Status> {
        let request = ReadContentRequest { digest: digest.to_owned(), offset: 0, size: 0 };
        let answer = ContentClient::new(self.channel.clone()).read(self.request(request)).await;
        let Some(answer) = found(answer)? else { return Ok(None) };
        let mut parts = answer.into_inner();
        let mut text = Vec::new();
        // A server that streams reports a missing document with the first part.
        while let Some(part) = found(parts.message().await)?.flatten() {
            text.extend_from_slice(&part.data);
            if text.len() > MAX_DOCUMENT {
                return Err(Status::resource_exhausted(format!("{digest} is longer than {MAX_DOCUMENT} bytes")));
            }
        }
        Ok((!text.is_empty()).then_some(text))
    }

    pub(super) fn request<T>(&self, body: T) -> Request<T> {
        let mut request = Request::new(body);
        request.metadata_mut().insert("containerd-namespace", self.namespace.clone());
        request
    }

    fn leased<T>(&self, lease: &str, body: T) -> Result<Request<T>, Status> {
        let mut request = self.request(body);
        let lease = lease.parse().map_err(|_| Status::invalid_argument("the lease's name is not ASCII"))?;
        request.metadata_mut().insert("containerd-lease", lease);
        Ok(request)
    }
}

fn found<T>(answer: Result<T, Status>) -> Result<Option<T>, Status> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(status),
    }
}

fn invalid(of: &Descriptor, problem: &str) -> Status {
    Status::failed_precondition(format!("{}: {problem}", of.digest))
}

//! Volumes that are images (KEP-4639): pulled before a container that mounts them starts, and mounted then.
//!
//! Invariant: a view of an image and its mount lie between the making and the removal of the pod's folder, so that whoever
//! removes what is left of a pod finds both. What a container was given stays with it, even when its tag moved.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ImageVolumeSource, Pod};

use super::pulls::{Wanted, policy};
use super::start::Failure;
use super::worker::Worker;
use crate::images::Image;
use crate::volumes::image;

/// Images by the name of the volume.
pub(super) type VolumeImages = BTreeMap<String, Image>;

impl Worker {
    /// The images of all volumes that a container mounts; none while one is pulled or waited for.
    pub(super) fn volume_images(&mut self, container: &Container, now: Timestamp) -> Option<VolumeImages> {
        let pod = self.pod.clone();
        let mut images = VolumeImages::new();
        let mut all = true;
        // All are asked for before any is waited for.
        for (volume, source) in mounted(&pod, container) {
            match self.image(&container.name, wanted(source), now) {
                Some(image) => drop(images.insert(volume.to_owned(), image)),
                None => all = false,
            }
        }
        all.then_some(images)
    }

    /// The volumes' images were used for a start: the next one asks for them again.
    pub(super) fn used_volumes(&mut self, container: &Container) {
        let pod = self.pod.clone();
        for (_, source) in mounted(&pod, container) {
            self.used(&wanted(source));
        }
    }

    /// Mounts the images where the pod's volumes are.
    pub(super) async fn mount_images(&mut self, images: &VolumeImages) -> Result<(), Failure> {
        for (volume, image) in images {
            if self.mounted_images.get(volume) == Some(&image.chain_id) {
                continue;
            }
            let failed = |error: String| Failure::create(format!("failed to mount image volume {volume:?}: {error}"));
            let path =
                self.volumes.as_ref().and_then(|volumes| volumes.get(volume)).map(|mounted| mounted.path.clone());
            let path = path.ok_or_else(|| failed("it is not set up".to_owned()))?;
            let view = self.node.containerd.view(&self.uid, &image.chain_id).await;
            let view = view.map_err(|error| failed(error.to_string()))?;
            tokio::task::block_in_place(|| image::mount(&view, &path)).map_err(|error| failed(error.to_string()))?;
            self.mounted_images.insert(volume.clone(), image.chain_id.clone());
        }
        Ok(())
    }

    /// Takes the pod's volumes away, and what images they were of.
    pub(super) async fn tear_down_volumes(&mut self) -> Result<(), String> {
        self.mounted_images.clear();
        let volumes = &self.node.volumes;
        volumes.unmount(&self.uid).await.map_err(|error| error.to_string())?;
        self.node.containerd.remove_views(&self.uid).await.map_err(|error| error.to_string())?;
        volumes.tear_down(&self.uid).await.map_err(|error| error.to_string())
    }
}

/// What the status calls an image (upstream: `GetImageRef`).
pub(super) fn image_ref(image: &Image) -> String {
    image.repo_digest.clone().unwrap_or_else(|| image.id.clone())
}

fn wanted(source: &ImageVolumeSource) -> Wanted {
    Wanted {
        reference: source.reference.clone().unwrap_or_default(),
        policy: policy(source.pull_policy.as_deref()),
        volume: true,
    }
}

/// The volumes of kind `image` that a container mounts.
fn mounted<'a>(pod: &'a Pod, container: &Container) -> Vec<(&'a str, &'a ImageVolumeSource)> {
    let names: BTreeSet<&str> = container.volume_mounts.iter().flatten().map(|mount| mount.name.as_str()).collect();
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let volumes = volumes.filter(|volume| names.contains(volume.name.as_str()));
    volumes.filter_map(|volume| Some((volume.name.as_str(), volume.image.as_ref()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::PullPolicy;
    use serde_json::json;

    #[test]
    fn only_the_image_volumes_that_a_container_mounts_are_wanted_for_it() {
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "containers": [{"name": "c", "volumeMounts": [
                {"name": "a", "mountPath": "/a"}, {"name": "a", "mountPath": "/b"}, {"name": "e", "mountPath": "/e"},
            ]}],
            "volumes": [
                {"name": "a", "image": {"reference": "data:v1", "pullPolicy": "Never"}},
                {"name": "b", "image": {"reference": "other"}}, {"name": "e", "emptyDir": {}},
            ],
        }}))
        .unwrap();
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let found: Vec<_> = mounted(&pod, container).into_iter().map(|(name, source)| (name, wanted(source))).collect();
        let never = Wanted { reference: "data:v1".to_owned(), policy: PullPolicy::Never, volume: true };
        assert_eq!(found, [("a", never)]);
    }
}

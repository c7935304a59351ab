//! Read-only snapshots of images, which volumes of pods are mounted from.
//!
//! Invariant: a view is labelled with its pod and kept from containerd's garbage collection, with the layers below it, until
//! its pod's views are removed; what a kubelet left of a pod without a folder goes with the sweep.

use std::collections::HashMap;

use containerd_client::services::v1::snapshots::{ListSnapshotsRequest, ViewSnapshotRequest};
use containerd_client::types::Mount;
use futures::TryStreamExt;
use jiff::Timestamp;

use super::containerd::{Containerd, GC_ROOT, RuntimeError, call, label_filter};

/// The pod whose volumes a snapshot is for.
pub(super) const POD: &str = "skep.dev/volumes-of";

impl Containerd {
    /// Makes a snapshot of `parent` (a chain id; empty for an empty root) that nobody can write to, for the volumes of a
    /// pod, and says how to mount it. One that is there already is used again.
    ///
    /// # Errors
    /// When the parent is missing.
    pub async fn view(&self, pod: &str, parent: &str) -> Result<Vec<Mount>, RuntimeError> {
        let key = view_key(pod, parent);
        let mut labels = self.snapshot_labels.clone();
        labels.insert(GC_ROOT.to_owned(), Timestamp::now().to_string());
        labels.insert(POD.to_owned(), pod.to_owned());
        let request = ViewSnapshotRequest {
            snapshotter: self.snapshotter.clone(),
            key: key.clone(),
            parent: parent.to_owned(),
            labels,
        };
        match self.snapshots().view(self.request(request)).await.map_err(call("snapshot view")) {
            Ok(answer) => Ok(answer.into_inner().mounts),
            Err(error) if error.is_already_exists() => self.mounts(&key).await,
            Err(error) => Err(error),
        }
    }

    /// Removes the views of a pod, which must not be mounted any more; nothing being there is no error.
    ///
    /// # Errors
    /// When containerd doesn't answer.
    pub async fn remove_views(&self, pod: &str) -> Result<(), RuntimeError> {
        for (key, _) in self.labelled_snapshots(label_filter([(POD, pod)].into_iter())).await? {
            self.remove_snapshot(&key).await?;
        }
        Ok(())
    }

    /// The keys and labels of the snapshots that a filter finds.
    pub(super) async fn labelled_snapshots(
        &self,
        filter: String,
    ) -> Result<Vec<(String, HashMap<String, String>)>, RuntimeError> {
        let request = ListSnapshotsRequest { snapshotter: self.snapshotter.clone(), filters: vec![filter] };
        let listed = self.snapshots().list(self.request(request)).await.map_err(call("snapshot list"))?.into_inner();
        let pages: Vec<_> = listed.try_collect().await.map_err(call("snapshot list"))?;
        Ok(pages.into_iter().flat_map(|page| page.info).map(|info| (info.name, info.labels)).collect())
    }
}

/// One for all volumes of a pod that are of the same image.
fn view_key(pod: &str, parent: &str) -> String {
    format!("{pod}/volume/{parent}")
}

//! What kind of volume it is.

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, HostPathVolumeSource, Volume};
use serde_json::Value;

use super::error::Cause;
use super::payload::Files;

/// The kinds that are set up here.
pub(super) enum Source<'a> {
    EmptyDir(&'a EmptyDirVolumeSource),
    HostPath(&'a HostPathVolumeSource),
    /// The root of an image, which its pod's worker pulls.
    Image,
    /// Files that come from the API; the flag says that they may not reach a disk.
    Files(Files<'a>, bool),
}

impl<'a> Source<'a> {
    /// # Errors
    /// When it is a kind that isn't known here.
    pub(super) fn of(volume: &'a Volume) -> Result<Self, Cause> {
        let files = |files: Option<Files<'a>>, in_memory: bool| files.map(|files| Self::Files(files, in_memory));
        let known = volume
            .empty_dir
            .as_ref()
            .map(Self::EmptyDir)
            .or_else(|| volume.host_path.as_ref().map(Self::HostPath))
            .or_else(|| volume.image.as_ref().map(|_| Self::Image))
            .or_else(|| files(volume.config_map.as_ref().map(Files::ConfigMap), false))
            .or_else(|| files(volume.secret.as_ref().map(Files::Secret), true))
            .or_else(|| files(volume.projected.as_ref().map(Files::Projected), true))
            .or_else(|| files(volume.downward_api.as_ref().map(Files::DownwardApi), true));
        known.ok_or_else(|| match kind(volume) {
            Some(kind) => Cause::refused(format!("volumes of kind {kind} are not supported by this node")),
            // The API's oldest form: no source at all.
            None => Cause::refused("the volume has no source"),
        })
    }

    /// The folder of its kind below a pod's `volumes`; none for one that lies elsewhere.
    pub(super) fn plugin(&self) -> Option<&'static str> {
        match self {
            Self::EmptyDir(_) => Some("kubernetes.io~empty-dir"),
            Self::HostPath(_) => None,
            Self::Image => Some("kubernetes.io~image"),
            Self::Files(Files::ConfigMap(_), _) => Some("kubernetes.io~configmap"),
            Self::Files(Files::Secret(_), _) => Some("kubernetes.io~secret"),
            Self::Files(Files::Projected(_), _) => Some("kubernetes.io~projected"),
            Self::Files(Files::DownwardApi(_), _) => Some("kubernetes.io~downward-api"),
        }
    }
}

/// The field of the API that says what the volume is.
fn kind(volume: &Volume) -> Option<String> {
    let Ok(Value::Object(fields)) = serde_json::to_value(volume) else { return None };
    fields.into_iter().map(|(name, _)| name).find(|name| name != "name")
}

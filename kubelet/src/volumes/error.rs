//! Why a volume could not be set up.

use std::io;

use crate::objects::ObjectError;
use crate::pod::resolve::ConfigError;

/// A volume that could not be set up, in the words of upstream's event `FailedMount`.
#[derive(Debug, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume {volume:?} : {cause}")]
pub struct VolumeError {
    /// The volume's name in the pod.
    pub volume: String,
    cause: Cause,
}

impl VolumeError {
    pub(super) fn new(volume: &str, cause: Cause) -> Self {
        Self { volume: volume.to_owned(), cause }
    }

    /// Whether trying again can help without a change of the pod.
    pub fn is_refusal(&self) -> bool {
        matches!(self.cause, Cause::Refused(_))
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Cause {
    /// This node can't give what is asked for.
    #[error("{0}")]
    Refused(String),
    /// What the pod says doesn't fit what is there.
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Object(#[from] ObjectError),
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl Cause {
    pub(super) fn refused(message: impl Into<String>) -> Self {
        Self::Refused(message.into())
    }
}

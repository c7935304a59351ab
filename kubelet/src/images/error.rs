//! Why a container has no image, in upstream's words.

use containerd_client::tonic::{Code, Status};

/// Why an image is not to be had. The text is what the container's status says, [`Self::reason`] its reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// The pod's `image` is not a name.
    #[error("Failed to apply default image tag {image:?}: couldn't parse image name {image:?}: {message}")]
    InvalidName {
        /// As the pod has it.
        image: String,
        /// What is wrong with it.
        message: String,
    },
    /// It is not here and may not be pulled.
    #[error("Container image {image:?} is not present with pull policy of Never")]
    NeverPull {
        /// As the pod has it.
        image: String,
    },
    /// containerd can't say whether it is here, or its parts can't be read.
    #[error("Failed to inspect image {image:?}: {message}")]
    Inspect {
        /// As the pod has it.
        image: String,
        /// Why.
        message: String,
    },
    /// The registry or containerd failed.
    #[error("{message}")]
    Pull {
        /// What the runtime said, as upstream prints a gRPC error.
        message: String,
    },
    /// The registry can't be reached.
    #[error("image pull failed for {image} because the registry is unavailable{message}")]
    RegistryUnavailable {
        /// As the pod has it.
        image: String,
        /// What the runtime said, behind a colon.
        message: String,
    },
    /// The signature is not what the node's policy wants.
    #[error("image pull failed for {image} because the signature validation failed{message}")]
    SignatureValidationFailed {
        /// As the pod has it.
        image: String,
        /// What the runtime said, behind a colon.
        message: String,
    },
    /// containerd does not answer, or refused what is about no single image.
    #[error("{0}")]
    Runtime(String),
}

impl ImageError {
    /// The waiting reason of upstream's `pkg/kubelet/images/types.go`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::InvalidName { .. } => "InvalidImageName",
            Self::NeverPull { .. } => "ErrImageNeverPull",
            Self::Inspect { .. } => "ImageInspectError",
            Self::Pull { .. } | Self::Runtime(_) => "ErrImagePull",
            Self::RegistryUnavailable { .. } => "RegistryUnavailable",
            Self::SignatureValidationFailed { .. } => "SignatureValidationFailed",
        }
    }

    /// The reason and the note of upstream's warning about it; `image` is what the pod calls it. An event `Failed` with
    /// `Error: ` and [`Self::reason`] follows it.
    pub fn event(&self, image: &str) -> (&'static str, String) {
        match self {
            Self::InvalidName { .. } | Self::Inspect { .. } => ("InspectFailed", self.to_string()),
            Self::NeverPull { .. } => ("ErrImageNeverPull", self.to_string()),
            Self::Pull { message } | Self::Runtime(message) => {
                ("Failed", format!("Failed to pull image {image:?}: {message}"))
            }
            Self::RegistryUnavailable { message, .. } => {
                ("Failed", format!("Failed to pull image {image:?}: RegistryUnavailable{message}"))
            }
            Self::SignatureValidationFailed { message, .. } => {
                ("Failed", format!("Failed to pull image {image:?}: SignatureValidationFailed{message}"))
            }
        }
    }

    /// From what each of the tried credentials led to (`evalCRIPullErr`).
    pub(super) fn pull(image: &str, failures: &[Status]) -> Self {
        let mut texts: Vec<String> = Vec::new();
        for text in failures.iter().map(rpc_error) {
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        // Upstream's aggregate of errors: one as it is, more in brackets.
        let message = if texts.len() == 1 { texts.concat() } else { format!("[{}]", texts.join(", ")) };
        let image = image.to_owned();
        if let Some(message) = message.strip_prefix("RegistryUnavailable") {
            return Self::RegistryUnavailable { image, message: message.to_owned() };
        }
        if let Some(message) = message.strip_prefix("SignatureValidationFailed") {
            return Self::SignatureValidationFailed { image, message: message.to_owned() };
        }
        Self::Pull { message }
    }
}

/// A gRPC error as Go prints it; of an unknown one upstream keeps only the message.
pub(super) fn rpc_error(status: &Status) -> String {
    let code = match status.code() {
        Code::Unknown => return status.message().to_owned(),
        Code::Cancelled => "Canceled".to_owned(),
        other => format!("{other:?}"),
    };
    format!("rpc error: code = {code} desc = {}", status.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_pull_reads_as_upstreams() {
        let error = ImageError::pull("x", &[Status::not_found("no such manifest")]);
        assert_eq!(error.to_string(), "rpc error: code = NotFound desc = no such manifest");
        assert_eq!(error.reason(), "ErrImagePull");
        let error = ImageError::pull("x", &[Status::unknown("a"), Status::unknown("b"), Status::unknown("a")]);
        assert_eq!(error.to_string(), "[a, b]");
    }

    #[test]
    fn an_unavailable_registry_is_told_apart() {
        let error = ImageError::pull("x", &[Status::unknown("RegistryUnavailable: dial tcp")]);
        assert_eq!(error.reason(), "RegistryUnavailable");
        assert_eq!(error.to_string(), "image pull failed for x because the registry is unavailable: dial tcp");
        let note = r#"Failed to pull image "x": RegistryUnavailable: dial tcp"#.to_owned();
        assert_eq!(error.event("x"), ("Failed", note));
    }

    #[test]
    fn an_image_that_may_not_be_pulled_has_an_event_of_its_own() {
        let error = ImageError::NeverPull { image: "x".to_owned() };
        let note = r#"Container image "x" is not present with pull policy of Never"#.to_owned();
        assert_eq!(error.event("x"), ("ErrImageNeverPull", note));
    }
}

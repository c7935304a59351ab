//! A command of exec or attach: what it runs, and its outcome in the words of the protocol.

use std::sync::Arc;

use serde_json::json;

use crate::server::{Backend, ContainerRef, StreamError, Streams};

/// What a client wants done in a container.
pub(crate) struct Command {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) of: ContainerRef,
    pub(crate) kind: Kind,
}

/// Exec or attach.
pub(crate) enum Kind {
    /// A new process with these arguments.
    Exec(Vec<String>),
    /// The container's own process.
    Attach,
}

impl Command {
    /// Runs to the end.
    pub(crate) async fn run(self, streams: Streams) -> Outcome {
        match self.kind {
            Kind::Exec(command) => match self.backend.exec(&self.of, command.clone(), streams).await {
                Ok(exit) if exit.code == 0 => Outcome::Success,
                Ok(exit) => Outcome::Exit { code: exit.code, command },
                Err(error) => Outcome::failed("error executing command in container", &error),
            },
            Kind::Attach => match self.backend.attach(&self.of, streams).await {
                Ok(()) => Outcome::Success,
                Err(error) => Outcome::failed("error attaching to container", &error),
            },
        }
    }
}

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Well.
    Success,
    /// With another exit status than 0.
    Exit { code: u32, command: Vec<String> },
    /// It could not be run or watched.
    Failed(String),
}

impl Outcome {
    fn failed(what: &str, error: &StreamError) -> Self {
        Self::Failed(format!("Internal error occurred: {what}: {error}"))
    }

    /// The message for people (metav1.Status' `message`); empty when all went well.
    fn message(&self) -> String {
        match self {
            Self::Success => String::new(),
            Self::Exit { code, command } => format!(
                "command terminated with non-zero exit code: error executing command [{}], exit code {code}",
                command.join(" ")
            ),
            Self::Failed(message) => message.clone(),
        }
    }

    /// What the error stream carries: a metav1.Status from version 4 of the protocol on, a bare message before. `None`: nothing.
    pub(crate) fn report(&self, as_status: bool) -> Option<Vec<u8>> {
        if !as_status {
            return match self {
                Self::Success => None,
                Self::Exit { .. } | Self::Failed(_) => Some(self.message().into_bytes()),
            };
        }
        let status = match self {
            Self::Success => json!({"metadata": {}, "status": "Success"}),
            Self::Exit { code, .. } => json!({
                "metadata": {},
                "status": "Failure",
                "message": self.message(),
                "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            }),
            Self::Failed(_) => json!({
                "metadata": {},
                "status": "Failure",
                "message": self.message(),
                "reason": "InternalError",
                "code": 500,
            }),
        };
        Some(status.to_string().into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_status_is_a_cause_that_clients_read() {
        let outcome = Outcome::Exit { code: 3, command: vec!["sh".to_owned(), "-c".to_owned()] };
        let status: serde_json::Value = serde_json::from_slice(&outcome.report(true).unwrap()).unwrap();
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(status["details"]["causes"], json!([{"reason": "ExitCode", "message": "3"}]));
        assert_eq!(
            status["message"],
            "command terminated with non-zero exit code: error executing command [sh -c], exit code 3"
        );
    }

    #[test]
    fn early_protocols_hear_only_of_failures() {
        assert_eq!(Outcome::Success.report(false), None);
        assert_eq!(Outcome::Failed("no".to_owned()).report(false), Some(b"no".to_vec()));
    }
}

//! What a container asks to be run after it started and before it is stopped (upstream: pkg/kubelet/lifecycle).
//!
//! Invariant: a hook runs once where it is asked for and is never tried again; what it printed goes to the caller and the
//! log, never into an event, where others may read it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, LifecycleHandler, Pod};
use skep_client::{EventRecorder, EventType};
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::probes::http::{self, HttpRequest};
use crate::probes::{ExecOutput, Prober, container_reference};

/// The container whose hooks are run.
#[derive(Debug, Clone, Copy)]
pub struct HookTarget<'a> {
    /// Its pod.
    pub pod: &'a Pod,
    /// Its specification.
    pub container: &'a Container,
    /// containerd's id of the run.
    pub container_id: &'a str,
    /// The pod's primary address.
    pub address: Option<IpAddr>,
}

/// Why a hook failed, in upstream's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HookError {
    /// The command could not be run or did not exit with 0.
    #[error(
        "Exec lifecycle hook ([{command}]) for Container {container:?} in Pod {pod:?} failed - error: {error}, message: {output:?}"
    )]
    Exec {
        /// Its words, with spaces between.
        command: String,
        /// The container's name.
        container: String,
        /// `name_namespace(uid)`
        pod: String,
        /// What went wrong.
        error: String,
        /// What it printed.
        output: String,
    },
    /// No answer came. Any answer is a success, whatever its status.
    #[error("HTTP lifecycle hook ({path}) for Container {container:?} in Pod {pod:?} failed - error: {error}")]
    Http {
        /// The path that was asked for.
        path: String,
        /// The container's name.
        container: String,
        /// `name_namespace(uid)`
        pod: String,
        /// What went wrong.
        error: String,
    },
    /// A handler that asks for nothing that can be done: `tcpSocket` never could be.
    #[error("Cannot run handler: invalid handler: {0}")]
    Invalid(String),
}

/// Runs hooks.
#[derive(Clone)]
pub struct Hooks {
    prober: Arc<Prober>,
    events: EventRecorder,
}

impl Hooks {
    /// Runs commands and makes requests as `prober` does.
    pub fn new(prober: Arc<Prober>, events: EventRecorder) -> Self {
        Self { prober, events }
    }

    /// Runs `postStart`, which has no limit of time: drop the future when the container ends. Without one it is done at
    /// once.
    ///
    /// # Errors
    /// When the hook failed. The event says so already; the container must be stopped, and waits with the reason
    /// `PostStartHookError` and the error as its message.
    pub async fn post_start(&self, target: HookTarget<'_>) -> Result<(), HookError> {
        let lifecycle = target.container.lifecycle.as_ref();
        let Some(handler) = lifecycle.and_then(|lifecycle| lifecycle.post_start.as_ref()) else { return Ok(()) };
        let outcome = self.run(target, handler).await;
        if let Err(error) = &outcome {
            warn!(container = target.container.name, %error, "the postStart hook failed");
            self.record(target, "FailedPostStartHook", "PostStartHook failed");
        }
        outcome
    }

    /// Runs `preStop` for at most `grace`, and gives the time that it took, which counts into the grace period. A hook that
    /// fails or is cut off holds up nothing.
    pub async fn pre_stop(&self, target: HookTarget<'_>, grace: Duration) -> Duration {
        let lifecycle = target.container.lifecycle.as_ref();
        let handler = lifecycle.and_then(|lifecycle| lifecycle.pre_stop.as_ref());
        let Some(handler) = handler.filter(|_| !grace.is_zero()) else { return Duration::ZERO };
        let start = Instant::now();
        match tokio::time::timeout(grace, self.run(target, handler)).await {
            Ok(Ok(())) => debug!(container = target.container.name, "the preStop hook is done"),
            Ok(Err(error)) => {
                warn!(container = target.container.name, %error, "the preStop hook failed");
                self.record(target, "FailedPreStopHook", "PreStopHook failed");
            }
            Err(_) => debug!(container = target.container.name, ?grace, "the preStop hook outlasted the grace period"),
        }
        start.elapsed().min(grace)
    }

    async fn run(&self, target: HookTarget<'_>, handler: &LifecycleHandler) -> Result<(), HookError> {
        match handler {
            LifecycleHandler { exec: Some(action), .. } => {
                self.exec(target, action.command.as_deref().unwrap_or_default()).await
            }
            LifecycleHandler { http_get: Some(action), .. } => self.http(target, action).await,
            LifecycleHandler { sleep: Some(action), .. } => {
                tokio::time::sleep(Duration::from_secs(u64::try_from(action.seconds).unwrap_or(0))).await;
                Ok(())
            }
            other => Err(HookError::Invalid(format!("{other:?}"))),
        }
    }

    async fn exec(&self, target: HookTarget<'_>, command: &[String]) -> Result<(), HookError> {
        let words = command.join(" ");
        let (error, output) = match self.prober.exec.run(target.container_id, command, None).await {
            Ok(ExecOutput { exit_code: 0, .. }) => return Ok(()),
            Ok(ExecOutput { exit_code, output }) => {
                (format!("command '{words}' exited with {exit_code}: {output}"), output)
            }
            Err(error) => (error.to_string(), String::new()),
        };
        let (container, pod) = names(target);
        Err(HookError::Exec { command: words, container, pod, error, output })
    }

    async fn http(&self, target: HookTarget<'_>, action: &HTTPGetAction) -> Result<(), HookError> {
        let Err(error) = self.request(target, action).await else { return Ok(()) };
        let (container, pod) = names(target);
        Err(HookError::Http { path: action.path.clone().unwrap_or_default(), container, pod, error })
    }

    /// An HTTPS hook of a server that speaks plain HTTP is asked again in the clear, as before HTTPS was honoured.
    async fn request(&self, target: HookTarget<'_>, action: &HTTPGetAction) -> Result<(), String> {
        let address = target.address.map(|address| address.to_string());
        let request = HttpRequest::new(action, target.container, address.as_deref(), "lifecycle")?;
        let error = match http::get(&request, &self.prober.tls).await {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        if !http::is_plain_answer(&error) || http::get(&request.in_the_clear(), &self.prober.tls).await.is_err() {
            return Err(error);
        }
        let note = format!(
            "request to HTTPS lifecycle hook {} got HTTP response, retry with HTTP succeeded",
            request.host_port()
        );
        self.record(target, "LifecycleHTTPFallback", &note);
        Ok(())
    }

    fn record(&self, target: HookTarget<'_>, reason: &str, note: &str) {
        let reference = container_reference(target.pod, &target.container.name);
        self.events.record(reference, EventType::Warning, reason, "RunningHook", note.to_owned());
    }
}

/// The container's name, and the pod's as `name_namespace(uid)`.
fn names(target: HookTarget<'_>) -> (String, String) {
    let metadata = &target.pod.metadata;
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let pod = format!("{}_{}({})", text(&metadata.name), text(&metadata.namespace), text(&metadata.uid));
    (target.container.name.clone(), pod)
}

#[cfg(test)]
mod tests;

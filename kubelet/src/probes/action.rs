//! One probe, done once: exec, HTTP, TCP or gRPC (upstream: pkg/probe).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Container, EnvVar, ExecAction, GRPCAction, HTTPGetAction, Probe, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use rustls::ClientConfig;

use super::http::HttpRequest;
use super::{Target, dial, grpc, http};
use crate::pod::expansion::expand;

/// The most that is kept of a command's output or of a body.
pub(super) const OUTPUT_LIMIT: usize = 10 << 10;

/// What a command in a container did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecOutput {
    /// 128 + N for signal N.
    pub exit_code: i32,
    /// Standard output and error as they came.
    pub output: String,
}

/// Why a command in a container has no exit code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecError {
    /// It ran longer than it might, and was killed.
    #[error("command timed out")]
    TimedOut,
    /// It could not be run.
    #[error("{0}")]
    Failed(String),
}

/// Runs commands in containers.
#[async_trait]
pub trait ExecRunner: Send + Sync + 'static {
    /// Runs `command` in the running container, for at most `timeout` where one is given. Dropping the future kills it.
    ///
    /// # Errors
    /// See [`ExecError`].
    async fn run(
        &self,
        container_id: &str,
        command: &[String],
        timeout: Option<Duration>,
    ) -> Result<ExecOutput, ExecError>;
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It passed.
    Success,
    /// It passed, with something to tell.
    Warning(String),
    /// It failed, for this reason.
    Failure(String),
}

/// The probe could not be done, which says nothing of the container.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ProbeError(pub String);

/// Does probes.
pub struct Prober {
    pub(crate) exec: Arc<dyn ExecRunner>,
    pub(crate) tls: Arc<ClientConfig>,
}

impl Prober {
    /// Probes by `exec` and by sockets of this process's network namespace.
    ///
    /// # Errors
    /// When TLS can't be set up.
    pub fn new(exec: Arc<dyn ExecRunner>) -> Result<Self, rustls::Error> {
        Ok(Self { exec, tls: Arc::new(dial::blind_tls()?) })
    }

    /// Probes once.
    ///
    /// # Errors
    /// When it could not be done: a command that can't be run, a port that has no number, a probe that asks for nothing.
    pub async fn probe(&self, probe: &Probe, target: &Target, timeout: Duration) -> Result<Outcome, ProbeError> {
        let address = target.address.map(|address| address.to_string());
        match probe {
            Probe { exec: Some(action), .. } => self.exec(action, target, timeout).await,
            Probe { http_get: Some(action), .. } => {
                self.http(action, &target.container, address.as_deref(), timeout).await
            }
            Probe { tcp_socket: Some(action), .. } => tcp(action, &target.container, address.as_deref(), timeout).await,
            Probe { grpc: Some(action), .. } => grpc(action, address.as_deref(), timeout).await,
            _ => Err(ProbeError(format!("missing probe handler for container {}", target.container.name))),
        }
    }

    async fn exec(&self, action: &ExecAction, target: &Target, timeout: Duration) -> Result<Outcome, ProbeError> {
        let command = expand_static(action.command.as_deref().unwrap_or_default(), target.container.env.as_deref());
        // The runner is cut off as well when it does not keep the time itself.
        let run = self.exec.run(&target.container_id, &command, Some(timeout));
        let ran = tokio::time::timeout(timeout + Duration::from_secs(1), run).await.unwrap_or(Err(ExecError::TimedOut));
        match ran {
            Ok(ExecOutput { exit_code: 0, .. }) => Ok(Outcome::Success),
            Ok(ExecOutput { mut output, .. }) => {
                cut(&mut output, OUTPUT_LIMIT);
                Ok(Outcome::Failure(output))
            }
            Err(ExecError::TimedOut) => {
                let command = command.join(" ");
                let seconds = timeout.as_secs();
                Ok(Outcome::Failure(format!("command timed out: {command:?} timed out after {seconds}s")))
            }
            Err(ExecError::Failed(error)) => Err(ProbeError(error)),
        }
    }

    async fn http(
        &self,
        action: &HTTPGetAction,
        container: &Container,
        address: Option<&str>,
        timeout: Duration,
    ) -> Result<Outcome, ProbeError> {
        let request = HttpRequest::new(action, container, address, "probe").map_err(ProbeError)?;
        let answer = tokio::time::timeout(timeout, http::get(&request, &self.tls)).await;
        Ok(match answer {
            Err(_) => Outcome::Failure(format!(
                "Get {:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
                request.url()
            )),
            Ok(Err(error)) => Outcome::Failure(error),
            Ok(Ok(answer)) => match answer.status {
                200..300 => Outcome::Success,
                300..400 => Outcome::Warning(format!("Probe terminated redirects, Response body: {}", answer.body)),
                status => Outcome::Failure(format!("HTTP probe failed with statuscode: {status}")),
            },
        })
    }
}

async fn tcp(
    action: &TCPSocketAction,
    container: &Container,
    address: Option<&str>,
    timeout: Duration,
) -> Result<Outcome, ProbeError> {
    let port = port(&action.port, container).map_err(ProbeError)?;
    let host = action.host.as_deref().filter(|host| !host.is_empty()).or(address).unwrap_or_default();
    Ok(match tokio::time::timeout(timeout, dial::tcp(host, port)).await {
        Err(_) => Outcome::Failure(format!("dial tcp {}: i/o timeout", dial::host_port(host, port))),
        Ok(Err(error)) => Outcome::Failure(error),
        Ok(Ok(_)) => Outcome::Success,
    })
}

async fn grpc(action: &GRPCAction, address: Option<&str>, timeout: Duration) -> Result<Outcome, ProbeError> {
    let port = number(action.port).map_err(ProbeError)?;
    let service = action.service.as_deref().unwrap_or_default();
    Ok(grpc::check(address.unwrap_or_default(), port, service, timeout).await)
}

/// The number of a port that may be named (upstream: `ResolveContainerPort`).
pub(super) fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    match port {
        IntOrString::Int(port) => number(*port),
        IntOrString::String(name) => {
            let ports = container.ports.iter().flatten();
            let named = ports.filter(|port| port.name.as_ref() == Some(name)).map(|port| port.container_port).next();
            named.ok_or_else(|| format!("port {name:?} not found")).and_then(number)
        }
    }
}

fn number(port: i32) -> Result<u16, String> {
    u16::try_from(port).ok().filter(|port| *port > 0).ok_or_else(|| format!("invalid port number: {port}"))
}

/// Expands `$(NAME)` by those variables that have their value in the specification.
pub(crate) fn expand_static(command: &[String], env: Option<&[EnvVar]>) -> Vec<String> {
    let value = |name: &str| {
        let last = env.into_iter().flatten().rev().find(|variable| variable.name == name)?;
        Some(last.value.as_deref().unwrap_or_default())
    };
    command.iter().map(|word| expand(word, value)).collect()
}

/// Cuts at a character's start.
pub(super) fn cut(text: &mut String, limit: usize) {
    let end = (0..=limit.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or(0));
}

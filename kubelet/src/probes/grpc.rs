//! The gRPC health check (`grpc.health.v1.Health/Check`).

use std::time::Duration;

use ::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};
use tonic_prost::ProstCodec;

use super::action::Outcome;
use super::dial::host_port;

/// The wait before another try to connect: a server may be about to listen.
const RETRY: Duration = Duration::from_millis(100);

/// `grpc.health.v1.HealthCheckRequest`
#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`
#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(enumeration = "ServingStatus", tag = "1")]
    status: i32,
}

/// `grpc.health.v1.HealthCheckResponse.ServingStatus`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
enum ServingStatus {
    Unknown = 0,
    Serving = 1,
    NotServing = 2,
    ServiceUnknown = 3,
}

impl ServingStatus {
    fn name(self) -> &'static str {
        match self {
            Self::Unknown => "UNKNOWN",
            Self::Serving => "SERVING",
            Self::NotServing => "NOT_SERVING",
            Self::ServiceUnknown => "SERVICE_UNKNOWN",
        }
    }
}

/// Asks once, in at most `timeout` with connecting; all that goes wrong is a failure, as with upstream.
pub(super) async fn check(host: &str, port: u16, service: &str, timeout: Duration) -> Outcome {
    let at = host_port(host, port);
    let seconds = timeout.as_secs();
    let deadline = tokio::time::Instant::now() + timeout;
    let endpoint =
        match Endpoint::from_shared(format!("http://{at}")).and_then(|e| e.user_agent(super::http::agent("probe"))) {
            Ok(endpoint) => endpoint,
            Err(error) => return Outcome::Failure(format!("error: failed to connect service at {at:?}: {error}")),
        };
    let Ok(channel) = tokio::time::timeout_at(deadline, connect(&endpoint)).await else {
        return Outcome::Failure(format!(
            "timeout: failed to connect service {at:?} within {seconds}s: context deadline exceeded"
        ));
    };
    match tokio::time::timeout_at(deadline, call(channel, service)).await {
        Ok(Ok(ServingStatus::Serving)) => Outcome::Success,
        Ok(Ok(other)) => Outcome::Failure(format!("service unhealthy (responded with {:?})", other.name())),
        Ok(Err(status)) if status.code() == Code::Unimplemented => Outcome::Failure(format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {}",
            status.message()
        )),
        Ok(Err(status)) if status.code() != Code::DeadlineExceeded => Outcome::Failure(format!(
            "error: health rpc probe failed: rpc error: code = {:?} desc = {}",
            status.code(),
            status.message()
        )),
        Ok(Err(_)) | Err(_) => Outcome::Failure(format!("timeout: health rpc did not complete within {seconds}s")),
    }
}

async fn connect(endpoint: &Endpoint) -> Channel {
    loop {
        match endpoint.connect().await {
            Ok(channel) => return channel,
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    }
}

async fn call(channel: Channel, service: &str) -> Result<ServingStatus, tonic::Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
    let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let request = Request::new(HealthCheckRequest { service: service.to_owned() });
    Ok(client.unary(request, path, codec).await?.into_inner().status())
}

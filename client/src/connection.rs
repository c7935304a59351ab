//! Clients over HTTPS, opened from a kubeconfig file, and clients that say who they are.

use std::path::{Path, PathBuf};

use http::{HeaderValue, header::USER_AGENT};
use kube::Client;
use kube::client::{Body, ClientBuilder};
use kube::config::{Config, KubeConfigOptions, Kubeconfig, KubeconfigError};
use tower::util::MapRequestLayer;

/// Why a client could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig file can't be read, or what it says is incomplete or contradicts itself.
    #[error("kubeconfig {path}: {source}")]
    Kubeconfig {
        /// The file that was asked for.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<KubeconfigError>,
    },
    /// The certificates or keys of the kubeconfig don't make a TLS client.
    #[error("client for {server}: {source}")]
    Client {
        /// The API server's address from the kubeconfig.
        server: String,
        /// What the client builder said.
        source: Box<kube::Error>,
    },
    /// The user agent has bytes that an HTTP header can't hold.
    #[error("user agent {0:?} is not a valid HTTP header value")]
    UserAgent(String),
}

/// Opens a client with the current context of the kubeconfig at `path`.
///
/// No request is made, so that a component may start before its API server. `user_agent` is sent with every request
/// (`skep-kubelet/0.1.0`); it names the component in audit logs and gives the default field manager (what stands before
/// the slash).
///
/// # Errors
/// When the file can't be read or its content doesn't make a client.
pub async fn connect(path: &Path, user_agent: &str) -> Result<Client, ConnectError> {
    let agent = HeaderValue::from_str(user_agent).map_err(|_| ConnectError::UserAgent(user_agent.to_owned()))?;
    let kubeconfig_error = |source| ConnectError::Kubeconfig { path: path.to_owned(), source: Box::new(source) };
    let kubeconfig = Kubeconfig::read_from(path).map_err(kubeconfig_error)?;
    let config =
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(kubeconfig_error)?;
    let server = config.cluster_url.to_string();
    let builder =
        ClientBuilder::try_from(config).map_err(|source| ConnectError::Client { server, source: Box::new(source) })?;
    let layer = MapRequestLayer::new(move |mut request: http::Request<Body>| {
        request.headers_mut().insert(USER_AGENT, agent.clone());
        request
    });
    Ok(builder.with_layer(&layer).build())
}

/// The same connection under another user agent: for one of several parts of a process, as each controller is.
///
/// # Errors
/// [`ConnectError::UserAgent`] when the text can't be a header value.
pub fn with_user_agent(client: &Client, user_agent: &str) -> Result<Client, ConnectError> {
    let agent = HeaderValue::from_str(user_agent).map_err(|_| ConnectError::UserAgent(user_agent.to_owned()))?;
    let namespace = client.default_namespace().to_owned();
    let inner = client.clone();
    let service = tower::service_fn(move |mut request: http::Request<Body>| {
        request.headers_mut().insert(USER_AGENT, agent.clone());
        let client = inner.clone();
        async move { client.send(request).await }
    });
    Ok(Client::new(service, namespace))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_missing_kubeconfig_is_named_in_the_error() {
        let error = connect(Path::new("/nonexistent/kubeconfig"), "test").await.err().expect("an error");
        assert!(error.to_string().contains("/nonexistent/kubeconfig"), "{error}");
    }

    #[tokio::test]
    async fn the_user_agent_reaches_the_service() {
        let service = tower::service_fn(|request: http::Request<Body>| async move {
            let agent = request.headers()[USER_AGENT].to_str().expect("text").to_owned();
            Ok::<_, std::convert::Infallible>(http::Response::new(Body::from(agent.into_bytes())))
        });
        let client = with_user_agent(&Client::new(service, "default"), "deployment-controller").expect("client");
        let answer = client.request_text(http::Request::get("/").body(vec![]).expect("request")).await.expect("answer");
        assert_eq!(answer, "deployment-controller");
    }
}

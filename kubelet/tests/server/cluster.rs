//! An API server, a kubelet's server, and what talks to them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::de::DeserializeOwned;
use serde_json::json;
use skep_apiserver::auth::User;
use skep_apiserver::pki::{Credentials, Pki, kubeconfig};
use skep_apiserver::rest::Ranges;
use skep_apiserver::{ApiServer, Config, TrustedUser};
use skep_client::{InProcessUser, in_process};
use skep_kubelet::server::tls::{CertificateFiles, server_config};
use skep_kubelet::server::{Auth, AuthSettings, serve};
use skep_store::embedded::{Embedded, Options as StoreOptions};
use skep_tests::Output;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::processes::Processes;

pub(crate) const NODE: &str = "node-1";
pub(crate) const POD: &str = "web";

/// How long a kubectl may take before it counts as one that hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// An address of this machine that the API server lets its proxies reach, which it does not for loopback. Nothing is sent.
fn own_address() -> IpAddr {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).expect("a route beside loopback");
    socket.local_addr().expect("an address").ip()
}

/// An API server and a kubelet's server, each with its certificates, and a pod that is bound to the node.
pub(crate) struct Cluster {
    pub(crate) folder: TempDir,
    pub(crate) server: ApiServer,
    pub(crate) client: Client,
    pub(crate) pki: Arc<Pki>,
    pub(crate) kubelet: SocketAddr,
    serving: JoinHandle<()>,
    stop: CancellationToken,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let stop = CancellationToken::new();
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let pki = Pki::open_or_create(&folder.path().join("pki"), &[loopback.to_string()], Timestamp::now());
        let pki = Arc::new(pki.expect("certificates"));
        let config = Config {
            store: Arc::new(Embedded::open(folder.path().join("store"), StoreOptions::default()).expect("a store")),
            pki: pki.clone(),
            listen: SocketAddr::new(loopback, 0),
            advertise: loopback,
            ranges: Ranges::new("10.96.0.0/16", 30000..=32767).expect("ranges"),
        };
        let server = ApiServer::start(config, stop.clone()).await.expect("an API server");
        server.ready().await;
        let client = client(&server, "admin", "system:masters");
        let auth = Auth::webhook(
            NODE,
            self::client(&server, "system:node:node-1", "system:nodes"),
            AuthSettings { anonymous: true, ..AuthSettings::default() },
        );
        let node = own_address();
        let names = [node.to_string()];
        let credentials = pki.server("system:node:node-1", Some("system:nodes"), &names).expect("a certificate");
        let files =
            CertificateFiles { certificate: folder.path().join("kubelet.crt"), key: folder.path().join("kubelet.key") };
        std::fs::write(&files.certificate, credentials.certificate).expect("written");
        std::fs::write(&files.key, credentials.key).expect("written");
        let (tls, _) = server_config(files, Some(folder.path().join("pki/ca.crt"))).expect("TLS");
        let listener = TcpListener::bind((node, 0)).await.expect("a port");
        let kubelet = listener.local_addr().expect("bound");
        let root = folder.path().join("root");
        std::fs::create_dir(&root).expect("made");
        let serving = tokio::spawn(serve(listener, tls, Arc::new(Processes { folder: root }), auth, stop.clone()));
        let this = Self { folder, server, client, pki, kubelet, serving, stop };
        this.populate().await;
        this
    }

    async fn populate(&self) {
        let admin = self.pki.client("admin", Some("system:masters")).expect("a certificate");
        let url = format!("https://{}", self.server.address);
        std::fs::write(self.kubeconfig(), kubeconfig(&url, self.pki.ca_pem(), "admin", &admin)).expect("written");
        let account: ServiceAccount = read(json!({"metadata": {"name": "default"}}));
        let accounts = Api::<ServiceAccount>::namespaced(self.client.clone(), "default");
        accounts.create(&PostParams::default(), &account).await.expect("the account is created");
        let node: Node = read(json!({
            "metadata": {"name": NODE},
            "status": {
                "addresses": [{"type": "InternalIP", "address": self.kubelet.ip()}],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": self.kubelet.port()}},
            },
        }));
        Api::<Node>::all(self.client.clone()).create(&PostParams::default(), &node).await.expect("the node is created");
        let pods = Api::<Pod>::namespaced(self.client.clone(), "default");
        let container = |name: &str| json!({"name": name, "image": "i", "stdin": true});
        let pod: Pod = read(json!({
            "metadata": {"name": POD},
            "spec": {
                "nodeName": NODE,
                "automountServiceAccountToken": false,
                "containers": [container("main"), container("broken")],
            },
        }));
        pods.create(&PostParams::default(), &pod).await.expect("the pod is created");
        let state = |name: &str| {
            json!({
                "name": name, "image": "i", "imageID": "i", "ready": true, "restartCount": 0,
                "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
            })
        };
        let running = Patch::Merge(json!({
            "status": {"phase": "Running", "containerStatuses": [state("main"), state("broken")]},
        }));
        pods.patch_status(POD, &PatchParams::default(), &running).await.expect("the pod runs");
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// The folder that the pod's processes run in.
    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// A kubectl for this cluster.
    pub(crate) fn command(&self, kubectl: &Path) -> Command {
        let mut command = Command::new(kubectl);
        command.env("KUBECONFIG", self.kubeconfig()).arg("--cache-dir").arg(self.folder.path().join("cache"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Runs a kubectl to its end.
    pub(crate) async fn kubectl(&self, kubectl: &Path, arguments: &[&str], input: &str) -> Output {
        let mut child = self.command(kubectl).args(arguments).stdin(Stdio::piped()).spawn().expect("kubectl starts");
        let mut stdin = child.stdin.take().expect("piped");
        let feed = async move {
            // A kubectl that does not read its input closes it early; that is its business.
            let _ = stdin.write_all(input.as_bytes()).await;
        };
        let ended = async { tokio::join!(feed, child.wait_with_output()).1 };
        let output = tokio::time::timeout(PATIENCE, ended).await.expect("kubectl ends").expect("kubectl is ours");
        Output {
            success: output.status.success(),
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// A connection to the kubelet, with the API server's certificate or none.
    pub(crate) async fn connect(&self, certified: bool) -> TlsStream<TcpStream> {
        let credentials =
            certified.then(|| self.pki.client("kube-apiserver-kubelet-client", None).expect("a certificate"));
        self.connect_with(credentials).await
    }

    /// A connection to the kubelet, with a certificate of one's own.
    pub(crate) async fn connect_with(&self, credentials: Option<Credentials>) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pki.ca_pem().as_bytes()).expect("PEM")).expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let config = if let Some(credentials) = credentials {
            let chain = vec![CertificateDer::from_pem_slice(credentials.certificate.as_bytes()).expect("PEM")];
            let key = PrivateKeyDer::from_pem_slice(credentials.key.as_bytes()).expect("PEM");
            builder.with_client_auth_cert(chain, key).expect("a pair")
        } else {
            builder.with_no_client_auth()
        };
        let stream = TcpStream::connect(self.kubelet).await.expect("the kubelet listens");
        let name = ServerName::from(self.kubelet.ip());
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("TLS")
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.serving.await.expect("the kubelet's server ends");
        self.server.stop().await;
    }
}

pub(crate) fn client(server: &ApiServer, name: &str, group: &str) -> Client {
    let service = server.service().map_request(|mut request: http::Request<_>| {
        if let Some(user) = request.extensions_mut().remove::<InProcessUser>() {
            request.extensions_mut().insert(TrustedUser(User::authenticated(user.name, user.groups)));
        }
        request
    });
    in_process(service, InProcessUser { name: name.to_owned(), groups: vec![group.to_owned()] }, "test")
}

pub(crate) fn read<T: DeserializeOwned>(value: serde_json::Value) -> T {
    serde_json::from_value(value).expect("an object of the kind")
}

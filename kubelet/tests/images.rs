//! Images in a real containerd with its CRI plugin, from archives and from a registry on loopback, and containers made
//! of them in a sandbox; needs root, containerd, runc and busybox-static. `SKEP_TEST_CONTAINERD` names another containerd
//! than the distribution's.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::convert::Infallible;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use sha2::{Digest, Sha256};
use skep_kubelet::cni::Cni;
use skep_kubelet::images::{CredentialSource, GarbagePolicy, ImageError, ImageUses, Images, PullPolicy, RegistryAuth};
use skep_kubelet::runtime::containerd::{Containerd, NewContainer};
use skep_kubelet::runtime::host::HostFacts;
use skep_kubelet::runtime::spec::{BindMount, ContainerSpec, DEFAULT_CAPABILITIES, Propagation};
use skep_kubelet::runtime::tasks::TaskIo;
use skep_kubelet::runtime::user::User;
use skep_kubelet::runtime::{rootfs, seccomp};
use skep_kubelet::sandbox::{Sandbox, SandboxSpec, Sandboxes};
use skep_kubelet::volumes;

const NAMESPACE: &str = "k8s.io";
const SNAPSHOTTER: &str = "overlayfs";

/// A containerd of the test's own.
struct Private {
    folder: tempfile::TempDir,
    process: Child,
    images: Images,
    containers: Containerd,
}

impl Private {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("tempdir");
        std::fs::write(folder.path().join("config.toml"), config(&binary(), folder.path())).expect("config");
        let process = spawn(folder.path());
        let socket = folder.path().join("c.sock");
        let answering = async {
            loop {
                if let Ok(images) = Images::connect(&socket, NAMESPACE, SNAPSHOTTER, 2).await
                    && images.list().await.is_ok()
                {
                    return images;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let images = tokio::time::timeout(Duration::from_secs(60), answering).await.expect("containerd answers");
        let containers = Containerd::connect(&socket, NAMESPACE, SNAPSHOTTER).await.expect("connected");
        Self { folder, process, images, containers }
    }

    fn restart(&mut self) {
        self.process.kill().expect("killed");
        self.process.wait().expect("ended");
        self.process = spawn(self.folder.path());
    }

    fn ctr(&self, arguments: &[&str]) -> String {
        let socket = self.folder.path().join("c.sock");
        let output = Command::new("ctr").arg("-a").arg(socket).args(["-n", NAMESPACE]).args(arguments).output();
        let output = output.expect("ctr");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Imports an image without unpacking it.
    fn import(&self, image: &TestImage, name: &str) {
        let archive = image.archive(self.folder.path(), name);
        self.ctr(&["images", "import", "--no-unpack", &archive.display().to_string()]);
    }

    fn snapshots(&self) -> usize {
        self.ctr(&["snapshots", "ls"]).lines().count() - 1
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        // It is ours, by its own pid, and holds no container any more.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        for point in points.filter(|point| Path::new(point).starts_with(self.folder.path())) {
            let _ = rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

fn binary() -> PathBuf {
    PathBuf::from(std::env::var_os("SKEP_TEST_CONTAINERD").unwrap_or("/usr/bin/containerd".into()))
}

fn spawn(folder: &Path) -> Child {
    let binary = binary();
    // The shim beside the binary is the one of its version.
    let beside = binary.parent().map(|folder| folder.display().to_string()).unwrap_or_default();
    Command::new(&binary)
        .env("PATH", format!("{beside}:{}", std::env::var("PATH").unwrap_or_default()))
        .arg("-c")
        .arg(folder.join("config.toml"))
        .stderr(std::fs::File::create(folder.join("containerd.log")).expect("log"))
        .stdout(Stdio::null())
        .spawn()
        .expect("containerd")
}

/// A configuration for containerd 1.6 and 1.7, or for 2.x, whose plugins have other names.
fn config(binary: &Path, folder: &Path) -> String {
    let version = Command::new(binary).arg("--version").output().expect("containerd's version");
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    let second = version.split(' ').any(|word| word.starts_with("2.") || word.starts_with("v2."));
    let d = folder.display();
    let common = format!(
        "root = \"{d}/root\"\nstate = \"{d}/state\"\n[grpc]\naddress = \"{d}/c.sock\"\n\
         [ttrpc]\naddress = \"{d}/c.sock.ttrpc\"\n[plugins.\"io.containerd.internal.v1.opt\"]\npath = \"{d}/opt\"\n"
    );
    if second {
        return format!(
            "version = 3\n{common}\
             [plugins.\"io.containerd.cri.v1.images\"]\nsnapshotter = \"{SNAPSHOTTER}\"\n\
             [plugins.\"io.containerd.cri.v1.runtime\"]\nrestrict_oom_score_adj = true\ndisable_apparmor = true\n\
             [plugins.\"io.containerd.cri.v1.runtime\".cni]\nconf_dir = \"{d}/none\"\nbin_dirs = [\"{d}/none\"]\n\
             [plugins.\"io.containerd.grpc.v1.cri\"]\nstream_server_address = \"127.0.0.1\"\nstream_server_port = \"0\"\n"
        );
    }
    format!(
        "version = 2\n{common}\
         [plugins.\"io.containerd.grpc.v1.cri\"]\nrestrict_oom_score_adj = true\ndisable_apparmor = true\n\
         stream_server_address = \"127.0.0.1\"\nstream_server_port = \"0\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\".containerd]\nsnapshotter = \"{SNAPSHOTTER}\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\".cni]\nconf_dir = \"{d}/none\"\nbin_dir = \"{d}/none\"\n"
    )
}

/// An image of two layers: busybox, and a passwd file that names a user.
struct TestImage {
    layers: Vec<Vec<u8>>,
    config: Vec<u8>,
}

impl TestImage {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("tempdir");
        let root = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(root("a/bin")).expect("bin");
        std::fs::copy("/bin/busybox", root("a/bin/busybox")).expect("busybox-static");
        std::fs::create_dir_all(root("a/etc")).expect("etc");
        std::fs::write(root("a/etc/passwd"), "root:x:0:0::/root:/bin/sh\n").expect("passwd");
        std::fs::create_dir_all(root("b/etc")).expect("etc");
        std::fs::write(root("b/etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/var/www:/bin/sh\n")
            .expect("passwd");
        std::fs::write(root("b/etc/group"), "logs:x:7:web\n").expect("group");
        let layers: Vec<Vec<u8>> = ["a", "b"].map(|name| tar(&root(name))).to_vec();
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let config = json!({
            "os": "linux", "architecture": architecture,
            "config": {"Entrypoint": ["/bin/busybox"], "Cmd": ["sh"], "Env": ["PATH=/bin"], "User": "web", "WorkingDir": "/tmp", "StopSignal": "SIGQUIT", "Volumes": {"/data": {}}},
            "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|layer| digest(layer)).collect::<Vec<_>>()},
        });
        Self { layers, config: config.to_string().into_bytes() }
    }

    /// As `docker save` writes it.
    fn archive(&self, folder: &Path, name: &str) -> PathBuf {
        let content = folder.join("archive");
        std::fs::create_dir_all(&content).expect("folder");
        let names: Vec<String> = (0..self.layers.len()).map(|number| format!("{number}.tar")).collect();
        for (name, layer) in names.iter().zip(&self.layers) {
            std::fs::write(content.join(name), layer).expect("layer");
        }
        std::fs::write(content.join("config.json"), &self.config).expect("config");
        let manifest = json!([{"Config": "config.json", "RepoTags": [name], "Layers": names}]);
        std::fs::write(content.join("manifest.json"), manifest.to_string()).expect("manifest");
        let archive = folder.join("image.tar");
        std::fs::write(&archive, tar(&content)).expect("archive");
        archive
    }

    fn manifest(&self) -> Vec<u8> {
        let layers = self.layers.iter().map(|layer| {
            json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest(layer), "size": layer.len()})
        });
        let config = json!({"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(&self.config), "size": self.config.len()});
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config, "layers": layers.collect::<Vec<_>>(),
        });
        manifest.to_string().into_bytes()
    }
}

fn tar(folder: &Path) -> Vec<u8> {
    let output = Command::new("tar").arg("-C").arg(folder).args(["-c", "."]).output().expect("tar");
    assert!(output.status.success());
    output.stdout
}

fn digest(content: &[u8]) -> String {
    format!("sha256:{:x}", Sha256::digest(content))
}

/// A registry on loopback with one repository, that counts how often its manifest was asked for by name.
struct Registry {
    address: String,
    asked: Arc<AtomicUsize>,
}

impl Registry {
    /// `password`: of the user `web`; none lets everyone in.
    async fn start(image: &TestImage, password: Option<&str>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("address").to_string();
        let manifest = image.manifest();
        let blobs = image.layers.iter().chain([&image.config, &manifest]);
        let blobs: HashMap<String, Bytes> = blobs.map(|blob| (digest(blob), Bytes::from(blob.clone()))).collect();
        let asked = Arc::new(AtomicUsize::new(0));
        let basic = password.map(|password| {
            use base64::Engine;
            format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("web:{password}")))
        });
        let shared = Arc::new((blobs, digest(&manifest), basic, Arc::clone(&asked)));
        // Ends with the test's runtime.
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                let answer = hyper::service::service_fn(move |request| {
                    let (blobs, manifest, basic, asked) = &*shared;
                    let answer = answer(&request, blobs, manifest, basic.as_deref(), asked);
                    std::future::ready(Ok::<_, Infallible>(answer))
                });
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
            }
        });
        Self { address, asked }
    }
}

fn answer(
    request: &Request<Incoming>,
    blobs: &HashMap<String, Bytes>,
    manifest: &str,
    basic: Option<&str>,
    asked: &AtomicUsize,
) -> Response<Full<Bytes>> {
    let status = |code: u16| Response::builder().status(code);
    let shown = request.headers().get("authorization").and_then(|value| value.to_str().ok());
    if basic.is_some() && shown != basic {
        let refused = status(401).header("www-authenticate", "Basic realm=\"test\"");
        return refused.body(Full::default()).expect("answer");
    }
    let path = request.uri().path();
    if path.ends_with("/manifests/v1") {
        asked.fetch_add(1, Ordering::SeqCst);
    }
    let name = path.rsplit('/').next().unwrap_or_default();
    let name = if name == "v1" { manifest } else { name };
    let Some(blob) = blobs.get(name) else { return status(404).body(Full::default()).expect("answer") };
    let kind = if name == manifest { "application/vnd.oci.image.manifest.v1+json" } else { "application/octet-stream" };
    let found = status(200).header("content-type", kind).header("docker-content-digest", name);
    let found = found.header("content-length", blob.len());
    let body = if request.method() == "HEAD" { Bytes::new() } else { blob.clone() };
    found.body(Full::new(body)).expect("answer")
}

#[tokio::test]
async fn an_imported_image_is_found_unpacked_and_described() {
    let private = Private::start().await;
    private.import(&TestImage::new(), "docker.io/library/test:v1");
    assert_eq!(private.snapshots(), 0);
    let image = private.images.ensure("test:v1", PullPolicy::Never, &[]).await.expect("found");
    assert_eq!(image.reference, "docker.io/library/test:v1");
    assert_eq!(image.repo_digest, None);
    assert_eq!(private.snapshots(), 2);
    assert!(private.ctr(&["snapshots", "ls"]).contains(&image.chain_id));
    let config = &image.config;
    assert_eq!(
        (config.entrypoint.as_slice(), config.cmd.as_slice()),
        (["/bin/busybox".to_owned()].as_slice(), ["sh".to_owned()].as_slice())
    );
    assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("web", "/tmp"));
    assert_eq!(
        (config.stop_signal.as_deref(), config.volumes.as_slice()),
        (Some("SIGQUIT"), ["/data".to_owned()].as_slice())
    );
    assert_eq!(private.images.ensure("test:v1", PullPolicy::IfNotPresent, &[]).await.expect("again"), image);
    let listed = private.images.list().await.expect("listed");
    assert_eq!((listed.len(), listed[0].id.as_str()), (1, image.id.as_str()));
}

#[tokio::test]
async fn what_was_unpacked_survives_a_garbage_collection() {
    let private = Private::start().await;
    private.import(&TestImage::new(), "docker.io/library/test:v1");
    private.images.ensure("test:v1", PullPolicy::Never, &[]).await.expect("found");
    private.import(&TestImage::new(), "docker.io/library/other:v1");
    // A removal that waits for the collection.
    private.ctr(&["images", "rm", "--sync", "docker.io/library/other:v1"]);
    assert_eq!(private.snapshots(), 2);
}

#[tokio::test]
async fn an_image_that_is_missing_or_misnamed_is_told_in_upstreams_words() {
    let private = Private::start().await;
    let error = private.images.ensure("missing", PullPolicy::Never, &[]).await.expect_err("not there");
    assert_eq!(error.reason(), "ErrImageNeverPull");
    assert_eq!(error.to_string(), r#"Container image "missing" is not present with pull policy of Never"#);
    let error = private.images.ensure("team/App", PullPolicy::Always, &[]).await.expect_err("no name");
    assert_eq!(error.reason(), "InvalidImageName");
}

#[tokio::test]
async fn an_image_is_pulled_when_its_policy_says_so() {
    let private = Private::start().await;
    let test_image = TestImage::new();
    let registry = Registry::start(&test_image, None).await;
    let name = format!("{}/team/app:v1", registry.address);
    let image = private.images.ensure(&name, PullPolicy::IfNotPresent, &[]).await.expect("pulled");
    assert_eq!(image.repo_digest, Some(format!("{}/team/app@{}", registry.address, digest(&test_image.manifest()))));
    let after_pull = registry.asked.load(Ordering::SeqCst);
    private.images.ensure(&name, PullPolicy::IfNotPresent, &[]).await.expect("there");
    assert_eq!(registry.asked.load(Ordering::SeqCst), after_pull);
    private.images.ensure(&name, PullPolicy::Always, &[]).await.expect("asked again");
    assert!(registry.asked.load(Ordering::SeqCst) > after_pull);
    private.images.remove(&image.id).await.expect("removed");
    assert_eq!(private.images.list().await.expect("listed"), []);
}

#[tokio::test]
async fn each_credential_is_tried_until_one_opens_the_registry() {
    let private = Private::start().await;
    let registry = Registry::start(&TestImage::new(), Some("right")).await;
    let name = format!("{}/team/app:v1", registry.address);
    let auth = |password: &str| RegistryAuth {
        username: "web".to_owned(),
        password: password.to_owned(),
        ..RegistryAuth::default()
    };
    let error = private.images.ensure(&name, PullPolicy::Always, &[auth("wrong")]).await.expect_err("refused");
    assert_eq!(error.reason(), "ErrImagePull");
    assert!(matches!(&error, ImageError::Pull { message } if message.contains("401 Unauthorized")), "{error}");
    private.images.ensure(&name, PullPolicy::Always, &[auth("wrong"), auth("right")]).await.expect("let in");
}

#[tokio::test]
async fn one_image_is_pulled_once_for_all_that_wait_for_it() {
    let private = Private::start().await;
    let registry = Registry::start(&TestImage::new(), None).await;
    let name = format!("{}/team/app:v1", registry.address);
    let pulls = (0..4).map(|_| private.images.ensure(&name, PullPolicy::IfNotPresent, &[]));
    let pulled = futures::future::join_all(pulls).await;
    assert!(pulled.iter().all(Result::is_ok), "{pulled:?}");
    assert_eq!(registry.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn images_are_found_again_after_containerd_was_restarted() {
    let mut private = Private::start().await;
    private.import(&TestImage::new(), "docker.io/library/test:v1");
    let image = private.images.ensure("test:v1", PullPolicy::Never, &[]).await.expect("found");
    private.restart();
    let again = async {
        loop {
            match private.images.ensure("test:v1", PullPolicy::Never, &[]).await {
                Ok(image) => return image,
                Err(ImageError::Inspect { .. }) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    assert_eq!(tokio::time::timeout(Duration::from_secs(60), again).await.expect("containerd answers"), image);
}

#[tokio::test]
async fn unused_images_go_when_the_disk_is_too_full() {
    let private = Private::start().await;
    private.import(&TestImage::new(), "docker.io/library/test:v1");
    let image = private.images.ensure("test:v1", PullPolicy::Never, &[]).await.expect("found");
    let (mut uses, now) = (ImageUses::new(Timestamp::UNIX_EPOCH), Timestamp::now());
    // Any disk is fuller than nothing, and no image is too young.
    let policy = GarbagePolicy { high_percent: 0, low_percent: 0, min_age: SignedDuration::ZERO, max_age: None };
    let in_use = HashSet::from([image.id.clone()]);
    let none = private.images.collect_garbage(&mut uses, &policy, &in_use, now).await.expect("collected");
    assert!(none.images.is_empty() && none.insufficient.is_some());
    let all = private.images.collect_garbage(&mut uses, &policy, &HashSet::new(), now).await.expect("collected");
    assert_eq!(all.images, [image.id]);
    assert_eq!(private.images.list().await.expect("listed"), []);
}

#[tokio::test]
async fn a_private_image_that_is_here_is_not_for_a_pod_without_its_secret() {
    let private = Private::start().await;
    let registry = Registry::start(&TestImage::new(), Some("right")).await;
    let name = format!("{}/team/app:v1", registry.address);
    let images = private.images.clone().with_access_records(&private.folder.path().join("access"));
    let source = CredentialSource { uid: "uid-s".to_owned(), namespace: "default".to_owned(), name: "s".to_owned() };
    let auth = RegistryAuth {
        username: "web".to_owned(),
        password: "right".to_owned(),
        source: Some(source),
        ..RegistryAuth::default()
    };
    let image = images.ensure(&name, PullPolicy::IfNotPresent, std::slice::from_ref(&auth)).await.expect("pulled");
    let asked = registry.asked.load(Ordering::SeqCst);
    let again = images.ensure(&name, PullPolicy::IfNotPresent, &[auth]).await.expect("known");
    assert_eq!((again, registry.asked.load(Ordering::SeqCst)), (image, asked));
    let error = images.ensure(&name, PullPolicy::IfNotPresent, &[]).await.expect_err("asked without a secret");
    assert_eq!(error.reason(), "ErrImagePull");
    let error = images.ensure(&name, PullPolicy::Never, &[]).await.expect_err("hidden");
    assert_eq!(error.reason(), "ErrImageNeverPull");
}

/// A sandbox and containers of the test's image in it.
struct Pod<'a> {
    private: &'a Private,
    sandboxes: Sandboxes,
    sandbox: Sandbox,
}

impl<'a> Pod<'a> {
    async fn start(private: &'a Private) -> Self {
        let [configurations, binaries, cache] = ["net.d", "bin", "cache"].map(|name| private.folder.path().join(name));
        std::fs::create_dir_all(&configurations).expect("net.d");
        std::fs::create_dir_all(&binaries).expect("bin");
        let list = r#"{"name": "pods", "cniVersion": "1.0.0", "plugins": [{"type": "veth"}]}"#;
        std::fs::write(configurations.join("10-pods.conflist"), list).expect("configuration");
        symlink(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cni/veth-plugin"), binaries.join("veth")).expect("plugin");
        let sandboxes =
            Sandboxes::new(&private.folder.path().join("run"), Cni::new(configurations, vec![binaries], cache));
        let spec = SandboxSpec { uid: "uid-1".to_owned(), hostname: "web-0".to_owned(), ..SandboxSpec::default() };
        let sandbox = sandboxes.create(&spec).await.expect("sandbox");
        Self { private, sandboxes, sandbox }
    }

    /// Runs a shell script in a container and returns what it printed.
    async fn run(&self, id: &str, script: &str, change: impl FnOnce(&mut ContainerSpec)) -> String {
        let containers = &self.private.containers;
        let image = self.private.images.ensure("test:v1", PullPolicy::Never, &[]).await.expect("image");
        let mounts = containers.prepare_snapshot(id, &image.chain_id).await.expect("snapshot");
        let text = |path: &str| {
            let text = rootfs::read(&mounts, Path::new(path), 1 << 20).expect("read").unwrap_or_default();
            String::from_utf8(text).expect("text")
        };
        let user = User::of_image(&image.config.user);
        let user = user.resolve(None, &text("/etc/passwd"), &text("/etc/group")).expect("user");
        let mut spec = ContainerSpec {
            args: ["/bin/busybox", "sh", "-c", script].map(str::to_owned).to_vec(),
            env: image.config.env.clone(),
            cwd: image.config.working_dir.clone().into(),
            user: (user.uid, user.gid),
            groups: user.groups,
            capabilities: DEFAULT_CAPABILITIES.map(str::to_owned).to_vec(),
            no_new_privileges: false,
            read_only_root: false,
            terminal: false,
            oom_score_adj: 1000,
            mounts: vec![],
            namespaces: self.sandbox.namespaces.clone(),
            shm: self.sandbox.shm.clone(),
            privileged: false,
            unmasked_proc: false,
            seccomp: None,
            cgroup: PathBuf::from(format!("/skep-test-images-{}/{id}", std::process::id())),
            cpu_shares: 2,
            cpu_quota: None,
            memory_bytes: None,
            shim_group: "uid-1".to_owned(),
        };
        change(&mut spec);
        let labels = HashMap::from([("io.kubernetes.pod.uid".to_owned(), "uid-1".to_owned())]);
        let new = NewContainer {
            id: id.to_owned(),
            image: image.reference,
            labels,
            spec: spec.to_oci_on(&HostFacts::detect()),
        };
        containers.create(new).await.expect("container");
        let log = self.private.folder.path().join(format!("{id}.log"));
        let file = format!("file://{}", log.display());
        let io = TaskIo { stdout: file.clone(), stderr: file, ..TaskIo::default() };
        containers.start(id, &io).await.expect("started");
        containers.wait(id).await.expect("ended");
        containers.remove(id).await.expect("removed");
        std::fs::read_to_string(log).unwrap_or_default()
    }

    async fn stop(self) {
        self.sandboxes.remove("uid-1").await.expect("sandbox removed");
        for tree in std::fs::read_dir("/sys/fs/cgroup").expect("cgroups") {
            // A tree that no container was in has no such folder.
            let _ = std::fs::remove_dir(
                tree.expect("tree").path().join(format!("skep-test-images-{}", std::process::id())),
            );
        }
    }
}

fn lines(output: &str) -> BTreeMap<String, String> {
    let pair = |line: &str| line.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
    output.lines().filter_map(pair).collect()
}

#[tokio::test]
async fn containers_share_their_sandbox_and_keep_to_their_limits() {
    let private = Private::start().await;
    private.import(&TestImage::new(), "docker.io/library/test:v1");
    let pod = Pod::start(&private).await;
    let script =
        "b=/bin/busybox; echo host=$($b hostname); echo id=$($b id -u):$($b id -g):$($b id -G); echo cwd=$($b pwd)
        $b ip -o addr show eth0 | $b grep -q 10.97.0.2 && echo address=yes
        echo shared > /dev/shm/file; echo cgroup=$($b ls /sys/fs/cgroup | $b wc -l)";
    let first = lines(&pod.run("first", script, |_| {}).await);
    assert_eq!(first["host"], "web-0");
    assert_eq!(first["id"], "33:34:34 7");
    assert_eq!(first["cwd"], "/tmp");
    assert_eq!(first["address"], "yes");
    assert_ne!(first["cgroup"], "0");
    let script = "b=/bin/busybox; echo shm=$($b cat /dev/shm/file); $b unshare -m true && echo unshare=allowed
        $b mount -t tmpfs none /mnt 2>/dev/null; $b dd if=/proc/kcore bs=1 count=1 2>/dev/null | $b wc -c | $b sed s/^/kcore=/
        $b grep Seccomp: /proc/self/status | $b tr -d '\\t ' | $b tr : =";
    let confined = |spec: &mut ContainerSpec| {
        spec.user = (0, 0);
        spec.seccomp = Some(seccomp::runtime_default(&spec.capabilities));
    };
    let second = lines(&pod.run("second", script, confined).await);
    assert_eq!((second["shm"].as_str(), second["Seccomp"].as_str(), second["kcore"].as_str()), ("shared", "2", "0"));
    assert!(!second.contains_key("unshare"));
    let script = "b=/bin/busybox; [ -b /dev/vda ] || [ -c /dev/mem ] || [ -c /dev/kmsg ] && echo devices=yes
        $b touch /sys/fs/cgroup/x 2>/dev/null; $b grep -q ' /sys sysfs rw' /proc/mounts && echo sys=rw
        $b grep CapEff /proc/self/status | $b tr -d '\\t' | $b tr : =";
    let privileged = |spec: &mut ContainerSpec| {
        spec.user = (0, 0);
        spec.privileged = true;
    };
    let third = lines(&pod.run("third", script, privileged).await);
    assert_eq!((third["devices"].as_str(), third["sys"].as_str()), ("yes", "rw"));
    let own = std::fs::read_to_string("/proc/self/status").expect("status");
    let bounding = own.lines().find_map(|line| line.strip_prefix("CapBnd:\t")).expect("bounding set");
    assert_eq!(third["CapEff"], bounding);
    pod.stop().await;
}

#[tokio::test]
async fn a_container_sees_the_nodes_processes_only_with_host_pid() {
    let private = Private::start().await;
    private.import(&TestImage::new(), "docker.io/library/test:v1");
    let pod = Pod::start(&private).await;
    let script = "echo self=$$";
    assert_eq!(lines(&pod.run("own", script, |_| {}).await)["self"], "1");
    let node = pod.run("node", script, |spec| spec.namespaces.host_pid = true).await;
    assert_ne!(lines(&node)["self"], "1");
    pod.stop().await;
}

#[tokio::test]
async fn a_container_reads_an_image_that_is_mounted_and_can_neither_write_nor_execute_it() {
    let private = Private::start().await;
    private.import(&TestImage::new(), "docker.io/library/test:v1");
    let image = private.images.ensure("test:v1", PullPolicy::Never, &[]).await.expect("found");
    let target = private.folder.path().join("volume");
    let view = private.containers.view("uid-1", &image.chain_id).await.expect("view");
    // A second container of the pod, or a restarted kubelet, mounts it again.
    for _ in 0..2 {
        volumes::image::mount(&view, &target).expect("mounted");
        assert_eq!(private.containers.view("uid-1", &image.chain_id).await.expect("the same"), view);
    }
    let pod = Pod::start(&private).await;
    let script = "b=/bin/busybox; echo users=$($b wc -l < /data/etc/passwd); echo part=$($b cat /part/group)
        $b touch /data/x 2>/dev/null && echo written=yes; /data/bin/busybox true 2>/dev/null && echo executed=yes";
    let bind = |source: PathBuf, destination: &str| BindMount {
        source,
        destination: destination.into(),
        read_only: true,
        no_exec: true,
        propagation: Propagation::Private,
    };
    let mounts = vec![bind(target.clone(), "/data"), bind(target.join("etc"), "/part")];
    let as_root = |spec: &mut ContainerSpec| (spec.user, spec.mounts) = ((0, 0), mounts);
    let seen = lines(&pod.run("reader", script, as_root).await);
    pod.stop().await;
    let wanted = [("part", "logs:x:7:web"), ("users", "2")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(seen, BTreeMap::from(wanted));
}

#[tokio::test]
async fn a_mounted_image_outlives_its_removal_and_goes_with_its_pod() {
    let private = Private::start().await;
    private.import(&TestImage::new(), "docker.io/library/test:v1");
    let image = private.images.ensure("test:v1", PullPolicy::Never, &[]).await.expect("found");
    let labels = HashMap::from([("skep.dev/node".to_owned(), "node-1".to_owned())]);
    let containers = private.containers.clone().with_snapshot_labels(labels);
    let target = private.folder.path().join("volume");
    let view = containers.view("uid-1", &image.chain_id).await.expect("view");
    volumes::image::mount(&view, &target).expect("mounted");
    containers.view("uid-gone", &image.chain_id).await.expect("another pod's");
    assert_eq!(containers.sweep_snapshots(&["uid-1".to_owned()]).await.expect("sweep"), 1);
    private.images.remove(&image.id).await.expect("removed");
    // Two layers and the view.
    assert_eq!(private.snapshots(), 3);
    let group = std::fs::read_to_string(target.join("etc/group")).expect("still there");
    assert_eq!(group, "logs:x:7:web\n");
    rustix::mount::unmount(&target, rustix::mount::UnmountFlags::empty()).expect("unmounted");
    containers.remove_views("uid-1").await.expect("view removed");
    containers.remove_views("uid-1").await.expect("nothing is no error");
    assert_eq!(containers.sweep_snapshots(&[]).await.expect("sweep"), 0);
}

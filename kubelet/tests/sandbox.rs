//! Sandboxes of real namespaces and mounts, wired by a CNI plugin that is a shell script; needs root and iproute2.

use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use skep_kubelet::cni::Cni;
use skep_kubelet::sandbox::{PortMapping, Sandbox, SandboxError, SandboxSpec, Sandboxes};

struct Node {
    folder: tempfile::TempDir,
    sandboxes: Sandboxes,
}

impl Node {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("tempdir");
        let [configurations, binaries, cache] = ["net.d", "bin", "cache"].map(|name| folder.path().join(name));
        std::fs::create_dir_all(&configurations).expect("net.d");
        std::fs::create_dir_all(&binaries).expect("bin");
        let list = r#"{"name": "pods", "cniVersion": "1.0.0", "plugins": [{"type": "veth"}]}"#;
        std::fs::write(configurations.join("10-pods.conflist"), list).expect("configuration");
        symlink(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cni/veth-plugin"), binaries.join("veth")).expect("plugin");
        let cni = Cni::new(configurations, vec![binaries], cache);
        let sandboxes = Sandboxes::new(&folder.path().join("run"), cni);
        Self { folder, sandboxes }
    }

    fn pod_folder(&self, uid: &str) -> PathBuf {
        self.folder.path().join("run/pods").join(uid)
    }

    /// The plugin's commands so far.
    fn commands(&self) -> Vec<String> {
        let log = self.calls();
        log.lines().filter_map(|line| line.split(' ').next().map(str::to_owned)).collect()
    }

    fn calls(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("bin/calls")).unwrap_or_default()
    }

    fn mounts(&self) -> usize {
        let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
        let here = self.folder.path().to_string_lossy();
        mounts.lines().filter(|line| line.contains(&*here)).count()
    }
}

/// A failed test leaves its mounts to this.
impl Drop for Node {
    fn drop(&mut self) {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        for point in points.filter(|point| Path::new(point).starts_with(self.folder.path())) {
            let _ = rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

fn pod(uid: &str) -> SandboxSpec {
    SandboxSpec {
        uid: uid.to_owned(),
        namespace: "default".to_owned(),
        name: "web".to_owned(),
        hostname: "web-0".to_owned(),
        sysctls: vec![("net.ipv4.ip_local_port_range".to_owned(), "20000\t30000".to_owned())],
        shm_bytes: Some(1 << 20),
        ..SandboxSpec::default()
    }
}

/// What a command prints in the sandbox's namespaces.
fn inside(sandbox: &Sandbox, command: &[&str]) -> String {
    let flag = |name: &str, path: &Option<PathBuf>| path.as_ref().map(|path| format!("--{name}={}", path.display()));
    let namespaces = &sandbox.namespaces;
    let flags = [flag("net", &namespaces.network), flag("ipc", &namespaces.ipc), flag("uts", &namespaces.uts)];
    let output = Command::new("nsenter").args(flags.into_iter().flatten()).args(command).output().expect("nsenter");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

#[tokio::test]
async fn a_sandbox_has_network_hostname_parameters_and_shared_memory() {
    let node = Node::new();
    let sandbox = node.sandboxes.create(&pod("uid-1")).await.expect("created");
    assert_eq!(sandbox.addresses, ["10.97.0.2".parse::<IpAddr>().unwrap()]);
    assert_eq!(inside(&sandbox, &["hostname"]), "web-0");
    assert!(inside(&sandbox, &["ip", "-o", "link", "show", "lo"]).contains("LOWER_UP"));
    assert!(inside(&sandbox, &["ip", "-o", "address", "show", "eth0"]).contains("10.97.0.2/24"));
    assert_eq!(inside(&sandbox, &["cat", "/proc/sys/net/ipv4/ip_local_port_range"]), "20000\t30000");
    assert_eq!(inside(&sandbox, &["cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start"]), "0");
    let shm = rustix::fs::statfs(sandbox.shm.as_ref().unwrap()).expect("statfs");
    assert_eq!(shm.f_blocks * u64::try_from(shm.f_bsize).unwrap(), 1 << 20);
    let args = "args=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=uid-1;";
    assert!(node.calls().contains(args), "{}", node.calls());
    node.sandboxes.remove("uid-1").await.expect("removed");
}

#[tokio::test]
async fn a_sandbox_is_made_once_and_found_by_a_restarted_kubelet() {
    let node = Node::new();
    let made = node.sandboxes.create(&pod("uid-1")).await.expect("created");
    assert_eq!(node.sandboxes.create(&pod("uid-1")).await.expect("again"), made);
    assert_eq!(node.sandboxes.find("uid-1").await.expect("found"), Some(made));
    assert_eq!(node.sandboxes.list().await.expect("listed"), ["uid-1"]);
    assert_eq!(node.commands(), ["ADD"]);
    node.sandboxes.remove("uid-1").await.expect("removed");
}

#[tokio::test]
async fn a_removed_sandbox_leaves_nothing() {
    let node = Node::new();
    node.sandboxes.create(&pod("uid-1")).await.expect("created");
    node.sandboxes.remove("uid-1").await.expect("removed");
    node.sandboxes.remove("uid-1").await.expect("again");
    assert_eq!(node.commands(), ["ADD", "DEL"]);
    assert_eq!((node.mounts(), node.pod_folder("uid-1").exists()), (0, false));
    assert_eq!(node.sandboxes.find("uid-1").await.expect("looked for"), None);
}

#[tokio::test]
async fn a_sandbox_that_cannot_be_wired_leaves_nothing() {
    let node = Node::new();
    std::fs::write(node.folder.path().join("bin/fail-ADD"), "").expect("told to fail");
    let error = node.sandboxes.create(&pod("uid-1")).await.expect_err("not wired");
    let words = r#"failed to setup network for sandbox "uid-1": plugin type="veth" failed (add): no address is free"#;
    assert_eq!(error.to_string(), words);
    assert_eq!(node.commands(), ["ADD", "DEL"]);
    assert_eq!((node.mounts(), node.pod_folder("uid-1").exists()), (0, false));
}

#[tokio::test]
async fn after_a_reboot_a_sandbox_is_made_anew_and_its_old_address_given_back() {
    let node = Node::new();
    let made = node.sandboxes.create(&pod("uid-1")).await.expect("created");
    for mount in ["net", "ipc", "uts", "shm"] {
        rustix::mount::unmount(node.pod_folder("uid-1").join(mount), rustix::mount::UnmountFlags::DETACH)
            .expect("unmounted, as by a reboot");
    }
    assert_eq!(node.sandboxes.find("uid-1").await.expect("looked for"), None);
    assert_eq!(node.sandboxes.create(&pod("uid-1")).await.expect("anew"), made);
    assert_eq!(node.commands(), ["ADD", "DEL", "ADD"]);
    assert!(node.calls().contains("DEL netns= "), "{}", node.calls());
    node.sandboxes.remove("uid-1").await.expect("removed");
}

#[tokio::test]
async fn a_sandbox_that_was_only_begun_is_not_found_and_can_be_removed() {
    let node = Node::new();
    node.sandboxes.create(&pod("uid-1")).await.expect("created");
    let state = node.pod_folder("uid-1").join("sandbox.json");
    let text = std::fs::read_to_string(&state).expect("state").replace(r#""ready":true"#, r#""ready":false"#);
    std::fs::write(&state, text).expect("as a crash leaves it");
    assert_eq!(node.sandboxes.find("uid-1").await.expect("looked for"), None);
    node.sandboxes.remove("uid-1").await.expect("removed");
    assert_eq!(node.mounts(), 0);
}

#[tokio::test]
async fn a_pod_on_the_nodes_network_is_not_wired() {
    let node = Node::new();
    let spec = SandboxSpec { host_network: true, host_ipc: true, sysctls: vec![], ..pod("uid-1") };
    let sandbox = node.sandboxes.create(&spec).await.expect("created");
    assert!(sandbox.addresses.is_empty() && sandbox.shm.is_none());
    // A container joins what this process is in, or inherits it from the runtime.
    let network = sandbox.namespaces.network.clone().unwrap_or_else(|| "/proc/self/ns/net".into());
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).expect("namespace"));
    assert_eq!(inode(&network), inode(Path::new("/proc/self/ns/net")));
    assert!(node.commands().is_empty());
    assert_eq!(node.sandboxes.find("uid-1").await.expect("found"), Some(sandbox));
    node.sandboxes.remove("uid-1").await.expect("removed");
}

#[tokio::test]
async fn a_parameter_of_the_node_is_refused_before_anything_is_made() {
    let node = Node::new();
    let spec = SandboxSpec { sysctls: vec![("vm.swappiness".to_owned(), "1".to_owned())], ..pod("uid-1") };
    let error = node.sandboxes.create(&spec).await.expect_err("refused");
    assert!(matches!(error, SandboxError::Sysctl(name) if name == "vm.swappiness"));
    assert!(node.commands().is_empty() && !node.pod_folder("uid-1").exists());
}

#[tokio::test]
async fn a_uid_that_is_a_path_is_refused() {
    let node = Node::new();
    for uid in ["../x", "", ".", "a/b"] {
        assert!(matches!(node.sandboxes.remove(uid).await, Err(SandboxError::Uid(_))), "{uid}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_sandboxes_are_made_at_a_time() {
    let node = Node::new();
    let uids: Vec<String> = (0..8).map(|number| format!("uid-{number}")).collect();
    let specs: Vec<SandboxSpec> = uids.iter().map(|uid| pod(uid)).collect();
    let made = futures::future::join_all(specs.iter().map(|spec| node.sandboxes.create(spec))).await;
    assert!(made.iter().all(Result::is_ok), "{made:?}");
    let removed = futures::future::join_all(uids.iter().map(|uid| node.sandboxes.remove(uid))).await;
    assert!(removed.iter().all(Result::is_ok), "{removed:?}");
    assert_eq!(node.mounts(), 0);
}

/// What a command prints; it must succeed.
fn run(command: &mut Command) -> String {
    let output = command.output().expect("started");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
#[ignore = "needs the reference plugins: `SKEP_TEST_CNI_BIN` names their folder, /usr/lib/cni with Debian's containernetworking-plugins"]
async fn pods_reach_each_other_by_the_reference_plugins() {
    const INSIDE: &str = "SKEP_TEST_IN_NAMESPACE";
    if std::env::var_os(INSIDE).is_none() {
        // A kubelet in a network namespace of its own: the bridge is in it, and goes with it.
        let this = std::env::current_exe().expect("this test");
        let name = "pods_reach_each_other_by_the_reference_plugins";
        run(Command::new("unshare").arg("--net").arg(this).args(["--exact", "--ignored", name]).env(INSIDE, "1"));
        return;
    }
    run(Command::new("ip").args(["link", "set", "lo", "up"]));
    let mut node = Node::new();
    let leases = node.folder.path().join("leases");
    let list = serde_json::json!({"name": "pods", "cniVersion": "1.0.0", "plugins": [
        {"type": "bridge", "bridge": "cni0", "isGateway": true,
         "ipam": {"type": "host-local", "dataDir": leases, "ranges": [[{"subnet": "10.98.0.0/24"}]]}},
        {"type": "portmap", "capabilities": {"portMappings": true}},
    ]});
    let configurations = node.folder.path().join("net.d");
    std::fs::write(configurations.join("10-pods.conflist"), list.to_string()).expect("configuration");
    let binaries = PathBuf::from(std::env::var_os("SKEP_TEST_CNI_BIN").unwrap_or("/usr/lib/cni".into()));
    let cni = Cni::new(configurations, vec![binaries], node.folder.path().join("cache"));
    cni.status().await.expect("ready");
    node.sandboxes = Sandboxes::new(&node.folder.path().join("run"), cni);
    let port = PortMapping { host_port: 18080, container_port: 80, protocol: "TCP".to_owned(), host_ip: None };
    let first = node.sandboxes.create(&SandboxSpec { ports: vec![port], ..pod("uid-1") }).await.expect("first");
    let second = node.sandboxes.create(&pod("uid-2")).await.expect("second");
    inside(&second, &["busybox", "ping", "-c", "1", "-W", "5", &first.addresses[0].to_string()]);
    let rules = || run(Command::new("iptables").args(["-t", "nat", "-S"]));
    assert!(rules().contains(&format!("--to-destination {}:80", first.addresses[0])), "{}", rules());
    for uid in ["uid-1", "uid-2"] {
        node.sandboxes.remove(uid).await.expect("removed");
    }
    assert!(!rules().contains("--to-destination"), "{}", rules());
    let left = std::fs::read_dir(leases.join("pods")).expect("leases").filter_map(Result::ok);
    let left: Vec<String> = left.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    assert!(!left.iter().any(|name| name.starts_with("10.98.")), "{left:?}");
}

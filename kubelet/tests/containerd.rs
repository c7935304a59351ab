//! The runtime against a real containerd and runc, started privately; needs root and busybox-static.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures::StreamExt;
use skep_kubelet::logs::{driver, writer::Rotation};
use skep_kubelet::runtime::containerd::{Containerd, Event, NewContainer};
use skep_kubelet::runtime::spec::{ContainerSpec, DEFAULT_CAPABILITIES, PodNamespaces};

struct Private {
    directory: tempfile::TempDir,
    process: Child,
}

impl Private {
    async fn start() -> (Self, Containerd) {
        let directory = tempfile::tempdir().expect("tempdir");
        let d = directory.path().display();
        let config = format!(
            "version = 2\nroot = \"{d}/root\"\nstate = \"{d}/state\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = \"{d}/c.sock\"\n[ttrpc]\naddress = \"{d}/c.sock.ttrpc\"\n"
        );
        std::fs::write(directory.path().join("config.toml"), config).expect("config");
        let log = std::fs::File::create(directory.path().join("containerd.log")).expect("log");
        let process = Command::new("/usr/bin/containerd")
            .arg("-c")
            .arg(directory.path().join("config.toml"))
            .stderr(log)
            .stdout(Stdio::null())
            .spawn()
            .expect("containerd");
        let private = Self { directory, process };
        let socket = private.directory.path().join("c.sock");
        let connected = async {
            loop {
                if let Ok(client) = Containerd::connect(&socket, "skep-test", "native").await
                    && client.list().await.is_ok()
                {
                    return client;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let client = tokio::time::timeout(Duration::from_secs(30), connected).await.expect("containerd answers");
        (private, client)
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        // It is ours, by its own pid, and holds no container any more.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn shell(script: &str, id: &str) -> ContainerSpec {
    ContainerSpec {
        args: ["/bin/busybox", "sh", "-c", script].map(str::to_owned).to_vec(),
        env: vec!["PATH=/bin".to_owned()],
        cwd: PathBuf::from("/"),
        user: (0, 0),
        groups: vec![],
        capabilities: DEFAULT_CAPABILITIES.map(str::to_owned).to_vec(),
        no_new_privileges: true,
        read_only_root: false,
        terminal: false,
        oom_score_adj: 1000,
        mounts: vec![],
        namespaces: PodNamespaces::default(),
        shm: None,
        privileged: false,
        unmasked_proc: false,
        seccomp: None,
        cgroup: PathBuf::from(format!("/skep-test-{}/{id}", std::process::id())),
        cpu_shares: 2,
        cpu_quota: None,
        memory_bytes: None,
        shim_group: "pod-1".to_owned(),
    }
}

async fn create(client: &Containerd, id: &str, spec: &ContainerSpec) {
    let mounts = client.prepare_snapshot(id, "").await.expect("snapshot");
    let bin = Path::new(&mounts[0].source).join("bin");
    std::fs::create_dir_all(&bin).expect("bin");
    std::fs::copy("/bin/busybox", bin.join("busybox")).expect("busybox-static");
    let labels = HashMap::from([("pod".to_owned(), "pod-1".to_owned())]);
    let new = NewContainer { id: id.to_owned(), image: String::new(), labels, spec: spec.to_oci() };
    client.create(new).await.expect("container");
}

#[tokio::test]
async fn two_containers_of_a_pod_run_log_and_report_their_exit_codes() {
    let (private, client) = Private::start().await;
    let mut stream = Box::pin(client.events());
    let first_event = tokio::spawn(async move { stream.next().await });
    let rotation = Rotation { max_bytes: 1 << 20, max_files: 2 };
    let binary = Path::new(env!("CARGO_BIN_EXE_skep-kubelet"));
    let logs = private.directory.path().join("logs");
    for (id, script) in [("a", "echo out; echo err >&2; exit 3"), ("b", "echo waits; exec /bin/busybox sleep 1000")] {
        create(&client, id, &shell(script, id)).await;
        let uri = driver::io_uri(binary, &logs.join(id).join("0.log"), rotation);
        client.start(id, &uri, false).await.expect("start");
    }
    let first_event = first_event.await.expect("joined").expect("an event").expect("from containerd");
    assert_eq!(first_event, Event::Exited { container: "a".into(), exit_code: 3 });
    // A second client is what a restarted kubelet is: it finds the container by its label and can stop it.
    let again =
        Containerd::connect(&private.directory.path().join("c.sock"), "skep-test", "native").await.expect("again");
    let listed = again.list().await.expect("list");
    assert!(listed.iter().any(|(id, labels)| id == "b" && labels["pod"] == "pod-1"), "{listed:?}");
    let written = async {
        while !std::fs::read_to_string(logs.join("b/0.log")).is_ok_and(|log| log.contains("waits")) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), written).await.expect("the container writes");
    again.kill("b", 9).await.expect("kill");
    assert_eq!(again.wait("b").await.expect("wait"), 137);
    for id in ["a", "b"] {
        again.remove(id).await.expect("remove");
    }
    let log = std::fs::read_to_string(logs.join("a/0.log")).expect("log");
    assert!(log.contains(" stdout F out\n") && log.contains(" stderr F err\n"), "{log}");
    let log = std::fs::read_to_string(logs.join("b/0.log")).expect("log");
    assert!(log.ends_with(" stdout F waits\n"), "{log}");
    for tree in std::fs::read_dir("/sys/fs/cgroup").expect("cgroups") {
        // A tree that the container was not in has no such directory.
        let _ = std::fs::remove_dir(tree.expect("tree").path().join(format!("skep-test-{}", std::process::id())));
    }
}

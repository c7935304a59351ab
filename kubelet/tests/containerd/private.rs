//! A containerd of a test's own, and containers in it that are made of busybox.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use skep_kubelet::logs::driver::Target;
use skep_kubelet::logs::writer::Rotation;
use skep_kubelet::runtime::containerd::{Containerd, NewContainer};
use skep_kubelet::runtime::spec::{ContainerSpec, DEFAULT_CAPABILITIES, PodNamespaces};

pub(crate) const NODE: (&str, &str) = ("skep.dev/node", "node-1");

/// containerd with directories and a socket of its own; its end kills what a test left running.
pub(crate) struct Private {
    pub(crate) client: Containerd,
    directory: tempfile::TempDir,
    process: Child,
    unique: String,
}

impl Private {
    pub(crate) async fn start() -> Self {
        let directory = tempfile::tempdir().expect("tempdir");
        let d = directory.path().display();
        let config = format!(
            "version = 2\nroot = \"{d}/root\"\nstate = \"{d}/state\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = \"{d}/c.sock\"\n[ttrpc]\naddress = \"{d}/c.sock.ttrpc\"\n"
        );
        std::fs::write(directory.path().join("config.toml"), config).expect("config");
        let process = spawn(directory.path());
        // runc keeps its state by containerd's namespace and cgroups by path, for the whole machine.
        let unique = directory.path().file_name().expect("name").display().to_string();
        let unique = format!("skep-test-{}", unique.trim_start_matches('.'));
        let client = connect(&directory.path().join("c.sock"), &unique).await;
        Self { client, directory, process, unique }
    }

    /// Ends containerd and starts it again over the same directories.
    pub(crate) async fn restart(&mut self) {
        self.process.kill().expect("kill");
        self.process.wait().expect("wait");
        self.process = spawn(self.directory.path());
        self.another().await;
    }

    /// A second connection, as a restarted kubelet makes it.
    pub(crate) async fn another(&self) -> Containerd {
        connect(&self.directory.path().join("c.sock"), &self.unique).await
    }

    /// Has containerd collect its garbage, and waits for it.
    pub(crate) fn collect_garbage(&self) {
        let socket = self.path("c.sock").display().to_string();
        for arguments in [&["create", "--id", "l"][..], &["delete", "--sync", "l"]] {
            let ctr = ["-a", &socket, "-n", &self.unique, "leases"];
            let status = Command::new("ctr").args(ctr).args(arguments).stdout(Stdio::null()).status();
            assert!(status.expect("ctr").success());
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A log target of a container, in this test's directory.
    pub(crate) fn target(&self, id: &str) -> Target {
        let log = self.path("logs").join(id).join("0.log");
        let attach = Some(self.path("run").join(id).join("attach.sock"));
        Target { attach, ..Target::log(&log, Rotation { max_bytes: 1 << 20, max_files: 2 }) }
    }

    pub(crate) fn log(&self, id: &str) -> String {
        std::fs::read_to_string(self.target(id).log).unwrap_or_default()
    }

    /// Makes a container that runs a script.
    pub(crate) async fn create(&self, id: &str, script: &str, terminal: bool) {
        let mounts = self.client.prepare_snapshot(id, "").await.expect("snapshot");
        let bin = Path::new(&mounts[0].source).join("bin");
        std::fs::create_dir_all(&bin).expect("bin");
        std::fs::copy("/bin/busybox", bin.join("busybox")).expect("busybox-static");
        let labels = HashMap::from([("pod", "pod-1"), NODE].map(|(name, value)| (name.to_owned(), value.to_owned())));
        let spec = self.shell(id, script, terminal).to_oci();
        let new = NewContainer { id: id.to_owned(), image: "busybox".to_owned(), labels, spec };
        self.client.create(new).await.expect("container");
    }

    /// Starts a container over the streams of `target`.
    pub(crate) async fn start_with(&self, id: &str, target: &Target) {
        let launch = target.launch(Path::new(env!("CARGO_BIN_EXE_skep-kubelet"))).await.expect("launch");
        self.client.start(id, &launch.io).await.expect("start");
    }

    /// Makes and starts a container that runs a script.
    pub(crate) async fn run(&self, id: &str, script: &str) {
        self.create(id, script, false).await;
        self.start_with(id, &self.target(id)).await;
    }

    /// Kills a container and removes it.
    pub(crate) async fn end(&self, id: &str) {
        // It may have ended.
        let _ = self.client.kill(id, 9).await;
        if self.client.task(id).await.expect("task").is_some() {
            within("an end", self.client.wait(id)).await.expect("wait");
        }
        self.client.remove(id).await.expect("remove");
    }

    fn shell(&self, id: &str, script: &str, terminal: bool) -> ContainerSpec {
        ContainerSpec {
            args: ["/bin/busybox", "sh", "-c", script].map(str::to_owned).to_vec(),
            env: vec!["PATH=/bin".to_owned(), "HOME=/".to_owned()],
            cwd: PathBuf::from("/"),
            user: (0, 0),
            groups: vec![],
            capabilities: DEFAULT_CAPABILITIES.map(str::to_owned).to_vec(),
            no_new_privileges: true,
            read_only_root: false,
            terminal,
            oom_score_adj: 1000,
            mounts: vec![],
            namespaces: PodNamespaces::default(),
            shm: None,
            privileged: false,
            unmasked_proc: false,
            seccomp: None,
            cgroup: PathBuf::from(format!("/{}/{id}", self.unique)),
            cpu_shares: 2,
            cpu_quota: None,
            memory_bytes: None,
            shim_group: "pod-1".to_owned(),
        }
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        let runc = Path::new("/run/containerd/runc").join(&self.unique);
        // A passed test holds no container any more; a failed one's are ended here, with their shims.
        for left in std::fs::read_dir(&runc).into_iter().flatten().flatten() {
            let socket = self.path("c.sock");
            let _ = Command::new("ctr")
                .args(["-a", &socket.display().to_string(), "-n", &self.unique, "tasks", "rm", "-f"])
                .arg(left.file_name())
                .stdout(Stdio::null())
                .status();
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir(runc);
        for tree in std::fs::read_dir("/sys/fs/cgroup").expect("cgroups") {
            // A tree that the containers were not in has no such directory.
            let _ = std::fs::remove_dir(tree.expect("tree").path().join(&self.unique));
        }
    }
}

/// Fails a test that would wait for ever.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.unwrap_or_else(|_| panic!("{what} in time"))
}

/// Waits until something holds.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let held = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within(what, held).await;
}

fn spawn(directory: &Path) -> Child {
    let log = std::fs::File::create(directory.join("containerd.log")).expect("log");
    // Another version's programs, in a directory that comes first.
    let path = std::env::var("SKEP_TEST_CONTAINERD_PATH").map(|first| format!("{first}:")).unwrap_or_default();
    let path = format!("{path}{}", std::env::var("PATH").unwrap_or_default());
    let binary = path.split(':').map(|directory| Path::new(directory).join("containerd")).find(|file| file.exists());
    Command::new(binary.expect("containerd"))
        .env("PATH", path)
        .arg("-c")
        .arg(directory.join("config.toml"))
        .stderr(log)
        .stdout(Stdio::null())
        .spawn()
        .expect("containerd")
}

async fn connect(socket: &Path, namespace: &str) -> Containerd {
    let connected = async {
        loop {
            if let Ok(client) = Containerd::connect(socket, namespace, "native").await
                && client.list().await.is_ok()
            {
                let labels = HashMap::from([(NODE.0.to_owned(), NODE.1.to_owned())]);
                return client.with_snapshot_labels(labels);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within("containerd answers", connected).await
}

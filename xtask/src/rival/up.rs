//! Bringing the upstream cluster up: each step finds what is there and does what is missing; what runs goes on as it is.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::layout::{Layout, NAME, UPLINK};
use super::parts::Part;
use super::{files, leftovers, pki, tunables};
use crate::deploy::progress::Progress;
use crate::deploy::subnet::Subnet;
use crate::deploy::{cgroups, network, processes, registry};
use crate::image::suite::{self, Suite};
use crate::upstream::{self, Set};
use crate::{packages, shell};

const PACKAGES: [(&str, &str); 6] = [
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("openssl", "openssl"),
    ("nft", "nftables"),
    ("docker-registry", "docker-registry"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
];
/// Where the registry is served, in the cluster's own network namespace. Not at 5000: cases of the suite start one there.
const REGISTRY: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 25000);
/// How long the node, and the DNS on it, may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the cluster's places do not follow from; in the data directory, and the last to go from it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Settings {
    network: Subnet,
}

impl Settings {
    /// The file's name.
    pub(super) const FILE: &str = "rival.json";

    /// Those of a data directory; none where it holds no cluster.
    ///
    /// # Errors
    /// When the file can't be read.
    pub(super) fn read(data_dir: &Path) -> Result<Option<Self>> {
        let file = data_dir.join(Self::FILE);
        match fs::read(&file) {
            Ok(text) => {
                Ok(Some(serde_json::from_slice(&text).with_context(|| format!("can't read {}", file.display()))?))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("can't read {}", file.display())),
        }
    }

    /// The places.
    pub(super) fn layout(&self, data_dir: &Path) -> Layout {
        Layout::new(data_dir, self.network)
    }
}

/// Runs the steps, and returns where everything is.
///
/// # Errors
/// When one fails: its name, and the end of a log.
pub(super) fn run(data_dir: &Path) -> Result<Layout> {
    let progress = Progress::new(9)?;
    progress.loud_step("Debian packages", || packages::ensure(&PACKAGES))?;
    let programs = progress.loud_step("building upstream's programs", || upstream::ensure(&[Set::Servers]))?;
    let suite = progress.loud_step("making the suite's images", suite::make)?;
    let layout = progress.step("connecting its network", || {
        let layout = claim(data_dir)?;
        connect(&layout)?;
        cgroups::make(&layout.cgroup())?;
        leftovers::note(data_dir)?;
        tunables::note(&layout.path("tunables.json"))?;
        Ok(layout)
    })?;
    let cluster = Cluster { layout: &layout, programs: &programs };
    progress.step("writing keys and configuration", || cluster.configure(&suite))?;
    progress.step("starting etcd and the control plane", || {
        cluster.start(Part::Etcd, || true)?;
        cluster.start(Part::ApiServer, || shell::output(&mut cluster.kubectl(&["get", "--raw", "/readyz"])).is_ok())?;
        cluster.start(Part::ControllerManager, || true)?;
        cluster.start(Part::Scheduler, || true)
    })?;
    progress.step("starting containerd, importing images", || {
        cluster.start(Part::Registry, || true)?;
        cluster
            .start(Part::Containerd, || shell::output(cluster.ctr().args(["--timeout", "2s", "version"])).is_ok())?;
        suite.import(|| cluster.ctr())
    })?;
    progress.step("starting the node", || {
        cluster.start(Part::Kubelet, || true)?;
        cluster.start(Part::Proxy, || true)
    })?;
    progress.step("waiting until the node is Ready and DNS answers", || cluster.wait(&suite))?;
    progress.done();
    Ok(layout)
}

/// The settings of the data directory, and the machine's names for it.
fn claim(data_dir: &Path) -> Result<Layout> {
    let known = Settings::read(data_dir)?;
    if known.is_none() && fs::read_dir(data_dir).is_ok_and(|mut entries| entries.next().is_some()) {
        bail!("{} holds something that is no upstream cluster: choose another --data-dir", data_dir.display());
    }
    let settings = known.map_or_else(|| Ok::<_, anyhow::Error>(Settings { network: network::free()? }), Ok)?;
    let layout = settings.layout(data_dir);
    match owner(&layout) {
        Some(owner) if Path::new(&owner) == data_dir => {}
        Some(owner) => {
            bail!("an upstream cluster is in {owner}: take it away with `cargo xtask rival down --data-dir {owner}`")
        }
        None if layout.netns_file().exists() => {
            bail!("{} is there, and no cluster's", layout.netns_file().display())
        }
        None => {}
    }
    fs::create_dir_all(data_dir).with_context(|| format!("can't make {}", data_dir.display()))?;
    let file = data_dir.join(Settings::FILE);
    fs::write(&file, serde_json::to_string(&settings)?).with_context(|| format!("can't write {}", file.display()))?;
    Ok(layout)
}

/// The data directory that the machine's link belongs to: the link's alias, which is there as long as the link.
pub(super) fn owner(layout: &Layout) -> Option<String> {
    let alias = fs::read_to_string(Path::new("/sys/class/net").join(layout.link()).join("ifalias")).ok()?;
    Some(alias.trim().to_owned())
}

fn connect(layout: &Layout) -> Result<()> {
    let (file, link, (machine, prefix)) = (layout.netns_file(), layout.link(), layout.machine());
    network::namespace(&file)?;
    if !network::has_link(&link) {
        network::ip(&["link", "add", &link, "type", "veth", "peer", "name", UPLINK, "netns", NAME])?;
        network::ip(&["link", "set", &link, "alias", &layout.data_dir().to_string_lossy()])?;
    }
    network::ip(&["address", "replace", &format!("{machine}/{prefix}"), "dev", &link])?;
    network::ip(&["link", "set", &link, "up"])?;
    let within = |words: &[&str]| network::ip(&[&["-n", NAME], words].concat());
    within(&["address", "replace", &format!("{}/{prefix}", layout.address()), "dev", UPLINK])?;
    within(&["link", "set", "lo", "up"])?;
    within(&["link", "set", UPLINK, "up"])?;
    within(&["route", "replace", "default", "via", &machine.to_string()])?;
    network::forward(&file)
}

struct Cluster<'a> {
    layout: &'a Layout,
    programs: &'a Path,
}

impl Cluster<'_> {
    fn configure(&self, suite: &Suite) -> Result<()> {
        let layout = self.layout;
        pki::make(layout)?;
        let address = SocketAddr::from(REGISTRY);
        let mirror = format!("containerd/hosts/{}/hosts.toml", suite::REGISTRY);
        for (name, text) in [
            ("admin.kubeconfig", files::kubeconfig(layout)),
            ("kubelet.yaml", files::kubelet(layout)),
            ("containerd/config.toml", files::containerd(layout, suite.name("Pause")?)),
            ("containerd/net.d/10-bridge.conflist", files::network(layout)),
            ("registry.yml", registry::configuration(address, suite.registry_storage())),
            (&mirror, registry::hosts(address)),
        ] {
            let file = layout.path(name);
            if let Some(folder) = file.parent() {
                fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
            }
            fs::write(&file, text).with_context(|| format!("can't write {}", file.display()))?;
        }
        Ok(())
    }

    /// Starts a part in the network namespace, unless it runs.
    fn start(&self, part: Part, ready: impl FnMut() -> bool) -> Result<()> {
        let data_dir = self.layout.data_dir();
        if processes::is_running(|executable, arguments| part.is(data_dir, executable, arguments)) {
            return Ok(());
        }
        let own = self.programs.join(part.program());
        let program = if own.is_file() { own } else { part.program().into() };
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.layout.netns_file().display()))
            .arg("--")
            .arg(program)
            .args(part.arguments(self.layout))
            .env("PATH", self.path()?);
        let log = self.layout.log(part.program());
        let mut child: Child = processes::spawn(&mut command, &log)?;
        processes::wait_for_child(part.program(), &log, &mut child, ready)
    }

    /// containerd finds its shim and runc by it.
    fn path(&self) -> Result<std::ffi::OsString> {
        let machine = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(self.programs.to_owned()).chain(std::env::split_paths(&machine));
        std::env::join_paths(folders).context("a folder of upstream's programs has a colon in its name")
    }

    fn ctr(&self) -> Command {
        let mut command = Command::new(self.programs.join("ctr"));
        command.arg("--address").arg(self.layout.containerd_socket());
        command
    }

    fn kubectl(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.programs.join("kubectl"));
        // Files of the user's own home would change what it does.
        command.arg("--kubeconfig").arg(self.layout.kubeconfig()).arg("--cache-dir").arg(self.layout.path("kubectl"));
        command.args(words).env("KUBERC", "off");
        command
    }

    fn wait(&self, suite: &Suite) -> Result<()> {
        let manifest = self.layout.path("dns.json");
        fs::write(&manifest, files::dns(suite.name("Agnhost")?))
            .with_context(|| format!("can't write {}", manifest.display()))?;
        shell::output(self.kubectl(&["apply", "--filename"]).arg(&manifest))?;
        let mut last = None;
        let ready = processes::wait_for(PATIENCE, || {
            for part in Part::ALL {
                let data_dir = self.layout.data_dir();
                if !processes::is_running(|executable, arguments| part.is(data_dir, executable, arguments)) {
                    bail!("{} ended; its log is {}", part.program(), self.layout.log(part.program()).display());
                }
            }
            let node = self.kubectl(&["wait", "--for=condition=Ready", "node", "--all", "--timeout=5s"]);
            let words = ["--namespace=kube-system", "wait", "--for=condition=Available", "deployment/coredns"];
            let dns = self.kubectl(&[&words[..], &["--timeout=5s"]].concat());
            for mut command in [node, dns] {
                if let Err(error) = shell::output(&mut command) {
                    last = Some(error);
                    return Ok(false);
                }
            }
            Ok(true)
        })?;
        match (ready, last) {
            (true, _) => Ok(()),
            (false, Some(error)) => Err(error),
            (false, None) => bail!("the node is not Ready after {} s", PATIENCE.as_secs()),
        }
    }
}

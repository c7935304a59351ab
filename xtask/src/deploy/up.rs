//! Bringing a cluster up, or up to date: each step finds what is there and does what is missing.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::api::Api;
use super::layout::{Layout, Node};
use super::parts::{self, Part, Trees};
use super::progress::Progress;
use super::settings::Settings;
use super::{Args, build, cgroups, containerd, mounts, network, owner, processes, registry};
use crate::{build_ebpf, image, packages, shell};

const PACKAGES: [(&str, &str); 8] = [
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("unshare", "util-linux"),
    ("curl", "curl"),
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("busybox", "busybox-static"),
];
/// How long nodes may take to become Ready.
const NODES_READY: Duration = Duration::from_secs(120);
const CONNECT: Duration = Duration::from_secs(1);

/// Runs the steps.
pub(crate) fn run(args: &Args, data_dir: &Path) -> Result<Layout> {
    let known = Settings::read(data_dir)?;
    let was_there = known.is_some();
    owner::check_data_dir(data_dir, was_there)?;
    let steps = 10 + u64::from(args.nodes.or_else(|| Some(known.as_ref()?.nodes)).unwrap_or(2));
    let progress = Progress::new(steps)?;
    progress.loud_step("Debian packages", || packages::ensure(&PACKAGES))?;
    let settings = Settings::resolve(known, &args.wishes(), network::free)?;
    fs::create_dir_all(data_dir).with_context(|| format!("can't make {}", data_dir.display()))?;
    let layout = Layout::new(settings, data_dir);
    let trees = cgroups::trees()?;
    owner::claim(&layout, was_there)?;
    layout.settings.write(data_dir)?;

    let ebpf = progress.loud_step("building the eBPF programs", || ebpf(args))?;
    progress.loud_step("building the binaries (minutes the first time)", || {
        if args.no_build { Ok(()) } else { build::binaries(args.profile) }
    })?;
    let images = progress.loud_step("making images", image::all)?;
    let suite = progress.loud_step("making the suite's images", || {
        if !args.suite_images {
            return Ok(None);
        }
        packages::ensure(&[("docker-registry", "docker-registry")])?;
        image::suite::make().map(Some)
    })?;
    progress.step("installing", || build::install(&layout, args.profile, &ebpf))?;
    progress.step("connecting the nodes' network", || {
        network::bridge(&layout)?;
        layout.nodes().iter().try_for_each(|node| network::node(&layout, node))?;
        mounts::bpffs(&layout.bpffs())
    })?;
    progress.step("starting the control plane", || control_plane(&layout, &trees))?;
    progress.step("starting containerd, importing images", || {
        containerd::start(&layout, &trees)?;
        containerd::import(&layout, &images)?;
        let Some(suite) = &suite else { return Ok(()) };
        containerd::import_suite(&layout, suite)?;
        registry::start(&layout, &trees, suite)
    })?;
    for node in layout.nodes() {
        progress.step(&format!("starting {}", node.name), || start_node(&layout, &node, &trees))?;
    }
    let notes = progress.step("waiting until the nodes are Ready", || {
        wait_for_nodes(&layout)?;
        pod_routes(&layout)
    })?;
    progress.done();
    notes.iter().for_each(|note| eprintln!("{note}"));
    Ok(layout)
}

fn ebpf(args: &Args) -> Result<std::path::PathBuf> {
    if args.no_build {
        return Ok(shell::target().join("ebpf/skep-ebpf.o"));
    }
    build_ebpf::run(&build_ebpf::Args { force: false })
}

fn control_plane(layout: &Layout, trees: &Trees) -> Result<()> {
    processes::stop(layout, &Part::ControlPlane)?;
    let kubeconfig = layout.kubeconfig();
    // Written anew when the server is ready: that it is there means that it answers.
    mounts::remove(&kubeconfig)?;
    let mut child = processes::start(layout, &Part::ControlPlane, trees)?;
    processes::wait_until_ready(layout, &Part::ControlPlane, &mut child, || kubeconfig.exists())?;
    let admin = ["client", "--user", "kubernetes-admin", "--group", "system:masters", "--output-dir"];
    credentials(layout, |command| command.args(admin).arg(layout.admin_dir()))
}

fn start_node(layout: &Layout, node: &Node, trees: &Trees) -> Result<()> {
    for folder in [&node.data, &node.run, &node.cni_conf_dir()] {
        fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
    }
    let server = format!("https://{}", layout.api_for_nodes());
    let kubeconfig = |user: String, group: &str, file: &Path| {
        credentials(layout, |command| {
            command.args(["--server", &server, "--user", &user, "--group", group, "--output"]).arg(file)
        })
    };
    kubeconfig(format!("system:node:{}", node.name), "system:nodes", &node.kubelet_kubeconfig())?;
    kubeconfig(format!("skep:network-agent:{}", node.name), "skep:network-agents", &node.agent_kubeconfig())?;
    credentials(layout, |command| {
        let address = node.address.to_string();
        command
            .args(["serving", "--name", &node.name, "--san", &node.name, "--san", &address, "--output-dir"])
            .arg(node.pki())
    })?;
    let configuration = node.cni_conf_dir().join("10-skep.conflist");
    fs::write(&configuration, parts::cni_configuration(node))
        .with_context(|| format!("can't write {}", configuration.display()))?;
    cgroups::make(&node.cgroup)?;

    let agent = Part::NetworkAgent(node.clone());
    processes::stop(layout, &agent)?;
    let mut child = processes::start(layout, &agent, trees)?;
    processes::wait_until_ready(layout, &agent, &mut child, || UnixStream::connect(node.cni_socket()).is_ok())?;
    let kubelet = Part::Kubelet(node.clone());
    processes::stop(layout, &kubelet)?;
    let mut child = processes::start(layout, &kubelet, trees)?;
    let address = SocketAddr::from((node.address, 10250));
    processes::wait_until_ready(layout, &kubelet, &mut child, || TcpStream::connect_timeout(&address, CONNECT).is_ok())
}

/// Runs `skep-control-plane credentials` with the cluster's authority.
fn credentials(layout: &Layout, arguments: impl FnOnce(&mut Command) -> &mut Command) -> Result<()> {
    let mut command = Command::new(layout.binary("skep-control-plane"));
    command.arg("credentials").env("SKEP_DATA_DIR", &layout.data_dir);
    arguments(&mut command);
    shell::output(&mut command).map(drop)
}

/// Leads the machine to the pods of all nodes; returns what is in the way.
fn pod_routes(layout: &Layout) -> Result<Vec<String>> {
    let states = Api::new(layout).nodes()?;
    let mut notes = Vec::new();
    for node in layout.nodes() {
        if let Some(pods) = states.iter().find(|state| state.name == node.name).and_then(|state| state.pod_cidr) {
            notes.extend(network::pod_route(layout, &node, pods)?);
        }
    }
    Ok(notes)
}

fn wait_for_nodes(layout: &Layout) -> Result<()> {
    let api = Api::new(layout);
    let mut states = Vec::new();
    let ready = processes::wait_for(NODES_READY, || {
        for node in layout.nodes() {
            for part in [Part::NetworkAgent(node.clone()), Part::Kubelet(node)] {
                if processes::find(layout, &part).is_none() {
                    bail!("{} ended; {}", part.name(), processes::log_end(layout, &part));
                }
            }
        }
        states = api.nodes()?;
        Ok(layout.nodes().iter().all(|node| states.iter().any(|state| state.name == node.name && state.ready)))
    })?;
    if ready {
        return Ok(());
    }
    let waiting =
        layout.nodes().into_iter().filter(|node| !states.iter().any(|state| state.name == node.name && state.ready));
    let told: Vec<String> = waiting
        .map(|node| {
            let why = states
                .iter()
                .find(|state| state.name == node.name)
                .map_or("it is not registered", |state| &state.message);
            let log = processes::log_end(layout, &Part::Kubelet(node.clone()));
            format!("{} is not Ready: {why}; {log}", node.name)
        })
        .collect();
    bail!("{}", told.join("\n"))
}

/// Says how the cluster is used.
pub(crate) fn tell(layout: &Layout) {
    let kubeconfig = layout.kubeconfig();
    println!("The cluster runs: {} nodes, API on https://{}", layout.settings.nodes, layout.settings.listen);
    println!("Its kubeconfig is {}\n\nTry:", kubeconfig.display());
    println!("  export KUBECONFIG={}", kubeconfig.display());
    println!("  kubectl apply -f examples/hello.yaml");
    println!("  kubectl exec -n hello client -- wget -qO- http://hello");
    println!("\n`cargo xtask deploy --status` says what runs, `cargo xtask deploy --down` takes it away.");
    if let Some(note) = network::obstacle(layout) {
        println!("{note}");
    }
}

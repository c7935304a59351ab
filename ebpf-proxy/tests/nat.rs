//! Packets through the uplink's programs: network namespaces stand for two nodes, their pods and a client outside. Needs root.

mod netns;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use aya::programs::SchedClassifier;
use hickory_server::proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_server::proto::rr::RecordType;
use netns::Netns;
use serde_json::{Value, json};
use skep_ebpf_proxy::cni::wire::{Attachment, Request};
use skep_ebpf_proxy::compile::{Entries, ServiceState, compile};
use skep_ebpf_proxy::kernel::{self, Maps, UPLINK_PROGRAMS, Uplink};
use skep_ebpf_proxy::nodes::NodeNetwork;
use skep_ebpf_proxy::object;
use skep_ebpf_proxy::pods::{Pods, forward, must_be_ethernet};

/// The client outside, and the nodes.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);
const ONE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const TWO: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const NODE_PORT: u16 = 30_080;
const PATIENCE: Duration = Duration::from_secs(10);

/// A network with a client outside and two nodes.
struct World {
    outside: Netns,
    nodes: Vec<Node>,
    cgroup: PathBuf,
    bpf: tempfile::TempDir,
}

struct Node {
    name: &'static str,
    address: Ipv4Addr,
    netns: Netns,
    pods: Pods,
    bpf_dir: PathBuf,
    _state: tempfile::TempDir,
}

struct Pod {
    netns: Netns,
    address: Ipv4Addr,
    node: &'static str,
    server: Option<Server>,
}

/// Answers each question by connection or datagram on port 8080 with a name and whom it sees.
struct Server {
    stop: Arc<AtomicBool>,
    tcp: TcpListener,
    threads: Vec<JoinHandle<()>>,
}

impl World {
    fn new(name: &str) -> Self {
        let unified = Path::new("/sys/fs/cgroup/unified");
        let tree = if unified.is_dir() { unified } else { Path::new("/sys/fs/cgroup") };
        let cgroup = tree.join(format!("skep-nat-test-{}-{name}", std::process::id()));
        std::fs::create_dir(&cgroup).expect("root");
        let bpf = tempfile::tempdir().expect("a folder");
        assert!(Command::new("mount").args(["-t", "bpf", "bpf"]).arg(bpf.path()).status().expect("mount").success());
        let outside = Netns::new(&format!("{name}-out"));
        outside.ip("link add br0 type bridge");
        outside.ip("link set br0 up");
        outside.ip(&format!("address add {OUTSIDE}/24 dev br0"));
        let mut world = Self { outside, nodes: Vec::new(), cgroup, bpf };
        for (node, address, network) in [("one", ONE, "10.244.1.0/24"), ("two", TWO, "10.244.2.0/24")] {
            world.add_node(name, node, address, network);
        }
        world.nodes[0].netns.ip(&format!("route add 10.244.2.0/24 via {TWO}"));
        world.nodes[1].netns.ip(&format!("route add 10.244.1.0/24 via {ONE}"));
        world
    }

    fn add_node(&mut self, test: &str, name: &'static str, address: Ipv4Addr, network: &str) {
        let netns = Netns::new(&format!("{test}-{name}"));
        self.outside.ip(&format!("link add {name} type veth peer eth0 netns {}", netns.0));
        self.outside.ip(&format!("link set {name} up master br0"));
        netns.ip(&format!("address add {address}/24 dev eth0"));
        netns.ip("link set eth0 up");
        netns.ip("link set lo up");
        let state = tempfile::tempdir().expect("a folder");
        let pods = Pods::open(state.path(), netns.path(), Some("eth0".into())).expect("opened");
        wait(pods.set_network(network.parse().expect("a network")));
        netns.within(|| {
            forward().expect("root");
            // Strict reverse path filtering, as many distributions have it.
            std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "1").expect("root");
        });
        let bpf_dir = self.bpf.path().join(name);
        self.nodes.push(Node { name, address, netns, pods, bpf_dir, _state: state });
        self.attach(self.nodes.len() - 1);
    }

    fn attach(&self, node: usize) -> Maps {
        let node = &self.nodes[node];
        let uplink = Uplink { link: "eth0".into(), address: node.address };
        let object = object::find(None).expect("the object is built by `cargo xtask build-ebpf`");
        let attach = || kernel::attach(&object, &node.bpf_dir, &self.cgroup, Some(&uplink)).expect("attached");
        node.netns.within(attach)
    }

    /// A pod with a server on that node.
    fn pod(&self, test: &str, node: usize) -> Pod {
        let node = &self.nodes[node];
        let netns = Netns::new(&format!("{test}-pod-{}", node.name));
        let attachment = Attachment { container_id: netns.0.clone(), ifname: "eth0".into() };
        let added =
            wait(node.pods.answer(Request::Add { attachment, netns: netns.path(), ports: Vec::new() })).expect("added");
        let address = added.expect("attached").address;
        let server = Some(Server::start(&netns, node.name));
        Pod { netns, address, node: node.name, server }
    }

    /// Tells both nodes of one service with a node port for TCP and UDP, whose endpoints are `pods`.
    fn serve(&self, spec: Value, pods: &[&Pod]) {
        for node in &self.nodes {
            let wanted = self.entries(node, &spec, pods);
            let mut maps = Maps::open(&node.bpf_dir).expect("pinned");
            let now = maps.entries().expect("read");
            maps.update(&now, &wanted).expect("updated");
        }
    }

    fn entries(&self, node: &Node, spec: &Value, pods: &[&Pod]) -> Entries {
        let port = |protocol| json!({ "name": protocol, "port": 80, "nodePort": NODE_PORT, "protocol": protocol });
        let mut whole = json!({ "type": "NodePort", "clusterIP": "10.96.0.1", "ports": [port("TCP"), port("UDP")] });
        for (key, value) in spec.as_object().into_iter().flatten() {
            whole[key] = value.clone();
        }
        let endpoints: Vec<_> =
            pods.iter().map(|pod| json!({ "addresses": [pod.address], "nodeName": pod.node })).collect();
        let port = |protocol| json!({ "name": protocol, "port": 8080, "protocol": protocol });
        let slice = json!({
            "metadata": { "labels": { "kubernetes.io/service-name": "web" } },
            "endpoints": endpoints, "ports": [port("TCP"), port("UDP")],
        });
        let key = |name: &str| ("default".to_owned(), name.to_owned());
        let known = |(name, address): (&str, Ipv4Addr)| {
            (name.to_owned(), NodeNetwork { addresses: vec![address], ..NodeNetwork::default() })
        };
        compile(&ServiceState {
            host_ports: Vec::new(),
            node_name: node.name.into(),
            node_addresses: vec![node.address],
            services: [(
                key("web"),
                serde_json::from_value(json!({ "metadata": {}, "spec": whole })).expect("a service"),
            )]
            .into(),
            slices: [(key("web-0"), serde_json::from_value(slice).expect("a slice"))].into(),
            cluster_networks: vec!["10.244.0.0/16".parse().expect("a network")],
            nodes: [("one", ONE), ("two", TWO)].map(known).into(),
        })
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for node in &self.nodes {
            let _ = kernel::detach(&node.bpf_dir);
        }
        let _ = Command::new("umount").arg(self.bpf.path()).stderr(Stdio::null()).status();
        let _ = std::fs::remove_dir(&self.cgroup);
    }
}

impl Server {
    fn start(netns: &Netns, name: &'static str) -> Self {
        let bind = || (TcpListener::bind("0.0.0.0:8080"), UdpSocket::bind("0.0.0.0:8080"));
        let (tcp, udp) = netns.within(bind);
        let (tcp, udp) = (tcp.expect("a listener"), udp.expect("a socket"));
        udp.set_read_timeout(Some(Duration::from_millis(20))).expect("set");
        let stop = Arc::new(AtomicBool::new(false));
        let (accepting, by_udp) = (tcp.try_clone().expect("cloned"), Arc::clone(&stop));
        let accept = move || {
            while let Ok((stream, peer)) = accepting.accept() {
                std::thread::spawn(move || answer(stream, name, peer));
            }
        };
        let receive = move || {
            while !by_udp.load(Ordering::SeqCst) {
                if let Ok((_, peer)) = udp.recv_from(&mut [0; 64]) {
                    let _ = udp.send_to(format!("{name} {peer}").as_bytes(), peer);
                }
            }
        };
        Self { stop, tcp, threads: vec![std::thread::spawn(accept), std::thread::spawn(receive)] }
    }
}

/// One line a question, until the client goes.
fn answer(mut stream: TcpStream, name: &str, peer: SocketAddr) {
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    while stream.read_exact(&mut [0; 4]).is_ok() {
        if stream.write_all(format!("{name} {peer}\n").as_bytes()).is_err() {
            return;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = rustix::net::shutdown(&self.tcp, rustix::net::Shutdown::Both);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

/// Who answered, and whom it saw.
fn by_tcp(from: &Netns, to: SocketAddr) -> std::io::Result<(String, SocketAddr, SocketAddr)> {
    from.within(|| tcp(to))
}

fn tcp(to: SocketAddr) -> std::io::Result<(String, SocketAddr, SocketAddr)> {
    let mut stream = connect(to)?;
    let answer = question(&mut stream)?;
    Ok(parsed(&answer, stream.local_addr()?))
}

fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn question(stream: &mut TcpStream) -> std::io::Result<String> {
    stream.write_all(b"ping")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    if answer.is_empty() { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(answer.trim_end().to_owned()) }
}

fn by_udp(from: &Netns, to: SocketAddr) -> std::io::Result<(String, SocketAddr, SocketAddr)> {
    let socket = from.within(|| UdpSocket::bind("0.0.0.0:0"))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    // Connected: only what comes from there is heard, and refusals are.
    socket.connect(to)?;
    socket.send(b"ping")?;
    let mut buffer = [0; 64];
    let length = receive(&socket, &mut buffer)?;
    Ok(parsed(std::str::from_utf8(&buffer[..length]).expect("text"), socket.local_addr()?))
}

/// A datagram; a wait that a signal to the process ended goes on.
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match socket.recv(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// An ICMP echo and its answer.
fn ping(to: Ipv4Addr) -> std::io::Result<()> {
    use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, ipproto, sockopt};
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::ICMP))?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
    let identifier = [0x12, 0x34];
    let mut echo = [8, 0, 0, 0, identifier[0], identifier[1], 0, 1];
    let sum: u32 = echo.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    echo[2..4].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
    rustix::net::sendto(&socket, &echo, SendFlags::empty(), &SocketAddr::from((to, 0)))?;
    loop {
        let mut packet = [0_u8; 128];
        let receive = || rustix::net::recv(&socket, &mut packet, RecvFlags::empty());
        let (length, _) = rustix::io::retry_on_intr(receive)?;
        let icmp = &packet[20..length];
        if icmp[0] == 0 && icmp[4..6] == identifier {
            return Ok(());
        }
    }
}

fn parsed(answer: &str, own: SocketAddr) -> (String, SocketAddr, SocketAddr) {
    let (name, seen) = answer.split_once(' ').expect("a name and an address");
    (name.to_owned(), seen.parse().expect("an address"), own)
}

type Ask = fn(&Netns, SocketAddr) -> std::io::Result<(String, SocketAddr, SocketAddr)>;
const BOTH: [Ask; 2] = [by_tcp, by_udp];

#[test]
fn a_node_port_reaches_a_pod_on_the_node_and_the_pod_sees_the_client() {
    let world = World::new("local");
    let pod = world.pod("local", 0);
    world.serve(json!({}), &[&pod]);
    for ask in BOTH {
        let (name, seen, own) = ask(&world.outside, (ONE, NODE_PORT).into()).expect("an answer");
        assert_eq!((name.as_str(), seen), ("one", own));
    }
}

#[test]
fn a_node_port_reaches_a_pod_on_another_node_by_the_nodes_address() {
    let world = World::new("remote");
    let pod = world.pod("remote", 1);
    world.serve(json!({}), &[&pod]);
    for ask in BOTH {
        let (name, seen, _) = ask(&world.outside, (ONE, NODE_PORT).into()).expect("an answer");
        assert_eq!((name.as_str(), seen.ip()), ("two", ONE.into()));
    }
    // The answers' halves are there, and both say what the other does.
    let flows = Maps::open(&world.nodes[0].bpf_dir).expect("pinned").flows().expect("read");
    assert_eq!(flows.len(), 4, "{flows:?}");
    for (key, flow) in &flows {
        let other = flows.iter().find(|(other, _)| *other == key.other(flow)).expect("the other half");
        assert_eq!(other.1.to, key.tuple.reversed());
    }
}

#[test]
fn the_policy_local_keeps_the_client_and_serves_no_other_nodes_pods() {
    let world = World::new("policy");
    let pod = world.pod("policy", 0);
    let elsewhere = world.pod("policy", 1);
    world.serve(json!({ "externalTrafficPolicy": "Local" }), &[&pod, &elsewhere]);
    for _ in 0..8 {
        for ask in BOTH {
            let (name, seen, own) = ask(&world.outside, (ONE, NODE_PORT).into()).expect("an answer");
            assert_eq!((name.as_str(), seen), ("one", own));
        }
    }
    // A node without a pod of the service leaves the client to the load balancer's next choice; to other nodes' pods it serves any.
    world.serve(json!({ "externalTrafficPolicy": "Local" }), &[&pod]);
    let try_it = || TcpStream::connect_timeout(&(TWO, NODE_PORT).into(), Duration::from_millis(300));
    assert_eq!(world.outside.within(try_it).expect_err("dropped").kind(), ErrorKind::TimedOut);
    let (name, seen, _) = by_tcp(&pod.netns, (TWO, NODE_PORT).into()).expect("an answer");
    assert_eq!((name.as_str(), seen.ip()), ("one", TWO.into()));
}

#[test]
fn a_service_without_endpoints_refuses_at_once() {
    let world = World::new("none");
    world.serve(json!({}), &[]);
    for ask in BOTH {
        let refused = ask(&world.outside, (ONE, NODE_PORT).into()).expect_err("refused");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    }
}

#[test]
fn an_external_address_is_served_and_refuses_when_there_is_nobody() {
    let world = World::new("external");
    let external = Ipv4Addr::new(198, 51, 100, 7);
    world.outside.ip(&format!("route add {external} via {ONE}"));
    let spec = json!({ "externalIPs": [external] });
    for node in [0, 1] {
        let pod = world.pod("external", node);
        world.serve(spec.clone(), &[&pod]);
        for ask in BOTH {
            assert_eq!(ask(&world.outside, (external, 80).into()).expect("an answer").0, pod.node);
        }
    }
    world.serve(spec, &[]);
    let refused = by_tcp(&world.outside, (external, 80).into()).expect_err("refused");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_pod_that_refuses_is_heard_through_the_node_port() {
    let world = World::new("closed");
    for node in [0, 1] {
        let mut pod = world.pod("closed", node);
        drop(pod.server.take());
        world.serve(json!({}), &[&pod]);
        for ask in BOTH {
            let refused = ask(&world.outside, (ONE, NODE_PORT).into()).expect_err("refused");
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        }
    }
}

#[test]
fn pods_leave_the_cluster_by_the_nodes_address_and_stay_themselves_inside() {
    let world = World::new("masq");
    let (pod, other) = (world.pod("masq", 0), world.pod("masq", 1));
    let _server = Server::start(&world.outside, "outside");
    world.serve(json!({}), &[]);
    for ask in BOTH {
        let (_, seen, _) = ask(&pod.netns, (OUTSIDE, 8080).into()).expect("an answer");
        assert_eq!(seen.ip(), ONE);
        let (_, seen, own) = ask(&pod.netns, (other.address, 8080).into()).expect("an answer");
        assert_eq!(seen, own);
    }
    for to in [OUTSIDE, other.address, TWO] {
        assert!(pod.netns.within(|| ping(to)).is_ok(), "{to} answers");
    }
    // One who knows the way to a pod gets its answers from the pod itself.
    world.outside.ip(&format!("route add 10.244.0.0/16 via {ONE}"));
    for ask in BOTH {
        let (name, seen, own) = ask(&world.outside, (pod.address, 8080).into()).expect("an answer");
        assert_eq!((name.as_str(), seen), ("one", own));
    }
}

/// The agent's process, in the node's network namespace; killed at the end.
struct Agent(Child);

impl Agent {
    /// Started, and its programs attached. Its API server does not answer.
    fn start(world: &World, node: usize) -> Self {
        let node = &world.nodes[node];
        let kubeconfig = world.bpf.path().with_extension("kubeconfig");
        let cluster = r#"{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}"#;
        let context = r#"{"name": "c", "context": {"cluster": "c", "user": "c"}}"#;
        let whole = format!(
            r#"{{"apiVersion": "v1", "kind": "Config", "current-context": "c", "clusters": [{cluster}], "contexts": [{context}], "users": [{{"name": "c", "user": {{}}}}]}}"#
        );
        std::fs::write(&kubeconfig, whole).expect("written");
        let mut command = agent(node);
        command.args(["run", "--node-name", node.name, "--uplink", "eth0", "--cluster-cidr", "10.244.0.0/16"]);
        command.args(["--dns-listen", "169.254.20.10:53", "--dns-upstream", "192.0.2.9"]);
        command.args(["--node-ip", &node.address.to_string(), "--kubeconfig"]).arg(&kubeconfig);
        command.arg("--cgroup").arg(&world.cgroup).stderr(Stdio::piped());
        let mut child = command.spawn().expect("built");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let is_attached = |line: std::io::Result<String>| line.expect("text").contains("names are served");
        assert!(lines.any(is_attached), "the agent serves");
        // Read on, so that it never waits.
        std::thread::spawn(move || lines.for_each(drop));
        let _ = std::fs::remove_file(&kubeconfig);
        Self(child)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn agent(node: &Node) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", node.netns.path().display())).arg(env!("CARGO_BIN_EXE_skep-ebpf-proxy"));
    command.arg("--bpf-dir").arg(&node.bpf_dir);
    command
}

#[test]
fn an_agent_that_is_killed_or_replaced_loses_no_request() {
    let world = World::new("kill");
    let (near, far) = (world.pod("kill", 0), world.pod("kill", 1));
    world.serve(json!({}), &[&near, &far]);
    let before = Maps::open(&world.nodes[0].bpf_dir).expect("pinned").entries().expect("read");
    let to = SocketAddr::from((ONE, NODE_PORT));
    // Some of each: the choice is a hash of the client's port.
    let mut lasting: Vec<TcpStream> =
        (0..8).map(|_| world.outside.within(|| connect(to)).expect("connected")).collect();
    let done = AtomicBool::new(false);
    let asked = AtomicUsize::new(0);
    let traffic = || {
        while !done.load(Ordering::SeqCst) {
            tcp(to).expect("every request is answered");
            asked.fetch_add(1, Ordering::SeqCst);
        }
    };
    std::thread::scope(|scope| {
        let traffic = scope.spawn(|| world.outside.within(traffic));
        let mut last = 0;
        let mut flows_on = |lasting: &mut Vec<TcpStream>| {
            while asked.load(Ordering::SeqCst) < last + 20 && !traffic.is_finished() {
                std::thread::yield_now();
            }
            last = asked.load(Ordering::SeqCst);
            for stream in lasting {
                question(stream).expect("an old connection is alive");
            }
        };
        for _ in 0..3 {
            let agent = Agent::start(&world, 0);
            flows_on(&mut lasting);
            // SIGKILL.
            drop(agent);
            flows_on(&mut lasting);
        }
        done.store(true, Ordering::SeqCst);
        traffic.join().expect("no request was lost");
    });
    assert_eq!(Maps::open(&world.nodes[0].bpf_dir).expect("pinned").entries().expect("read"), before);
    let shown = agent(&world.nodes[0]).arg("conntrack").output().expect("shown");
    assert!(String::from_utf8_lossy(&shown.stdout).contains("node-port forward TCP 192.0.2.9:"));
}

#[test]
fn a_pod_asks_its_node_for_names_by_the_link_local_address() {
    let world = World::new("names");
    let pod = world.pod("names", 0);
    world.serve(json!({}), &[]);
    let _agent = Agent::start(&world, 0);
    let upstream = world.outside.within(|| UdpSocket::bind((OUTSIDE, 53))).expect("bound");
    upstream.set_read_timeout(Some(PATIENCE)).expect("set");
    let ask = |name: &str| {
        let asker = pod.netns.within(|| UdpSocket::bind("0.0.0.0:0")).expect("bound");
        asker.set_read_timeout(Some(PATIENCE)).expect("set");
        asker.connect("169.254.20.10:53").expect("connected");
        let mut question = Message::new(7, MessageType::Query, OpCode::Query);
        question.add_query(Query::query(name.parse().expect("a name"), RecordType::A));
        asker.send(&question.to_vec().expect("encoded")).expect("sent");
        let mut buffer = [0; 512];
        let length = receive(&asker, &mut buffer).expect("an answer");
        Message::from_vec(&buffer[..length]).expect("an answer").response_code
    };
    // Its API server says nothing, so that the cluster's names are unknown; others are the upstream server's to say.
    assert_eq!(ask("web.default.svc.cluster.local."), ResponseCode::ServFail);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = [0; 512];
            let (length, from) = loop {
                match upstream.recv_from(&mut buffer) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    question => break question.expect("a question"),
                }
            };
            assert_eq!(from.ip(), ONE, "the node asks");
            let mut answer = Message::from_vec(&buffer[..length]).expect("a question");
            answer.metadata.message_type = MessageType::Response;
            answer.metadata.response_code = ResponseCode::NXDomain;
            upstream.send_to(&answer.to_vec().expect("encoded"), from).expect("sent");
        });
        assert_eq!(ask("www.example.org."), ResponseCode::NXDomain);
    });
}

/// Sends 32 MiB and has them come back, both at once.
fn bulk(server: &Netns, client: &Netns, to: SocketAddr) {
    const LENGTH: usize = 32 << 20;
    let byte = |at: usize| (at.wrapping_mul(0x9E37_79B9) >> 13) as u8;
    let listener = server.within(|| TcpListener::bind(("0.0.0.0", 8080))).expect("bound");
    let sender = client.within(|| connect(to)).expect("connected");
    let echo = || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut back = stream.try_clone().expect("cloned");
        std::io::copy(&mut stream, &mut back).expect("echoed");
    };
    std::thread::scope(|scope| {
        scope.spawn(echo);
        let mut out = sender.try_clone().expect("cloned");
        scope.spawn(move || {
            let all: Vec<u8> = (0..LENGTH).map(byte).collect();
            out.write_all(&all).expect("sent");
            out.shutdown(std::net::Shutdown::Write).expect("ended");
        });
        let mut all = Vec::with_capacity(LENGTH);
        (&sender).read_to_end(&mut all).expect("received");
        assert!(all.len() == LENGTH && all.iter().enumerate().all(|(at, value)| *value == byte(at)));
    });
}

#[test]
fn large_segments_come_through_whole_on_every_way() {
    let world = World::new("bulk");
    for node in [0, 1] {
        let mut pod = world.pod("bulk", node);
        drop(pod.server.take());
        world.serve(json!({}), &[&pod]);
        bulk(&pod.netns, &world.outside, (ONE, NODE_PORT).into());
        bulk(&world.outside, &pod.netns, (OUTSIDE, 8080).into());
    }
}

#[test]
fn programs_of_another_layout_serve_until_the_new_maps_are_filled() {
    let world = World::new("layout");
    let node = &world.nodes[0];
    let programs = || SchedClassifier::query_tcx("eth0", UPLINK_PROGRAMS[0].1).expect("queried").1[0].id();
    let before = node.netns.within(programs);
    // As if the maps that are used now were those of an older agent.
    std::fs::rename(kernel::map_folder(&node.bpf_dir), node.bpf_dir.join("v1")).expect("renamed");
    let agent = Agent::start(&world, 0);
    assert_eq!(node.netns.within(programs), before);
    drop(agent);
    // A layout that is gone needs no waiting.
    std::fs::remove_dir_all(node.bpf_dir.join("v1")).expect("removed");
    drop(Agent::start(&world, 0));
    assert_ne!(node.netns.within(programs), before);
}

#[test]
fn an_uplink_that_is_not_there_or_not_ethernet_is_refused() {
    let node = Netns::new("refused");
    for link in ["lo", "eth7"] {
        let checked = wait(must_be_ethernet(&node.path(), link));
        assert!(checked.expect_err("refused").to_string().contains(link));
    }
}

#[test]
fn detaching_leaves_nothing() {
    let world = World::new("detach");
    drop(Agent::start(&world, 0));
    let node = &world.nodes[0];
    let programs = || {
        let all =
            UPLINK_PROGRAMS.map(|(_, direction)| SchedClassifier::query_tcx("eth0", direction).expect("queried").1);
        all.map(|programs| programs.len())
    };
    assert_eq!(node.netns.within(programs), [1, 1]);
    assert!(agent(node).arg("detach").status().expect("run").success());
    // The kernel lets go of them when it next has time.
    while node.netns.within(programs) != [0, 0] {
        std::thread::yield_now();
    }
    assert!(!node.bpf_dir.exists());
    let bound = node.netns.within(|| UdpSocket::bind("169.254.20.10:53").map(drop));
    assert_eq!(bound.expect_err("the address is gone").kind(), ErrorKind::AddrNotAvailable);
}

//! Real sockets through the programs, in a cgroup of the test's own. Needs root and a cgroup v2 tree.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

mod netns;

use netns::Netns;
use skep_ebpf_common::{Backend, Endpoint, FROM_NODE, Service, SlotKey, TCP, UDP, mapped};
use skep_ebpf_proxy::compile::Entries;
use skep_ebpf_proxy::kernel::{self, Maps};
use skep_ebpf_proxy::object;

const VIP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

/// A cgroup with this process in it, and a bpffs; both are taken away at the end.
struct Node {
    home: PathBuf,
    cgroup: PathBuf,
    bpf: tempfile::TempDir,
}

impl Node {
    fn new() -> Self {
        let unified = Path::new("/sys/fs/cgroup/unified");
        let tree = if unified.is_dir() { unified } else { Path::new("/sys/fs/cgroup") };
        let own = fs::read_to_string("/proc/self/cgroup").expect("cgroups");
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).expect("a cgroup v2 tree");
        let cgroup = tree.join(format!("skep-ebpf-test-{}", std::process::id()));
        fs::create_dir(&cgroup).expect("root");
        let bpf = tempfile::tempdir().expect("a folder");
        let node = Self { home: tree.join(own), cgroup, bpf };
        let mounted = Command::new("mount").args(["-t", "bpf", "bpf"]).arg(node.bpf.path()).status().expect("mount");
        assert!(mounted.success());
        enter(&node.cgroup).expect("this process moves into its cgroup");
        node
    }

    fn attach(&self) -> Maps {
        let object = object::find(None).expect("the object is built by `cargo xtask build-ebpf`");
        kernel::attach(&object, &self.folder(), &self.cgroup, None).expect("attached")
    }

    fn folder(&self) -> PathBuf {
        self.bpf.path().join("node")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = enter(&self.home);
        let _ = kernel::detach(&self.folder());
        let _ = Command::new("umount").arg(self.bpf.path()).stderr(Stdio::null()).status();
        let _ = fs::remove_dir(&self.cgroup);
    }
}

fn enter(cgroup: &Path) -> io::Result<()> {
    fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string())
}

fn endpoint(address: Ipv4Addr, port: u16, protocol: u8) -> Endpoint {
    Endpoint { address: mapped(address.octets()), port: port.to_be_bytes(), protocol, padding: 0 }
}

fn entries(services: &[(Endpoint, u32, &[Endpoint], u32)]) -> Entries {
    let mut entries = Entries::default();
    let mut numbers = BTreeMap::new();
    for (frontend, id, backends, affinity_seconds) in services {
        for (slot, backend) in (0..).zip(*backends) {
            let next = numbers.len() as u32 + 1;
            let number = *numbers.entry(*backend).or_insert(next);
            entries.backends.insert(number, Backend { endpoint: *backend, flags: 0 });
            entries.slots.insert(SlotKey { service: *id, slot }, number);
        }
        let backends = backends.len() as u32;
        let service = Service { id: *id, backends, affinity_seconds: *affinity_seconds, flags: 0 };
        entries.services.insert(*frontend, service);
    }
    entries
}

/// One test: the process is in one cgroup at a time.
#[test]
fn sockets_reach_backends_through_a_service_and_see_only_its_address() {
    let node = Node::new();
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let at = |address: SocketAddr, protocol| endpoint(Ipv4Addr::LOCALHOST, address.port(), protocol);
    let (stream, datagram) = (at(tcp.local_addr().expect("bound"), TCP), at(udp.local_addr().expect("bound"), UDP));
    let wanted = entries(&[
        (endpoint(VIP, 80, TCP), 1, &[stream], 0),
        (endpoint(VIP, 53, UDP), 2, &[datagram], 0),
        (endpoint(VIP, 81, TCP), 3, &[], 0),
        (endpoint(VIP, 54, UDP), 5, &[], 0),
        (endpoint(VIP, 82, TCP), 4, &[stream], 60),
    ]);
    let mut maps = node.attach();
    maps.update(&Entries::default(), &wanted).expect("updated");

    // TCP: redirected, and the peer is the service.
    let mut client = TcpStream::connect((VIP, 80)).expect("the service answers");
    let (mut served, _) = tcp.accept().expect("a connection");
    assert_eq!(client.peer_addr().expect("a peer"), SocketAddr::from((VIP, 80)));

    // A service without endpoints refuses at once.
    assert_eq!(TcpStream::connect((VIP, 81)).expect_err("refused").kind(), ErrorKind::ConnectionRefused);

    let asker = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    assert_eq!(asker.send_to(b"ping", (VIP, 54)).expect_err("refused").kind(), ErrorKind::ConnectionRefused);

    // Session affinity keeps a client's backend.
    drop(TcpStream::connect((VIP, 82)).expect("the service answers"));
    drop(tcp.accept().expect("a connection"));

    // UDP, not connected and connected: replies come from the service.
    let asker = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let mut buffer = [0; 16];
    let mut ask = |connected: bool| {
        if connected {
            asker.connect((VIP, 53)).expect("connected");
            asker.send(b"ping").expect("sent");
        } else {
            asker.send_to(b"ping", (VIP, 53)).expect("sent");
        }
        let (_, from) = udp.recv_from(&mut buffer).expect("a datagram");
        udp.send_to(b"pong", from).expect("sent");
        assert_eq!(asker.recv_from(&mut buffer).expect("a reply").1, SocketAddr::from((VIP, 53)));
    };
    ask(false);
    ask(true);

    // The agent goes: links and maps stay. A new one finds the maps as they are and replaces the programs.
    drop(maps);
    drop(TcpStream::connect((VIP, 80)).expect("the service answers without an agent"));
    drop(tcp.accept().expect("a connection"));
    let mut maps = node.attach();
    assert_eq!(maps.entries().expect("read back"), wanted);
    assert_eq!(maps.update(&wanted, &wanted).expect("updated"), kernel::Changes::default());
    client.write_all(b"still").expect("the old connection is alive");
    let mut word = [0; 5];
    served.read_exact(&mut word).expect("the old connection is alive");
    ask(false);

    // The node's own loopback is not a pod's.
    let loopback = endpoint(Ipv4Addr::LOCALHOST, 83, TCP);
    let mut with_loopback = entries(&[(loopback, 9, &[stream], 0)]);
    with_loopback.services.values_mut().for_each(|service| service.flags = FROM_NODE);
    maps.update(&wanted, &with_loopback).expect("updated");
    drop(TcpStream::connect((Ipv4Addr::LOCALHOST, 83)).expect("the node reaches it"));
    drop(tcp.accept().expect("a connection"));
    let pod = Netns::new("loopback");
    pod.ip("link set lo up");
    let refused = pod.within(|| TcpStream::connect((Ipv4Addr::LOCALHOST, 83)).expect_err("the pod's own").kind());
    assert_eq!(refused, ErrorKind::ConnectionRefused);
    let own = pod.within(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 83)).expect("the pod's own port"));
    drop(pod.within(|| TcpStream::connect((Ipv4Addr::LOCALHOST, 83)).expect("the pod's own listener")));
    drop(own.accept().expect("a connection"));
    maps.update(&with_loopback, &wanted).expect("updated");

    // A datagram backend that goes leaves no flow.
    let fewer = entries(&[(endpoint(VIP, 80, TCP), 1, &[stream], 0)]);
    maps.update(&wanted, &fewer).expect("updated");
    let flows = maps.connections().expect("read");
    assert!(flows.iter().all(|(key, _)| key.backend.protocol == TCP), "{flows:?}");
}

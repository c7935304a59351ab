//! Names over real sockets: questions by UDP and TCP, a stand-in for the network's own name server behind.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_server::proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_server::proto::rr::rdata::{A, SOA};
use hickory_server::proto::rr::{RData, Record, RecordType};
use serde_json::json;
use skep_ebpf_proxy::compile::ServiceState;
use skep_ebpf_proxy::dns::{Listeners, Name, Publisher, Upstream, address};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A server, and what it is told.
struct Server {
    address: SocketAddr,
    names: Publisher,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    asked: Arc<AtomicUsize>,
}

impl Server {
    async fn start() -> Self {
        let (mut tasks, asked) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
        let upstream = outside(&mut tasks, Arc::clone(&asked)).await;
        Self::with_upstream(&[upstream], tasks, asked).await
    }

    async fn with_upstream(servers: &[SocketAddr], mut tasks: JoinSet<()>, asked: Arc<AtomicUsize>) -> Self {
        let listeners = Listeners::bind(&[(LOCAL, 0).into()]).await.expect("bound");
        let (address, stop) = (listeners.addresses()[0], CancellationToken::new());
        let (zones, watched) = watch::channel(None);
        let domain: Name = "cluster.local.".parse().expect("a name");
        let upstream = Upstream::new(servers).expect("randomness");
        let (served, token) = (domain.clone(), stop.clone());
        tasks.spawn(async move { listeners.serve(served, watched, upstream, token).await.expect("served") });
        Self { address, names: Publisher { domain, server: vec![LOCAL], zones }, stop, tasks, asked }
    }

    fn publish(&self) {
        let endpoints: Vec<_> = (0..200).map(|n| json!({ "addresses": [format!("10.244.1.{n}")] })).collect();
        let service = |spec| serde_json::from_value(json!({ "metadata": {}, "spec": spec })).expect("a service");
        let slice =
            json!({ "metadata": { "labels": { "kubernetes.io/service-name": "many" } }, "endpoints": endpoints });
        let key = |name: &str| ("default".to_owned(), name.to_owned());
        let state = ServiceState {
            services: BTreeMap::from([
                (key("web"), service(json!({ "clusterIP": "10.96.0.1" }))),
                (key("many"), service(json!({ "clusterIP": "None" }))),
                (key("away"), service(json!({ "type": "ExternalName", "externalName": "www.example.org" }))),
                (key("lost"), service(json!({ "type": "ExternalName", "externalName": "gone.example.org" }))),
                (
                    key("loop"),
                    service(json!({ "type": "ExternalName", "externalName": "loop.default.svc.cluster.local" })),
                ),
            ]),
            slices: BTreeMap::from([(key("many-0"), serde_json::from_value(slice).expect("a slice"))]),
            ..ServiceState::default()
        };
        self.names.publish(&state, 1);
    }

    async fn ask(&self, name: &str, kind: RecordType) -> Message {
        by_udp(self.address, &question(name, kind)).await
    }

    async fn end(mut self) {
        self.stop.cancel();
        self.tasks.join_next().await;
        self.tasks.shutdown().await;
    }
}

/// Stands for the network's name server: `www.example.org` has an address, `big.example.org` is truncated over UDP, any other name is missing.
async fn outside(tasks: &mut JoinSet<()>, asked: Arc<AtomicUsize>) -> SocketAddr {
    let tcp = TcpListener::bind((LOCAL, 0)).await.expect("a listener");
    let address = tcp.local_addr().expect("bound");
    let udp = UdpSocket::bind(address).await.expect("a socket");
    tasks.spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            let (length, from) = udp.recv_from(&mut buffer).await.expect("a datagram");
            asked.fetch_add(1, Ordering::SeqCst);
            let reply = say(&buffer[..length], true);
            udp.send_to(&reply, from).await.expect("sent");
        }
    });
    tasks.spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.expect("a connection");
            while let Ok(length) = stream.read_u16().await {
                let mut question = vec![0; length.into()];
                stream.read_exact(&mut question).await.expect("a question");
                let reply = say(&question, false);
                stream.write_u16(reply.len().try_into().expect("short")).await.expect("sent");
                stream.write_all(&reply).await.expect("sent");
            }
        }
    });
    address
}

fn say(question: &[u8], by_udp: bool) -> Vec<u8> {
    let question = Message::from_vec(question).expect("a question");
    let query = question.queries[0].clone();
    let mut reply = Message::response(question.metadata.id, OpCode::Query);
    reply.metadata.recursion_available = true;
    reply.add_query(query.clone());
    let name = query.name().to_ascii().to_ascii_lowercase();
    let mut add = |address: [u8; 4]| {
        if query.query_type() == RecordType::A {
            let data = RData::A(A(address.into()));
            reply.add_answer(Record::from_rdata(query.name().clone(), 300, data));
        }
    };
    match name.as_str() {
        "www.example.org." => add([192, 0, 2, 7]),
        "big.example.org." if by_udp => reply.metadata.truncation = true,
        "big.example.org." => (0..100).for_each(|n| add([192, 0, 2, n])),
        _ => {
            reply.metadata.response_code = ResponseCode::NXDomain;
            let zone: Name = "example.org.".parse().expect("a name");
            let soa = SOA::new(zone.clone(), zone.clone(), 1, 2, 3, 4, 60);
            reply.add_authority(Record::from_rdata(zone, 60, RData::SOA(soa)));
        }
    }
    reply.to_vec().expect("encoded")
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name.parse().expect("a name"), kind));
    message
}

async fn by_udp(to: SocketAddr, question: &Message) -> Message {
    Message::from_vec(&raw_by_udp(to, question).await).expect("an answer")
}

async fn raw_by_udp(to: SocketAddr, question: &Message) -> Vec<u8> {
    let socket = UdpSocket::bind((LOCAL, 0)).await.expect("a socket");
    socket.send_to(&question.to_vec().expect("encoded"), to).await.expect("sent");
    let mut buffer = vec![0; 65_535];
    let (length, from) = socket.recv_from(&mut buffer).await.expect("an answer");
    assert_eq!(from, to);
    buffer.truncate(length);
    buffer
}

async fn by_tcp(to: SocketAddr, question: &Message) -> Message {
    let mut stream = TcpStream::connect(to).await.expect("connected");
    let question = question.to_vec().expect("encoded");
    stream.write_u16(question.len().try_into().expect("short")).await.expect("sent");
    stream.write_all(&question).await.expect("sent");
    let mut answer = vec![0; stream.read_u16().await.expect("a length").into()];
    stream.read_exact(&mut answer).await.expect("an answer");
    Message::from_vec(&answer).expect("an answer")
}

fn data(message: &Message) -> Vec<String> {
    message.answers.iter().map(|record| record.data.to_string()).collect()
}

#[tokio::test]
async fn the_clusters_names_are_not_missing_before_they_are_known() {
    let server = Server::start().await;
    assert_eq!(server.ask("web.default.svc.cluster.local.", RecordType::A).await.response_code, ResponseCode::ServFail);
    assert_eq!(server.ask("1.0.96.10.in-addr.arpa.", RecordType::PTR).await.response_code, ResponseCode::ServFail);
    assert_eq!(data(&server.ask("www.example.org.", RecordType::A).await), ["192.0.2.7"]);
    server.publish();
    let known = server.ask("web.default.svc.cluster.local.", RecordType::A).await;
    assert_eq!(data(&known), ["10.96.0.1"]);
    assert!(known.metadata.authoritative && known.metadata.recursion_available && known.id == 7);
    server.end().await;
}

#[tokio::test]
async fn a_question_that_comes_early_is_answered_when_the_names_are_known() {
    let server = Server::start().await;
    let early = server.ask("web.default.svc.cluster.local.", RecordType::A);
    let (early, ()) = tokio::join!(early, async { server.publish() });
    assert_eq!(data(&early), ["10.96.0.1"]);
    server.end().await;
}

#[tokio::test]
async fn a_missing_name_and_a_missing_type_come_with_the_zones_soa() {
    let server = Server::start().await;
    server.publish();
    let missing = server.ask("nothing.default.svc.cluster.local.", RecordType::A).await;
    assert_eq!((missing.response_code, missing.answers.len()), (ResponseCode::NXDomain, 0));
    let no_data = server.ask("web.default.svc.cluster.local.", RecordType::AAAA).await;
    assert_eq!((no_data.response_code, no_data.answers.len()), (ResponseCode::NoError, 0));
    for message in [missing, no_data] {
        assert_eq!(message.authorities[0].record_type(), RecordType::SOA);
        assert_eq!(message.authorities[0].ttl, 5);
    }
    // No name of the cluster has left the node.
    assert_eq!(server.asked.load(Ordering::SeqCst), 0);
    server.end().await;
}

#[tokio::test]
async fn a_long_answer_is_truncated_to_what_the_client_takes_and_whole_by_tcp() {
    let server = Server::start().await;
    server.publish();
    let mut asked = question("many.default.svc.cluster.local.", RecordType::A);
    let plain = raw_by_udp(server.address, &asked).await;
    assert!(plain.len() <= 512 && Message::from_vec(&plain).expect("an answer").metadata.truncation);
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    asked.set_edns(edns);
    let wider = raw_by_udp(server.address, &asked).await;
    assert!(wider.len() > 512 && wider.len() <= 1232);
    let message = Message::from_vec(&wider).expect("an answer");
    assert!(message.metadata.truncation && message.edns.is_some());
    let whole = by_tcp(server.address, &asked).await;
    assert_eq!((whole.answers.len(), whole.metadata.truncation), (200, false));
    server.end().await;
}

#[tokio::test]
async fn outside_names_are_forwarded_and_kept_also_when_they_are_missing() {
    let server = Server::start().await;
    server.publish();
    for _ in 0..3 {
        let found = server.ask("www.example.org.", RecordType::A).await;
        assert_eq!((data(&found), found.metadata.authoritative), (vec!["192.0.2.7".to_owned()], false));
    }
    assert_eq!(server.asked.load(Ordering::SeqCst), 1);
    for _ in 0..3 {
        let missing = server.ask("gone.example.org.", RecordType::A).await;
        assert_eq!(missing.response_code, ResponseCode::NXDomain);
        assert_eq!(missing.authorities[0].record_type(), RecordType::SOA);
    }
    assert_eq!(server.asked.load(Ordering::SeqCst), 2);
    server.end().await;
}

#[tokio::test]
async fn an_upstream_answer_that_is_truncated_is_fetched_by_tcp() {
    let server = Server::start().await;
    server.publish();
    let whole = by_tcp(server.address, &question("big.example.org.", RecordType::A)).await;
    assert_eq!((whole.response_code, whole.answers.len()), (ResponseCode::NoError, 100));
    server.end().await;
}

#[tokio::test]
async fn an_external_name_is_followed_to_its_addresses() {
    let server = Server::start().await;
    server.publish();
    let found = server.ask("away.default.svc.cluster.local.", RecordType::A).await;
    assert_eq!(data(&found), ["www.example.org.", "192.0.2.7"]);
    let lost = server.ask("lost.default.svc.cluster.local.", RecordType::A).await;
    assert_eq!((lost.response_code, data(&lost)), (ResponseCode::NXDomain, vec!["gone.example.org.".to_owned()]));
    let circle = server.ask("loop.default.svc.cluster.local.", RecordType::A).await;
    assert_eq!(circle.response_code, ResponseCode::ServFail);
    server.end().await;
}

#[tokio::test]
async fn without_an_upstream_that_answers_outside_names_fail_and_the_clusters_do_not() {
    let nobody = UdpSocket::bind((LOCAL, 0)).await.expect("a socket").local_addr().expect("bound");
    for servers in [&[][..], &[nobody]] {
        let server = Server::with_upstream(servers, JoinSet::new(), Arc::default()).await;
        server.publish();
        assert_eq!(server.ask("www.example.org.", RecordType::A).await.response_code, ResponseCode::ServFail);
        assert_eq!(data(&server.ask("web.default.svc.cluster.local.", RecordType::A).await), ["10.96.0.1"]);
        server.end().await;
    }
}

#[tokio::test]
async fn what_is_no_question_for_addresses_is_refused_in_its_own_way() {
    let server = Server::start().await;
    server.publish();
    assert_eq!(server.ask("cluster.local.", RecordType::AXFR).await.response_code, ResponseCode::Refused);
    let update = Message::new(7, MessageType::Query, OpCode::Update);
    assert_eq!(by_udp(server.address, &update).await.response_code, ResponseCode::NotImp);
    let nothing = Message::new(7, MessageType::Query, OpCode::Query);
    assert_eq!(by_udp(server.address, &nothing).await.response_code, ResponseCode::FormErr);
    let mut newer = question("web.default.svc.cluster.local.", RecordType::A);
    let mut edns = Edns::new();
    edns.set_version(1);
    newer.set_edns(edns);
    // 16 is BADVERS here, and BADSIG elsewhere.
    assert_eq!(u16::from(by_udp(server.address, &newer).await.response_code), 16);
    server.end().await;
}

/// Needs root.
#[test]
fn the_link_local_address_is_given_once_and_taken_away() {
    let work = || {
        // SAFETY: a network namespace of its own changes nothing that memory safety rests on (file descriptors stay shared).
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.expect("root");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let netns = format!("/proc/self/task/{}/ns/net", rustix::thread::gettid().as_raw_nonzero());
            let at: SocketAddr = "169.254.20.10:53".parse().expect("an address");
            for _ in 0..2 {
                address::add(netns.as_ref(), &[at.ip(), LOCAL]).await.expect("added");
                drop(Listeners::bind(&[at]).await.expect("the address is there"));
            }
            address::remove(netns.as_ref()).await.expect("removed");
            Listeners::bind(&[at]).await.expect_err("the address is gone");
        });
    };
    std::thread::spawn(work).join().expect("no panic");
}

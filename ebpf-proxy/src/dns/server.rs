//! The sockets: questions in, the zone's or the upstream servers' answers out, over UDP and TCP.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_server::Server;
use hickory_server::net::NetError;
use hickory_server::net::runtime::Time;
use hickory_server::proto::op::{Edns, Header, HeaderCounts, MessageType, Metadata, OpCode, ResponseCode};
use hickory_server::proto::rr::{DNSClass, Name, Record, RecordType};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::upstream::Said;
use super::zone::Answer;
use super::{Upstream, Zone, Zones};

/// The largest datagram: what fits every path unfragmented (DNS flag day 2020). Longer answers are truncated, and asked for by TCP.
const DATAGRAM: u16 = 1232;
/// How long a TCP connection may be silent.
const SILENCE: Duration = Duration::from_secs(10);
/// How many answers wait to be written to a TCP connection.
const ANSWERS: usize = 32;
/// How long a question waits for the first zone, and how many may; others are answered SERVFAIL at once.
const FIRST_ZONE: Duration = Duration::from_secs(1);
const EARLY: usize = 1024;
/// How many aliases are followed within the zone.
const ALIASES: usize = 8;

/// Why names are not served.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// A socket can't be had.
    #[error("can't serve names on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The server ended by itself.
    #[error("names are no longer served: {0}")]
    Server(#[from] NetError),
}

/// The sockets that names are served on.
#[derive(Debug)]
pub struct Listeners(Vec<(UdpSocket, TcpListener)>);

impl Listeners {
    /// Binds UDP and TCP on each address. A port of 0 is chosen by the system, the same for both.
    ///
    /// # Errors
    /// When one is taken or not this host's.
    pub async fn bind(addresses: &[SocketAddr]) -> Result<Self, DnsError> {
        let mut bound = Vec::new();
        for address in addresses {
            let failed = |source| DnsError::Listen { address: *address, source };
            let tcp = TcpListener::bind(address).await.map_err(failed)?;
            let udp = UdpSocket::bind(tcp.local_addr().map_err(failed)?).await.map_err(failed)?;
            bound.push((udp, tcp));
        }
        Ok(Self(bound))
    }

    /// Where they are bound.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.0.iter().filter_map(|(_, tcp)| tcp.local_addr().ok()).collect()
    }

    /// Serves `domain` from `zones` and everything else from `upstream`, until `stop`.
    ///
    /// # Errors
    /// When a socket breaks.
    pub async fn serve(
        self,
        domain: Name,
        zones: Zones,
        upstream: Upstream,
        stop: CancellationToken,
    ) -> Result<(), DnsError> {
        info!(addresses = ?self.addresses(), "names are served");
        let mut server = Server::new(Handler { early: Semaphore::new(EARLY), domain, zones, upstream });
        for (udp, tcp) in self.0 {
            server.register_socket(udp);
            server.register_listener(tcp, SILENCE, ANSWERS);
        }
        tokio::select! {
            () = stop.cancelled() => {}
            ended = server.block_until_done() => return Ok(ended?),
        }
        Ok(server.shutdown_gracefully().await?)
    }
}

struct Handler {
    // Questions that wait for the first zone.
    early: Semaphore,
    domain: Name,
    zones: Zones,
    upstream: Upstream,
}

/// An answer's sections.
struct Reply {
    code: ResponseCode,
    authoritative: bool,
    answers: Vec<Record>,
    authorities: Vec<Record>,
    additionals: Vec<Record>,
}

impl Reply {
    fn code(code: ResponseCode) -> Self {
        Self { code, authoritative: false, answers: Vec::new(), authorities: Vec::new(), additionals: Vec::new() }
    }
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut handle: R) -> ResponseInfo {
        let reply = self.reply(request).await;
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = reply.code;
        metadata.authoritative = reply.authoritative;
        metadata.recursion_available = true;
        let edns = request.edns.as_ref().map(|asked| {
            let mut edns = Edns::new();
            edns.set_max_payload(asked.max_payload().clamp(512, DATAGRAM));
            edns.set_rcode_high(reply.code.high());
            edns
        });
        let mut builder = MessageResponseBuilder::from_message_request(request);
        if let Some(edns) = &edns {
            builder.edns(edns);
        }
        let none: [Record; 0] = [];
        let response = builder.build(metadata, &reply.answers, &reply.authorities, &none, &reply.additionals);
        match handle.send_response(response).await {
            Ok(info) => info,
            Err(error) => {
                debug!(%error, "an answer could not be sent");
                ResponseInfo::from(Header { metadata, counts: HeaderCounts::default() })
            }
        }
    }
}

impl From<Said> for Reply {
    fn from(said: Said) -> Self {
        Self { code: said.code, answers: said.answers, authorities: said.authorities, ..Self::code(said.code) }
    }
}

impl Handler {
    fn may_be_ours(&self, name: &Name) -> bool {
        self.domain.zone_of(name) || name.parse_arpa_name().is_ok()
    }

    /// Waits for the first zone: an agent that starts anew has it in a moment, and its clients need not notice.
    async fn first_zone(&self) -> Option<Arc<Zone>> {
        let _permit = self.early.try_acquire().ok()?;
        let mut zones = self.zones.clone();
        let first = tokio::time::timeout(FIRST_ZONE, zones.wait_for(Option::is_some)).await;
        first.ok()?.ok()?.clone()
    }

    async fn reply(&self, request: &Request) -> Reply {
        if request.metadata.message_type != MessageType::Query || request.metadata.op_code != OpCode::Query {
            return Reply::code(ResponseCode::NotImp);
        }
        if request.version() > 0 {
            return Reply::code(ResponseCode::BADVERS);
        }
        let [query] = request.queries.queries() else { return Reply::code(ResponseCode::FormErr) };
        if query.query_class() != DNSClass::IN || matches!(query.query_type(), RecordType::AXFR | RecordType::IXFR) {
            return Reply::code(ResponseCode::Refused);
        }
        self.resolve(query.original().name().clone(), query.query_type()).await
    }

    async fn resolve(&self, mut name: Name, kind: RecordType) -> Reply {
        let zone = self.zones.borrow().clone();
        let zone = match zone {
            Some(zone) => zone,
            None if !self.may_be_ours(&name) => return Reply::from(self.upstream.resolve(&name, kind).await),
            // What isn't known yet is not missing: clients ask again after this code, and not after NXDOMAIN.
            None => match self.first_zone().await {
                Some(zone) => zone,
                None => return Reply::code(ResponseCode::ServFail),
            },
        };
        let mut reply = Reply { authoritative: true, ..Reply::code(ResponseCode::NoError) };
        for _ in 0..ALIASES {
            match zone.answer(&name, kind) {
                Answer::Records { answers, additionals } => {
                    reply.answers.extend(answers);
                    reply.additionals = additionals;
                    return reply;
                }
                Answer::Alias { record, target } => {
                    reply.answers.push(*record);
                    if kind == RecordType::CNAME {
                        return reply;
                    }
                    name = target;
                }
                Answer::NoData => {
                    reply.authorities.push(zone.soa());
                    return reply;
                }
                Answer::NoName => {
                    reply.code = ResponseCode::NXDomain;
                    reply.authorities.push(zone.soa());
                    return reply;
                }
                Answer::Elsewhere => {
                    let said = self.upstream.resolve(&name, kind).await;
                    // The first name decides: an alias is this zone's own.
                    reply.authoritative = !reply.answers.is_empty();
                    reply.code = said.code;
                    reply.answers.extend(said.answers);
                    reply.authorities = said.authorities;
                    return reply;
                }
            }
        }
        debug!(%name, "aliases go in a circle");
        Reply::code(ResponseCode::ServFail)
    }
}

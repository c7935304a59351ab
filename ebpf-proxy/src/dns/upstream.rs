//! Names that are not the cluster's: asked of the node's own name servers, and kept for as long as these allow.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_server::proto::op::ResponseCode;
use hickory_server::proto::rr::{Name, RData, Record, RecordType};
use tokio::sync::Semaphore;
use tracing::debug;

/// How long a server may take, and how often it is asked again: together less than the five seconds that resolvers wait.
const PATIENCE: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 1;
/// The most answers that are kept; the least used go first.
const KEPT: u64 = 8192;
/// The longest that a missing name is kept: it may appear.
const MISSING: Duration = Duration::from_secs(30);
/// The most questions that wait for upstream servers; more are answered SERVFAIL at once.
const WAITING: usize = 1024;

/// The name servers of the node's network.
#[derive(Debug)]
pub struct Upstream {
    resolver: Option<TokioResolver>,
    waiting: Semaphore,
}

/// What upstream said.
pub(super) struct Said {
    pub(super) code: ResponseCode,
    pub(super) answers: Vec<Record>,
    pub(super) authorities: Vec<Record>,
}

impl Said {
    fn code(code: ResponseCode) -> Self {
        Self { code, answers: Vec::new(), authorities: Vec::new() }
    }
}

impl Upstream {
    /// Asks `servers`, the better ones first; none: no outside name can be resolved.
    ///
    /// # Errors
    /// When the system has no randomness for queries.
    pub fn new(servers: &[SocketAddr]) -> Result<Self, NetError> {
        let waiting = Semaphore::new(WAITING);
        if servers.is_empty() {
            return Ok(Self { resolver: None, waiting });
        }
        let servers = servers.iter().map(|server| {
            let mut config = NameServerConfig::udp_and_tcp(server.ip());
            for connection in &mut config.connections {
                connection.port = server.port();
            }
            config
        });
        let mut options = ResolverOpts::default();
        options.timeout = PATIENCE;
        options.attempts = ATTEMPTS;
        options.cache_size = KEPT;
        options.negative_max_ttl = Some(MISSING);
        options.use_hosts_file = ResolveHosts::Never;
        options.try_tcp_on_error = true;
        options.max_active_requests = WAITING;
        let config = ResolverConfig::from_name_servers(servers.collect());
        let resolver = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let resolver = resolver.with_options(options).build()?;
        Ok(Self { resolver: Some(resolver), waiting })
    }

    pub(super) async fn resolve(&self, name: &Name, kind: RecordType) -> Said {
        let (Some(resolver), Ok(_permit)) = (&self.resolver, self.waiting.try_acquire()) else {
            return Said::code(ResponseCode::ServFail);
        };
        // An absolute name: search lists are the client's.
        let mut absolute = name.clone();
        absolute.set_fqdn(true);
        match resolver.lookup(absolute, kind).await {
            Ok(lookup) => Said {
                code: ResponseCode::NoError,
                answers: lookup.answers().to_vec(),
                authorities: lookup.authorities().to_vec(),
            },
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
                let soa = none.soa.map(|soa| {
                    let soa = *soa;
                    Record::from_rdata(soa.name, soa.ttl, RData::SOA(soa.data))
                });
                Said { code: none.response_code, answers: Vec::new(), authorities: soa.into_iter().collect() }
            }
            Err(NetError::Dns(DnsError::ResponseCode(code))) => Said::code(code),
            Err(error) => {
                debug!(%name, %kind, %error, "no upstream server answered");
                Said::code(ResponseCode::ServFail)
            }
        }
    }
}

/// The name servers in a file of the form of resolv.conf(5), without those that are `ours`: a node that asks its own agent would
/// have it ask itself.
///
/// # Errors
/// When the file can't be read.
pub fn nameservers(file: &Path, ours: &[SocketAddr]) -> io::Result<Vec<SocketAddr>> {
    let text = std::fs::read_to_string(file)?;
    Ok(parse(&text).filter(|server| !ours.contains(server)).collect())
}

fn parse(text: &str) -> impl Iterator<Item = SocketAddr> {
    text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let address: IpAddr = words.next().filter(|word| *word == "nameserver").and(words.next())?.parse().ok()?;
        Some(SocketAddr::new(address, 53))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_from_resolv_conf_without_our_own() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let text =
            "# nameserver 192.0.2.9\nsearch example.org\nnameserver 169.254.20.10\nnameserver\t192.0.2.1\nnameserver\n";
        std::fs::write(file.path(), text).expect("written");
        let ours = ["169.254.20.10:53".parse().expect("an address")];
        let servers = nameservers(file.path(), &ours).expect("read");
        assert_eq!(servers, ["192.0.2.1:53".parse().expect("an address")]);
    }
}

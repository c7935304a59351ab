//! The zone of the cluster: an index over Services and EndpointSlices, and what each name in it is. Pure.
//!
//! Records are made when they are asked for: the index has one entry a Service and one an endpoint, whatever they are asked by.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use hickory_server::proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_server::proto::rr::{LowerName, Name, RData, Record, RecordType};
use skep_client::slim::{SlimEndpointPort, SlimEndpointSlice, SlimService};

use crate::compile::ServiceState;

/// How long an answer may be kept, in seconds: CoreDNS's own default for this zone.
pub const TTL: u32 = 5;
/// The version of the specification that the zone follows.
const VERSION: &str = "1.1.0";

/// What a name and a type are answered with.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// These records.
    Records {
        /// For the answer section.
        answers: Vec<Record>,
        /// For the additional section.
        additionals: Vec<Record>,
    },
    /// The name stands for another one, which is to be resolved as well.
    Alias {
        /// The CNAME.
        record: Box<Record>,
        /// What it stands for.
        target: Name,
    },
    /// The name is there, and has no record of the type.
    NoData,
    /// There is no such name.
    NoName,
    /// Not this zone's to say.
    Elsewhere,
}

/// The names of a cluster at one moment.
#[derive(Debug)]
pub struct Zone {
    domain: Name,
    lower: LowerName,
    serial: u32,
    server: Vec<IpAddr>,
    namespaces: HashMap<Box<str>, HashMap<Box<str>, Entry>>,
    // Which names an address has: those of Services come first.
    reverse: HashMap<IpAddr, Vec<Reversed>>,
}

#[derive(Debug)]
struct Entry {
    kind: Kind,
    ports: Box<[Port]>,
    endpoints: Vec<Endpoint>,
}

#[derive(Debug)]
enum Kind {
    Cluster(Box<[IpAddr]>),
    Headless,
    /// None: the text is no name.
    External(Option<Name>),
}

#[derive(Debug)]
struct Endpoint {
    host: Box<str>,
    address: IpAddr,
    ports: Arc<[Port]>,
}

#[derive(Debug)]
struct Port {
    name: Box<str>,
    protocol: Box<str>,
    number: u16,
}

#[derive(Debug)]
struct Reversed {
    namespace: Box<str>,
    service: Box<str>,
    host: Option<Box<str>>,
}

impl Zone {
    /// The zone `domain` for a state. `server` is where it is served (the address of the zone's name server); `serial` is the
    /// SOA's.
    #[must_use]
    pub fn build(domain: &Name, server: &[IpAddr], state: &ServiceState, serial: u32) -> Self {
        let mut domain = domain.to_lowercase();
        domain.set_fqdn(true);
        let lower = LowerName::new(&domain);
        let mut zone = Self {
            domain,
            lower,
            serial,
            server: server.to_vec(),
            namespaces: HashMap::new(),
            reverse: HashMap::new(),
        };
        for ((namespace, name), service) in &state.services {
            zone.add_service(namespace, name, service);
        }
        for ((namespace, _), slice) in &state.slices {
            zone.add_slice(namespace, slice, state);
        }
        zone
    }

    /// The record that says how long a missing name may be kept.
    #[must_use]
    pub fn soa(&self) -> Record {
        let soa = SOA::new(self.own("ns.dns"), self.own("hostmaster"), self.serial, 7200, 1800, 86_400, TTL);
        Record::from_rdata(self.domain.clone(), TTL, RData::SOA(soa))
    }

    /// Whether a name is the domain or under it.
    #[must_use]
    pub fn has(&self, name: &Name) -> bool {
        self.lower.zone_of(&LowerName::new(name))
    }

    /// What `name`, asked for records of `kind`, is answered with. Records have the name as it was asked.
    #[must_use]
    pub fn answer(&self, name: &Name, kind: RecordType) -> Answer {
        if !self.has(name) {
            return self.reversed(name, kind);
        }
        let depth = usize::from(name.num_labels() - self.domain.num_labels());
        let labels: Option<Vec<String>> =
            name.iter().take(depth).map(|label| std::str::from_utf8(label).ok().map(str::to_ascii_lowercase)).collect();
        let Some(labels) = labels else { return Answer::NoName };
        // From the domain downwards.
        let labels: Vec<&str> = labels.iter().rev().map(String::as_str).collect();
        match labels.as_slice() {
            [] => self.apex(name, kind),
            ["dns-version"] => {
                let text = RData::TXT(TXT::new(vec![VERSION.to_owned()]));
                only(kind, RecordType::TXT, vec![record(name, text)])
            }
            ["dns"] | ["svc"] | ["pod"] | ["pod", _] => Answer::NoData,
            ["dns", "ns"] => addresses(name, kind, &self.server),
            ["pod", _, dashed] => match undashed(dashed) {
                Some(address) => addresses(name, kind, &[address]),
                None => Answer::NoName,
            },
            ["svc", namespace] if self.namespaces.contains_key(*namespace) => Answer::NoData,
            ["svc", namespace, service, below @ ..] => {
                match self.namespaces.get(*namespace).and_then(|services| services.get(*service)) {
                    Some(entry) => self.service(name, kind, &self.service_name(namespace, service), entry, below),
                    None => Answer::NoName,
                }
            }
            _ => Answer::NoName,
        }
    }

    fn add_service(&mut self, namespace: &str, name: &str, service: &SlimService) {
        let spec = &service.spec;
        let kind = if &*spec.r#type == "ExternalName" {
            Kind::External(spec.external_name.as_deref().and_then(outside))
        } else if service.is_headless() {
            Kind::Headless
        } else {
            let first = spec.cluster_ip.iter().filter(|_| spec.cluster_ips.is_empty());
            Kind::Cluster(spec.cluster_ips.iter().chain(first).filter_map(|address| address.parse().ok()).collect())
        };
        if let Kind::Cluster(addresses) = &kind {
            for address in addresses {
                let reversed = Reversed { namespace: namespace.into(), service: name.into(), host: None };
                self.reverse.entry(*address).or_default().push(reversed);
            }
        }
        let ports = spec.ports.iter().filter_map(|port| {
            Some(Port {
                name: port.name.clone(),
                protocol: port.protocol.to_ascii_lowercase().into(),
                number: u16::try_from(port.port).ok()?,
            })
        });
        let entry = Entry { kind, ports: ports.collect(), endpoints: Vec::new() };
        self.namespaces.entry(namespace.into()).or_default().insert(name.into(), entry);
    }

    fn add_slice(&mut self, namespace: &str, slice: &SlimEndpointSlice, state: &ServiceState) {
        let Some(service) = slice.service_name() else { return };
        let Some(entry) = self.namespaces.get_mut(namespace).and_then(|services| services.get_mut(service)) else {
            return;
        };
        if matches!(entry.kind, Kind::External(_)) {
            return;
        }
        let key = (namespace.to_owned(), service.to_owned());
        let all = state.services.get(&key).is_some_and(|service| service.spec.publish_not_ready_addresses);
        let ports: Arc<[Port]> = slice.ports.iter().filter_map(endpoint_port).collect();
        for endpoint in slice.endpoints.iter().filter(|endpoint| endpoint.ready || all) {
            for address in endpoint.addresses.iter().filter_map(|address| address.parse::<IpAddr>().ok()) {
                let host = endpoint.hostname.as_deref().map_or_else(|| dashed(address), str::to_ascii_lowercase);
                let host: Box<str> = host.into();
                let reversed =
                    Reversed { namespace: namespace.into(), service: service.into(), host: Some(host.clone()) };
                self.reverse.entry(address).or_default().push(reversed);
                entry.endpoints.push(Endpoint { host, address, ports: Arc::clone(&ports) });
            }
        }
    }

    fn apex(&self, name: &Name, kind: RecordType) -> Answer {
        let server = self.own("ns.dns");
        match kind {
            RecordType::SOA => found(vec![self.soa()]),
            RecordType::NS => {
                let glue = self.server.iter().map(|address| record(&server, address_data(*address))).collect();
                let answers = vec![record(name, RData::NS(NS(server)))];
                Answer::Records { answers, additionals: glue }
            }
            _ => Answer::NoData,
        }
    }

    fn service(&self, name: &Name, kind: RecordType, own: &Name, entry: &Entry, below: &[&str]) -> Answer {
        match (&entry.kind, below) {
            (Kind::External(Some(target)), []) => {
                let alias = record(name, RData::CNAME(CNAME(target.clone())));
                Answer::Alias { record: Box::new(alias), target: target.clone() }
            }
            (Kind::External(None), []) => Answer::NoData,
            (Kind::External(_), _) => Answer::NoName,
            (_, []) if kind == RecordType::SRV => services(name, own, entry, &|_| true),
            (Kind::Cluster(cluster), []) => addresses(name, kind, cluster),
            (Kind::Headless, []) => {
                let all: Vec<IpAddr> = entry.endpoints.iter().map(|endpoint| endpoint.address).collect();
                addresses(name, kind, &all)
            }
            (_, [one]) => {
                if let Some(protocol) = one.strip_prefix('_') {
                    let there = entry.ports.iter().any(|port| &*port.protocol == protocol);
                    return if there { Answer::NoData } else { Answer::NoName };
                }
                let host = |endpoint: &&Endpoint| &*endpoint.host == *one;
                let all: Vec<IpAddr> = entry.endpoints.iter().filter(host).map(|endpoint| endpoint.address).collect();
                if all.is_empty() { Answer::NoName } else { addresses(name, kind, &all) }
            }
            (_, [protocol, port]) => {
                let (Some(protocol), Some(wanted)) = (protocol.strip_prefix('_'), port.strip_prefix('_')) else {
                    return Answer::NoName;
                };
                let this = |port: &Port| &*port.name == wanted && &*port.protocol == protocol;
                if !entry.ports.iter().any(this) {
                    return Answer::NoName;
                }
                if kind == RecordType::SRV { services(name, own, entry, &this) } else { Answer::NoData }
            }
            _ => Answer::NoName,
        }
    }

    fn reversed(&self, name: &Name, kind: RecordType) -> Answer {
        let Ok(network) = name.parse_arpa_name() else { return Answer::Elsewhere };
        if network.prefix_len() != network.max_prefix_len() {
            return Answer::Elsewhere;
        }
        let Some(names) = self.reverse.get(&network.addr()) else { return Answer::Elsewhere };
        let pointers = names.iter().filter_map(|reversed| {
            let service = self.service_name(&reversed.namespace, &reversed.service);
            let target = match &reversed.host {
                Some(host) => child(&service, host)?,
                None => service,
            };
            Some(record(name, RData::PTR(PTR(target))))
        });
        only(kind, RecordType::PTR, pointers.collect())
    }

    fn service_name(&self, namespace: &str, service: &str) -> Name {
        let names = child(&self.domain, "svc").and_then(|svc| child(&svc, namespace));
        names.and_then(|namespace| child(&namespace, service)).unwrap_or_else(|| self.domain.clone())
    }

    fn own(&self, below: &str) -> Name {
        let under = below.split('.').rev().try_fold(self.domain.clone(), |name, label| child(&name, label));
        // Two short labels fit every domain that a cluster can have: it has room for a Service's name.
        under.unwrap_or_else(|| self.domain.clone())
    }
}

/// The SRV records of the ports that `wanted` takes, and the addresses of their targets.
fn services(name: &Name, own: &Name, entry: &Entry, wanted: &dyn Fn(&Port) -> bool) -> Answer {
    let mut targets: Vec<(u16, Name)> = Vec::new();
    let mut glue: BTreeMap<String, Record> = BTreeMap::new();
    let mut add = |number, target: Name, addresses: &[IpAddr]| {
        for address in addresses {
            glue.insert(format!("{target} {address}"), record(&target, address_data(*address)));
        }
        targets.push((number, target));
    };
    match &entry.kind {
        Kind::Cluster(addresses) => {
            for port in entry.ports.iter().filter(|port| wanted(port)) {
                add(port.number, own.clone(), addresses);
            }
        }
        Kind::Headless => {
            for endpoint in &entry.endpoints {
                let Some(target) = child(own, &endpoint.host) else { continue };
                for port in endpoint.ports.iter().filter(|port| wanted(port)) {
                    add(port.number, target.clone(), &[endpoint.address]);
                }
            }
        }
        Kind::External(_) => {}
    }
    if targets.is_empty() {
        return Answer::NoData;
    }
    // A pod of both families has a target in two slices.
    targets.sort();
    targets.dedup();
    let weight = u16::try_from((100 / targets.len()).max(1)).unwrap_or(1);
    let answers = targets.into_iter().map(|(port, target)| record(name, RData::SRV(SRV::new(0, weight, port, target))));
    Answer::Records { answers: answers.collect(), additionals: glue.into_values().collect() }
}

fn addresses(name: &Name, kind: RecordType, all: &[IpAddr]) -> Answer {
    let of_kind = |address: &&IpAddr| match kind {
        RecordType::A => address.is_ipv4(),
        RecordType::AAAA => address.is_ipv6(),
        _ => false,
    };
    let mut chosen: Vec<IpAddr> = all.iter().filter(of_kind).copied().collect();
    chosen.sort();
    chosen.dedup();
    only(kind, kind, chosen.into_iter().map(|address| record(name, address_data(address))).collect())
}

fn only(asked: RecordType, is: RecordType, answers: Vec<Record>) -> Answer {
    if asked != is || answers.is_empty() { Answer::NoData } else { found(answers) }
}

fn found(answers: Vec<Record>) -> Answer {
    Answer::Records { answers, additionals: Vec::new() }
}

fn record(name: &Name, data: RData) -> Record {
    Record::from_rdata(name.clone(), TTL, data)
}

fn address_data(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    }
}

fn endpoint_port(port: &SlimEndpointPort) -> Option<Port> {
    Some(Port {
        name: port.name.clone(),
        protocol: port.protocol.to_ascii_lowercase().into(),
        number: u16::try_from(port.port?).ok()?,
    })
}

fn child(name: &Name, label: &str) -> Option<Name> {
    name.prepend_label(label).ok()
}

/// An external name is absolute, with or without the last dot; an address is none.
fn outside(text: &str) -> Option<Name> {
    if text.parse::<IpAddr>().is_ok() {
        return None;
    }
    let mut name = Name::from_str(text).ok().filter(|name| !name.is_root())?;
    name.set_fqdn(true);
    Some(name)
}

/// The name of an endpoint that has no other, and of a pod.
fn dashed(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}

fn undashed(label: &str) -> Option<IpAddr> {
    let v4 = label.replace('-', ".").parse().ok().map(IpAddr::V4);
    v4.or_else(|| label.replace('-', ":").parse().ok().map(IpAddr::V6))
}

#[cfg(test)]
mod tests;

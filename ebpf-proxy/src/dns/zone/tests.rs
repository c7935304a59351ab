//! Every name is what the DNS specification says it is, and a name that is there is told from one that is not.

use serde_json::{Value, json};

use super::*;
use crate::compile::Name as Key;

fn name(text: &str) -> Name {
    Name::from_ascii(text).expect("a name")
}

fn service(namespace: &str, called: &str, spec: Value) -> (Key, SlimService) {
    let service = json!({ "metadata": { "name": called, "namespace": namespace }, "spec": spec });
    ((namespace.to_owned(), called.to_owned()), serde_json::from_value(service).expect("a service"))
}

fn slice(namespace: &str, service: &str, number: usize, ports: Value, endpoints: Value) -> (Key, SlimEndpointSlice) {
    let called = format!("{service}-{number}");
    let slice = json!({
        "metadata": { "name": called, "namespace": namespace, "labels": { "kubernetes.io/service-name": service } },
        "addressType": "IPv4", "ports": ports, "endpoints": endpoints,
    });
    ((namespace.to_owned(), called), serde_json::from_value(slice).expect("a slice"))
}

fn zone() -> Zone {
    let http =
        json!([{ "name": "http", "port": 80, "protocol": "TCP" }, { "name": "dns", "port": 53, "protocol": "UDP" }]);
    let services = [
        service(
            "default",
            "web",
            json!({ "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00::1"], "ports": http }),
        ),
        service("default", "db", json!({ "clusterIP": "None", "clusterIPs": ["None"], "ports": http })),
        service("default", "early", json!({ "clusterIP": "None", "publishNotReadyAddresses": true, "ports": http })),
        service("default", "none", json!({ "clusterIP": "None" })),
        service("other", "away", json!({ "type": "ExternalName", "externalName": "www.example.org" })),
        service("other", "near", json!({ "type": "ExternalName", "externalName": "web.default.svc.cluster.local." })),
        service("other", "number", json!({ "type": "ExternalName", "externalName": "192.0.2.1" })),
    ];
    let ports = json!([{ "name": "http", "port": 8080, "protocol": "TCP" }, { "name": "dns", "port": 5353, "protocol": "UDP" }]);
    let slices = [
        slice("default", "web", 0, ports.clone(), json!([{ "addresses": ["10.244.0.1"], "conditions": {} }])),
        slice(
            "default",
            "db",
            0,
            ports.clone(),
            json!([
                { "addresses": ["10.244.0.2"], "conditions": { "ready": true }, "hostname": "db-0" },
                { "addresses": ["10.244.0.3"], "conditions": { "ready": true } },
                { "addresses": ["10.244.0.4"], "conditions": { "ready": false }, "hostname": "db-2" },
            ]),
        ),
        slice("default", "early", 0, ports, json!([{ "addresses": ["10.244.0.5"], "conditions": { "ready": false } }])),
        slice("default", "nobody", 0, json!([]), json!([{ "addresses": ["10.244.0.6"] }])),
    ];
    let state = ServiceState { services: services.into(), slices: slices.into(), ..ServiceState::default() };
    Zone::build(&name("Cluster.Local"), &["169.254.20.10".parse().expect("an address")], &state, 7)
}

/// The records' data as text, in the order of the answer.
fn shown(text: &str, kind: RecordType) -> Vec<String> {
    match zone().answer(&name(text), kind) {
        Answer::Records { answers, .. } => answers.iter().map(|record| record.data.to_string()).collect(),
        Answer::Alias { target, .. } => vec![format!("-> {target}")],
        Answer::NoData => vec!["no data".into()],
        Answer::NoName => vec!["no name".into()],
        Answer::Elsewhere => vec!["elsewhere".into()],
    }
}

#[test]
fn a_service_with_a_cluster_address_has_its_addresses() {
    assert_eq!(shown("web.default.svc.cluster.local.", RecordType::A), ["10.96.0.1"]);
    assert_eq!(shown("web.default.svc.cluster.local.", RecordType::AAAA), ["fd00::1"]);
    assert_eq!(shown("web.default.svc.cluster.local.", RecordType::TXT), ["no data"]);
    assert_eq!(shown("web.default.svc.cluster.local.", RecordType::ANY), ["no data"]);
}

#[test]
fn records_have_the_name_as_it_was_asked() {
    let asked = name("WEB.default.SVC.cluster.local.");
    let Answer::Records { answers, .. } = zone().answer(&asked, RecordType::A) else { panic!("no records") };
    assert!(answers[0].name.eq_case(&asked) && answers[0].ttl == TTL);
}

#[test]
fn a_headless_service_has_the_addresses_of_its_ready_endpoints() {
    assert_eq!(shown("db.default.svc.cluster.local.", RecordType::A), ["10.244.0.2", "10.244.0.3"]);
    assert_eq!(shown("db.default.svc.cluster.local.", RecordType::AAAA), ["no data"]);
    assert_eq!(shown("db-0.db.default.svc.cluster.local.", RecordType::A), ["10.244.0.2"]);
    assert_eq!(shown("10-244-0-3.db.default.svc.cluster.local.", RecordType::A), ["10.244.0.3"]);
    assert_eq!(shown("db-2.db.default.svc.cluster.local.", RecordType::A), ["no name"]);
    assert_eq!(shown("none.default.svc.cluster.local.", RecordType::A), ["no data"]);
}

#[test]
fn endpoints_that_are_not_ready_are_published_where_the_service_says_so() {
    assert_eq!(shown("early.default.svc.cluster.local.", RecordType::A), ["10.244.0.5"]);
}

#[test]
fn ports_are_found_by_name_and_protocol() {
    let srv = |text| shown(text, RecordType::SRV);
    assert_eq!(srv("_http._tcp.web.default.svc.cluster.local."), ["0 100 80 web.default.svc.cluster.local."]);
    assert_eq!(
        srv("_dns._udp.db.default.svc.cluster.local."),
        ["0 50 5353 10-244-0-3.db.default.svc.cluster.local.", "0 50 5353 db-0.db.default.svc.cluster.local."]
    );
    assert_eq!(srv("_http._udp.web.default.svc.cluster.local."), ["no name"]);
    assert_eq!(srv("_udp.web.default.svc.cluster.local."), ["no data"]);
    assert_eq!(srv("_sctp.web.default.svc.cluster.local."), ["no name"]);
    assert_eq!(shown("_http._tcp.web.default.svc.cluster.local.", RecordType::A), ["no data"]);
    // As CoreDNS does: those who look for the members of a set ask for the bare name.
    assert_eq!(srv("db.default.svc.cluster.local.").len(), 4);
}

#[test]
fn targets_of_ports_come_with_their_addresses() {
    let asked = name("_http._tcp.db.default.svc.cluster.local.");
    let Answer::Records { additionals, .. } = zone().answer(&asked, RecordType::SRV) else { panic!("no records") };
    let shown: Vec<String> = additionals.iter().map(|record| format!("{} {}", record.name, record.data)).collect();
    assert_eq!(
        shown,
        ["10-244-0-3.db.default.svc.cluster.local. 10.244.0.3", "db-0.db.default.svc.cluster.local. 10.244.0.2"]
    );
}

#[test]
fn an_external_name_is_an_alias() {
    assert_eq!(shown("away.other.svc.cluster.local.", RecordType::A), ["-> www.example.org."]);
    assert_eq!(shown("near.other.svc.cluster.local.", RecordType::AAAA), ["-> web.default.svc.cluster.local."]);
    assert_eq!(shown("number.other.svc.cluster.local.", RecordType::A), ["no data"]);
    assert_eq!(shown("_http._tcp.away.other.svc.cluster.local.", RecordType::SRV), ["no name"]);
}

#[test]
fn a_pods_name_says_its_address() {
    assert_eq!(shown("10-244-7-9.any.pod.cluster.local.", RecordType::A), ["10.244.7.9"]);
    assert_eq!(shown("fd00--1.any.pod.cluster.local.", RecordType::AAAA), ["fd00::1"]);
    assert_eq!(shown("10-244-7-9.any.pod.cluster.local.", RecordType::AAAA), ["no data"]);
    assert_eq!(shown("10-244-7.any.pod.cluster.local.", RecordType::A), ["no name"]);
}

#[test]
fn addresses_have_the_names_of_services_and_endpoints() {
    let ptr = |text| shown(text, RecordType::PTR);
    assert_eq!(ptr("1.0.96.10.in-addr.arpa."), ["web.default.svc.cluster.local."]);
    assert_eq!(ptr("2.0.244.10.in-addr.arpa."), ["db-0.db.default.svc.cluster.local."]);
    assert_eq!(ptr("1.0.244.10.in-addr.arpa."), ["10-244-0-1.web.default.svc.cluster.local."]);
    let v6 = format!("1.{}0.0.d.f.ip6.arpa.", "0.".repeat(27));
    assert_eq!(ptr(&v6), ["web.default.svc.cluster.local."]);
    assert_eq!(ptr("1.2.0.192.in-addr.arpa."), ["elsewhere"]);
    assert_eq!(ptr("0.96.10.in-addr.arpa."), ["elsewhere"]);
    assert_eq!(shown("1.0.96.10.in-addr.arpa.", RecordType::A), ["no data"]);
}

#[test]
fn names_between_others_are_there_without_records() {
    for there in ["cluster.local.", "svc.cluster.local.", "default.svc.cluster.local.", "pod.cluster.local."] {
        assert_eq!(shown(there, RecordType::A), ["no data"], "{there}");
    }
    for missing in [
        "nothing.cluster.local.",
        "missing.svc.cluster.local.",
        "missing.default.svc.cluster.local.",
        "web.missing.svc.cluster.local.",
        "nobody.default.svc.cluster.local.",
        "a.b.c.web.default.svc.cluster.local.",
    ] {
        assert_eq!(shown(missing, RecordType::A), ["no name"], "{missing}");
    }
}

#[test]
fn the_zone_says_its_version_and_its_server() {
    assert_eq!(shown("dns-version.cluster.local.", RecordType::TXT), ["1.1.0"]);
    assert_eq!(shown("cluster.local.", RecordType::NS), ["ns.dns.cluster.local."]);
    assert_eq!(shown("ns.dns.cluster.local.", RecordType::A), ["169.254.20.10"]);
    assert_eq!(
        shown("cluster.local.", RecordType::SOA),
        ["ns.dns.cluster.local. hostmaster.cluster.local. 7 7200 1800 86400 5"]
    );
}

#[test]
fn other_names_are_not_the_zones() {
    for elsewhere in ["example.org.", "local.", "notcluster.local.", "xcluster.local.", "."] {
        assert_eq!(shown(elsewhere, RecordType::A), ["elsewhere"], "{elsewhere}");
    }
}

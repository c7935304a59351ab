//! Where a request to a `proxy` subresource goes: the name in its path, which may carry a scheme and a port, and the objects that it leads to. Pure.
//!
//! Upstream: `ResourceLocation` of pods, services and nodes, and k8s.io/apimachinery/pkg/util/net `SplitSchemeNamePort`.

use std::net::IpAddr;

use serde_json::Value;
use skep_api::Status;

/// The parts of `name`, `name:port` or `scheme:name:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// Whether TLS is asked for.
    pub tls: bool,
    /// The object's name.
    pub name: String,
    /// Its port by number or name; empty when none is named.
    pub port: String,
}

impl Target {
    /// Reads the name of a path.
    ///
    /// # Errors
    /// 400 in upstream's words; `what` is the kind in lower case.
    pub(super) fn parse(id: &str, what: &str) -> Result<Self, Status> {
        let parts: Vec<&str> = id.split(':').collect();
        let (scheme, name, port) = match parts.as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme, name, port] => (*scheme, *name, *port),
            _ => ("?", "", ""),
        };
        if name.is_empty() || !matches!(scheme, "" | "http" | "https") {
            return Err(Status::bad_request(format!("invalid {what} request {id:?}")));
        }
        Ok(Self { tls: scheme == "https", name: name.to_owned(), port: port.to_owned() })
    }
}

/// Where to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Destination {
    /// An address.
    pub address: IpAddr,
    /// A port.
    pub port: u16,
    /// What a URL of this destination has after its `//`: without the port when the request named none and the object has none.
    pub authority: String,
}

impl Destination {
    fn new(address: IpAddr, port: Option<u16>, tls: bool) -> Self {
        let host = match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        Self {
            address,
            port: port.unwrap_or(if tls { 443 } else { 80 }),
            authority: port.map_or_else(|| host.clone(), |port| format!("{host}:{port}")),
        }
    }
}

/// A pod: at the port named, or the first one that its containers declare, or the scheme's own.
///
/// # Errors
/// 400 for an address that must not be reached, or for a port that is no number.
pub(super) fn pod(target: &Target, pod: &Value) -> Result<Destination, Status> {
    let port = if target.port.is_empty() {
        let mut containers = pod["spec"]["containers"].as_array().into_iter().flatten();
        let declared = containers.find_map(|container| container["ports"][0]["containerPort"].as_u64());
        declared.and_then(|port| u16::try_from(port).ok())
    } else {
        Some(target.port.parse().map_err(|_| invalid_port(&target.port))?)
    };
    let address = pod["status"]["podIPs"][0]["ip"].as_str().or_else(|| pod["status"]["podIP"].as_str());
    Ok(Destination::new(reachable(address.unwrap_or_default())?, port, target.tls))
}

/// A node, at a port that is not its kubelet's.
///
/// # Errors
/// 400 as for pods.
pub(super) fn node(target: &Target, host: &str) -> Result<Destination, Status> {
    let port = target.port.parse().map_err(|_| invalid_port(&target.port))?;
    Ok(Destination::new(reachable(host)?, Some(port), target.tls))
}

/// A Service: one of the ready endpoints of the port, whose pods are in the Service's namespace and have the address. `offset` chooses among them.
///
/// # Errors
/// 503 when there is none, or no such port.
pub(super) fn service(
    target: &Target,
    service: Option<&Value>,
    slices: &[Value],
    is_pod: impl Fn(&Value) -> bool,
    offset: usize,
) -> Result<Destination, Status> {
    let none = || unavailable(format!("no endpoints available for service {:?}", target.name));
    let mut name = target.port.clone();
    if let (Ok(number), Some(service)) = (target.port.parse::<i64>(), service) {
        let ports = service["spec"]["ports"].as_array().into_iter().flatten();
        let found = ports.filter(|port| port["port"].as_i64() == Some(number)).map(|port| port["name"].as_str());
        name = found
            .map(Option::unwrap_or_default)
            .next()
            .map(str::to_owned)
            .ok_or_else(|| unavailable(format!("no service port {number} found for service {:?}", target.name)))?;
    }
    let start = if slices.is_empty() { 0 } else { offset % slices.len() };
    for slice in slices[start..].iter().chain(&slices[..start]) {
        let ports = slice["ports"].as_array().into_iter().flatten();
        let named = ports.filter(|port| port["name"].as_str().unwrap_or_default() == name);
        let Some(port) = named.filter_map(|port| port["port"].as_u64()).find_map(|port| u16::try_from(port).ok())
        else {
            continue;
        };
        let endpoints = slice["endpoints"].as_array().map_or(&[][..], Vec::as_slice);
        let start = if endpoints.is_empty() { 0 } else { offset % endpoints.len() };
        let mut usable = endpoints[start..]
            .iter()
            .chain(&endpoints[..start])
            .filter(|endpoint| endpoint["conditions"]["ready"].as_bool().unwrap_or(true) && is_pod(endpoint));
        if let Some(address) = usable.find_map(|endpoint| endpoint["addresses"][0].as_str()) {
            return Ok(Destination::new(address.parse().map_err(|_| none())?, Some(port), target.tls));
        }
    }
    Err(none())
}

/// 503, with nothing to say about when to try again.
pub(super) fn unavailable(message: String) -> Status {
    Status::new(503, skep_api::Reason::ServiceUnavailable, message)
}

fn invalid_port(port: &str) -> Status {
    Status::bad_request(format!("invalid port {port:?}"))
}

/// Neither this machine nor its links: only addresses that are somebody's (Go's `IsGlobalUnicast`).
fn reachable(address: &str) -> Result<IpAddr, Status> {
    let address: Option<IpAddr> = address.parse().ok();
    let allowed = |address: &IpAddr| match address {
        IpAddr::V4(v4) => !(v4.is_loopback() || v4.is_link_local() || v4.is_multicast() || v4.is_broadcast()),
        IpAddr::V6(v6) => !(v6.is_loopback() || v6.is_unicast_link_local() || v6.is_multicast()),
    };
    address
        .filter(|address| allowed(address) && !address.is_unspecified())
        .ok_or_else(|| Status::bad_request("address not allowed"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn target(id: &str) -> Target {
        Target::parse(id, "pod").unwrap()
    }

    #[test]
    fn a_name_may_carry_a_scheme_and_a_port() {
        assert_eq!(target("a"), Target { tls: false, name: "a".to_owned(), port: String::new() });
        assert_eq!(target("a:80"), Target { tls: false, name: "a".to_owned(), port: "80".to_owned() });
        assert_eq!(target("https:a:web"), Target { tls: true, name: "a".to_owned(), port: "web".to_owned() });
        assert_eq!(target("http:a:"), Target { tls: false, name: "a".to_owned(), port: String::new() });
        for wrong in ["", "ftp:a:1", "a:b:c:d", ":80"] {
            let message = Target::parse(wrong, "pod").unwrap_err().message;
            assert_eq!(message, format!("invalid pod request {wrong:?}"));
        }
    }

    #[test]
    fn a_pod_is_reached_at_its_first_port_or_the_one_named() {
        let object = json!({
            "spec": {"containers": [{"name": "a"}, {"name": "b", "ports": [{"containerPort": 8080}]}]},
            "status": {"podIP": "10.0.0.9", "podIPs": [{"ip": "10.0.0.9"}]},
        });
        assert_eq!(pod(&target("a"), &object).unwrap().authority, "10.0.0.9:8080");
        assert_eq!(pod(&target("https:a:9"), &object).unwrap().port, 9);
        let plain = json!({"status": {"podIP": "10.0.0.9"}});
        let found = pod(&target("a"), &plain).unwrap();
        assert_eq!((found.port, &*found.authority), (80, "10.0.0.9"));
        assert_eq!(pod(&target("https:a:"), &plain).unwrap().port, 443);
        assert_eq!(pod(&target("a:web"), &plain).unwrap_err().code, 400);
    }

    #[test]
    fn addresses_of_the_machine_itself_are_not_reached() {
        for address in ["127.0.0.1", "169.254.1.1", "224.0.0.1", "::1", "0.0.0.0", "", "x"] {
            let object = json!({"status": {"podIP": address}});
            assert_eq!(pod(&target("a"), &object).unwrap_err().message, "address not allowed", "{address}");
        }
    }

    #[test]
    fn a_service_leads_to_a_ready_endpoint_of_the_port() {
        let object = json!({"spec": {"ports": [{"name": "web", "port": 80}, {"name": "other", "port": 81}]}});
        let slices = [json!({
            "ports": [{"name": "web", "port": 8080}],
            "endpoints": [
                {"addresses": ["10.0.0.1"], "conditions": {"ready": false}},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": true}},
                {"addresses": ["10.0.0.3"]},
            ],
        })];
        let at = |id: &str, offset| {
            service(&target(id), Some(&object), &slices, |_| true, offset).map(|found| found.authority)
        };
        assert_eq!(at("s:web", 0).unwrap(), "10.0.0.2:8080");
        assert_eq!(at("s:80", 2).unwrap(), "10.0.0.3:8080");
        assert_eq!(at("s:82", 0).unwrap_err().message, "no service port 82 found for service \"s\"");
        assert_eq!(at("s:other", 0).unwrap_err().message, "no endpoints available for service \"s\"");
        assert_eq!(at("s", 0).unwrap_err().code, 503);
        let of_others = service(&target("s:web"), Some(&object), &slices, |_| false, 0);
        assert_eq!(of_others.unwrap_err().code, 503);
    }
}

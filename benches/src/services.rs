//! Clusters of many Services, each with three endpoints: as API objects, compiled as the agent compiles them.

use std::net::Ipv4Addr;

use serde_json::json;
use skep_ebpf_proxy::compile::{Entries, ServiceState, compile};

/// The port of each Service.
pub const PORT: u16 = 80;
/// The port of each endpoint.
pub const TARGET_PORT: u16 = 8080;
/// Endpoints of each Service.
pub const ENDPOINTS: u32 = 3;
/// The network that all endpoints are in.
pub const ENDPOINT_NETWORK: &str = "10.192.0.0/10";
/// The network of pods, which endpoints and clients are in.
pub const POD_NETWORK: &str = "10.128.0.0/9";

/// How many Services, and what of them.
#[derive(Clone, Copy, Debug)]
pub struct Services {
    /// The count.
    pub count: u32,
    /// `TCP` or `UDP`.
    pub protocol: &'static str,
    /// Whether each has an external address too.
    pub external: bool,
}

impl Services {
    /// What the kernel's maps hold for them.
    ///
    /// # Errors
    /// Never: the objects are what the agent reads.
    pub fn entries(self) -> serde_json::Result<Entries> {
        let mut state = ServiceState { node_name: "here".into(), ..ServiceState::default() };
        for number in 0..self.count {
            let name = format!("service-{number}");
            let external = if self.external { vec![external_ip(number)] } else { Vec::new() };
            let service = json!({"metadata": {}, "spec": {
                "type": "ClusterIP", "clusterIP": cluster_ip(number), "externalIPs": external,
                "ports": [{"name": "main", "port": PORT, "protocol": self.protocol}],
            }});
            let endpoints =
                (0..ENDPOINTS).map(|slot| json!({"addresses": [endpoint(number, slot)], "nodeName": "here"}));
            let slice = json!({
                "metadata": {"labels": {"kubernetes.io/service-name": name}},
                "endpoints": endpoints.collect::<Vec<_>>(),
                "ports": [{"name": "main", "port": TARGET_PORT, "protocol": self.protocol}],
            });
            let key = ("default".to_owned(), name);
            state.services.insert(key.clone(), serde_json::from_value(service)?);
            state.slices.insert(key, serde_json::from_value(slice)?);
        }
        Ok(compile(&state))
    }
}

/// A Service's own address.
#[must_use]
pub fn cluster_ip(service: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 96, 0, 1).to_bits() + service)
}

/// A Service's external address.
#[must_use]
pub fn external_ip(service: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 1).to_bits() + service)
}

/// An endpoint's address; slots count from zero to [`ENDPOINTS`].
#[must_use]
pub fn endpoint(service: u32, slot: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 192, 0, 1).to_bits() + service * ENDPOINTS + slot)
}

/// Numbers in an order that has no pattern and is the same for the same seed.
pub fn sequence(seed: u64) -> impl Iterator<Item = u32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u32
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_service_has_its_address_and_three_endpoints_in_the_maps() {
        let entries = Services { count: 500, protocol: "TCP", external: true }.entries().expect("objects");
        assert_eq!((entries.services.len(), entries.externals.len()), (1_000, 500));
        assert_eq!(entries.backends.len(), 1_500);
        assert!(entries.services.values().all(|service| service.backends == ENDPOINTS));
    }
}

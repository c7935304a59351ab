//! Cluster addresses and node ports of Services. Each one that is taken is a key of its own in the store, written in the same batch as the
//! Service, on condition that it is absent: no two Services can have it, however many API servers there are, and none leaks.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;

use serde_json::Value;
use skep_api::Status;
use skep_api::field::{Error as FieldError, Path};
use skep_api::kinds::Kind;
use skep_store::{At, Condition, Op, Range, Write};

use super::{Call, Engine, store_error};

/// How often a write is tried again with other addresses when those it chose were taken meanwhile.
pub(super) const ATTEMPTS: usize = 16;
/// Random candidates before the whole range is read to find a free one.
const PROBES: usize = 8;

/// Where addresses and ports come from.
#[derive(Clone, Debug)]
pub struct Ranges {
    /// First address and prefix length of the Service network.
    pub service_network: (Ipv4Addr, u8),
    /// `--service-node-port-range`
    pub node_ports: RangeInclusive<u16>,
}

impl Ranges {
    /// Reads `10.96.0.0/16`.
    ///
    /// # Errors
    /// Says what a Service network must look like.
    pub fn new(network: &str, node_ports: RangeInclusive<u16>) -> Result<Self, String> {
        let wrong =
            || format!("--service-cluster-ip-range {network}: an IPv4 network from /12 to /28, such as 10.96.0.0/16");
        let (address, bits) = network.split_once('/').ok_or_else(wrong)?;
        let address: Ipv4Addr = address.parse().map_err(|_| wrong())?;
        let bits: u8 = bits.parse().ok().filter(|bits| (12..=28).contains(bits)).ok_or_else(wrong)?;
        let base = u32::from(address) & !(u32::MAX >> bits);
        Ok(Self { service_network: (Ipv4Addr::from(base), bits), node_ports })
    }

    fn size(&self) -> u32 {
        // Without the network's and the broadcast address.
        (u32::MAX >> self.service_network.1) - 1
    }

    fn address(&self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.service_network.0) + offset)
    }

    /// The first address: the API server's own Service.
    #[must_use]
    pub fn api_server(&self) -> Ipv4Addr {
        self.address(1)
    }

    fn contains(&self, address: Ipv4Addr) -> bool {
        let offset = u32::from(address).wrapping_sub(u32::from(self.service_network.0));
        (1..=self.size()).contains(&offset)
    }
}

fn is_service(kind: &Kind) -> bool {
    kind.plural == "services" && kind.group_version.group.is_empty()
}

fn address_key(address: &str) -> String {
    format!("allocations/clusterips/{address}")
}

fn port_key(port: i64) -> String {
    format!("allocations/nodeports/{port}")
}

/// What a Service holds: the keys of its allocations.
fn held(service: &Value) -> Vec<String> {
    let spec = &service["spec"];
    let mut keys = Vec::new();
    if let Some(address) = spec["clusterIP"].as_str().filter(|address| address.parse::<IpAddr>().is_ok()) {
        keys.push(address_key(address));
    }
    for port in spec["ports"].as_array().into_iter().flatten() {
        if let Some(port) = port["nodePort"].as_i64().filter(|port| *port > 0) {
            keys.push(port_key(port));
        }
    }
    if let Some(port) = spec["healthCheckNodePort"].as_i64().filter(|port| *port > 0) {
        keys.push(port_key(port));
    }
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// The writes that give back what an object holds.
pub(super) fn releases(kind: &Kind, object: &Value) -> Vec<Write> {
    if !is_service(kind) {
        return Vec::new();
    }
    held(object).into_iter().map(release).collect()
}

fn release(key: String) -> Write {
    Write { key: key.into(), op: Op::Delete, condition: Condition::None }
}

impl Engine {
    /// Gives a Service the addresses and ports that it lacks; the writes reserve what is new and give back what it no longer has.
    ///
    /// # Errors
    /// 422 for an address or port that is taken or out of range.
    pub(super) async fn allocate(
        &self,
        call: &Call<'_>,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<Vec<Write>, Status> {
        if !is_service(call.kind) || call.subresource.is_some() {
            return Ok(Vec::new());
        }
        let before = old.map(held).unwrap_or_default();
        self.give_address(call, object).await?;
        self.give_ports(call, object, &before).await?;
        let after = held(object);
        let mut writes = Vec::new();
        for key in after.iter().filter(|key| !before.contains(key)) {
            if self.is_taken(key).await? {
                return Err(taken(call, object, key));
            }
            let owner = format!("{}/{}", call.namespace, super::metadata::text(object, "name"));
            writes.push(Write {
                key: key.clone().into(),
                op: Op::Put { value: owner.into(), ttl: None },
                condition: Condition::Absent,
            });
        }
        writes.extend(before.into_iter().filter(|key| !after.contains(key)).map(release));
        Ok(writes)
    }

    async fn is_taken(&self, key: &str) -> Result<bool, Status> {
        let entry = self.store().get(key.as_bytes(), At::Latest).await.map_err(|error| store_error(&error))?;
        Ok(entry.is_some())
    }

    async fn give_address(&self, call: &Call<'_>, object: &mut Value) -> Result<(), Status> {
        let name = super::metadata::text(object, "name").to_owned();
        let spec = &mut object["spec"];
        if spec["type"] == "ExternalName" {
            return Ok(());
        }
        let path = Path::new("spec").child("clusterIPs");
        let invalid = |error: FieldError| Err(Status::invalid(&call.kind.group_kind(), &name, &vec![error]));
        match spec["clusterIP"].as_str().unwrap_or_default() {
            "None" => {}
            "" => {
                let Some(address) = self.free_address().await? else {
                    return Err(Status::internal("failed to allocate a serviceIP: range is full"));
                };
                spec["clusterIP"] = address.to_string().into();
            }
            given => match given.parse::<Ipv4Addr>() {
                Ok(address) if self.ranges.contains(address) => {}
                Ok(_) => {
                    let (network, bits) = self.ranges.service_network;
                    let why = format!(
                        "failed to allocate IP {given}: the provided IP ({given}) is not in the valid range. The range of valid IPs is {network}/{bits}"
                    );
                    return invalid(FieldError::invalid(&path, serde_json::json!([given]), why));
                }
                Err(_) => {
                    return invalid(FieldError::invalid(
                        &path,
                        serde_json::json!([given]),
                        "must be an IPv4 address: this cluster's Service network is IPv4",
                    ));
                }
            },
        }
        spec["clusterIPs"] = serde_json::json!([spec["clusterIP"]]);
        if spec["ipFamilies"].as_array().is_none_or(Vec::is_empty) {
            spec["ipFamilies"] = serde_json::json!(["IPv4"]);
        }
        if spec["ipFamilyPolicy"].is_null() {
            spec["ipFamilyPolicy"] = "SingleStack".into();
        }
        Ok(())
    }

    async fn free_address(&self) -> Result<Option<Ipv4Addr>, Status> {
        let size = self.ranges.size();
        // The lower part of the range is left to addresses that people choose (KEP-3070).
        let reserved = (size / 16).clamp(16, 256).min(size / 2);
        let random = || reserved + 1 + (uuid::Uuid::new_v4().as_u128() % u128::from(size - reserved)) as u32;
        for _ in 0..PROBES {
            let address = self.ranges.address(random());
            if !self.is_taken(&address_key(&address.to_string())).await? {
                return Ok(Some(address));
            }
        }
        let taken = self.all_taken("allocations/clusterips/").await?;
        let free = |offset: &u32| !taken.contains(&address_key(&self.ranges.address(*offset).to_string()));
        Ok((reserved + 1..=size).chain(1..=reserved).find(free).map(|offset| self.ranges.address(offset)))
    }

    async fn all_taken(&self, prefix: &'static str) -> Result<std::collections::HashSet<String>, Status> {
        let page = self
            .store()
            .list(&Range::prefix(prefix), At::Latest, 0, None)
            .await
            .map_err(|error| store_error(&error))?;
        Ok(page.entries.into_iter().map(|entry| String::from_utf8_lossy(&entry.key).into_owned()).collect())
    }

    async fn give_ports(&self, call: &Call<'_>, object: &mut Value, before: &[String]) -> Result<(), Status> {
        let wants = match object["spec"]["type"].as_str() {
            Some("NodePort") => true,
            Some("LoadBalancer") => object["spec"]["allocateLoadBalancerNodePorts"] != Value::Bool(false),
            _ => false,
        };
        let name = super::metadata::text(object, "name").to_owned();
        let Some(ports) = object["spec"]["ports"].as_array_mut() else { return Ok(()) };
        let mut chosen: Vec<i64> = ports.iter().filter_map(|port| port["nodePort"].as_i64()).collect();
        for (at, port) in ports.iter_mut().enumerate() {
            match port["nodePort"].as_i64().filter(|given| *given > 0) {
                Some(given) => {
                    let fits = u16::try_from(given).is_ok_and(|given| self.ranges.node_ports.contains(&given));
                    if !fits && !before.contains(&port_key(given)) {
                        let path = Path::new("spec").child("ports").index(at).child("nodePort");
                        let (low, high) = (self.ranges.node_ports.start(), self.ranges.node_ports.end());
                        let why = format!(
                            "provided port is not in the valid range. The range of valid ports is {low}-{high}"
                        );
                        let errors = vec![FieldError::invalid(&path, given, why)];
                        return Err(Status::invalid(&call.kind.group_kind(), &name, &errors));
                    }
                }
                None if wants => {
                    let Some(free) = self.free_port(&chosen).await? else {
                        return Err(Status::internal("failed to allocate a nodePort: range is full"));
                    };
                    chosen.push(free);
                    port["nodePort"] = free.into();
                }
                None => {}
            }
        }
        let spec = &mut object["spec"];
        let checked = spec["type"] == "LoadBalancer" && spec["externalTrafficPolicy"] == "Local";
        if checked && spec["healthCheckNodePort"].as_i64().unwrap_or(0) == 0 {
            let Some(free) = self.free_port(&chosen).await? else {
                return Err(Status::internal("failed to allocate a nodePort: range is full"));
            };
            spec["healthCheckNodePort"] = free.into();
        }
        Ok(())
    }

    async fn free_port(&self, chosen: &[i64]) -> Result<Option<i64>, Status> {
        let (low, high) = (*self.ranges.node_ports.start(), *self.ranges.node_ports.end());
        let size = u128::from(high - low) + 1;
        for _ in 0..PROBES {
            let port = i64::from(low) + (uuid::Uuid::new_v4().as_u128() % size) as i64;
            if !chosen.contains(&port) && !self.is_taken(&port_key(port)).await? {
                return Ok(Some(port));
            }
        }
        let taken = self.all_taken("allocations/nodeports/").await?;
        let free = |port: &i64| !chosen.contains(port) && !taken.contains(&port_key(*port));
        Ok((i64::from(low)..=i64::from(high)).find(free))
    }
}

/// Upstream's words for an address or port that another Service has.
fn taken(call: &Call<'_>, object: &Value, key: &str) -> Status {
    let name = super::metadata::text(object, "name");
    let spec = Path::new("spec");
    let error = if let Some(address) = key.strip_prefix("allocations/clusterips/") {
        let why = format!("failed to allocate IP {address}: provided IP is already allocated");
        FieldError::invalid(&spec.child("clusterIPs"), serde_json::json!([address]), why)
    } else {
        let port: i64 = key.rsplit('/').next().and_then(|port| port.parse().ok()).unwrap_or_default();
        let ports = object["spec"]["ports"].as_array();
        let at = ports.and_then(|ports| ports.iter().position(|there| there["nodePort"] == port)).unwrap_or_default();
        FieldError::invalid(
            &spec.child("ports").index(at).child("nodePort"),
            port,
            "provided port is already allocated",
        )
    };
    Status::invalid(&call.kind.group_kind(), name, &vec![error])
}

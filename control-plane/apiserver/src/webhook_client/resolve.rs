//! From a Service to one of its ready endpoints, by what the watch cache has (k8s.io/apiserver/pkg/util/proxy `ResolveEndpoint`).

use serde_json::Value;
use skep_api::{GroupResource, Status};

use crate::cache::{Cache, Filter};
use crate::keys;

/// Which Service an EndpointSlice is of.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Where to connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// A name or an address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// A ready endpoint of a Service's port, another one each time.
///
/// # Errors
/// 404 for a Service that is not there, 503 when it has no such port or no ready endpoint.
pub fn resolve_service(cache: &Cache, namespace: &str, name: &str, port: u16) -> Result<Address, Status> {
    let services = GroupResource::new("", "services");
    let service = cache.get(&services, namespace, name).ok_or_else(|| {
        // Upstream's listers leave the group out of the words too.
        Status::not_found(&GroupResource::new("", "service"), name)
    })?;
    let slices = GroupResource::new("discovery.k8s.io", "endpointslices");
    let wanted = name.to_owned();
    let filter = Filter {
        prefix: keys::range(&slices, namespace).start,
        matches: Some(Box::new(move |object| {
            object.index.labels.iter().any(|(key, value)| key == SERVICE_NAME && *value == wanted)
        })),
    };
    let slices = cache.resource(&slices).map(|resource| resource.list(&filter, None, 0).objects).unwrap_or_default();
    let slices: Vec<Value> = slices.iter().map(|slice| slice.to_value()).collect();
    let offset = uuid::Uuid::new_v4().as_u64_pair().0 as usize;
    choose(&service.to_value(), name, &slices, port, offset)
}

/// One of the ready endpoints; `offset` chooses among them.
fn choose(service: &Value, name: &str, slices: &[Value], port: u16, offset: usize) -> Result<Address, Status> {
    if service["spec"]["type"] == "ExternalName" {
        return Err(Status::internal("unsupported service type \"ExternalName\""));
    }
    let items = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let ports = items(&service["spec"]["ports"]);
    let Some(wanted) = ports.iter().find(|there| there["port"].as_u64() == Some(u64::from(port))) else {
        return Err(Status::unavailable(format!("no service port {port} found for service {name:?}"), 0));
    };
    let wanted = wanted["name"].as_str().unwrap_or_default();
    let mut addresses = Vec::new();
    for slice in slices {
        let ports = items(&slice["ports"]);
        let port = ports.iter().find(|port| port["name"].as_str().unwrap_or_default() == wanted);
        let Some(port) = port.and_then(|port| port["port"].as_u64()).and_then(|port| u16::try_from(port).ok()) else {
            continue;
        };
        for endpoint in items(&slice["endpoints"]) {
            let ready = endpoint["conditions"]["ready"].as_bool().unwrap_or(true);
            if let Some(host) = endpoint["addresses"][0].as_str().filter(|_| ready) {
                addresses.push(Address { host: host.to_owned(), port });
            }
        }
    }
    if addresses.is_empty() {
        return Err(Status::unavailable(format!("no endpoints available for service {name:?}"), 0));
    }
    let chosen = offset % addresses.len();
    Ok(addresses.swap_remove(chosen))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_ready_endpoint_of_the_port_is_chosen() {
        let service = json!({"spec": {"ports": [{"name": "web", "port": 443}, {"name": "other", "port": 80}]}});
        let slices = [json!({
            "ports": [{"name": "web", "port": 8443}],
            "endpoints": [
                {"addresses": ["10.0.0.1"], "conditions": {"ready": false}},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": true}},
                {"addresses": ["10.0.0.3"]},
            ],
        })];
        let at = |port, offset| choose(&service, "s", &slices, port, offset).map(|found| (found.host, found.port));
        assert_eq!(at(443, 0).unwrap(), ("10.0.0.2".to_owned(), 8443));
        assert_eq!(at(443, 1).unwrap(), ("10.0.0.3".to_owned(), 8443));
        assert_eq!(at(80, 0).unwrap_err().message, "no endpoints available for service \"s\"");
        assert_eq!(at(81, 0).unwrap_err().message, "no service port 81 found for service \"s\"");
    }
}

//! The variables that tell a container where the Services of its namespace are (upstream: `envvars.FromServices`).
//!
//! Invariant: pure; only Services with a cluster address are told of.

use std::collections::BTreeMap;
use std::sync::Arc;

use skep_client::slim::SlimService;

/// Variables by name. The API server's own Service is always told of, the others of `namespace` if `links` is set
/// (`enableServiceLinks`).
pub fn service_variables(services: &[Arc<SlimService>], namespace: &str, links: bool) -> BTreeMap<String, String> {
    let mut told: BTreeMap<&str, &SlimService> = BTreeMap::new();
    for service in services {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let of = service.metadata.namespace.as_deref().unwrap_or_default();
        if cluster_ip(service).is_none() {
            continue;
        }
        if of == "default" && name == "kubernetes" {
            // A Service of this name in the pod's own namespace comes first.
            told.entry(name).or_insert(service);
        } else if of == namespace && links {
            told.insert(name, service);
        }
    }
    told.into_iter().flat_map(|(name, service)| variables_of(name, service)).collect()
}

fn cluster_ip(service: &SlimService) -> Option<&str> {
    service.spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None")
}

fn variables_of(name: &str, service: &SlimService) -> Vec<(String, String)> {
    let (Some(ip), Some(first)) = (cluster_ip(service), service.spec.ports.first()) else { return vec![] };
    let prefix = variable_name(name);
    let mut variables = vec![
        (format!("{prefix}_SERVICE_HOST"), ip.to_owned()),
        (format!("{prefix}_SERVICE_PORT"), first.port.to_string()),
    ];
    for port in service.spec.ports.iter().filter(|port| !port.name.is_empty()) {
        variables.push((format!("{prefix}_SERVICE_PORT_{}", variable_name(&port.name)), port.port.to_string()));
    }
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    for (index, port) in service.spec.ports.iter().enumerate() {
        let protocol = if port.protocol.is_empty() { "TCP" } else { &port.protocol };
        let lower = protocol.to_lowercase();
        let address = format!("{lower}://{host}:{}", port.port);
        if index == 0 {
            variables.push((format!("{prefix}_PORT"), address.clone()));
        }
        let of_port = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
        variables.push((format!("{of_port}_PROTO"), lower));
        variables.push((format!("{of_port}_PORT"), port.port.to_string()));
        variables.push((format!("{of_port}_ADDR"), ip.to_owned()));
        variables.push((of_port, address));
    }
    variables
}

fn variable_name(name: &str) -> String {
    name.replace('-', "_").to_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn service(value: Value) -> Arc<SlimService> {
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn cluster() -> Vec<Arc<SlimService>> {
        vec![
            service(json!({"metadata": {"name": "kubernetes", "namespace": "default"},
                "spec": {"clusterIP": "10.0.0.1", "ports": [{"name": "https", "port": 443}]}})),
            service(json!({"metadata": {"name": "my-db", "namespace": "app"},
                "spec": {"clusterIP": "fd00::5", "ports": [{"port": 53, "protocol": "UDP"}]}})),
            service(json!({"metadata": {"name": "none", "namespace": "app"},
                "spec": {"clusterIP": "None", "ports": [{"port": 1}]}})),
            service(json!({"metadata": {"name": "else", "namespace": "other"},
                "spec": {"clusterIP": "10.0.0.9", "ports": [{"port": 1}]}})),
        ]
    }

    #[test]
    fn services_of_the_namespace_and_the_api_server_are_told_of() {
        let variables = service_variables(&cluster(), "app", true);
        let lines: Vec<_> = variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            lines,
            [
                "KUBERNETES_PORT=tcp://10.0.0.1:443",
                "KUBERNETES_PORT_443_TCP=tcp://10.0.0.1:443",
                "KUBERNETES_PORT_443_TCP_ADDR=10.0.0.1",
                "KUBERNETES_PORT_443_TCP_PORT=443",
                "KUBERNETES_PORT_443_TCP_PROTO=tcp",
                "KUBERNETES_SERVICE_HOST=10.0.0.1",
                "KUBERNETES_SERVICE_PORT=443",
                "KUBERNETES_SERVICE_PORT_HTTPS=443",
                "MY_DB_PORT=udp://[fd00::5]:53",
                "MY_DB_PORT_53_UDP=udp://[fd00::5]:53",
                "MY_DB_PORT_53_UDP_ADDR=fd00::5",
                "MY_DB_PORT_53_UDP_PORT=53",
                "MY_DB_PORT_53_UDP_PROTO=udp",
                "MY_DB_SERVICE_HOST=fd00::5",
                "MY_DB_SERVICE_PORT=53",
            ]
        );
    }

    #[test]
    fn without_links_only_the_api_server_is_told_of() {
        let variables = service_variables(&cluster(), "app", false);
        assert!(variables.keys().all(|name| name.starts_with("KUBERNETES_")) && !variables.is_empty());
    }
}

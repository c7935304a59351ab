//! The EndpointSlices that stand for Endpoints which a user made. Pure.
//!
//! Follows `endpointslicemirroring/reconciler.go` and `utils.go`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::endpoint_slice::reconcile::{MANAGED_BY, SERVICE_NAME};
use crate::runtime::controller_reference;

/// Who manages the slices.
pub(crate) const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
const NOT_COPIED: [&str; 2] =
    ["endpoints.kubernetes.io/last-change-trigger-time", "kubectl.kubernetes.io/last-applied-configuration"];
/// Upstream's `--mirroring-max-endpoints-per-subset`.
const LIMIT: usize = 1000;

/// A write.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    Create(EndpointSlice),
    Update(EndpointSlice),
    Delete(Arc<EndpointSlice>),
}

/// Whether Endpoints are mirrored, as far as they say it themselves.
pub(super) fn is_mirrored(endpoints: &Endpoints) -> bool {
    let has = |map: &Option<BTreeMap<String, String>>, key| map.as_ref().and_then(|map| map.get(key)).cloned();
    has(&endpoints.metadata.labels, SKIP).as_deref() != Some("true")
        && has(&endpoints.metadata.annotations, LEADER).is_none()
}

/// The writes; without Endpoints, all slices go.
pub(super) fn reconcile(endpoints: Option<&Endpoints>, slices: &[Arc<EndpointSlice>]) -> Vec<Action> {
    let mut left: Vec<Arc<EndpointSlice>> = slices.to_vec();
    left.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let mut actions = Vec::new();
    for wanted in endpoints.map(wanted).unwrap_or_default() {
        let matches = |own: &Arc<EndpointSlice>| {
            own.address_type == wanted.address_type && sorted(own.ports.as_deref()) == sorted(wanted.ports.as_deref())
        };
        let Some(position) = left.iter().position(matches) else {
            actions.push(Action::Create(wanted));
            continue;
        };
        let own = left.remove(position);
        let annotations = |slice: &EndpointSlice| slice.metadata.annotations.clone().unwrap_or_default();
        let same = own.endpoints == wanted.endpoints
            && own.metadata.labels == wanted.metadata.labels
            && annotations(&own) == annotations(&wanted);
        if !same {
            let mut changed = (*own).clone();
            changed.endpoints = wanted.endpoints;
            changed.metadata.labels = wanted.metadata.labels;
            changed.metadata.annotations = wanted.metadata.annotations;
            actions.push(Action::Update(changed));
        }
    }
    actions.extend(left.into_iter().map(Action::Delete));
    actions
}

fn wanted(endpoints: &Endpoints) -> Vec<EndpointSlice> {
    // Subsets with the same ports share their slices.
    let mut groups: BTreeMap<String, (EndpointSlice, BTreeMap<String, Endpoint>)> = BTreeMap::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ports = ports(subset);
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let others = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
        for (address, ready) in ready.chain(others).take(LIMIT) {
            let Some((family, endpoint)) = endpoint(address, ready) else { continue };
            let key = format!("{family}/{:?}", sorted(Some(&ports)));
            let (_, own) = groups.entry(key).or_insert_with(|| {
                let slice = EndpointSlice {
                    address_type: family.to_owned(),
                    endpoints: None,
                    metadata: metadata(endpoints),
                    ports: Some(ports.clone()),
                };
                (slice, BTreeMap::new())
            });
            own.insert(endpoint.addresses.join(","), endpoint);
        }
    }
    let slices = groups.into_values().map(|(slice, endpoints)| {
        let endpoints = endpoints.into_values().take(LIMIT).collect();
        EndpointSlice { endpoints: Some(endpoints), ..slice }
    });
    slices.collect()
}

fn metadata(endpoints: &Endpoints) -> ObjectMeta {
    let name = endpoints.metadata.name.clone().unwrap_or_default();
    let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), name.clone());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let mut annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|key, _| !NOT_COPIED.contains(&key.as_str()));
    ObjectMeta {
        generate_name: Some(format!("{name}-")),
        namespace: endpoints.metadata.namespace.clone(),
        labels: Some(labels),
        annotations: Some(annotations).filter(|annotations| !annotations.is_empty()),
        owner_references: Some(vec![controller_reference(endpoints)]),
        ..ObjectMeta::default()
    }
}

fn ports(subset: &EndpointSubset) -> Vec<EndpointPort> {
    let convert = |port: &k8s_openapi::api::core::v1::EndpointPort| EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.port),
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
        app_protocol: port.app_protocol.clone(),
    };
    subset.ports.iter().flatten().map(convert).collect()
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Option<(&'static str, Endpoint)> {
    let ip: IpAddr = address.ip.parse().ok()?;
    let endpoint = Endpoint {
        addresses: vec![ip.to_string()],
        conditions: Some(EndpointConditions { ready: Some(ready), serving: None, terminating: None }),
        hostname: address.hostname.clone().filter(|name| !name.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    };
    Some((if ip.is_ipv4() { "IPv4" } else { "IPv6" }, endpoint))
}

fn sorted(ports: Option<&[EndpointPort]>) -> Vec<String> {
    let text = |port: &EndpointPort| {
        let name = port.name.as_deref().unwrap_or_default();
        format!("{name}/{:?}/{:?}/{:?}", port.port, port.protocol, port.app_protocol)
    };
    let mut ports: Vec<String> = ports.unwrap_or_default().iter().map(text).collect();
    ports.sort_unstable();
    ports
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn endpoints(ips: &[&str]) -> Endpoints {
        let addresses: Vec<_> = ips.iter().map(|ip| json!({"ip": ip})).collect();
        serde_json::from_value(json!({
            "metadata": {"name": "custom", "namespace": "n", "uid": "u", "labels": {"a": "b"}},
            "subsets": [{"addresses": addresses, "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}],
        }))
        .expect("Endpoints")
    }

    #[test]
    fn a_slice_follows_the_endpoints_by_the_fewest_writes() {
        let first = reconcile(Some(&endpoints(&["10.1.2.3"])), &[]);
        let [Action::Create(slice)] = &first[..] else { panic!("{first:?}") };
        assert_eq!(slice.metadata.labels.as_ref().expect("labels")["kubernetes.io/service-name"], "custom");
        assert_eq!((slice.address_type.as_str(), slice.endpoints.as_ref().expect("endpoints").len()), ("IPv4", 1));
        let own = [Arc::new(slice.clone())];
        assert!(reconcile(Some(&endpoints(&["10.1.2.3"])), &own).is_empty());
        let changed = reconcile(Some(&endpoints(&["10.1.2.3", "10.1.2.4"])), &own);
        assert!(matches!(&changed[..], [Action::Update(_)]), "{changed:?}");
        assert!(matches!(&reconcile(None, &own)[..], [Action::Delete(_)]));
        assert!(matches!(&reconcile(Some(&endpoints(&[])), &own)[..], [Action::Delete(_)]));
    }

    #[test]
    fn both_address_families_have_slices_of_their_own() {
        let actions = reconcile(Some(&endpoints(&["10.1.2.3", "fd00::1"])), &[]);
        assert_eq!(actions.len(), 2);
    }
}

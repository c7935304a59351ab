//! Which EndpointSlices a Service's pods make, and the fewest writes that get there. Pure.
//!
//! Invariant: applied to what is there, the actions give each address of the Service exactly one place, and a second pass then
//! has nothing to do. Follows upstream's `endpointslice/reconciler.go`.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use skep_client::slim::SlimPod;

use crate::runtime::controller_reference;

/// The label that names the Service.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label that names who manages a slice.
pub(crate) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
pub(super) const MANAGER: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";
/// Upstream's `--max-endpoints-per-slice`.
const LIMIT: usize = 100;

/// A write.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    Create(EndpointSlice),
    Update(EndpointSlice),
    Delete(Arc<EndpointSlice>),
}

/// The writes for a Service with a selector. `pods` are those that it selects, `slices` those that this controller manages for
/// it, `zones` has the zone of each node that is in one.
pub(super) fn reconcile(
    service: &Service,
    pods: &[Arc<SlimPod>],
    zones: &HashMap<String, String>,
    slices: &[Arc<EndpointSlice>],
) -> Vec<Action> {
    let families = service.spec.as_ref().and_then(|spec| spec.ip_families.clone()).unwrap_or_default();
    let families = if families.is_empty() { vec!["IPv4".to_owned()] } else { families };
    let (mut slices, others): (Vec<_>, Vec<_>) =
        slices.iter().cloned().partition(|slice| families.contains(&slice.address_type));
    slices.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let mut actions: Vec<Action> = others.into_iter().map(Action::Delete).collect();
    for family in &families {
        let own: Vec<_> = slices.iter().filter(|slice| slice.address_type == *family).cloned().collect();
        actions.extend(of_family(service, family, pods, zones, own));
    }
    actions
}

fn of_family(
    service: &Service,
    family: &str,
    pods: &[Arc<SlimPod>],
    zones: &HashMap<String, String>,
    mut slices: Vec<Arc<EndpointSlice>>,
) -> Vec<Action> {
    // Pods that map named ports to other numbers are in slices of their own. The key is the ports' text, as they have no order.
    let mut groups: BTreeMap<String, (Vec<EndpointPort>, BTreeMap<String, Endpoint>)> = BTreeMap::new();
    for pod in pods {
        let Some(endpoint) = endpoint(service, family, pod, zones) else { continue };
        let ports = ports(service, pod);
        let (_, endpoints) = groups.entry(text(&ports)).or_insert_with(|| (ports, BTreeMap::new()));
        endpoints.insert(identity(&endpoint), endpoint);
    }
    if groups.is_empty() {
        // A Service without endpoints has one empty slice, so that its consumers see that it is known.
        groups.insert(text(&[]), (Vec::new(), BTreeMap::new()));
    }
    let mut actions = Vec::new();
    for (key, (ports, endpoints)) in groups {
        let (own, rest): (Vec<_>, Vec<_>) =
            slices.into_iter().partition(|slice| text(slice.ports.as_deref().unwrap_or_default()) == key);
        slices = rest;
        actions.extend(pack(service, family, &ports, endpoints, own));
    }
    actions.extend(slices.into_iter().map(Action::Delete));
    actions
}

/// Keeps each endpoint in the slice that has it, fills what is left into slices that change anyway, then into one that has
/// room for all of it, then into new ones.
fn pack(
    service: &Service,
    family: &str,
    ports: &[EndpointPort],
    mut wanted: BTreeMap<String, Endpoint>,
    slices: Vec<Arc<EndpointSlice>>,
) -> Vec<Action> {
    let placeholder = wanted.is_empty();
    let template = EndpointSlice {
        address_type: family.to_owned(),
        endpoints: Some(Vec::new()),
        metadata: metadata(service),
        ports: Some(ports.to_vec()),
    };
    let mut kept: Vec<(Arc<EndpointSlice>, Vec<Endpoint>)> = Vec::new();
    for slice in slices {
        let has = slice.endpoints.iter().flatten().take(LIMIT);
        let stay: Vec<Endpoint> = has.filter_map(|endpoint| wanted.remove(&identity(endpoint))).collect();
        kept.push((slice, stay));
    }
    let changes = |slice: &EndpointSlice, stay: &[Endpoint]| slice.endpoints.as_deref().unwrap_or_default() != stay;
    let mut left: Vec<Endpoint> = wanted.into_values().collect();
    for (slice, stay) in &mut kept {
        if changes(slice, stay) {
            let room = LIMIT.saturating_sub(stay.len()).min(left.len());
            stay.extend(left.drain(..room));
        }
    }
    if !left.is_empty()
        && let Some((_, stay)) = kept.iter_mut().find(|(_, stay)| stay.len() + left.len() <= LIMIT)
    {
        stay.append(&mut left);
    }
    let mut actions = Vec::new();
    let mut empty_stays = placeholder;
    for (slice, stay) in kept {
        if stay.is_empty() && !std::mem::take(&mut empty_stays) {
            actions.push(Action::Delete(slice));
            continue;
        }
        let labels_differ = slice.metadata.labels != template.metadata.labels
            || slice.metadata.owner_references != template.metadata.owner_references;
        if labels_differ || changes(&slice, &stay) {
            let mut changed = (*slice).clone();
            changed.metadata.labels.clone_from(&template.metadata.labels);
            changed.metadata.owner_references.clone_from(&template.metadata.owner_references);
            changed.endpoints = Some(stay);
            actions.push(Action::Update(changed));
        }
    }
    if empty_stays {
        actions.push(Action::Create(template.clone()));
    }
    let new = left.chunks(LIMIT).map(|part| EndpointSlice { endpoints: Some(part.to_vec()), ..template.clone() });
    actions.extend(new.map(Action::Create));
    actions
}

fn metadata(service: &Service) -> ObjectMeta {
    let name = service.metadata.name.clone().unwrap_or_default();
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    labels.insert(SERVICE_NAME.to_owned(), name.clone());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let address = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()).unwrap_or_default();
    if address.is_empty() || address == "None" {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    ObjectMeta {
        generate_name: Some(format!("{name}-")),
        namespace: service.metadata.namespace.clone(),
        labels: Some(labels),
        owner_references: Some(vec![controller_reference(service)]),
        ..ObjectMeta::default()
    }
}

/// The endpoint that a pod is of a Service, in one address family; `None` for one that has ended or has no address.
pub(crate) fn endpoint(
    service: &Service,
    family: &str,
    pod: &SlimPod,
    zones: &HashMap<String, String>,
) -> Option<Endpoint> {
    if pod.is_terminal() {
        return None;
    }
    let of_family =
        |address: &&str| address.parse::<IpAddr>().is_ok_and(|address| address.is_ipv4() == (family == "IPv4"));
    let address = pod.status.pod_ips.iter().map(|address| &**address).find(of_family)?;
    let (serving, terminating) = (pod.is_ready(), pod.is_terminating());
    let early = service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses).unwrap_or(false);
    let in_subdomain = pod.spec.subdomain.as_deref() == service.metadata.name.as_deref();
    Some(Endpoint {
        addresses: vec![address.to_owned()],
        conditions: Some(EndpointConditions {
            ready: Some(early || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: pod.spec.hostname.as_deref().filter(|name| in_subdomain && !name.is_empty()).map(str::to_owned),
        node_name: pod.spec.node_name.as_deref().map(str::to_owned),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        zone: pod.spec.node_name.as_deref().and_then(|node| zones.get(node)).cloned(),
        ..Endpoint::default()
    })
}

/// The Service's ports that the pod has.
pub(crate) fn ports(service: &Service, pod: &SlimPod) -> Vec<EndpointPort> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let found = ports.filter_map(|port| {
        Some(EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(number(port, pod)?),
            protocol: Some(protocol(port).to_owned()),
            app_protocol: port.app_protocol.clone(),
        })
    });
    found.collect()
}

/// The pod's number for a Service's port; `None` if the pod has no port of that name (`podutil.FindPort`).
fn number(port: &ServicePort, pod: &SlimPod) -> Option<i32> {
    match &port.target_port {
        None | Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let sidecars =
                pod.spec.init_containers.iter().filter(|own| own.restart_policy.as_deref() == Some("Always"));
            let mut named = pod.spec.containers.iter().chain(sidecars).flat_map(|container| &container.ports);
            let is_it = |own: &&skep_client::slim::SlimPort| {
                own.name.as_deref() == Some(name.as_str()) && *own.protocol == *protocol(port)
            };
            named.find(is_it).map(|own| own.container_port)
        }
    }
}

fn protocol(port: &ServicePort) -> &str {
    port.protocol.as_deref().unwrap_or("TCP")
}

fn text(ports: &[EndpointPort]) -> String {
    let one = |port: &EndpointPort| {
        let name = port.name.as_deref().unwrap_or_default();
        format!("{name}/{:?}/{:?}/{:?}", port.port, port.protocol, port.app_protocol)
    };
    let mut all: Vec<String> = ports.iter().map(one).collect();
    all.sort_unstable();
    all.join(",")
}

/// What makes two endpoints the same one, whatever its state: the pod and the address.
fn identity(endpoint: &Endpoint) -> String {
    let target = endpoint.target_ref.as_ref();
    let part = |value: Option<&String>| value.cloned().unwrap_or_default();
    format!(
        "{}/{}/{}",
        part(target.and_then(|target| target.name.as_ref())),
        part(target.and_then(|target| target.uid.as_ref())),
        part(endpoint.addresses.first())
    )
}

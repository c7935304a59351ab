//! What a cluster has from its first second: the system namespaces, upstream's RBAC roles and bindings, and the Service that leads to the API server.
//! Every server makes sure of it at its start, and again when somebody took it away; all of it is idempotent.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use skep_api::gvk::GroupResource;
use skep_api::{Reason, Status};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::admission::Objects;
use crate::auth::{User, bootstrap};
use crate::flow_objects;
use crate::rest::{Call, Engine, Query};

/// How often the system's own objects are looked after.
const PERIOD: Duration = Duration::from_secs(10);
const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// Where clients inside the cluster find this server.
#[derive(Clone, Debug)]
pub struct Advertised {
    /// The address that pods and nodes reach it by.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
}

/// Makes sure of the system's objects, now and then again, until cancelled. `done` is set when they are there for the first time.
pub async fn run(
    engine: Arc<Engine>,
    advertised: Advertised,
    done: tokio::sync::watch::Sender<bool>,
    shutdown: CancellationToken,
) {
    let mut told = String::new();
    loop {
        match ensure(&engine, &advertised).await {
            Ok(()) => {
                told.clear();
                if !done.send_replace(true) {
                    info!("the system's namespaces, roles and services are there");
                }
            }
            Err(status) if status.message == told => {}
            Err(status) => {
                warn!(%status, "can't make the system's objects yet");
                told = status.message;
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(if *done.borrow() { PERIOD } else { Duration::from_millis(200) }) => {}
        }
    }
}

async fn ensure(engine: &Engine, advertised: &Advertised) -> Result<(), Status> {
    let namespaces = GroupResource::new("", "namespaces");
    engine.cache.wait_until_loaded().await?;
    engine.cache.wait_for_latest(&namespaces).await?;
    for name in NAMESPACES {
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
        ensure_object(engine, ("", "v1", "namespaces"), "", namespace, |_| None).await?;
    }
    ensure_roles(engine).await?;
    for (plural, objects) in [
        ("prioritylevelconfigurations", flow_objects::priority_levels()),
        ("flowschemas", flow_objects::flow_schemas()),
    ] {
        for object in objects {
            ensure_object(engine, ("flowcontrol.apiserver.k8s.io", "v1", plural), "", object, |_| None).await?;
        }
    }
    ensure_service_network(engine).await?;
    ensure_service(engine, advertised).await
}

async fn ensure_roles(engine: &Engine) -> Result<(), Status> {
    let existing = |resource: &str, namespace: &str, name: &str| {
        let resource =
            GroupResource { group: "rbac.authorization.k8s.io".into(), resource: resource.to_owned().into() };
        engine.find(&resource, namespace, name)
    };
    for write in bootstrap::reconcile(&existing) {
        let (plural, namespace) = (write.resource, write.namespace.clone());
        let wanted = write.object;
        ensure_object(engine, ("rbac.authorization.k8s.io", "v1", plural), &namespace, wanted.clone(), |_| {
            Some(wanted.clone())
        })
        .await?;
    }
    let resource = GroupResource { group: "rbac.authorization.k8s.io".into(), resource: "clusterroles".into() };
    let stored = Objects::list(&*engine.cache, &resource, None);
    let roles: Vec<Value> = stored.iter().map(|role| (**role).clone()).collect();
    for write in bootstrap::aggregation_writes(&roles) {
        let wanted = write.object;
        ensure_object(engine, ("rbac.authorization.k8s.io", "v1", "clusterroles"), "", wanted.clone(), |_| {
            Some(wanted.clone())
        })
        .await?;
    }
    Ok(())
}

/// The network that Services get their addresses from, as an object.
async fn ensure_service_network(engine: &Engine) -> Result<(), Status> {
    let (network, bits) = engine.ranges.service_network;
    let object = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
        "metadata": { "name": "kubernetes" }, "spec": { "cidrs": [format!("{network}/{bits}")] },
    });
    ensure_object(engine, ("networking.k8s.io", "v1", "servicecidrs"), "", object, |_| None).await
}

async fn ensure_service(engine: &Engine, advertised: &Advertised) -> Result<(), Status> {
    let address = engine.ranges.api_server();
    let service = service(address, advertised.port);
    ensure_object(engine, ("", "v1", "services"), "default", service, |_| None).await?;
    // An address that only this machine has is no endpoint for pods: the Service stays without one.
    if advertised.address.is_loopback() {
        return Ok(());
    }
    let slice = slice(advertised);
    let wanted = slice.clone();
    ensure_object(engine, ("discovery.k8s.io", "v1", "endpointslices"), "default", slice, move |there| {
        let same = there["endpoints"][0]["addresses"] == wanted["endpoints"][0]["addresses"]
            && there["ports"][0]["port"] == wanted["ports"][0]["port"];
        (!same).then(|| wanted.clone())
    })
    .await?;
    // The older form, which clients still read; the slice above is no mirror of it.
    let endpoints = endpoints(advertised);
    let wanted = endpoints.clone();
    ensure_object(engine, ("", "v1", "endpoints"), "default", endpoints, move |there| {
        (there["subsets"] != wanted["subsets"]).then(|| wanted.clone())
    })
    .await
}

fn service(address: Ipv4Addr, port: u16) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "kubernetes", "labels": { "component": "apiserver", "provider": "kubernetes" } },
        "spec": {
            "clusterIP": address.to_string(), "clusterIPs": [address.to_string()], "type": "ClusterIP",
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "sessionAffinity": "None",
            "ports": [{ "name": "https", "protocol": "TCP", "port": 443, "targetPort": port }],
        },
    })
}

fn endpoints(advertised: &Advertised) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": { "name": "kubernetes", "labels": { "endpointslice.kubernetes.io/skip-mirror": "true" } },
        "subsets": [{
            "addresses": [{ "ip": advertised.address.to_string() }],
            "ports": [{ "name": "https", "port": advertised.port, "protocol": "TCP" }],
        }],
    })
}

fn slice(advertised: &Advertised) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": { "name": "kubernetes", "labels": { "kubernetes.io/service-name": "kubernetes" } },
        "addressType": if advertised.address.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{ "addresses": [advertised.address.to_string()], "conditions": { "ready": true } }],
        "ports": [{ "name": "https", "protocol": "TCP", "port": advertised.port }],
    })
}

/// Creates an object, or replaces the one that is there when `update` says by what.
async fn ensure_object(
    engine: &Engine,
    (group, version, plural): (&str, &str, &str),
    namespace: &str,
    object: Value,
    update: impl Fn(&Value) -> Option<Value>,
) -> Result<(), Status> {
    let table = engine.registry.table();
    let kind = table.get(group, version, plural).ok_or_else(Status::no_such_path)?;
    let user = User::system("system:apiserver");
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let query = Query { field_manager: "kube-apiserver".to_owned(), ..Query::default() };
    let call = Call { kind, user: &user, namespace, name: "", subresource: None, query: &query, now: Timestamp::now() };
    let Some(there) = engine.find(&kind.group_resource(), namespace, &name) else {
        return match engine.create_object(&call, object, Vec::new()).await {
            Ok(_) => Ok(()),
            // Another server was first.
            Err(status) if status.reason == Reason::AlreadyExists => Ok(()),
            Err(status) => Err(status),
        };
    };
    let Some(wanted) = update(&there) else { return Ok(()) };
    let call = Call { name: &name, ..call };
    engine.replace(&call, wanted).await
}

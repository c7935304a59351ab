//! The `proxy` subresources of pods, services and nodes: from the path to the server that answers.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::Value;
use skep_api::{GroupResource, Status};

use super::destination::{self, Destination, Target};
use super::reverse::{Hop, Passed, Transport, exchange, passed, prefix_of};
use super::{Kubelets, Peer, endpoint};
use crate::cache::Filter;
use crate::http::body::{Body, BoxError, full};
use crate::keys;
use crate::rest::{Call, Engine, served};

/// Which Service an EndpointSlice is of.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

impl Kubelets {
    /// Answers a request to a `proxy` subresource. `rest` is what follows it in the path.
    ///
    /// # Errors
    /// 400 for a name or an address that can't be, 404 for an object that is not there, 503 when nothing answers.
    pub(super) async fn proxy<B>(
        &self,
        engine: &Engine,
        call: &Call<'_>,
        rest: &str,
        parts: Parts,
        body: B,
    ) -> Result<Response<Body>, Status>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let (destination, transport) = self.destination(engine, call).await?;
        let path = match passed(&parts.method, &parts.uri, rest) {
            Passed::To(path) => path,
            Passed::Redirect(location) => return redirect(&location),
        };
        let hop = Hop {
            destination: &destination,
            transport,
            path: &path,
            prefix: prefix_of(parts.uri.path(), !call.namespace.is_empty()),
            peer: parts.extensions.get::<Peer>().map(|peer| peer.0),
        };
        exchange(hop, parts, body, &self.tunnels).await
    }

    async fn destination(&self, engine: &Engine, call: &Call<'_>) -> Result<(Destination, Transport), Status> {
        let target = Target::parse(call.name, &call.kind.singular)?;
        let called = Call { name: &target.name, ..*call };
        let transport = || if target.tls { Transport::Tls(self.any_certificate.clone()) } else { Transport::Plain };
        match &*call.kind.plural {
            "pods" => {
                let object = engine.newest(&called).await?;
                Ok((destination::pod(&target, &served(call.kind, &object))?, transport()))
            }
            "services" => Ok((service(engine, &called, &target).await?, transport())),
            _ => {
                let object = engine.newest(&called).await?;
                let kubelet = endpoint(&served(call.kind, &object))?;
                if target.port.is_empty() || target.port == kubelet.port.to_string() {
                    let target = Target { port: kubelet.port.to_string(), ..target };
                    return Ok((destination::node(&target, &kubelet.host)?, Transport::Tls(self.tls.clone())));
                }
                Ok((destination::node(&target, &kubelet.host)?, transport()))
            }
        }
    }
}

async fn service(engine: &Engine, call: &Call<'_>, target: &Target) -> Result<Destination, Status> {
    // A port by name needs no Service, only endpoints; one by number is translated by it.
    let object = match target.port.parse::<i64>() {
        Ok(_) => Some(served(call.kind, &*engine.newest(call).await?)),
        Err(_) => None,
    };
    let pods = GroupResource::new("", "pods");
    let is_pod = |endpoint: &Value| {
        let reference = &endpoint["targetRef"];
        let name = reference["name"].as_str().unwrap_or_default();
        if reference["namespace"].as_str() != Some(call.namespace) {
            return false;
        }
        let Some(pod) = engine.find(&pods, call.namespace, name) else { return false };
        let mut addresses = pod["status"]["podIPs"].as_array().into_iter().flatten();
        addresses.any(|address| address["ip"] == endpoint["addresses"][0])
    };
    let slices = slices(engine, call.namespace, &target.name);
    let offset = uuid::Uuid::new_v4().as_u128() as usize;
    destination::service(target, object.as_ref(), &slices, is_pod, offset)
}

/// The EndpointSlices of a Service.
fn slices(engine: &Engine, namespace: &str, service: &str) -> Vec<Value> {
    let resource = GroupResource::new("discovery.k8s.io", "endpointslices");
    let Some(cached) = engine.cache.resource(&resource) else { return Vec::new() };
    let name = service.to_owned();
    let filter = Filter {
        prefix: keys::range(&resource, namespace).start,
        matches: Some(Box::new(move |object| {
            object.index.labels.iter().any(|(key, value)| key == SERVICE_NAME && *value == name)
        })),
    };
    cached.list(&filter, None, 0).objects.iter().map(|object| object.to_value()).collect()
}

fn redirect(location: &str) -> Result<Response<Body>, Status> {
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    let location = HeaderValue::from_str(location).map_err(|error| Status::bad_request(error.to_string()))?;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

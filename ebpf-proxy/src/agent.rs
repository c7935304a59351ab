//! The loop of the agent: watches fill the state; what changed is compiled and brought to the kernel, many events at once.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::{Stream, StreamExt};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client, Resource};
use skep_client::slim::{SlimEndpointSlice, SlimService};
use tokio::sync::watch as watch_value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::compile::{Name, ServiceState, compile};
use crate::dns::Publisher;
use crate::kernel::{KernelError, Maps, Programs, monotonic_ns};
use crate::nodes::Nodes;
use crate::pods::HostPort;

/// How long events gather before the kernel is updated: a rollout brings many.
const GATHER: Duration = Duration::from_millis(20);
/// How often flows that are over are removed.
const COLLECT: Duration = Duration::from_secs(10);
/// How long after a failed update it is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Where the state comes from.
pub struct Sources {
    /// For Services and EndpointSlices.
    pub client: Client,
    /// The nodes, once they were read.
    pub nodes: watch_value::Receiver<Option<Nodes>>,
    /// Ports of this node that lead to its pods.
    pub host_ports: watch_value::Receiver<Vec<HostPort>>,
}

/// Keeps the maps, and the `names` that are served, equal to what the API says, until `stop`. Nothing is written before both kinds were listed once: an agent
/// that starts anew never empties maps that serve traffic. Programs that are `waiting` are attached when the maps were filled.
///
/// # Errors
/// When the maps can't be read at the start, or the programs not be attached.
pub async fn run(
    sources: Sources,
    mut state: ServiceState,
    mut maps: Maps,
    mut waiting: Option<Programs>,
    names: Option<Publisher>,
    stop: CancellationToken,
) -> Result<(), KernelError> {
    let Sources { client, mut nodes, mut host_ports } = sources;
    state.host_ports = host_ports.borrow_and_update().clone();
    let services: Api<SlimService> = Api::all(client.clone());
    let slices: Api<SlimEndpointSlice> = Api::all(client);
    let mut services = pin!(watch(services, watcher::Config::default()).default_backoff());
    let mut slices = pin!(watch(slices, watcher::Config::default()).default_backoff());
    let (mut service_list, mut slice_list) = (Listing::default(), Listing::default());
    let mut has_nodes = false;
    // Only what is masqueraded is decided by the nodes.
    let needs_nodes = !state.cluster_networks.is_empty();
    let mut collect = tokio::time::interval(COLLECT);
    collect.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut now = maps.entries()?;
    let mut due: Option<Instant> = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            event = next(&mut services) => service_list.apply(event, &mut state.services),
            event = next(&mut slices) => slice_list.apply(event, &mut state.slices),
            Ok(()) = nodes.changed(), if needs_nodes => if let Some(nodes) = nodes.borrow_and_update().clone() {
                state.nodes = nodes;
                has_nodes = true;
            },
            Ok(()) = host_ports.changed() => state.host_ports = host_ports.borrow_and_update().clone(),
            _ = collect.tick() => {
                match maps.collect(monotonic_ns()) {
                    Ok(0) => {}
                    Ok(removed) => debug!(removed, "flows that are over were removed"),
                    Err(error) => warn!(%error, "flows that are over could not be removed"),
                }
                continue;
            }
            () = wait(due) => {
                due = None;
                if let Some(names) = &names {
                    names.publish(&state, serial());
                }
                let wanted = compile(&state);
                match maps.update(&now, &wanted) {
                    Ok(changes) => {
                        info!(changes.written, changes.removed, services = wanted.services.len(), "maps updated");
                        if let Some(programs) = waiting.take() {
                            programs.attach()?;
                            info!("programs attached in the place of those with another layout");
                        }
                    }
                    Err(error) => {
                        warn!(%error, "the maps could not be updated and will be again");
                        due = Some(Instant::now() + RETRY);
                    }
                }
                // After a failure some entries were written and some not: what is there is read back.
                now = if due.is_some() { maps.entries()? } else { wanted };
                continue;
            }
        }
        if service_list.complete && slice_list.complete && (has_nodes || !needs_nodes) && due.is_none() {
            due = Some(Instant::now() + GATHER);
        }
    }
}

/// The zone's number: seconds, in the 32 bits that wrap around (RFC 1982).
fn serial() -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (now.as_secs() & u64::from(u32::MAX)) as u32
}

/// A kind's objects while they are listed anew; the state keeps the old ones until the list is whole.
pub(crate) struct Listing<K> {
    fresh: BTreeMap<Name, K>,
    pub(crate) complete: bool,
}

impl<K> Default for Listing<K> {
    fn default() -> Self {
        Self { fresh: BTreeMap::new(), complete: false }
    }
}

impl<K: Resource> Listing<K> {
    pub(crate) fn apply(&mut self, event: Result<Event<K>, watcher::Error>, state: &mut BTreeMap<Name, K>) {
        match event {
            Ok(Event::Init) => self.fresh.clear(),
            Ok(Event::InitApply(object)) => drop(self.fresh.insert(name(&object), object)),
            Ok(Event::InitDone) => {
                *state = std::mem::take(&mut self.fresh);
                self.complete = true;
            }
            Ok(Event::Apply(object)) => drop(state.insert(name(&object), object)),
            Ok(Event::Delete(object)) => drop(state.remove(&name(&object))),
            Err(error) => warn!(%error, "a watch failed and starts again"),
        }
    }
}

fn name(object: &impl Resource) -> Name {
    let meta = object.meta();
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

pub(crate) async fn next<T>(stream: &mut (impl Stream<Item = T> + Unpin)) -> T {
    match stream.next().await {
        Some(item) => item,
        // A watcher's stream has no end.
        None => std::future::pending().await,
    }
}

pub(crate) async fn wait(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

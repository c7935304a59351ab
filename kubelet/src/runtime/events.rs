//! What happens to containers' first processes, as containerd reports it.
//!
//! Invariant: only our containerd namespace's events come through, and never those of an exec. The stream ends with an
//! error when containerd does: whoever reads it subscribes again and relists, since events in between are lost.

use containerd_client::events::{TaskExit, TaskOom};
use containerd_client::services::v1::SubscribeRequest;
use containerd_client::services::v1::events_client::EventsClient;
use futures::{Stream, TryStreamExt, stream};
use prost::Message;

use super::containerd::{Containerd, RuntimeError, call};

/// Something that happened to a container's process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A container's first process ended.
    Exited {
        /// The container.
        container: String,
        /// 128 + N for signal N.
        exit_code: u32,
    },
    /// The kernel killed for memory in its cgroup.
    OutOfMemory {
        /// The container.
        container: String,
    },
}

impl Containerd {
    /// The namespace's exits and out-of-memory kills. It ends with an error, when containerd does.
    ///
    /// The subscription is made when the stream is first polled: containerd answers it only with the first event, so
    /// that awaiting the answer before going on would block on an idle node.
    pub fn events(&self) -> impl Stream<Item = Result<Event, RuntimeError>> + Send + use<> {
        let namespace = self.namespace().clone();
        let mut client = EventsClient::new(self.channel());
        let subscribed = async move { client.subscribe(SubscribeRequest { filters: vec![] }).await };
        stream::once(subscribed)
            .map_ok(|answer| answer.into_inner())
            .try_flatten()
            .map_err(call("event subscribe"))
            .try_filter_map(move |envelope| {
                let ours = envelope.namespace.as_bytes() == namespace.as_bytes();
                let event = envelope.event.filter(|_| ours).and_then(|any| decode(&any.type_url, &any.value));
                std::future::ready(Ok(event))
            })
    }
}

fn decode(kind: &str, value: &[u8]) -> Option<Event> {
    match kind.rsplit('/').next()? {
        "containerd.events.TaskExit" => {
            let exit = TaskExit::decode(value).ok()?;
            // A process of exec ends under an id of its own.
            (exit.id == exit.container_id)
                .then_some(Event::Exited { container: exit.container_id, exit_code: exit.exit_status })
        }
        "containerd.events.TaskOOM" => {
            Some(Event::OutOfMemory { container: TaskOom::decode(value).ok()?.container_id })
        }
        _ => None,
    }
}

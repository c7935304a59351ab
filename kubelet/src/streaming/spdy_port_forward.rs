//! Port-forward over SPDY (`portforward.k8s.io`): each connection is a pair of streams, `data` and `error`, that carry the same `requestid` and `port`.

use std::collections::HashMap;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::port_forward::Forward;
use super::spdy::{self, NewStream, Outlet};

/// How long the second stream of a pair may take (upstream's streamCreationTimeout).
const PAIRING: Duration = Duration::from_secs(30);

/// Pairs that may wait for their second stream.
const PAIRS: usize = 256;

/// Serves forwarded connections until the client leaves.
pub(crate) async fn serve<S>(io: S, forward: &Forward)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    spdy::run(io, |mut new| async move {
        let mut pairs: HashMap<String, NewStream> = HashMap::new();
        let mut tasks: FuturesUnordered<BoxFuture<'_, Done>> = FuturesUnordered::new();
        loop {
            tokio::select! {
                stream = new.recv() => match stream {
                    Some(stream) => tasks.extend(admit(stream, &mut pairs, forward).await),
                    None => return,
                },
                Some(done) = tasks.next() => match done {
                    Done::Carried => {}
                    Done::Expired(request) => {
                        if let Some(stream) = pairs.remove(&request) {
                            complain(&stream.outlet, &format!("(request={request}) timed out waiting for streams")).await;
                        }
                    }
                },
            }
        }
    })
    .await;
}

/// What a task of a session ended with.
enum Done {
    /// A connection is over.
    Carried,
    /// A request's time to become a pair is over.
    Expired(String),
}

/// Takes a stream: the first of a pair waits for a time, the second starts the connection.
async fn admit<'a>(
    stream: NewStream,
    pairs: &mut HashMap<String, NewStream>,
    forward: &'a Forward,
) -> Option<BoxFuture<'a, Done>> {
    let port = stream.header("port").and_then(|port| port.parse().ok()).filter(|port: &u16| *port > 0);
    let is_data = match stream.header("streamtype") {
        Some("data") => Some(true),
        Some("error") => Some(false),
        _ => None,
    };
    let outlet = stream.outlet.clone();
    let (Some(port), Some(is_data)) = (port, is_data) else {
        tracing::debug!("a stream without a port or a type");
        outlet.refuse().await;
        return None;
    };
    let request = match stream.header("requestid") {
        Some(request) if !request.is_empty() => request.to_owned(),
        // Early clients name no request, and open the error stream right before the data stream.
        _ => outlet.id.saturating_sub(if is_data { 2 } else { 0 }).to_string(),
    };
    let Some(first) = pairs.remove(&request) else {
        if pairs.len() >= PAIRS {
            outlet.refuse().await;
            return None;
        }
        pairs.insert(request.clone(), stream);
        outlet.accept().await;
        return Some(Box::pin(async move {
            tokio::time::sleep(PAIRING).await;
            Done::Expired(request)
        }));
    };
    let first_is_data = first.header("streamtype") == Some("data");
    if first_is_data == is_data {
        let kind = if is_data { "data" } else { "error" };
        let message = format!("error processing stream for request {request}: {kind} stream already assigned");
        pairs.insert(request, first);
        outlet.accept().await;
        complain(&outlet, &message).await;
        return None;
    }
    let (data, error) = if is_data { (stream, first.outlet) } else { (first, outlet.clone()) };
    outlet.accept().await;
    Some(Box::pin(async move {
        carry(data, error, port, forward).await;
        Done::Carried
    }))
}

async fn carry(data: NewStream, error: Outlet, port: u16, forward: &Forward) {
    let NewStream { input, reset, outlet, .. } = data;
    // A connection whose stream the client reset has nobody to report to.
    let carried = reset.run_until_cancelled(forward.carry(port, input, outlet.writer())).await;
    match carried {
        Some(Err(message)) => {
            complain(&error, &message).await;
            outlet.cancel().await;
        }
        Some(Ok(())) | None => error.finish().await,
    }
}

/// Says what is wrong on a stream and ends it; clients show it.
async fn complain(stream: &Outlet, message: &str) {
    tracing::debug!(message, "a forwarded connection failed");
    let mut writer = stream.writer();
    let _ = writer.write_all(message.as_bytes()).await;
    let _ = writer.shutdown().await;
}

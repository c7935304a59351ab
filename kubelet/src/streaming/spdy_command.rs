//! Exec and attach over SPDY: a stream each for the outcome (`error`), input, output, errors and terminal sizes, told apart by the header `streamtype`.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use super::Wants;
use super::command::Command;
use super::pipe::Resizes;
use super::spdy::{self, NewStream};
use super::websocket_command::RESIZES;
use crate::server::{BoxAsyncRead, BoxAsyncWrite, Streams, TerminalSize};

/// How long a client may take to open its streams (upstream's streamCreationTimeout).
const OPENING: Duration = Duration::from_secs(30);

/// Versions of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    /// `channel.k8s.io`.
    V1,
    /// `v2.channel.k8s.io`: the same for a server.
    V2,
    /// `v3.channel.k8s.io`: with terminal sizes.
    V3,
    /// `v4.channel.k8s.io`: the outcome is a metav1.Status.
    V4,
}

/// Runs the command once its streams are there, until it ends or the client leaves.
pub(crate) async fn serve<S>(io: S, version: Version, wants: Wants, command: Command)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    spdy::run(io, |new| async move {
        match tokio::time::timeout(OPENING, collect(new, version, wants)).await {
            Ok(Some(opened)) => opened.run(version, wants, command).await,
            Ok(None) => {}
            Err(_) => tracing::debug!("timed out waiting for client to create streams"),
        }
    })
    .await;
}

/// The streams of a command.
#[derive(Default)]
struct Opened {
    error: Option<NewStream>,
    stdin: Option<NewStream>,
    stdout: Option<NewStream>,
    stderr: Option<NewStream>,
    resize: Option<NewStream>,
}

/// Accepts streams until all that the command needs are there; later ones get no answer.
async fn collect(mut new: mpsc::Receiver<NewStream>, version: Version, wants: Wants) -> Option<Opened> {
    let mut opened = Opened::default();
    let resizable = wants.tty && version >= Version::V3;
    loop {
        let complete = opened.error.is_some()
            && opened.stdin.is_some() >= wants.stdin
            && opened.stdout.is_some() >= wants.stdout
            && opened.stderr.is_some() >= wants.stderr
            && opened.resize.is_some() >= resizable;
        if complete {
            return Some(opened);
        }
        let stream = new.recv().await?;
        let slot = match stream.header("streamtype") {
            Some("error") => &mut opened.error,
            Some("stdin") => &mut opened.stdin,
            Some("stdout") => &mut opened.stdout,
            Some("stderr") => &mut opened.stderr,
            Some("resize") => &mut opened.resize,
            other => {
                tracing::debug!(streamtype = other, "unexpected stream type");
                stream.outlet.refuse().await;
                continue;
            }
        };
        if slot.is_some() {
            stream.outlet.refuse().await;
            continue;
        }
        stream.outlet.accept().await;
        *slot = Some(stream);
    }
}

impl Opened {
    async fn run(self, version: Version, wants: Wants, command: Command) {
        let (resize, resizes) = mpsc::channel(RESIZES);
        let sizes = self.resize.map(|stream| stream.input).filter(|_| wants.tty);
        let writer = |stream: &Option<NewStream>, wanted: bool| -> Option<BoxAsyncWrite> {
            let stream = stream.as_ref().filter(|_| wanted)?;
            Some(Box::pin(stream.outlet.open_writer()))
        };
        let streams = Streams {
            stdout: writer(&self.stdout, wants.stdout),
            stderr: writer(&self.stderr, wants.stderr),
            stdin: self.stdin.filter(|_| wants.stdin).map(|stream| stream.input),
            resize: resizes,
            tty: wants.tty,
        };
        let error = self.error.map(|stream| stream.outlet);
        let outputs: Vec<_> = [self.stdout, self.stderr].into_iter().flatten().map(|stream| stream.outlet).collect();
        let running = command.run(streams);
        tokio::pin!(running);
        let outcome = tokio::select! {
            outcome = &mut running => outcome,
            () = follow(sizes, resize) => running.await,
        };
        if let (Some(error), Some(report)) = (&error, outcome.report(version >= Version::V4)) {
            let _ = error.open_writer().write_all(&report).await;
        }
        for outlet in outputs.iter().chain(&error) {
            outlet.finish().await;
        }
    }
}

/// Passes terminal sizes on until there are no more.
async fn follow(input: Option<BoxAsyncRead>, resize: mpsc::Sender<TerminalSize>) {
    let Some(mut input) = input else { return };
    let (mut sizes, mut buffer) = (Resizes::default(), [0; 512]);
    while let Ok(read @ 1..) = input.read(&mut buffer).await {
        if let Some(size) = sizes.feed(&buffer[..read]) {
            // A backend that is behind gets the next one.
            let _ = resize.try_send(size);
        }
    }
}

//! The driver's side of [`super::attach`]: who is attached, what they are sent, and the stdin they bring.
//!
//! Invariant: a client gets every byte from its attaching on, and so slows the container down if it is slow; one that
//! takes nothing for [`PATIENCE`] is dropped.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe::{OpenOptions, Sender};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::attach::{self, OUTPUT_ONLY, WITH_STDIN};
use super::writer::Stream;

const PATIENCE: Duration = Duration::from_secs(30);
/// How long clients may take for the rest when the container has ended; a shim waits 10 s for its driver.
const FAREWELL: Duration = Duration::from_secs(8);
const MAX_CLIENTS: usize = 32;
const QUEUE: usize = 16;

type Piece = (Stream, Bytes);

/// The way to the container's stdin.
#[derive(Debug, Clone)]
pub(super) struct Stdin {
    fifo: Arc<tokio::sync::Mutex<Option<Sender>>>,
    closes: bool,
}

impl Stdin {
    /// The container has none.
    pub(super) fn none() -> Self {
        Self { fifo: Arc::default(), closes: false }
    }

    /// A FIFO; `closes` says that a client's end is the container's.
    pub(super) fn fifo(path: &Path, closes: bool) -> io::Result<Self> {
        // For reading as well: the shim comes later, and a FIFO without a reader can't be opened for writing.
        let sender = OpenOptions::new().read_write(true).open_sender(path)?;
        Ok(Self { fifo: Arc::new(tokio::sync::Mutex::new(Some(sender))), closes })
    }

    async fn feed(&self, mut client: OwnedReadHalf) -> io::Result<()> {
        let mut buffer = vec![0; 8 * 1024];
        loop {
            let read = client.read(&mut buffer).await?;
            let mut fifo = self.fifo.lock().await;
            if read == 0 {
                if self.closes {
                    *fifo = None;
                }
                return Ok(());
            }
            if let Some(fifo) = fifo.as_mut() {
                fifo.write_all(&buffer[..read]).await?;
            }
        }
    }
}

/// All attached clients.
#[derive(Debug)]
pub(super) struct Clients {
    listener: Option<UnixListener>,
    stdin: Stdin,
    queues: Mutex<Vec<mpsc::Sender<Piece>>>,
    tasks: Mutex<JoinSet<()>>,
    socket: Option<std::path::PathBuf>,
}

impl Clients {
    /// Listens at `socket`, in place of what an earlier driver left there.
    pub(super) fn listen(socket: Option<&Path>, stdin: Stdin) -> io::Result<Self> {
        let listener = socket.map(bind).transpose()?;
        let socket = socket.map(Path::to_owned);
        Ok(Self { listener, stdin, queues: Mutex::default(), tasks: Mutex::default(), socket })
    }

    /// Accepts clients; never returns.
    pub(super) async fn serve(&self) {
        let Some(listener) = &self.listener else { return std::future::pending().await };
        loop {
            match listener.accept().await {
                Ok((stream, _)) => self.admit(stream),
                // Out of descriptors: those in use come free sooner or later.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// Whether anyone is attached.
    pub(super) fn any(&self) -> bool {
        !self.queues.lock().is_empty()
    }

    /// Sends a piece to every client, as fast as the slowest takes it.
    pub(super) async fn send(&self, stream: Stream, piece: Bytes) {
        let queues = self.queues.lock().clone();
        for queue in &queues {
            // A client that is gone is taken off the list below.
            let _ = queue.send((stream, piece.clone())).await;
        }
        self.queues.lock().retain(|queue| !queue.is_closed());
    }

    /// Lets clients take what they have not yet, and ends.
    pub(super) async fn finish(self) {
        self.queues.lock().clear();
        if let Some(socket) = &self.socket {
            // It may have gone with the pod's directory.
            let _ = std::fs::remove_file(socket);
        }
        drop(self.listener);
        let mut tasks = self.tasks.into_inner();
        let rest = async { while tasks.join_next().await.is_some() {} };
        // Whoever has not taken it by now is left behind.
        let _ = tokio::time::timeout(FAREWELL, rest).await;
    }

    fn admit(&self, stream: UnixStream) {
        let mut tasks = self.tasks.lock();
        while tasks.try_join_next().is_some() {}
        if tasks.len() >= MAX_CLIENTS {
            return;
        }
        let (queue, pieces) = mpsc::channel(QUEUE);
        self.queues.lock().push(queue);
        let stdin = self.stdin.clone();
        tasks.spawn(async move {
            let (reader, writer) = stream.into_split();
            let writing = write(writer, pieces);
            let reading = read(reader, stdin);
            tokio::pin!(writing, reading);
            tokio::select! {
                () = &mut writing => (),
                gone = &mut reading => if !gone { writing.await },
            }
        });
    }
}

/// Serves a client's side until it ends; says whether the client is gone rather than at the end of its stdin.
async fn read(mut client: OwnedReadHalf, stdin: Stdin) -> bool {
    match client.read_u8().await {
        Ok(WITH_STDIN) => stdin.feed(client).await.is_err(),
        Ok(OUTPUT_ONLY) => {
            let mut ignored = [0; 64];
            while let Ok(1..) = client.read(&mut ignored).await {}
            true
        }
        _ => true,
    }
}

async fn write(mut client: OwnedWriteHalf, mut pieces: mpsc::Receiver<Piece>) {
    while let Some((stream, piece)) = pieces.recv().await {
        let written = async {
            client.write_all(&attach::frame_header(stream, piece.len())).await?;
            client.write_all(&piece).await
        };
        if !tokio::time::timeout(PATIENCE, written).await.is_ok_and(|written| written.is_ok()) {
            return;
        }
    }
}

fn bind(socket: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = socket.parent() {
        std::fs::create_dir_all(directory)?;
    }
    if let Err(error) = std::fs::remove_file(socket)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let listener = attach::at(socket, |path| std::os::unix::net::UnixListener::bind(path))?;
    std::fs::set_permissions(socket, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

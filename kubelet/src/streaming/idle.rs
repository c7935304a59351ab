//! An end to connections on which nothing moves.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// A connection whose reads and writes fail once nothing was read or written for a time.
#[derive(Debug)]
pub(crate) struct IdleLimit<S> {
    inner: S,
    limit: Duration,
    moved: Instant,
    timer: Pin<Box<Sleep>>,
}

impl<S> IdleLimit<S> {
    /// Ends `inner` after `limit` of silence.
    pub(crate) fn new(inner: S, limit: Duration) -> Self {
        Self { inner, limit, moved: Instant::now(), timer: Box::pin(tokio::time::sleep(limit)) }
    }

    /// Ready once the limit is reached. The timer is only moved when it fires, so that traffic costs no timer operation.
    fn poll_idle(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            ready!(self.timer.as_mut().poll(context));
            let deadline = self.moved + self.limit;
            if deadline <= Instant::now() {
                return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "the connection was idle for too long"));
            }
            self.timer.as_mut().reset(deadline);
        }
    }

    fn settle<T>(&mut self, context: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match outcome {
            Poll::Ready(outcome) => {
                self.moved = Instant::now();
                Poll::Ready(outcome)
            }
            Poll::Pending => self.poll_idle(context).map(Err),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for IdleLimit<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_read(context, buffer);
        self.settle(context, outcome)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for IdleLimit<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.settle(context, outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.inner).poll_flush(context) {
            // A flush of nothing is no traffic.
            Poll::Ready(outcome) => Poll::Ready(outcome),
            Poll::Pending => self.poll_idle(context).map(Err),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_fails_after_its_limit() {
        let (_client, server) = tokio::io::duplex(64);
        let mut server = IdleLimit::new(server, Duration::from_secs(60));
        let error = server.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn traffic_puts_the_end_off() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut server = IdleLimit::new(server, Duration::from_secs(60));
        for _ in 0..3 {
            tokio::time::advance(Duration::from_secs(40)).await;
            client.write_u8(7).await.unwrap();
            assert_eq!(server.read_u8().await.unwrap(), 7);
        }
    }
}

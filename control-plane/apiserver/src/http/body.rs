//! Bodies of responses.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};

/// Any error of a body; hyper wants it so.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// A response's body.
pub type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>;

/// A body that is there whole.
#[must_use]
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body that comes in pieces.
pub fn streamed(stream: impl Stream<Item = Bytes> + Send + 'static) -> Body {
    StreamBody::new(Framed(Box::pin(stream))).boxed_unsync()
}

struct Framed<S>(Pin<Box<S>>);

impl<S: Stream<Item = Bytes>> Stream for Framed<S> {
    type Item = Result<Frame<Bytes>, BoxError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context).map(|item| item.map(|bytes| Ok(Frame::data(bytes))))
    }
}

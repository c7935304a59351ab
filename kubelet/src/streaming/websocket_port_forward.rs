//! Port-forward over a WebSocket's channels (`v4.channel.k8s.io`): of port number i of the request, channel 2i carries the data and 2i+1 the error.
//! Each channel starts with the port's number, little endian.

use bytes::Bytes;
use futures::StreamExt;
use futures::future::join_all;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use super::channels::{self, Encoding, Outgoing};
use super::pipe::{MessageWriter, feed, input};
use super::port_forward::Forward;
use super::{QUEUE, conduct};

/// Carries the ports until each of them ended or the client leaves.
pub(crate) async fn serve<S>(io: S, encoding: Encoding, ports: &[u16], forward: &Forward)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (sink, mut stream) = channels::accept(io).await.split();
    let (frames, queue) = mpsc::channel(QUEUE);
    let mut inputs = Vec::new();
    let mut carried = Vec::new();
    // At most 127 ports, as the query's reader sees to: every channel has a number.
    for (data_channel, port) in (0_u8..=254).step_by(2).zip(ports.iter().copied()) {
        let (sender, reader) = input();
        inputs.push(Some(sender));
        let frames = frames.clone();
        carried.push(async move {
            let error_channel = data_channel + 1;
            for channel in [data_channel, error_channel] {
                let number = Bytes::copy_from_slice(&port.to_le_bytes());
                let _ = frames.send(Outgoing::Data(channel, number)).await;
            }
            let writer = MessageWriter::new(frames.clone(), move |data| Outgoing::Data(data_channel, data), None);
            if let Err(message) = forward.carry(port, reader, writer).await {
                let _ = frames.send(Outgoing::Data(error_channel, message.into())).await;
            }
        });
    }
    let carrying = async {
        join_all(carried).await;
        let _ = frames.send(Outgoing::End).await;
    };
    let receiving = async {
        while let Some((channel, data)) = channels::next(&mut stream, encoding).await {
            let index = usize::from(channel / 2);
            if let (0, Some(slot)) = (channel % 2, inputs.get_mut(index))
                && let Some(sender) = slot
                && !feed(sender, data).await
            {
                *slot = None;
            }
        }
    };
    let sending = channels::send(sink, queue, encoding);
    conduct(carrying, sending, receiving).await;
}

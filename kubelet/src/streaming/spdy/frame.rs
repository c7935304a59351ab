//! Frames of SPDY/3.1 as bytes. Pure.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio_util::codec::Decoder;

use super::headers::{Deflate, Headers, Inflate};

const VERSION: u16 = 3;
const HEAD: usize = 8;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;

const FIN: u8 = 1;

/// The longest control frame taken. Data frames may be as long as the protocol has it, since they are passed on in parts.
const CONTROL_LIMIT: usize = 64 * 1024;

/// RST_STREAM: the stream broke the protocol.
pub(super) const PROTOCOL_ERROR: u32 = 1;
/// RST_STREAM: the stream is not wanted.
pub(super) const REFUSED_STREAM: u32 = 3;
/// RST_STREAM: the stream is no longer needed.
pub(super) const CANCEL: u32 = 5;

/// What is wrong with the peer's bytes. The session can't go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    /// Another protocol.
    #[error("a frame of SPDY version {0}")]
    Version(u16),
    /// A control frame beyond the limit.
    #[error("a control frame of {0} bytes")]
    TooLong(usize),
    /// A control frame that is shorter than its kind.
    #[error("a control frame is cut off")]
    CutOff,
    /// Headers that can't be read.
    #[error("{0}")]
    Headers(&'static str),
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl PartialEq for FrameError {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

/// What the client sends.
#[derive(Debug, PartialEq)]
pub(super) enum Incoming {
    /// Opens a stream.
    Open { stream: u32, fin: bool, headers: Headers },
    /// Data of a stream, maybe a part of what was sent as one frame; `fin` with the last part of the last frame.
    Data { stream: u32, fin: bool, data: Bytes },
    /// Ends a stream at once.
    Reset { stream: u32 },
    /// Wants an answer.
    Ping { id: u32 },
    /// Opens no more streams.
    GoAway,
    /// Ends the client's side of a stream by a frame that says nothing else.
    Fin { stream: u32 },
    /// Nothing that matters here: settings, windows, credentials, replies to streams that we don't open, and kinds unknown.
    Ignored,
}

/// Reads the client's frames.
pub(super) struct FrameDecoder {
    inflate: Inflate,
    /// The data frame that is being read: stream, flags and the bytes left.
    data: Option<(u32, u8, usize)>,
}

impl FrameDecoder {
    pub(super) fn new() -> Self {
        Self { inflate: Inflate::new(), data: None }
    }

    fn control(&mut self, kind: u16, flags: u8, mut body: Bytes) -> Result<Incoming, FrameError> {
        let fin = flags & FIN != 0;
        let mut number = || body.try_get_u32().map_err(|_| FrameError::CutOff);
        Ok(match kind {
            SYN_STREAM => {
                let stream = number()? & 0x7fff_ffff;
                number()?;
                // Priority and slot.
                body.try_get_u16().map_err(|_| FrameError::CutOff)?;
                Incoming::Open { stream, fin, headers: self.inflate.read(&body)? }
            }
            SYN_REPLY | HEADERS => {
                let stream = number()? & 0x7fff_ffff;
                // Read for the sake of the compression's state.
                self.inflate.read(&body)?;
                if fin { Incoming::Fin { stream } } else { Incoming::Ignored }
            }
            RST_STREAM => Incoming::Reset { stream: number()? & 0x7fff_ffff },
            PING => Incoming::Ping { id: number()? },
            GOAWAY => Incoming::GoAway,
            _ => Incoming::Ignored,
        })
    }
}

impl Decoder for FrameDecoder {
    type Item = Incoming;
    type Error = FrameError;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Incoming>, FrameError> {
        if let Some((stream, flags, left)) = self.data {
            let part = buffer.len().min(left);
            if part == 0 && left > 0 {
                return Ok(None);
            }
            let left = left - part;
            self.data = (left > 0).then_some((stream, flags, left));
            let fin = left == 0 && flags & FIN != 0;
            return Ok(Some(Incoming::Data { stream, fin, data: buffer.split_to(part).freeze() }));
        }
        if buffer.len() < HEAD {
            return Ok(None);
        }
        let mut head = &buffer[..HEAD];
        let (first, second) = (head.get_u32(), head.get_u32());
        let (flags, length) = ((second >> 24) as u8, (second & 0x00ff_ffff) as usize);
        if first & 0x8000_0000 == 0 {
            buffer.advance(HEAD);
            self.data = Some((first, flags, length));
            return self.decode(buffer);
        }
        let (version, kind) = ((first >> 16 & 0x7fff) as u16, (first & 0xffff) as u16);
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        if length > CONTROL_LIMIT {
            return Err(FrameError::TooLong(length));
        }
        if buffer.len() < HEAD + length {
            buffer.reserve(HEAD + length - buffer.len());
            return Ok(None);
        }
        buffer.advance(HEAD);
        let body = buffer.split_to(length).freeze();
        self.control(kind, flags, body).map(Some)
    }
}

/// What the server sends.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// Accepts a stream.
    Reply(u32),
    /// Data of a stream.
    Data(u32, Bytes),
    /// Ends our side of a stream.
    Fin(u32),
    /// Ends a stream at once, with a status.
    Reset(u32, u32),
    /// Answers a ping.
    Pong(u32),
    /// Takes no more streams; the last one taken.
    GoAway(u32),
    /// No more frames.
    End,
}

/// Writes the server's frames.
pub(super) struct FrameEncoder {
    deflate: Deflate,
}

impl FrameEncoder {
    pub(super) fn new() -> Self {
        Self { deflate: Deflate::new() }
    }

    /// Appends a frame.
    pub(super) fn encode(&mut self, frame: &Outgoing, out: &mut BytesMut) {
        match frame {
            Outgoing::Reply(stream) => {
                let block = self.deflate.write(&[]);
                control(out, SYN_REPLY, 4 + block.len());
                out.put_u32(*stream);
                out.put_slice(&block);
            }
            Outgoing::Data(stream, data) => {
                out.put_u32(*stream);
                out.put_u32(data.len() as u32);
                out.put_slice(data);
            }
            Outgoing::Fin(stream) => {
                out.put_u32(*stream);
                out.put_u32(u32::from(FIN) << 24);
            }
            Outgoing::Reset(stream, status) => {
                control(out, RST_STREAM, 8);
                out.put_u32(*stream);
                out.put_u32(*status);
            }
            Outgoing::Pong(id) => {
                control(out, PING, 4);
                out.put_u32(*id);
            }
            Outgoing::GoAway(last) => {
                control(out, GOAWAY, 8);
                out.put_u32(*last);
                out.put_u32(0);
            }
            Outgoing::End => {}
        }
    }
}

/// The head of a control frame. Ours are short: the length fits its 24 bits.
fn control(out: &mut BytesMut, kind: u16, length: usize) {
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    out.put_u32(length as u32);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(bytes: &[u8]) -> Result<Vec<Incoming>, FrameError> {
        let (mut decoder, mut buffer, mut out) = (FrameDecoder::new(), BytesMut::from(bytes), Vec::new());
        while let Some(frame) = decoder.decode(&mut buffer)? {
            out.push(frame);
        }
        Ok(out)
    }

    fn open(stream: u32, headers: &[(&str, &str)]) -> BytesMut {
        let mut out = BytesMut::new();
        let block = Deflate::new().write(headers);
        control(&mut out, SYN_STREAM, 10 + block.len());
        out.put_u32(stream);
        out.put_u32(0);
        out.put_u16(0);
        out.put_slice(&block);
        out
    }

    #[test]
    fn a_stream_opens_with_its_headers() {
        let frames = decode(&open(1, &[("streamtype", "stdin")])).unwrap();
        let headers = vec![("streamtype".to_owned(), "stdin".to_owned())];
        assert_eq!(frames, [Incoming::Open { stream: 1, fin: false, headers }]);
    }

    #[test]
    fn a_data_frame_is_passed_on_as_it_comes_and_ends_with_its_last_byte() {
        let mut decoder = FrameDecoder::new();
        let mut buffer = BytesMut::from(&[0, 0, 0, 3, 1, 0, 0, 5, b'a', b'b'][..]);
        let part = decoder.decode(&mut buffer).unwrap();
        assert_eq!(part, Some(Incoming::Data { stream: 3, fin: false, data: Bytes::from_static(b"ab") }));
        assert_eq!(decoder.decode(&mut buffer).unwrap(), None);
        buffer.extend_from_slice(b"cde");
        let part = decoder.decode(&mut buffer).unwrap();
        assert_eq!(part, Some(Incoming::Data { stream: 3, fin: true, data: Bytes::from_static(b"cde") }));
    }

    #[test]
    fn an_empty_data_frame_can_end_a_stream() {
        let mut bytes = BytesMut::new();
        FrameEncoder::new().encode(&Outgoing::Fin(5), &mut bytes);
        assert_eq!(decode(&bytes).unwrap(), [Incoming::Data { stream: 5, fin: true, data: Bytes::new() }]);
    }

    #[test]
    fn settings_windows_and_unknown_frames_are_passed_over() {
        let mut bytes = BytesMut::new();
        for kind in [4, 9, 77] {
            control(&mut bytes, kind, 8);
            bytes.put_u64(0);
        }
        control(&mut bytes, PING, 4);
        bytes.put_u32(9);
        let frames = decode(&bytes).unwrap();
        assert_eq!(frames, [Incoming::Ignored, Incoming::Ignored, Incoming::Ignored, Incoming::Ping { id: 9 }]);
    }

    #[test]
    fn another_version_and_a_huge_control_frame_end_the_session() {
        assert_eq!(decode(&[0x80, 2, 0, 1, 0, 0, 0, 0]), Err(FrameError::Version(2)));
        assert_eq!(decode(&[0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff]), Err(FrameError::TooLong(0x00ff_ffff)));
        assert_eq!(decode(&[0x80, 3, 0, 1, 0, 0, 0, 1, 0]), Err(FrameError::CutOff));
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_odd_to_be_read(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }

        #[test]
        fn no_control_frame_is_too_odd_to_be_read(kind in 0_u16..10, flags: u8, body: Vec<u8>) {
            let mut bytes = BytesMut::new();
            control(&mut bytes, kind, body.len());
            bytes[4] = flags;
            bytes.put_slice(&body);
            let _ = decode(&bytes);
        }

        #[test]
        fn frames_are_the_same_however_the_bytes_are_cut(data: Vec<u8>, cut in 1_usize..20) {
            let mut bytes = open(1, &[("port", "80")]);
            FrameEncoder::new().encode(&Outgoing::Data(1, data.clone().into()), &mut bytes);
            FrameEncoder::new().encode(&Outgoing::Pong(2), &mut bytes);
            let (mut decoder, mut buffer) = (FrameDecoder::new(), BytesMut::new());
            let (mut seen, mut others) = (Vec::new(), 0);
            for part in bytes.chunks(cut) {
                buffer.extend_from_slice(part);
                while let Some(frame) = decoder.decode(&mut buffer).unwrap() {
                    match frame {
                        Incoming::Data { data, .. } => seen.extend_from_slice(&data),
                        _ => others += 1,
                    }
                }
            }
            prop_assert_eq!((seen, others), (data, 2));
        }
    }
}

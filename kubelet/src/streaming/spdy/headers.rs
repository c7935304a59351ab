//! Header blocks: names and values with their lengths, compressed by one zlib stream a direction for the whole session. Pure.

use bytes::{Buf, BufMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

use super::dictionary::dictionary;
use super::frame::FrameError;

/// Names and values; a name is in lower case.
pub(crate) type Headers = Vec<(String, String)>;

/// The longest block, uncompressed.
const BLOCK_LIMIT: usize = 64 * 1024;

/// The most headers of one block.
const COUNT_LIMIT: u32 = 64;

/// Reads the peer's blocks.
pub(super) struct Inflate {
    stream: Decompress,
}

impl Inflate {
    pub(super) fn new() -> Self {
        Self { stream: Decompress::new(true) }
    }

    /// The headers of one block. A block that can't be read ends the session, since the next depends on it.
    pub(super) fn read(&mut self, block: &[u8]) -> Result<Headers, FrameError> {
        parse(&self.inflate(block)?)
    }

    fn inflate(&mut self, mut block: &[u8]) -> Result<Vec<u8>, FrameError> {
        let mut out = Vec::with_capacity(1024);
        loop {
            if out.len() == out.capacity() {
                if out.len() >= BLOCK_LIMIT {
                    return Err(FrameError::Headers("a header block is too long"));
                }
                out.reserve(out.len());
            }
            let (read, written) = (self.stream.total_in(), out.len());
            let outcome = self.stream.decompress_vec(block, &mut out, FlushDecompress::Sync);
            // No more than the block's own length.
            let read = (self.stream.total_in() - read) as usize;
            block = &block[read..];
            match outcome {
                Ok(flate2::Status::StreamEnd) => return Err(FrameError::Headers("the header stream ended")),
                Ok(_) if block.is_empty() && out.len() < out.capacity() => return Ok(out),
                Ok(_) if read == 0 && out.len() == written && out.len() < out.capacity() => {
                    return Err(FrameError::Headers("a header block is cut off"));
                }
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.stream
                        .set_dictionary(&dictionary())
                        .map_err(|_| FrameError::Headers("headers are compressed with another dictionary"))?;
                }
                Err(_) => return Err(FrameError::Headers("a header block is no zlib data")),
            }
        }
    }
}

fn parse(mut block: &[u8]) -> Result<Headers, FrameError> {
    let cut = || FrameError::Headers("a header block is shorter than it says");
    let count = block.try_get_u32().map_err(|_| cut())?;
    if count > COUNT_LIMIT {
        return Err(FrameError::Headers("a header block has too many headers"));
    }
    let mut text = || {
        let length = block.try_get_u32().map_err(|_| cut())? as usize;
        let (text, rest) = block.split_at_checked(length).ok_or_else(cut)?;
        block = rest;
        String::from_utf8(text.to_vec()).map_err(|_| FrameError::Headers("a header is no UTF-8"))
    };
    (0..count).map(|_| Ok((text()?.to_ascii_lowercase(), text()?))).collect()
}

/// Writes our blocks.
pub(super) struct Deflate {
    stream: Compress,
}

impl Deflate {
    pub(super) fn new() -> Self {
        let mut stream = Compress::new(Compression::best(), true);
        // A fresh stream takes any dictionary.
        let _ = stream.set_dictionary(&dictionary());
        Self { stream }
    }

    /// One block.
    pub(super) fn write(&mut self, headers: &[(&str, &str)]) -> Vec<u8> {
        let mut plain = Vec::new();
        // What we send is a few short headers: lengths fit.
        plain.put_u32(headers.len() as u32);
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.put_u32(text.len() as u32);
            plain.extend_from_slice(text.as_bytes());
        }
        let mut out = Vec::with_capacity(plain.len() + 64);
        let mut rest = plain.as_slice();
        loop {
            let read = self.stream.total_in();
            // Fails only on a stream that was finished, which this never is.
            let outcome = self.stream.compress_vec(rest, &mut out, FlushCompress::Sync);
            rest = &rest[(self.stream.total_in() - read) as usize..];
            if outcome.is_err() || rest.is_empty() && out.len() < out.capacity() {
                return out;
            }
            out.reserve(64);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_stream_carries_many_blocks() {
        let (mut deflate, mut inflate) = (Deflate::new(), Inflate::new());
        for number in 0..50 {
            let port = format!("{number}");
            let block = deflate.write(&[("port", &port), ("streamtype", "data")]);
            let headers = inflate.read(&block).unwrap();
            assert_eq!(headers, [("port".to_owned(), port), ("streamtype".to_owned(), "data".to_owned())]);
        }
    }

    #[test]
    fn an_empty_block_is_a_block() {
        assert_eq!(Inflate::new().read(&Deflate::new().write(&[])).unwrap(), []);
    }

    #[test]
    fn a_block_that_inflates_to_much_more_is_refused() {
        let long = "a".repeat(BLOCK_LIMIT * 2);
        let block = Deflate::new().write(&[("a", &long)]);
        assert!(block.len() < 4096);
        assert_eq!(Inflate::new().read(&block), Err(FrameError::Headers("a header block is too long")));
    }

    proptest! {
        #[test]
        fn headers_come_back_as_they_were_sent(headers in proptest::collection::vec(("[a-z]{1,9}", "\\PC*"), 0..9)) {
            let sent: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
            prop_assert_eq!(Inflate::new().read(&Deflate::new().write(&sent)).unwrap(), headers);
        }

        #[test]
        fn no_block_is_too_odd_to_be_read(block: Vec<u8>) {
            let _ = Inflate::new().read(&block);
            let _ = parse(&block);
        }

        #[test]
        fn a_damaged_block_never_panics(at in 0_usize..40, byte: u8) {
            let mut block = Deflate::new().write(&[("port", "80"), ("streamtype", "error"), ("requestid", "12")]);
            let at = at % block.len();
            block[at] = byte;
            let _ = Inflate::new().read(&block);
        }
    }
}

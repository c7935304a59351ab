//! gzip of large answers (KEP-156 and upstream's `APIResponseCompression`): above a threshold, at the fastest level, for clients that take it.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

/// Answers of at most this many bytes are sent as they are; upstream's `defaultGzipThresholdBytes`.
pub(super) const THRESHOLD: usize = 128 * 1024;

/// Whether `Accept-Encoding` names gzip, and not by quality 0.
#[must_use]
pub(crate) fn is_accepted(header: Option<&str>) -> bool {
    header.into_iter().flat_map(|header| header.split(',')).any(|clause| {
        let (coding, parameters) = clause.split_once(';').unwrap_or((clause, ""));
        let quality = parameters.trim().strip_prefix("q=").and_then(|quality| quality.parse::<f32>().ok());
        coding.trim() == "gzip" && quality.is_none_or(|quality| quality > 0.0)
    })
}

/// Pieces of an answer → pieces of its gzip form, which need not be as many.
pub(super) fn gzip(pieces: impl Iterator<Item = Bytes> + Send) -> impl Iterator<Item = Bytes> + Send {
    let mut pieces = pieces;
    let mut encoder = Some(GzEncoder::new(Vec::new(), Compression::fast()));
    std::iter::from_fn(move || {
        loop {
            let current = encoder.as_mut()?;
            let out = match pieces.next() {
                // Memory is a writer that can't fail; if it did, the truncated stream tells the client.
                Some(piece) => current.write_all(&piece).ok().map(|()| std::mem::take(current.get_mut()))?,
                None => encoder.take()?.finish().ok()?,
            };
            if !out.is_empty() {
                return Some(out.into());
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn pieces_come_back_as_they_were() {
        let pieces: Vec<Bytes> = (0..40_u8).map(|n| vec![n; 9000].into()).collect();
        let packed: Vec<u8> = gzip(pieces.clone().into_iter()).flatten().collect();
        assert!(packed.len() < 10_000);
        let mut read = Vec::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut read).unwrap();
        assert_eq!(read, pieces.concat());
    }

    #[test]
    fn gzip_is_for_those_who_name_it() {
        assert!(is_accepted(Some("gzip")));
        assert!(is_accepted(Some("br, gzip;q=0.5")));
        assert!(!is_accepted(Some("gzip;q=0")));
        assert!(!is_accepted(Some("deflate")));
        assert!(!is_accepted(None));
    }
}

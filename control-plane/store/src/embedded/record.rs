//! A change as bytes: what the log keeps under its revision.
//!
//! Layout (little endian): kind 1 byte, checksum 4, commit time 8 (ms since 1970), previous revision 8 (0: none), expiry 8 (ms since 1970, 0: never),
//! key length 2, key, value. The checksum is CRC-32 of the revision and of everything after it and the kind, so a record under a wrong
//! revision does not pass either.

use bytes::{BufMut, Bytes, BytesMut};

use super::tree::Version;

const PUT: u8 = 1;
const DELETE: u8 = 2;
const HEADER: usize = 1 + 4 + 8 + 8 + 8 + 2;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) revision: u64,
    /// When it was committed, in milliseconds since 1970.
    pub(crate) time: u64,
    /// The revision of the value before; 0 if there was none.
    pub(crate) previous: u64,
    pub(crate) expires: u64,
    pub(crate) key: Bytes,
    /// The new value; `None` for a delete.
    pub(crate) value: Option<Bytes>,
}

impl Record {
    /// The bytes of the record, and the record with key and value inside of them: one allocation holds both for as long as either is used.
    pub(crate) fn encode(mut self) -> (Bytes, Self) {
        let value = self.value.as_deref().unwrap_or_default();
        let mut bytes = BytesMut::with_capacity(HEADER + self.key.len() + value.len());
        bytes.put_u8(if self.value.is_some() { PUT } else { DELETE });
        bytes.put_u32_le(0);
        bytes.put_u64_le(self.time);
        bytes.put_u64_le(self.previous);
        bytes.put_u64_le(self.expires);
        // Longer keys are refused before they come here.
        bytes.put_u16_le(u16::try_from(self.key.len()).unwrap_or(u16::MAX));
        bytes.put_slice(&self.key);
        bytes.put_slice(value);
        let checksum = checksum(self.revision, &bytes);
        bytes[1..5].copy_from_slice(&checksum.to_le_bytes());
        let bytes = bytes.freeze();
        let split = HEADER + self.key.len();
        self.key = bytes.slice(HEADER..split);
        self.value = self.value.is_some().then(|| bytes.slice(split..));
        (bytes, self)
    }

    /// # Errors
    /// What is wrong with the bytes.
    pub(crate) fn decode(revision: u64, bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() < HEADER {
            return Err(format!("the record of revision {revision} has {} bytes", bytes.len()));
        }
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let expected = u32::from_le_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]);
        let found = checksum(revision, bytes);
        if expected != found {
            return Err(format!(
                "the record of revision {revision} has checksum {found:08x} instead of {expected:08x}"
            ));
        }
        let split = HEADER + usize::from(u16::from_le_bytes([bytes[29], bytes[30]]));
        if bytes.len() < split {
            return Err(format!("the record of revision {revision} ends within its key"));
        }
        let value = match bytes[0] {
            PUT => Some(Bytes::copy_from_slice(&bytes[split..])),
            DELETE => None,
            kind => return Err(format!("the record of revision {revision} is of kind {kind}")),
        };
        let key = Bytes::copy_from_slice(&bytes[HEADER..split]);
        Ok(Self { revision, time: word(5), previous: word(13), expires: word(21), key, value })
    }

    /// The value that this change made; `None` for a delete.
    pub(crate) fn version(&self) -> Option<Version> {
        let value = self.value.clone()?;
        Some(Version { key: self.key.clone(), value, revision: self.revision, expires: self.expires })
    }

    /// Bytes in the log.
    pub(crate) fn size(&self) -> usize {
        HEADER + self.key.len() + self.value.as_ref().map_or(0, Bytes::len)
    }
}

fn checksum(revision: u64, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&revision.to_le_bytes());
    hasher.update(&bytes[..1]);
    hasher.update(&bytes[5..]);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(value: Option<&'static [u8]>) -> Record {
        let key = Bytes::from_static(b"/pods/a");
        Record { revision: 7, time: 1, previous: 3, expires: 9, key, value: value.map(Bytes::from_static) }
    }

    #[test]
    fn decodes_what_it_encoded() {
        for value in [Some(&b"value"[..]), Some(&b""[..]), None] {
            let (bytes, encoded) = record(value).encode();
            assert_eq!(encoded, record(value));
            assert_eq!(bytes.len(), encoded.size());
            assert_eq!(Record::decode(7, &bytes), Ok(encoded));
        }
    }

    #[test]
    fn any_flipped_bit_and_any_missing_byte_is_noticed() {
        let (bytes, _) = record(Some(b"value")).encode();
        for at in 0..bytes.len() * 8 {
            let mut damaged = bytes.to_vec();
            damaged[at / 8] ^= 1 << (at % 8);
            assert!(Record::decode(7, &damaged).is_err(), "bit {at}");
        }
        for len in 0..bytes.len() {
            assert!(Record::decode(7, &bytes[..len]).is_err(), "cut to {len}");
        }
        assert!(Record::decode(8, &bytes).is_err());
    }
}

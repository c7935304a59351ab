//! The file of a backup.
//!
//! Layout (little endian): `skepbak1`, revision 8 bytes; entries, each a length 4 (above 0), revision 8 and a record as in the log (which has its own checksum);
//! a length of 0; number of entries 8; CRC-32 of everything before it 4. Entries are in key order.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::embedded::record::Record;
use crate::embedded::tree::Version;
use crate::{Error, Result};

const MAGIC: &[u8; 7] = b"skepbak";
const VERSION: u8 = 1;
/// No entry is longer: a damaged length does not ask for all memory.
const LONGEST: usize = 1 << 30;

pub(super) struct Writer<W> {
    to: W,
    checksum: crc32fast::Hasher,
    entries: u64,
    bytes: u64,
}

pub(super) struct Reader<R> {
    from: R,
    file: PathBuf,
    checksum: crc32fast::Hasher,
    revision: u64,
    entries: u64,
    position: u64,
    last: Option<bytes::Bytes>,
    ended: bool,
}

impl<W: Write> Writer<W> {
    pub(super) fn begin(to: W, revision: u64) -> io::Result<Self> {
        let mut writer = Self { to, checksum: crc32fast::Hasher::new(), entries: 0, bytes: 0 };
        writer.write(MAGIC)?;
        writer.write(&[b'0' + VERSION])?;
        writer.write(&revision.to_le_bytes())?;
        Ok(writer)
    }

    pub(super) fn entry(&mut self, version: &Version) -> io::Result<()> {
        let record = Record {
            revision: version.revision,
            time: 0,
            previous: 0,
            expires: version.expires,
            key: version.key.clone(),
            value: Some(version.value.clone()),
        };
        let (bytes, _) = record.encode();
        let length = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        self.write(&length.to_le_bytes())?;
        self.write(&version.revision.to_le_bytes())?;
        self.entries += 1;
        self.write(&bytes)
    }

    pub(super) fn end(mut self) -> io::Result<(W, u64)> {
        self.write(&0_u32.to_le_bytes())?;
        self.write(&self.entries.to_le_bytes())?;
        let checksum = self.checksum.finalize();
        self.to.write_all(&checksum.to_le_bytes())?;
        Ok((self.to, self.bytes + 4))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.checksum.update(bytes);
        self.bytes += bytes.len() as u64;
        self.to.write_all(bytes)
    }
}

impl<R: Read> Reader<R> {
    pub(super) fn begin(from: R, file: &Path) -> Result<Self> {
        let checksum = crc32fast::Hasher::new();
        let mut reader = Self {
            from,
            file: file.to_owned(),
            checksum,
            revision: 0,
            entries: 0,
            position: 0,
            last: None,
            ended: false,
        };
        let magic: [u8; 8] = reader.read()?;
        if magic[..7] != *MAGIC {
            return Err(reader.damaged("it is not a backup of a store"));
        }
        let found = u32::from(magic[7].wrapping_sub(b'0'));
        if found > u32::from(VERSION) {
            return Err(Error::Format { path: file.to_owned(), found, known: u32::from(VERSION) });
        }
        reader.revision = u64::from_le_bytes(reader.read()?);
        Ok(reader)
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// The next entry; `None` once the end was reached and found right.
    pub(super) fn entry(&mut self) -> Result<Option<Record>> {
        if self.ended {
            return Ok(None);
        }
        let length = u32::from_le_bytes(self.read()?) as usize;
        if length == 0 {
            self.end()?;
            self.ended = true;
            return Ok(None);
        }
        if length > LONGEST {
            return Err(self.damaged("an entry's length is not possible"));
        }
        let revision = u64::from_le_bytes(self.read()?);
        let mut bytes = Vec::new();
        let read =
            self.from.by_ref().take(length as u64).read_to_end(&mut bytes).map_err(|error| self.failed(error))?;
        if read < length {
            return Err(self.damaged("it ends within an entry"));
        }
        self.checksum.update(&bytes);
        let record = Record::decode(revision, &bytes).map_err(|why| self.damaged(&why))?;
        self.position += length as u64;
        if record.value.is_none()
            || revision > self.revision
            || self.last.as_ref().is_some_and(|last| *last >= record.key)
        {
            return Err(self.damaged("an entry is not in its place"));
        }
        self.last = Some(record.key.clone());
        self.entries += 1;
        Ok(Some(record))
    }

    fn end(&mut self) -> Result<()> {
        let entries = u64::from_le_bytes(self.read()?);
        let found = self.checksum.clone().finalize();
        let expected = u32::from_le_bytes(self.read()?);
        if entries != self.entries {
            return Err(self.damaged(&format!("it has {} entries instead of {entries}", self.entries)));
        }
        if expected != found {
            return Err(self.damaged(&format!("its checksum is {found:08x} instead of {expected:08x}")));
        }
        Ok(())
    }

    fn read<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.from.read_exact(&mut bytes).map_err(|error| self.failed(error))?;
        self.checksum.update(&bytes);
        self.position += N as u64;
        Ok(bytes)
    }

    fn failed(&self, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.damaged("it ends too early"),
            _ => Error::Io { what: format!("reading the backup {}", self.file.display()), source: error },
        }
    }

    fn damaged(&self, why: &str) -> Error {
        Error::Corrupt { file: self.file.clone(), offset: self.position, why: why.to_owned() }
    }
}

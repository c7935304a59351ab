//! What stands around messages: `runtime.Unknown` (k8s.io/apimachinery/pkg/runtime/serializer/protobuf), lists, and the frames of a watch.

use super::message::{Unencodable, message};
use super::wire::{begin, bytes, end, length, varint_size};
use crate::schema::Schemas;

const MAGIC: &[u8] = b"k8s\0";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
/// `items` of every list.
const ITEMS: u32 = 2;

/// A message in its envelope.
#[must_use]
pub fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len() + api_version.len() + kind.len() + 32);
    put_envelope_head(&mut out, api_version, kind, raw.len());
    out.extend_from_slice(raw);
    put_envelope_tail(&mut out);
    out
}

/// Appends what stands before a message of `size` bytes.
pub fn put_envelope_head(out: &mut Vec<u8>, api_version: &str, kind: &str, size: usize) {
    out.extend_from_slice(MAGIC);
    let type_meta = begin(out, 1);
    bytes(out, 1, api_version.as_bytes());
    bytes(out, 2, kind.as_bytes());
    end(out, type_meta);
    length(out, 2, size);
}

/// Appends what stands behind a message: no content encoding, no content type.
pub fn put_envelope_tail(out: &mut Vec<u8>) {
    bytes(out, 3, b"");
    bytes(out, 4, b"");
}

/// The beginning of a list's message: its metadata. Items follow ([`put_list_item`]).
///
/// # Errors
/// When the metadata is no `ListMeta`.
pub fn list_head(metadata: &[u8]) -> Result<Vec<u8>, Unencodable> {
    let schemas = Schemas::builtin();
    let mut out = Vec::with_capacity(64);
    let open = begin(&mut out, 1);
    if let Some(id) = schemas.id(LIST_META) {
        message(schemas, id, metadata, None, &mut out)?;
    }
    end(&mut out, open);
    Ok(out)
}

/// How many bytes [`put_list_item`] appends for a message of `size` bytes.
#[must_use]
pub const fn list_item_size(size: usize) -> usize {
    1 + varint_size(size as u64) + size
}

/// Appends an item of a list.
pub fn put_list_item(out: &mut Vec<u8>, item: &[u8]) {
    bytes(out, ITEMS, item);
}

/// A frame of a watch: its length in four bytes, most significant first, and a bare `WatchEvent` that holds the object in its envelope.
#[must_use]
pub fn watch_frame(type_: &str, object: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(object.len() + type_.len() + 24);
    out.extend_from_slice(&[0; 4]);
    bytes(&mut out, 1, type_.as_bytes());
    let raw = 1 + varint_size(object.len() as u64) + object.len();
    length(&mut out, 2, raw);
    bytes(&mut out, 1, object);
    let size = u32::try_from(out.len() - 4).unwrap_or(u32::MAX);
    out[..4].copy_from_slice(&size.to_be_bytes());
    out
}

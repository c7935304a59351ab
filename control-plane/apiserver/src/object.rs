//! The stored form of an object, and what reads need of it without parsing it.
//!
//! A stored value is `version byte, index length (u32 LE), index, JSON`. The JSON is encoded once, when the object is written, without its
//! resourceVersion, which only the commit knows; it is spliced in at a remembered offset when the object leaves the server.
//! Invariant: the JSON begins with `{"apiVersion":…,"kind":…,"metadata":{`, so that the splice point is right behind that.

use std::sync::{Arc, OnceLock};

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Map, Value};
use skep_api::encode::{self, Unencodable};
use skep_api::kinds::Kind;
use skep_api::schema::{Schemas, StructId};
use skep_store::{Entry, Revision};

const VERSION: u8 = 1;
/// What stands before the metadata's members.
const METADATA: &[u8] = b"\"metadata\":{";

/// What selectors, the garbage collector and the list path ask of an object, kept beside its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// `metadata.uid`
    pub uid: String,
    /// `metadata.labels`, in key order.
    pub labels: Vec<(String, String)>,
    /// The values of [`Kind::selectable`], in that order.
    pub fields: Vec<String>,
}

/// An object as it is kept and sent: immutable, shared by the store, the watch cache and every response.
#[derive(Debug)]
pub struct Object {
    /// The revision of the write that made it; for a deleted object, of the deletion.
    pub revision: Revision,
    /// Its key in the store.
    pub key: Bytes,
    /// Its index.
    pub index: Index,
    /// JSON without the resourceVersion.
    json: Bytes,
    /// Where the resourceVersion goes.
    splice: usize,
    /// The protobuf message, resourceVersion included: made when it is first asked for.
    protobuf: OnceLock<Bytes>,
}

/// A stored value that can't be read: the store holds something this version did not write.
#[derive(Debug, thiserror::Error)]
#[error("the stored value of {key} can't be read: {why}")]
pub struct Unreadable {
    key: String,
    why: &'static str,
}

impl Object {
    /// Reads a stored entry; the bytes are shared, not copied.
    ///
    /// # Errors
    /// When the value is not of the form above.
    pub fn from_entry(entry: Entry) -> Result<Self, Unreadable> {
        Self::from_parts(entry.key, entry.value, entry.revision)
    }

    /// Reads a stored value.
    ///
    /// # Errors
    /// When the value is not of the form above.
    pub fn from_parts(key: Bytes, value: Bytes, revision: Revision) -> Result<Self, Unreadable> {
        let fail = |why| Unreadable { key: String::from_utf8_lossy(&key).into_owned(), why };
        let mut reader = Reader(&value);
        if reader.take(1) != Some(&[VERSION]) {
            return Err(fail("unknown version of the envelope"));
        }
        let length = reader.u32().ok_or_else(|| fail("truncated"))? as usize;
        let mut index = Reader(reader.take(length).ok_or_else(|| fail("truncated index"))?);
        let index = index.index().ok_or_else(|| fail("malformed index"))?;
        let json = value.slice(5 + length..);
        let splice = splice_point(&json).ok_or_else(|| fail("JSON without metadata at its place"))?;
        Ok(Self { revision, key, index, json, splice, protobuf: OnceLock::new() })
    }

    /// The same object at another revision: what a DELETED event carries.
    #[must_use]
    pub fn at(&self, revision: Revision) -> Self {
        Self {
            revision,
            key: self.key.clone(),
            index: self.index.clone(),
            json: self.json.clone(),
            splice: self.splice,
            protobuf: OnceLock::new(),
        }
    }

    /// Appends the whole JSON, resourceVersion included.
    pub fn write_json(&self, out: &mut BytesMut) {
        self.write_json_from(0, out);
    }

    /// Appends the JSON without `apiVersion` and `kind`: as an item of a list that says what its items are.
    pub fn write_json_untyped(&self, out: &mut BytesMut) {
        out.put_slice(b"{");
        self.write_json_from(self.splice - METADATA.len(), out);
    }

    fn write_json_from(&self, start: usize, out: &mut BytesMut) {
        let mut digits = [0u8; 20];
        let digits = decimal(self.revision.0, &mut digits);
        out.reserve(self.json.len() + digits.len() + 24);
        out.put_slice(&self.json[start..self.splice]);
        out.put_slice(b"\"resourceVersion\":\"");
        out.put_slice(digits);
        out.put_slice(if self.json[self.splice] == b'}' { b"\"" } else { b"\"," });
        out.put_slice(&self.json[self.splice..]);
    }

    /// The whole JSON, resourceVersion included.
    #[must_use]
    pub fn to_json(&self) -> Bytes {
        let mut out = BytesMut::new();
        self.write_json(&mut out);
        out.freeze()
    }

    /// The object as a bare protobuf message of its type, resourceVersion included; encoded once, and kept.
    ///
    /// # Errors
    /// When the stored JSON is not of the type.
    pub fn protobuf(&self, schema: StructId) -> Result<Bytes, Unencodable> {
        if let Some(made) = self.protobuf.get() {
            return Ok(made.clone());
        }
        let mut out = Vec::with_capacity(self.json.len());
        encode::message(Schemas::builtin(), schema, &self.json, Some(&self.revision.to_string()), &mut out)?;
        out.shrink_to_fit();
        Ok(self.protobuf.get_or_init(|| out.into()).clone())
    }

    /// The object's metadata as a bare `PartialObjectMetadata` message.
    ///
    /// # Errors
    /// When the stored JSON has no such metadata.
    pub fn metadata_protobuf(&self) -> Result<Vec<u8>, Unencodable> {
        let mut out = Vec::new();
        encode::metadata_message(&self.json, Some(&self.revision.to_string()), &mut out)?;
        Ok(out)
    }

    /// Whether a stored value ([`encode()`]) holds the same JSON as this object.
    #[must_use]
    pub fn same_content(&self, value: &[u8]) -> bool {
        let mut reader = Reader(value);
        let json =
            reader.take(1).and_then(|_| reader.u32()).and_then(|length| reader.take(length as usize)).map(|_| reader.0);
        json == Some(&self.json[..])
    }

    /// How many bytes [`Self::write_json`] appends, within a few.
    #[must_use]
    pub fn size(&self) -> usize {
        self.json.len() + 44
    }

    /// The object as a tree, resourceVersion included: for the write path, tables and conversions.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let mut value: Value = serde_json::from_slice(&self.json).unwrap_or(Value::Null);
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("resourceVersion".to_owned(), Value::String(self.revision.to_string()));
        }
        value
    }

    /// The object's namespace (empty when cluster-scoped) and name, from its key.
    #[must_use]
    pub fn namespaced_name(&self) -> (&str, &str) {
        crate::keys::split(&self.key)
    }
}

/// Makes the stored value of an object. Its resourceVersion and self-link are left out, its type fields come first.
#[must_use]
pub(crate) fn encode(kind: &Kind, object: &Value) -> Bytes {
    let index = index_of(kind, object);
    let mut out = BytesMut::with_capacity(1024);
    out.put_u8(VERSION);
    out.put_u32_le(0);
    put_str(&mut out, &index.uid);
    out.put_u32_le(index.labels.len() as u32);
    for (key, value) in &index.labels {
        put_str(&mut out, key);
        put_str(&mut out, value);
    }
    out.put_u32_le(index.fields.len() as u32);
    for value in &index.fields {
        put_str(&mut out, value);
    }
    let length = (out.len() - 5) as u32;
    out[1..5].copy_from_slice(&length.to_le_bytes());
    write_object(&mut out, object);
    out.freeze()
}

/// The index of an object that is not stored (yet).
#[must_use]
pub(crate) fn index_of(kind: &Kind, object: &Value) -> Index {
    let labels = object["metadata"]["labels"].as_object().map(|labels| {
        labels.iter().map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
    });
    Index {
        uid: object["metadata"]["uid"].as_str().unwrap_or_default().to_owned(),
        labels: labels.unwrap_or_default(),
        fields: kind.strategy.selectable(object),
    }
}

fn write_object(out: &mut BytesMut, object: &Value) {
    let empty = Map::new();
    let object = object.as_object().unwrap_or(&empty);
    out.put_slice(b"{\"apiVersion\":");
    put_json(out, object.get("apiVersion").unwrap_or(&Value::Null));
    out.put_slice(b",\"kind\":");
    put_json(out, object.get("kind").unwrap_or(&Value::Null));
    out.put_slice(b",\"metadata\":{");
    let mut first = true;
    if let Some(metadata) = object.get("metadata").and_then(Value::as_object) {
        for (key, value) in metadata.iter().filter(|(key, _)| !matches!(key.as_str(), "resourceVersion" | "selfLink")) {
            if !std::mem::take(&mut first) {
                out.put_slice(b",");
            }
            put_json(out, key);
            out.put_slice(b":");
            put_json(out, value);
        }
    }
    out.put_slice(b"}");
    for (key, value) in object.iter().filter(|(key, _)| !matches!(key.as_str(), "apiVersion" | "kind" | "metadata")) {
        out.put_slice(b",");
        put_json(out, key);
        out.put_slice(b":");
        put_json(out, value);
    }
    out.put_slice(b"}");
}

fn put_json<T: serde::Serialize + ?Sized>(out: &mut BytesMut, value: &T) {
    serde_json::to_writer(out.writer(), value).expect("keys are strings, and memory is a writer that can't fail");
}

/// `{"apiVersion":"…","kind":"…","metadata":{` ends at the first `"metadata":{`: neither an API version nor a kind can hold a quote.
fn splice_point(json: &[u8]) -> Option<usize> {
    let head = &json[..json.len().min(1024)];
    head.windows(METADATA.len())
        .position(|window| window == METADATA)
        .map(|at| at + METADATA.len())
        .filter(|at| *at < json.len())
}

fn put_str(out: &mut BytesMut, text: &str) {
    out.put_u32_le(text.len() as u32);
    out.put_slice(text.as_bytes());
}

fn decimal(mut number: u64, buffer: &mut [u8; 20]) -> &[u8] {
    let mut at = buffer.len();
    loop {
        at -= 1;
        buffer[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &buffer[at..];
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(length)?;
        self.0 = tail;
        Some(head)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    }

    fn string(&mut self) -> Option<String> {
        let length = self.u32()? as usize;
        String::from_utf8(self.take(length)?.to_vec()).ok()
    }

    fn index(&mut self) -> Option<Index> {
        let uid = self.string()?;
        let mut labels = Vec::new();
        for _ in 0..self.u32()? {
            labels.push((self.string()?, self.string()?));
        }
        let mut fields = Vec::new();
        for _ in 0..self.u32()? {
            fields.push(self.string()?);
        }
        Some(Index { uid, labels, fields })
    }
}

/// A shared object.
pub(crate) type Shared = Arc<Object>;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    struct Plain;
    impl skep_api::kinds::Strategy for Plain {
        fn selectable(&self, object: &Value) -> Vec<String> {
            vec![object["spec"]["nodeName"].as_str().unwrap_or_default().to_owned()]
        }
    }

    fn kind() -> Kind {
        crate::testing::kind("", "v1", "Pod", "pods", Arc::new(Plain))
    }

    #[test]
    fn an_object_comes_back_with_its_revision_and_index() {
        let object = json!({
            "aData": {"metadata": {"x": "y"}}, "kind": "Pod", "apiVersion": "v1",
            "metadata": {"name": "a", "uid": "u", "labels": {"app": "web"}, "resourceVersion": "9"},
            "spec": {"nodeName": "node-1"},
        });
        let value = encode(&kind(), &object);
        let read = Object::from_parts(Bytes::from_static(b"core/pods/ns/a"), value, Revision(77)).unwrap();
        assert_eq!(read.index.labels, [("app".to_owned(), "web".to_owned())]);
        assert_eq!(read.index.fields, ["node-1"]);
        let json: Value = serde_json::from_slice(&read.to_json()).unwrap();
        assert_eq!(json["metadata"]["resourceVersion"], "77");
        assert_eq!(json["aData"], object["aData"]);
        assert_eq!(read.to_value(), json);
        let mut item = BytesMut::new();
        read.write_json_untyped(&mut item);
        let mut untyped = json;
        untyped.as_object_mut().unwrap().retain(|field, _| field != "apiVersion" && field != "kind");
        assert_eq!(serde_json::from_slice::<Value>(&item).unwrap(), untyped);
        assert_eq!(read.namespaced_name(), ("ns", "a"));
    }

    #[test]
    fn an_object_without_metadata_still_gets_its_revision() {
        let value = encode(&kind(), &json!({"kind": "Pod", "apiVersion": "v1"}));
        let read = Object::from_parts(Bytes::from_static(b"core/pods/ns/a"), value, Revision(0)).unwrap();
        assert_eq!(&read.to_json()[..], br#"{"apiVersion":"v1","kind":"Pod","metadata":{"resourceVersion":"0"}}"#);
    }

    #[test]
    fn damaged_values_are_errors() {
        let value = encode(&kind(), &json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a"}}));
        for length in 0..value.len().min(40) {
            assert!(
                Object::from_parts(Bytes::from_static(b"core/pods/ns/a"), value.slice(..length), Revision(1)).is_err()
            );
        }
    }
}

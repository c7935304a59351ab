//! A JSON object of a known type → a protobuf message.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::json::{Cursor, NoJson};
use super::wire::{begin, bytes, double, end, integer};
use crate::schema::{Field, Instead, Schemas, StructId, Type};

/// Messages in messages; as many as are read.
const DEPTH: usize = 128;
const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
/// `resourceVersion` of ObjectMeta.
const RESOURCE_VERSION: u32 = 6;
/// `metadata` of every kind.
const METADATA: u32 = 1;

/// An object that has no protobuf form: its JSON is not of its type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the object can't be encoded as protobuf: {0}")]
pub struct Unencodable(String);

impl From<NoJson> for Unencodable {
    fn from(_: NoJson) -> Self {
        Self("it is no JSON of this type".to_owned())
    }
}

/// Appends an object as a message of its type. Its resourceVersion, if given, goes into its metadata, which then must not have one.
///
/// # Errors
/// When the text is not of the type.
pub fn message(
    schemas: &Schemas,
    id: StructId,
    json: &[u8],
    resource_version: Option<&str>,
    out: &mut Vec<u8>,
) -> Result<(), Unencodable> {
    Writer { schemas, resource_version, out }.fields(id, &mut Cursor::new(json), 0)
}

/// Appends the metadata of an object of whatever type as a `PartialObjectMetadata`.
///
/// # Errors
/// When the text is no object with metadata.
pub fn metadata_message(json: &[u8], resource_version: Option<&str>, out: &mut Vec<u8>) -> Result<(), Unencodable> {
    let schemas = Schemas::builtin();
    let id = schemas.id(OBJECT_META).ok_or_else(|| Unencodable("there is no schema of metadata".to_owned()))?;
    let mut cursor = Cursor::new(json);
    let mut more = cursor.open(b'{')?;
    while more {
        if *cursor.key()? == *b"metadata" && !cursor.null()? {
            let open = begin(out, METADATA);
            let mut writer = Writer { schemas, resource_version, out };
            writer.put_resource_version();
            writer.fields(id, &mut cursor, 1)?;
            end(out, open);
        } else {
            cursor.value()?;
        }
        more = cursor.more(b'}')?;
    }
    Ok(())
}

struct Writer<'a> {
    schemas: &'a Schemas,
    resource_version: Option<&'a str>,
    out: &'a mut Vec<u8>,
}

impl Writer<'_> {
    /// The members of an object.
    fn fields(&mut self, id: StructId, cursor: &mut Cursor<'_>, depth: usize) -> Result<(), Unencodable> {
        if depth > DEPTH {
            return Err(Unencodable("it is nested too deeply".to_owned()));
        }
        let schemas = self.schemas;
        let fields = &schemas[id].fields;
        // Stored objects have their members in the order of the schema's fields: the next one is found at once.
        let mut next = 0;
        let mut more = cursor.open(b'{')?;
        while more {
            let key = cursor.key()?;
            let ahead = fields[next..].iter().take(3).position(|field| field.name.as_bytes() == &*key);
            let found = ahead
                .map(|ahead| next + ahead)
                .or_else(|| fields.binary_search_by(|field| field.name.as_bytes().cmp(&key)).ok());
            match found.map(|at| &fields[at]).filter(|field| !field.protobuf.is_empty()) {
                Some(field) if !cursor.null()? => {
                    self.field(field, cursor, depth).map_err(|error| within(field, error))?
                }
                Some(_) => {}
                None => drop(cursor.value()?),
            }
            next = found.map_or(next, |at| at + 1).min(fields.len());
            more = cursor.more(b'}')?;
        }
        Ok(())
    }

    /// A field; where Go embeds a struct, in a message of its own for each: readers merge them.
    fn field(&mut self, field: &Field, cursor: &mut Cursor<'_>, depth: usize) -> Result<(), Unencodable> {
        let Some((number, embedding)) = field.protobuf.split_last() else { return Ok(()) };
        let opened: Vec<_> = embedding.iter().map(|outer| begin(self.out, *outer)).collect();
        match &field.type_ {
            Type::List(item) => {
                let mut more = cursor.open(b'[')?;
                while more {
                    self.value(item, *number, cursor, depth)?;
                    more = cursor.more(b']')?;
                }
            }
            Type::Map(of) => {
                let mut more = cursor.open(b'{')?;
                while more {
                    let key = cursor.key()?;
                    let entry = begin(self.out, *number);
                    bytes(self.out, 1, &key);
                    self.value(of, 2, cursor, depth)?;
                    end(self.out, entry);
                    more = cursor.more(b'}')?;
                }
            }
            type_ => self.value(type_, *number, cursor, depth)?,
        }
        for open in opened.into_iter().rev() {
            end(self.out, open);
        }
        Ok(())
    }

    fn value(&mut self, type_: &Type, number: u32, cursor: &mut Cursor<'_>, depth: usize) -> Result<(), Unencodable> {
        // JSON of any kind may be null, and then is.
        if *type_ != Type::Raw && cursor.null()? {
            return Ok(());
        }
        match type_ {
            Type::String => bytes(self.out, number, &cursor.string()?),
            Type::Bytes => {
                let read = STANDARD.decode(&*cursor.string()?).map_err(|error| Unencodable(error.to_string()))?;
                bytes(self.out, number, &read);
            }
            Type::Bool => match cursor.literal()? {
                b"true" => integer(self.out, number, 1),
                b"false" => integer(self.out, number, 0),
                _ => return Err(NoJson.into()),
            },
            Type::Int32 | Type::Int64 => integer(self.out, number, self::number(cursor)?),
            Type::Float => double(self.out, number, self::number(cursor)?),
            Type::Time | Type::MicroTime => {
                let (seconds, nanoseconds) = time(&cursor.string()?)?;
                let open = begin(self.out, number);
                integer(self.out, 1, seconds);
                integer(self.out, 2, nanoseconds);
                end(self.out, open);
            }
            Type::Quantity => {
                let text = match cursor.peek()? {
                    b'"' => cursor.string()?,
                    _ => Cow::Borrowed(cursor.literal()?),
                };
                let open = begin(self.out, number);
                bytes(self.out, 1, &text);
                end(self.out, open);
            }
            Type::IntOrString => {
                let open = begin(self.out, number);
                if cursor.peek()? == b'"' {
                    integer(self.out, 1, 1);
                    integer(self.out, 2, 0);
                    bytes(self.out, 3, &cursor.string()?);
                } else {
                    integer(self.out, 1, 0);
                    integer(self.out, 2, self::number(cursor)?);
                    bytes(self.out, 3, b"");
                }
                end(self.out, open);
            }
            // runtime.RawExtension, metav1.FieldsV1 and JSON of apiextensions: the text itself, in a message.
            Type::Raw => {
                let open = begin(self.out, number);
                bytes(self.out, 1, cursor.value()?);
                end(self.out, open);
            }
            Type::Struct(id) => {
                let open = begin(self.out, number);
                if depth == 0 && number == METADATA {
                    self.put_resource_version();
                }
                self.fields(*id, cursor, depth + 1)?;
                end(self.out, open);
            }
            Type::SchemaOr(id, instead) => {
                let open = begin(self.out, number);
                match (cursor.peek()?, instead) {
                    (b'{', Instead::Bool) => {
                        integer(self.out, 1, 1);
                        self.value(&Type::Struct(*id), 2, cursor, depth + 1)?;
                    }
                    (b'{', Instead::Schemas | Instead::Names) => {
                        self.value(&Type::Struct(*id), 1, cursor, depth + 1)?
                    }
                    (_, Instead::Bool) => self.value(&Type::Bool, 1, cursor, depth + 1)?,
                    (_, Instead::Schemas | Instead::Names) => {
                        let item = if *instead == Instead::Names { Type::String } else { Type::Struct(*id) };
                        let mut more = cursor.open(b'[')?;
                        while more {
                            self.value(&item, 2, cursor, depth + 1)?;
                            more = cursor.more(b']')?;
                        }
                    }
                }
                end(self.out, open);
            }
            // A list in a map is a message with the items as its first field.
            Type::List(item) => {
                let open = begin(self.out, number);
                let mut more = cursor.open(b'[')?;
                while more {
                    self.value(item, 1, cursor, depth + 1)?;
                    more = cursor.more(b']')?;
                }
                end(self.out, open);
            }
            Type::Map(_) => return Err(Unencodable("a map of maps has no protobuf form".to_owned())),
        }
        Ok(())
    }

    fn put_resource_version(&mut self) {
        if let Some(version) = self.resource_version.take() {
            bytes(self.out, RESOURCE_VERSION, version.as_bytes());
        }
    }
}

fn within(field: &Field, error: Unencodable) -> Unencodable {
    Unencodable(format!("{}: {}", field.name, error.0))
}

fn number<T: std::str::FromStr>(cursor: &mut Cursor<'_>) -> Result<T, Unencodable> {
    let text = std::str::from_utf8(cursor.literal()?).ok();
    text.and_then(|text| text.parse().ok()).ok_or_else(|| NoJson.into())
}

/// RFC 3339 → seconds since the epoch and nanoseconds.
fn time(text: &[u8]) -> Result<(i64, i64), Unencodable> {
    let text = std::str::from_utf8(text).map_err(|error| Unencodable(error.to_string()))?;
    let time: jiff::Timestamp = text.parse().map_err(|error: jiff::Error| Unencodable(error.to_string()))?;
    let (seconds, nanoseconds) = (time.as_second(), i64::from(time.subsec_nanosecond()));
    // A Timestamp's nanoseconds count forwards, also before the epoch.
    Ok(if nanoseconds < 0 { (seconds - 1, nanoseconds + 1_000_000_000) } else { (seconds, nanoseconds) })
}

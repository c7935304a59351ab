//! Protocol buffers' wire format, written forwards.

/// Wire types.
const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const BYTES: u32 = 2;

/// Appends a varint.
pub(super) fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// How many bytes a varint has.
pub(super) const fn varint_size(number: u64) -> usize {
    let bits = 64 - (number | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

fn tag(out: &mut Vec<u8>, number: u32, wire: u32) {
    varint(out, u64::from(number << 3 | wire));
}

/// Appends a field with an integer; a negative one has all 64 bits, as `int32` and `int64` do.
pub(super) fn integer(out: &mut Vec<u8>, number: u32, value: i64) {
    tag(out, number, VARINT);
    varint(out, value as u64);
}

/// Appends a `double` field.
pub(super) fn double(out: &mut Vec<u8>, number: u32, value: f64) {
    tag(out, number, FIXED64);
    out.extend_from_slice(&value.to_bits().to_le_bytes());
}

/// Appends a field with bytes, or a string.
pub(super) fn bytes(out: &mut Vec<u8>, number: u32, value: &[u8]) {
    length(out, number, value.len());
    out.extend_from_slice(value);
}

/// Appends what stands before a field's bytes.
pub(super) fn length(out: &mut Vec<u8>, number: u32, length: usize) {
    tag(out, number, BYTES);
    varint(out, length as u64);
}

/// A message in a message that is being written: its length is known at its end.
#[must_use]
pub(super) struct Open(usize);

/// Begins a message in a message.
pub(super) fn begin(out: &mut Vec<u8>, number: u32) -> Open {
    tag(out, number, BYTES);
    // Most messages are below 128 bytes, whose length is one byte.
    out.push(0);
    Open(out.len())
}

/// Ends it: a length of more than one byte moves what was written.
pub(super) fn end(out: &mut Vec<u8>, open: Open) {
    let start = open.0;
    let length = out.len() - start;
    let size = varint_size(length as u64);
    if size > 1 {
        out.resize(out.len() + size - 1, 0);
        out.copy_within(start..start + length, start + size - 1);
    }
    let mut rest = length as u64;
    for byte in &mut out[start - 1..start - 1 + size] {
        *byte = rest as u8 & 0x7f | 0x80;
        rest >>= 7;
    }
    out[start + size - 2] &= 0x7f;
}

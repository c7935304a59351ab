//! Cuts a stream into log entries: lines, and the parts of lines that are too long for one entry.

use super::writer::MAX_LINE_BYTES;

/// What of a stream has not made a line yet.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pending: Vec<u8>,
}

impl Lines {
    /// Takes the stream's next bytes and gives each entry that they complete, and whether its line goes on.
    pub(super) fn push(&mut self, mut bytes: &[u8], mut entry: impl FnMut(bool, &[u8])) {
        while !bytes.is_empty() {
            let room = MAX_LINE_BYTES - self.pending.len();
            let window = &bytes[..bytes.len().min(room)];
            let newline = window.iter().position(|byte| *byte == b'\n');
            let text = &window[..newline.unwrap_or(window.len())];
            bytes = &bytes[text.len() + usize::from(newline.is_some())..];
            let full = newline.is_some();
            if !full && text.len() < room {
                self.pending.extend_from_slice(text);
            } else if self.pending.is_empty() {
                entry(!full, without_return(text, full));
            } else {
                self.pending.extend_from_slice(text);
                entry(!full, without_return(&self.pending, full));
                self.pending.clear();
            }
        }
    }

    /// Gives what the stream ended with: a line without its end stays one, so that no reader sees a newline that nobody wrote.
    pub(super) fn finish(self, entry: impl FnOnce(bool, &[u8])) {
        if !self.pending.is_empty() {
            entry(true, &self.pending);
        }
    }
}

/// A terminal ends lines with a carriage return as well, which belongs to the line's end (containerd's CRI plugin).
fn without_return(text: &[u8], ends: bool) -> &[u8] {
    if ends { text.strip_suffix(b"\r").unwrap_or(text) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entries(chunks: &[&[u8]]) -> Vec<(bool, Vec<u8>)> {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        for chunk in chunks {
            lines.push(chunk, |partial, text| found.push((partial, text.to_vec())));
        }
        lines.finish(|partial, text| found.push((partial, text.to_vec())));
        found
    }

    #[test]
    fn a_long_line_is_split_and_the_last_one_stays_without_its_end() {
        let mut input = vec![b'a'; MAX_LINE_BYTES + 1];
        input.extend_from_slice(b"\n\nend");
        let found = entries(&[&input]);
        let shape: Vec<_> = found.iter().map(|(partial, text)| (*partial, text.len())).collect();
        assert_eq!(shape, [(true, MAX_LINE_BYTES), (false, 1), (false, 0), (true, 3)]);
    }

    #[test]
    fn a_carriage_return_goes_with_the_newline() {
        assert_eq!(entries(&[b"a\r", b"\nb\rc\r\n"]), [(false, b"a".to_vec()), (false, b"b\rc".to_vec())]);
    }

    proptest! {
        #[test]
        fn entries_do_not_depend_on_how_the_stream_was_read(
            text in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'x')], 0..200),
            cut in 0usize..200,
        ) {
            let (head, tail) = text.split_at(cut.min(text.len()));
            prop_assert_eq!(entries(&[head, tail]), entries(&[&text]));
        }
    }
}

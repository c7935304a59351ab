//! Turns log entries into what a user sees: chosen by stream and time, joined to lines, cut at a limit. Pure.

use jiff::Timestamp;

use super::writer::Stream;

/// An entry longer than this is not one of ours.
const MAX_ENTRY: usize = 64 * 1024;
/// A line in parts is put together up to this, so that the other stream's lines don't fall between.
const MAX_JOINED: usize = 1 << 20;

/// What of a log is wanted (upstream's `PodLogOptions`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Goes on with what is written later, until the container ends.
    pub follow: bool,
    /// Only this many lines from the end.
    pub tail_lines: Option<u64>,
    /// Only what was written then or later.
    pub since: Option<Timestamp>,
    /// Each line begins with its time.
    pub timestamps: bool,
    /// The output is cut after this many bytes.
    pub limit_bytes: Option<u64>,
    /// Only this stream.
    pub stream: Option<Stream>,
}

pub(super) struct Formatter {
    stream: Option<Stream>,
    since: Option<Timestamp>,
    timestamps: bool,
    remaining: Option<u64>,
    /// The beginning of an entry whose rest has not been read.
    torn: Vec<u8>,
    /// Lines in parts, of stdout and of stderr.
    joined: [Vec<u8>; 2],
}

impl Formatter {
    pub(super) fn new(options: LogOptions) -> Self {
        Self {
            stream: options.stream,
            since: options.since,
            timestamps: options.timestamps,
            remaining: options.limit_bytes,
            torn: Vec::new(),
            joined: [Vec::new(), Vec::new()],
        }
    }

    /// The limit is reached.
    pub(super) fn is_full(&self) -> bool {
        self.remaining == Some(0)
    }

    /// Takes a file's next bytes.
    pub(super) fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            match piece.strip_suffix(b"\n") {
                Some(end) if self.torn.is_empty() => self.entry(end, out),
                Some(end) => {
                    let mut entry = std::mem::take(&mut self.torn);
                    entry.extend_from_slice(end);
                    self.entry(&entry, out);
                }
                None if self.torn.len() + piece.len() <= MAX_ENTRY => self.torn.extend_from_slice(piece),
                None => self.torn.clear(),
            }
        }
    }

    /// Another file begins: an entry torn by a crash has no rest.
    pub(super) fn next_file(&mut self) {
        self.torn.clear();
    }

    /// Gives the lines that were begun and never ended.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        for line in std::mem::take(&mut self.joined) {
            self.give(&line, out);
        }
    }

    fn entry(&mut self, entry: &[u8], out: &mut Vec<u8>) {
        let Some(Entry { time, stream, partial, text }) = Entry::parse(entry) else { return };
        let wanted =
            self.stream.is_none_or(|wanted| wanted == stream) && self.since.is_none_or(|since| time.1 >= since);
        if !wanted || self.is_full() {
            return;
        }
        let index = match stream {
            Stream::Stdout => 0,
            Stream::Stderr => 1,
        };
        let mut line = std::mem::take(&mut self.joined[index]);
        if line.is_empty() && self.timestamps {
            line.extend_from_slice(time.0);
            line.push(b' ');
        }
        line.extend_from_slice(text);
        if partial && line.len() < MAX_JOINED {
            self.joined[index] = line;
            return;
        }
        if !partial {
            line.push(b'\n');
        }
        self.give(&line, out);
    }

    fn give(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let length = match &mut self.remaining {
            Some(remaining) => {
                let length = usize::try_from(*remaining).unwrap_or(usize::MAX).min(line.len());
                *remaining -= length as u64;
                length
            }
            None => line.len(),
        };
        out.extend_from_slice(&line[..length]);
    }
}

struct Entry<'a> {
    time: (&'a [u8], Timestamp),
    stream: Stream,
    partial: bool,
    text: &'a [u8],
}

impl<'a> Entry<'a> {
    fn parse(entry: &'a [u8]) -> Option<Self> {
        let mut fields = entry.splitn(4, |byte| *byte == b' ');
        let time = fields.next()?;
        let stream = match fields.next()? {
            b"stdout" => Stream::Stdout,
            b"stderr" => Stream::Stderr,
            _ => return None,
        };
        let partial = match fields.next()? {
            b"F" => false,
            b"P" => true,
            _ => return None,
        };
        let parsed = std::str::from_utf8(time).ok()?.parse().ok()?;
        Some(Self { time: (time, parsed), stream, partial, text: fields.next()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &[u8] = b"2026-01-01T00:00:00.000000000Z stdout F one\n\
        2026-01-01T00:00:01.000000000Z stdout P two \n\
        2026-01-01T00:00:01.000000000Z stderr F error\n\
        2026-01-01T00:00:02.000000000Z stdout F and a half\n\
        not an entry\n\
        2026-01-01T00:00:03.000000000Z stdout P cut";

    fn shown(options: LogOptions) -> String {
        let mut formatter = Formatter::new(options);
        let mut out = Vec::new();
        for byte in LOG.iter().chain(b"\n") {
            formatter.push(&[*byte], &mut out);
        }
        formatter.finish(&mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn parts_are_joined_and_an_unfinished_line_has_no_newline() {
        assert_eq!(shown(LogOptions::default()), "one\nerror\ntwo and a half\ncut");
    }

    #[test]
    fn one_stream_can_be_chosen() {
        let options = LogOptions { stream: Some(Stream::Stderr), ..LogOptions::default() };
        assert_eq!(shown(options), "error\n");
    }

    #[test]
    fn a_time_stands_at_the_beginning_of_a_line_only() {
        let since = "2026-01-01T00:00:01Z".parse().ok();
        let options = LogOptions { timestamps: true, since, stream: Some(Stream::Stdout), ..LogOptions::default() };
        let expected = "2026-01-01T00:00:01.000000000Z two and a half\n2026-01-01T00:00:03.000000000Z cut";
        assert_eq!(shown(options), expected);
    }

    #[test]
    fn output_is_cut_at_the_limit() {
        assert_eq!(shown(LogOptions { limit_bytes: Some(6), ..LogOptions::default() }), "one\ner");
    }
}

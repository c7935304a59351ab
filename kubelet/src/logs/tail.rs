//! Where the last lines of a log begin, found from its end without reading the rest.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const BLOCK: u64 = 64 * 1024;
/// Where an entry's tag stands: after a time of 30 bytes, the stream's name of 6, and two spaces.
const TAG: u64 = 38;

/// The file, by its index, and the offset in it, where the last `lines` lines of a log begin; `files` from old to new.
///
/// # Errors
/// When a file can't be read.
pub(super) fn position(files: &[File], lines: u64) -> io::Result<(usize, u64)> {
    let mut wanted = lines;
    for (index, file) in files.iter().enumerate().rev() {
        let newest = index + 1 == files.len();
        match scan(file, wanted, newest)? {
            Scan::Begins(offset) => return Ok((index, offset)),
            Scan::Has(found) if found >= wanted => return Ok((index, 0)),
            Scan::Has(found) => wanted -= found,
        }
    }
    Ok((0, 0))
}

enum Scan {
    /// The wanted lines begin here.
    Begins(u64),
    /// The file has no more lines than these.
    Has(u64),
}

/// A line ends with the entry that is not partial; in the newest file, the last entry may end one too, since its line
/// goes on only later.
fn scan(file: &File, wanted: u64, newest: bool) -> io::Result<Scan> {
    let size = file.metadata()?.len();
    let (mut found, mut last) = (0, newest);
    // The end of the entry whose beginning is looked for; none before the last whole entry's.
    let mut entry_end = None;
    let mut block_end = size;
    let mut buffer = Vec::new();
    while block_end > 0 {
        let block_start = block_end.saturating_sub(BLOCK);
        let read_end = (block_end + TAG + 1).min(size);
        buffer.resize((read_end - block_start) as usize, 0);
        file.read_exact_at(&mut buffer, block_start)?;
        let searched = (block_end - block_start) as usize;
        let newlines = (0..searched).rev().filter(|index| buffer[*index] == b'\n').map(|index| index as u64 + 1);
        let beginnings = newlines.chain((block_start == 0).then_some(0));
        for relative in beginnings {
            let begins = block_start + relative;
            let Some(ends) = entry_end.replace(begins) else {
                if wanted == 0 {
                    return Ok(Scan::Begins(begins));
                }
                continue;
            };
            let partial = buffer.get((relative + TAG) as usize) == Some(&b'P');
            if partial && !std::mem::take(&mut last) {
                continue;
            }
            last = false;
            if found == wanted {
                return Ok(Scan::Begins(ends));
            }
            found += 1;
        }
        block_end = block_start;
    }
    Ok(Scan::Has(found))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::writer::{LogWriter, Rotation, Stream};
    use jiff::Timestamp;

    fn log(entries: &[(bool, usize)]) -> (tempfile::TempDir, File) {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("0.log");
        let mut writer = LogWriter::open(&path, Rotation { max_bytes: u64::MAX, max_files: 2 }).expect("open");
        for (partial, length) in entries {
            let text = vec![b'x'; *length];
            writer.write(Timestamp::UNIX_EPOCH, Stream::Stdout, *partial, &text).expect("write");
        }
        (directory, File::open(path).expect("log"))
    }

    /// An entry's length: time, stream and tag, text, newline.
    const fn entry(text: u64) -> u64 {
        TAG + 2 + text + 1
    }

    #[test]
    fn the_last_lines_are_counted_from_the_end() {
        let (_directory, file) = log(&[(false, 1), (false, 2), (false, 3)]);
        assert_eq!(position(&[file], 2).expect("position"), (0, entry(1)));
    }

    #[test]
    fn a_line_in_parts_counts_once() {
        let (_directory, file) = log(&[(false, 1), (true, 2), (true, 3), (false, 4)]);
        assert_eq!(position(&[file], 1).expect("position"), (0, entry(1)));
    }

    #[test]
    fn a_line_that_goes_on_later_counts() {
        let (_directory, file) = log(&[(false, 1), (false, 2), (true, 3), (true, 4)]);
        assert_eq!(position(&[file], 1).expect("position"), (0, entry(1) + entry(2)));
    }

    #[test]
    fn more_lines_than_a_file_has_are_looked_for_in_the_one_before() {
        let (_old_directory, old) = log(&[(false, 1), (false, 2)]);
        let (_new_directory, new) = log(&[(false, 3)]);
        assert_eq!(position(&[old, new], 2).expect("position"), (0, entry(1)));
    }

    #[test]
    fn no_lines_begin_at_the_end() {
        let (_directory, file) = log(&[(false, 1), (false, 2)]);
        assert_eq!(position(&[file], 0).expect("position"), (0, entry(1) + entry(2)));
    }

    #[test]
    fn a_log_longer_than_a_block_is_read_from_its_end() {
        let entries: Vec<_> = (0..20).map(|length| (false, 10_000 + length)).collect();
        let (_directory, file) = log(&entries);
        let before: u64 = (0..3).map(|length| entry(10_000 + length)).sum();
        assert_eq!(position(&[file], 17).expect("position"), (0, before));
    }
}

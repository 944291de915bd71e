//! Reads the lines of a record file: plain or gzip, within bounds.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

/// Maximum length of a line that is read, in bytes; no gate writes so many.
pub const MAX_LINE: usize = 1 << 20;
/// Bytes read at once.
const BUFFER: usize = 256 << 10;
/// The first bytes of a gzip file (RFC 1952 section 2.3.1).
const GZIP: &[u8] = &[0x1f, 0x8b];

/// The lines of one file, one after the other.
pub struct Lines {
    reader: Box<dyn BufRead>,
    line: Vec<u8>,
}

/// A line, without its newline.
#[derive(Debug, Eq, PartialEq)]
pub enum Line<'l> {
    /// A whole line. The last one of a file may have no newline.
    Whole(&'l [u8]),
    /// A line of more than [`MAX_LINE`] bytes, which was skipped.
    TooLong,
}

/// Reads each line of a file; `-` is standard input.
///
/// # Errors
///
/// Like [`Lines::open`] and [`Lines::next`].
pub fn each(path: &Path, mut read: impl FnMut(Line<'_>)) -> io::Result<()> {
    let mut lines = Lines::open(path)?;
    while let Some(line) = lines.next()? {
        read(line);
    }
    Ok(())
}

impl Lines {
    /// Opens a file; `-` is standard input.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened or its first bytes cannot be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        if path == Path::new("-") {
            return Self::of(BufReader::with_capacity(BUFFER, io::stdin()));
        }
        Self::of(BufReader::with_capacity(BUFFER, File::open(path)?))
    }

    /// Reads from a reader, and decompresses gzip.
    ///
    /// # Errors
    ///
    /// If its first bytes cannot be read.
    pub fn of(mut reader: impl BufRead + 'static) -> io::Result<Self> {
        let packed = reader.fill_buf()?.starts_with(GZIP);
        let reader: Box<dyn BufRead> = if packed {
            let unpacked = MultiGzDecoder::new(reader);
            Box::new(BufReader::with_capacity(BUFFER, unpacked))
        } else {
            Box::new(reader)
        };
        Ok(Self {
            reader,
            line: Vec::new(),
        })
    }

    /// Returns the next line; `None` at the end.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or is not a whole gzip file.
    #[expect(
        clippy::should_implement_trait,
        reason = "a line borrows what the next one overwrites"
    )]
    pub fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        self.line.clear();
        let most = u64::try_from(MAX_LINE).unwrap_or(u64::MAX) + 1;
        let mut part = (&mut self.reader).take(most);
        let read = part.read_until(b'\n', &mut self.line)?;
        if read == 0 {
            return Ok(None);
        }
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
        } else if self.line.len() > MAX_LINE {
            self.skip_rest()?;
            return Ok(Some(Line::TooLong));
        }
        Ok(Some(Line::Whole(&self.line)))
    }

    /// Skips the rest of a line, without storing it.
    fn skip_rest(&mut self) -> io::Result<()> {
        loop {
            let held = self.reader.fill_buf()?;
            let end = held.iter().position(|byte| *byte == b'\n');
            let used = end.map_or(held.len(), |end| end + 1);
            self.reader.consume(used);
            if end.is_some() || used == 0 {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write as _};

    use super::*;

    fn read(bytes: &[u8]) -> Vec<Result<Vec<u8>, ()>> {
        let mut lines = Lines::of(Cursor::new(bytes.to_vec())).expect("a reader");
        let mut all = Vec::new();
        while let Some(line) = lines.next().expect("a line") {
            all.push(match line {
                Line::Whole(bytes) => Ok(bytes.to_vec()),
                Line::TooLong => Err(()),
            });
        }
        all
    }

    #[test]
    fn lines_end_with_a_newline_or_with_the_file() {
        assert_eq!(
            read(b"a\n\nb"),
            [Ok(b"a".to_vec()), Ok(vec![]), Ok(b"b".to_vec())]
        );
        assert_eq!(read(b""), []);
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_over_and_the_next_one_is_read() {
        for extra in [0, 1, 5, BUFFER] {
            let long = vec![b'x'; MAX_LINE + extra];
            let text = [b"a\n", &long[..], b"\nb\n"].concat();
            let middle = if extra == 0 { Ok(long) } else { Err(()) };
            assert_eq!(
                read(&text),
                [Ok(b"a".to_vec()), middle, Ok(b"b".to_vec())],
                "{extra}"
            );
        }
    }

    #[test]
    fn packed_files_of_several_members_are_unpacked() {
        let pack = |text: &[u8]| {
            let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            packer.write_all(text).expect("packed");
            packer.finish().expect("packed")
        };
        let members = [pack(b"a\nb"), pack(b"c\nd\n")].concat();
        assert_eq!(
            read(&members),
            [Ok(b"a".to_vec()), Ok(b"bc".to_vec()), Ok(b"d".to_vec())]
        );
        let mut lines = Lines::of(Cursor::new(members[..20].to_vec())).expect("a reader");
        let fails = loop {
            match lines.next() {
                Ok(Some(_)) => {}
                end => break end.is_err(),
            }
        };
        assert!(fails, "a file that ends early is no end");
    }
}

//! Splits the bytes that arrive into lines, wherever TCP has cut the bytes.

use bytes::{Buf, BytesMut};
use memchr::memchr;
use thiserror::Error;

/// Bytes read at a time.
const CHUNK: usize = 16 << 10;
/// A buffer that one line made larger than this is freed after that line.
const KEEP: usize = 64 << 10;

/// A line is too long. Its `\n` and one `\r` before that are not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("line longer than {0} bytes (text.max_line)")]
pub(super) struct TooLong(usize);

/// The bytes that have arrived, split into lines.
#[derive(Debug)]
pub(super) struct Lines {
    buffer: BytesMut,
    /// The length of the last line that was returned. The line is still at the front of the buffer.
    taken: usize,
    /// The number of bytes after that line that are known to contain no line end.
    searched: usize,
    max_line: usize,
    /// The most bytes that the buffer has held since it was new.
    largest: usize,
}

impl Lines {
    /// Creates an empty buffer for lines of at most `max_line` bytes, without their `\n` or `\r\n`.
    pub(super) fn new(max_line: usize) -> Self {
        Self { buffer: BytesMut::new(), taken: 0, searched: 0, max_line, largest: 0 }
    }

    /// Returns the buffer to read into, with room for a chunk.
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        self.largest = self.largest.max(self.buffer.len());
        self.forget_taken();
        if self.buffer.is_empty() && self.largest > KEEP {
            self.buffer = BytesMut::new();
            self.largest = 0;
        }
        self.buffer.reserve(CHUNK);
        &mut self.buffer
    }

    /// Returns `true` if there are bytes that were not searched yet.
    pub(super) fn has_more(&self) -> bool {
        self.taken + self.searched < self.buffer.len()
    }

    /// Returns the next complete line, without the `\n` and any `\r` at its end.
    ///
    /// # Errors
    /// [`TooLong`]. After this error, no further line can be found.
    pub(super) fn next(&mut self) -> Result<Option<&[u8]>, TooLong> {
        self.forget_taken();
        let Some(at) = memchr(b'\n', &self.buffer[self.searched..]) else {
            self.searched = self.buffer.len();
            return self.bounded(&self.buffer).map(|_| None);
        };
        let end = self.searched + at;
        self.searched = 0;
        self.taken = end + 1;
        self.bounded(&self.buffer[..end]).map(|line| Some(trimmed(line)))
    }

    /// Returns the bytes of an unfinished line, after [`next`](Self::next) has returned `None`.
    pub(super) fn unfinished(&self) -> &[u8] {
        &self.buffer
    }

    /// Returns the line if it is not too long. Only one `\r` at its end is free: a sender of nothing but `\r` must not
    /// fill the memory.
    fn bounded<'a>(&self, line: &'a [u8]) -> Result<&'a [u8], TooLong> {
        let length = line.strip_suffix(b"\r").unwrap_or(line).len();
        if length > self.max_line { Err(TooLong(self.max_line)) } else { Ok(line) }
    }

    fn forget_taken(&mut self) {
        self.buffer.advance(std::mem::take(&mut self.taken));
    }
}

/// Returns a line without any `\r` at its end, like `rtrim` of the origin.
fn trimmed(line: &[u8]) -> &[u8] {
    let returns = line.iter().rev().take_while(|&&byte| byte == b'\r').count();
    &line[..line.len() - returns]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Splits `bytes` into lines in the simplest way.
    fn model(bytes: &[u8], max_line: usize) -> (Vec<Vec<u8>>, bool) {
        let is_too_long = |piece: &[u8]| piece.strip_suffix(b"\r").unwrap_or(piece).len() > max_line;
        let mut lines = Vec::new();
        let mut pieces: Vec<_> = bytes.split(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect();
        let rest = pieces.pop().unwrap_or_default();
        for mut piece in pieces {
            if is_too_long(&piece) {
                return (lines, true);
            }
            while piece.ends_with(b"\r") {
                piece.pop();
            }
            lines.push(piece);
        }
        (lines, is_too_long(&rest))
    }

    fn split(segments: &[Vec<u8>], max_line: usize) -> (Vec<Vec<u8>>, bool) {
        let mut lines = Lines::new(max_line);
        let mut all = Vec::new();
        for segment in segments {
            lines.buffer().extend_from_slice(segment);
            loop {
                match lines.next() {
                    Ok(Some(line)) => all.push(line.to_vec()),
                    Ok(None) => break,
                    Err(_) => return (all, true),
                }
            }
            assert!(!lines.has_more());
        }
        (all, false)
    }

    proptest! {
        #[test]
        fn agrees_with_the_model_however_the_segments_are_cut(
            segments in prop::collection::vec(prop::collection::vec(prop::sample::select(b"ab\r\n".to_vec()), 0..12), 0..12),
            max_line in prop::sample::select(vec![100, 9]),
        ) {
            prop_assert_eq!(split(&segments, max_line), model(&segments.concat(), max_line));
        }

        #[test]
        fn a_line_past_the_bound_is_refused_in_whole_and_in_pieces(length in 0..40usize, cut in 0..40usize) {
            let line = [vec![b'x'; length], b"\r\n".to_vec()].concat();
            let (head, tail) = line.split_at(cut.min(line.len()));
            let (lines, too_long) = split(&[head.to_vec(), tail.to_vec()], 20);
            prop_assert_eq!(too_long, length > 20);
            prop_assert_eq!(lines.len(), usize::from(length <= 20));
        }
    }

    #[test]
    fn an_unterminated_line_does_not_grow_past_the_bound() {
        let mut lines = Lines::new(10);
        lines.buffer().extend_from_slice(b"12345678901");
        assert_eq!(lines.next(), Err(TooLong(10)));
    }

    #[test]
    fn line_ends_that_never_end_a_line_are_bounded_too() {
        let mut lines = Lines::new(10);
        lines.buffer().extend_from_slice(b"1234567890\r\r\n");
        assert_eq!(lines.next(), Err(TooLong(10)));
        let mut lines = Lines::new(10);
        lines.buffer().extend_from_slice(b"1\r\r\r\n\r\r\r\r\r\r\r\r\r\r\r");
        assert_eq!(lines.next(), Ok(Some(&b"1"[..])));
        assert_eq!(lines.next(), Ok(None));
        lines.buffer().extend_from_slice(b"\r");
        assert_eq!(lines.next(), Err(TooLong(10)));
    }

    #[test]
    fn memory_taken_for_one_long_line_is_given_back() {
        let mut lines = Lines::new(1 << 20);
        lines.buffer().extend_from_slice(&[b'x'; (1 << 20) - 1]);
        lines.buffer.extend_from_slice(b"\n");
        assert_eq!(lines.next().unwrap().unwrap().len(), (1 << 20) - 1);
        assert!(lines.buffer().capacity() <= KEEP);
    }
}

//! Text from untrusted sources: bounded while it is made, cleaned before it is shown.

use std::fmt::{self, Write as _};

/// Most bytes of an error in the log.
const MAX_ERROR: usize = 2048;

/// Converts an error of the engine, with all its causes, to an error of one line.
pub(crate) fn plain(error: wasmtime::Error) -> anyhow::Error {
    anyhow::Error::msg(shown(format_args!("{error:#}"), MAX_ERROR))
}

/// Writes an error with all its causes as one line for the log. The error may quote untrusted text.
pub(crate) fn line(error: &anyhow::Error) -> String {
    shown(format_args!("{error:#}"), MAX_ERROR)
}

/// Returns the beginning of a text, [cleaned](clean). Stops making the text after `limit` bytes, however long it would
/// be.
pub(crate) fn shown(text: impl fmt::Display, limit: usize) -> String {
    // One byte more than is shown: this byte tells that the text was longer.
    let mut bounded = BoundedText { bytes: Vec::new(), limit: limit + 1 };
    // Fails if the text is too long. The rest of the text is not needed.
    let _ = write!(bounded, "{text}");
    clean(&bounded.bytes, limit)
}

/// Writes a list of names. Only the first names are written: there may be a million.
pub(crate) fn list<T: fmt::Display>(names: impl IntoIterator<Item = T>) -> String {
    const MOST: usize = 20;
    let mut names = names.into_iter();
    let mut list = String::new();
    for name in names.by_ref().take(MOST) {
        let comma = if list.is_empty() { "" } else { ", " };
        let _ = write!(list, "{comma}{}", shown(name, MAX_NAME));
    }
    match names.count() {
        0 => list,
        more => format!("{list} and {more} more"),
    }
}

/// Most bytes of one name.
const MAX_NAME: usize = 256;

/// A buffer with a limit. A write past the limit fails, which stops the writer.
struct BoundedText {
    bytes: Vec<u8>,
    limit: usize,
}

impl fmt::Write for BoundedText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.limit - self.bytes.len();
        self.bytes.extend_from_slice(&text.as_bytes()[..text.len().min(room)]);
        if text.len() > room { Err(fmt::Error) } else { Ok(()) }
    }
}

/// Makes text safe for the log: one line of UTF-8, without control characters and without characters that make a
/// terminal show text in another order; at most `limit` bytes and an ellipsis.
pub(crate) fn clean(line: &[u8], limit: usize) -> String {
    let cut = line.len() > limit;
    let line = String::from_utf8_lossy(&line[..line.len().min(limit)]);
    let mut clean: String = line.chars().map(|c| if is_harmful(c) { ' ' } else { c }).collect();
    if cut {
        // Remove the half of a character that may be left at the cut.
        clean.truncate(clean.trim_end_matches(char::REPLACEMENT_CHARACTER).len());
        clean.push('…');
    }
    clean
}

/// Makes text safe for a terminal, so that the text cannot control it. Line ends stay.
pub fn tame(text: &str) -> String {
    text.chars().map(|c| if c != '\n' && is_harmful(c) { ' ' } else { c }).collect()
}

/// Returns `true` if a character controls a terminal, or makes a line look like another line.
pub(crate) fn is_harmful(c: char) -> bool {
    // Zero-width characters and marks; line and paragraph separator, embeddings and overrides; joiners, invisible
    // operators and isolates; the byte order mark; tags, which are invisible and which some programs read.
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(c, '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_and_long_lines_are_tamed() {
        assert_eq!(clean(b"a\x1b[31mb\rc\td", 100), "a [31mb c d");
        assert_eq!(clean("a\u{2028}b\u{202e}c\u{2069}d".as_bytes(), 100), "a b c d");
        assert_eq!(clean("a\u{200b}b\u{feff}c\u{e0041}d\u{200f}".as_bytes(), 100), "a b c d ");
        assert_eq!(clean("äää".as_bytes(), 3), "ä…");
        assert_eq!(clean(b"abc", 3), "abc");
        assert_eq!(clean(b"\xff", 3), "\u{fffd}");
    }

    /// A text that never ends.
    struct Endless;

    impl fmt::Display for Endless {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            loop {
                f.write_str("again and ")?;
            }
        }
    }

    #[test]
    fn a_text_is_made_no_further_than_it_is_shown() {
        assert_eq!(shown(Endless, 16), "again and again …");
        assert_eq!(shown("äää", 3), "ä…");
        assert_eq!((shown("abc", 3), shown("abcd", 3)), ("abc".to_owned(), "abc…".to_owned()));
        assert_eq!(list([1, 2]), "1, 2");
        assert!(list((0..1_000_000).map(|_| Endless)).ends_with("… and 999980 more"));
    }
}

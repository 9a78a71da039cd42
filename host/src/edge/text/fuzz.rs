//! Fuzz target: lines of the text port with any content.

use super::foreign::ProtocolCheck;
use super::lines::Lines;

/// Splits bytes into lines, once in one piece and once in small pieces, and compares the results. The first byte is the
/// longest line, the second byte the size of the pieces.
pub(crate) fn lines(bytes: &[u8]) {
    let [max_line, size, bytes @ ..] = bytes else { return };
    let max_line = usize::from(*max_line);
    let (lines, ended) = split(std::iter::once(bytes), max_line);
    let cut = split(bytes.chunks(usize::from(*size).max(1)), max_line);
    assert_eq!((&lines, ended), (&cut.0, cut.1), "the result depends on where the bytes are cut");
    let mut opening = ProtocolCheck::default();
    for line in &lines {
        assert!(line.len() <= max_line && !line.contains(&b'\n'), "{line:?}");
        let has_control = line.iter().any(u8::is_ascii_control);
        assert!(!opening.is_foreign(line) || !line.starts_with(b"{") || has_control, "{line:?}");
    }
    let ends = bytes.iter().filter(|&&byte| byte == b'\n').count();
    assert!(lines.len() <= ends && (ended || lines.len() == ends), "{} lines, {ends} line ends", lines.len());
}

/// Returns the lines, and `true` if a line was too long.
fn split<'a>(pieces: impl Iterator<Item = &'a [u8]>, max_line: usize) -> (Vec<Vec<u8>>, bool) {
    let mut lines = Lines::new(max_line);
    let mut all = Vec::new();
    for piece in pieces {
        lines.buffer().extend_from_slice(piece);
        loop {
            match lines.next() {
                Ok(Some(line)) => all.push(line.to_vec()),
                Ok(None) => break,
                Err(_) => return (all, true),
            }
        }
    }
    (all, false)
}

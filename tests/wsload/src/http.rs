//! HTTP/1.1 without I/O, as much of it as wsload and its test server need.

use std::borrow::Cow;

use crate::ws::{MAX_HEAD, has_token, header};

/// The largest body that is read.
const MAX_BODY: usize = 64 * 1024 * 1024;
/// The longest line with the size of a chunk.
const MAX_SIZE_LINE: usize = 256;

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    Bytes(usize),
    Chunked,
}

/// The head of a request or of an answer.
#[derive(Debug)]
pub(crate) struct Head<'a> {
    pub(crate) text: &'a str,
    pub(crate) length: Length,
}

impl<'a> Head<'a> {
    /// Parses the head at the start of `data`. Returns `None` if it is incomplete.
    pub(crate) fn parse(data: &'a [u8]) -> Result<Option<Head<'a>>, String> {
        let Some(end) = memchr::memmem::find(data, b"\r\n\r\n") else {
            return if data.len() > MAX_HEAD {
                Err("the head of an HTTP message is too long".into())
            } else {
                Ok(None)
            };
        };
        let text = std::str::from_utf8(&data[..end + 4]).map_err(|_| "the head of an HTTP message is not UTF-8")?;
        let length = if header(text, "Transfer-Encoding").is_some_and(|value| has_token(value, "chunked")) {
            Length::Chunked
        } else {
            let bytes = header(text, "Content-Length").map_or(Ok(0), str::parse);
            Length::Bytes(bytes.ok().filter(|bytes| *bytes <= MAX_BODY).ok_or("a bad Content-Length")?)
        };
        Ok(Some(Head { text, length }))
    }

    /// The first line.
    pub(crate) fn start_line(&self) -> &'a str {
        self.text.split("\r\n").next().unwrap_or_default()
    }

    /// The status of an answer. 0 if there is none.
    pub(crate) fn status(&self) -> u16 {
        self.text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }
}

/// A request or an answer with its whole body.
#[derive(Debug)]
pub(crate) struct Message<'a> {
    pub(crate) head: Head<'a>,
    pub(crate) body: Cow<'a, [u8]>,
    /// The number of bytes of head and body.
    pub(crate) size: usize,
}

impl<'a> Message<'a> {
    /// Parses the message at the start of `data`. Returns `None` if it is incomplete.
    pub(crate) fn parse(data: &'a [u8]) -> Result<Option<Message<'a>>, String> {
        let Some(head) = Head::parse(data)? else { return Ok(None) };
        let mut rest = &data[head.text.len()..];
        let body = match head.length {
            Length::Bytes(bytes) => {
                let Some((body, after)) = rest.split_at_checked(bytes) else { return Ok(None) };
                rest = after;
                Cow::Borrowed(body)
            }
            Length::Chunked => {
                let (mut chunks, mut body) = (Chunks::default(), Vec::new());
                loop {
                    match chunks.next(&mut rest)? {
                        Part::Data(data) => body.extend_from_slice(data),
                        Part::Incomplete => return Ok(None),
                        Part::End => break Cow::Owned(body),
                    }
                }
            }
        };
        Ok(Some(Message { head, body, size: data.len() - rest.len() }))
    }
}

/// Takes the chunks of a body apart.
#[derive(Default)]
struct Chunks {
    /// The number of bytes of the current chunk that are still to come, with the line end after it.
    left: usize,
}

/// A part of a chunked body.
enum Part<'a> {
    Data(&'a [u8]),
    /// More bytes are needed.
    Incomplete,
    End,
}

impl Chunks {
    /// Takes the next part from the start of `data`.
    fn next<'a>(&mut self, data: &mut &'a [u8]) -> Result<Part<'a>, String> {
        if self.left == 2 {
            let Some((end, rest)) = data.split_first_chunk() else { return Ok(Part::Incomplete) };
            if end != b"\r\n" {
                return Err("a chunk is longer than its size".into());
            }
            (*data, self.left) = (rest, 0);
        }
        if self.left == 0 {
            let Some(end) = memchr::memchr(b'\n', &data[..data.len().min(MAX_SIZE_LINE)]) else {
                let long = data.len() >= MAX_SIZE_LINE;
                return if long { Err("a chunk without a size".into()) } else { Ok(Part::Incomplete) };
            };
            let text = std::str::from_utf8(&data[..end]).unwrap_or_default();
            let text = text.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(text, 16).ok().filter(|size| *size <= MAX_BODY);
            let size = size.ok_or_else(|| format!("'{}' is no size of a chunk", text.escape_debug()))?;
            let rest = &data[end + 1..];
            if size == 0 {
                // Trailers are not understood.
                let Some((_, rest)) = rest.split_first_chunk::<2>() else { return Ok(Part::Incomplete) };
                *data = rest;
                return Ok(Part::End);
            }
            (*data, self.left) = (rest, size + 2);
        }
        let (part, rest) = data.split_at(data.len().min(self.left - 2));
        (*data, self.left) = (rest, self.left - part.len());
        Ok(if part.is_empty() { Part::Incomplete } else { Part::Data(part) })
    }
}

/// Reads the lines of a chunked body as they arrive. A line may go over the end of a chunk.
#[derive(Default)]
pub(crate) struct Lines {
    chunks: Chunks,
    /// The beginning of a line that is incomplete.
    begun: Vec<u8>,
    /// True after the last chunk.
    pub(crate) ended: bool,
}

impl Lines {
    /// Calls `each` with every line that is complete, up to the end of the body. Returns the number of used bytes; the
    /// rest is to be offered again, with more bytes.
    pub(crate) fn read(&mut self, data: &[u8], mut each: impl FnMut(&[u8])) -> Result<usize, String> {
        let mut rest = data;
        while !self.ended {
            match self.chunks.next(&mut rest)? {
                Part::Data(mut part) => {
                    while let Some(end) = memchr::memchr(b'\n', part) {
                        if self.begun.is_empty() {
                            each(&part[..end]);
                        } else {
                            self.begun.extend_from_slice(&part[..end]);
                            each(&self.begun);
                            self.begun.clear();
                        }
                        part = &part[end + 1..];
                    }
                    self.begun.extend_from_slice(part);
                    if self.begun.len() > MAX_BODY {
                        return Err("a line is too long".into());
                    }
                }
                Part::Incomplete => break,
                Part::End => self.ended = true,
            }
        }
        Ok(data.len() - rest.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIXED: &[u8] = b"HTTP/1.1 404 Not Found\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhello";
    const CHUNKED: &[u8] =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n0002;x=y\r\nlo\r\n0\r\n\r\n";

    #[test]
    fn a_message_is_parsed_once_it_is_complete() {
        for (bytes, status) in [(FIXED, 404), (CHUNKED, 200)] {
            let more = [bytes, b"HTTP/1.1 200"].concat();
            for end in 0..bytes.len() {
                assert!(Message::parse(&more[..end]).unwrap().is_none(), "{end}");
            }
            let message = Message::parse(&more).unwrap().unwrap();
            assert_eq!((message.head.status(), &*message.body, message.size), (status, &b"hello"[..], bytes.len()));
        }
    }

    #[test]
    fn what_is_no_http_is_refused() {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        for body in ["x\r\n", "1\r\nab\r\n", "fffffffff\r\n", &"0".repeat(300)] {
            assert!(Message::parse(format!("{head}{body}").as_bytes()).is_err(), "{body}");
        }
        assert!(Message::parse(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n").is_err());
        assert!(Message::parse(&[b'x'; MAX_HEAD + 1]).is_err());
    }

    #[test]
    fn lines_go_over_the_ends_of_chunks_and_of_reads() {
        let body = b"4\r\none\n\r\n7\r\ntwo\nthr\r\n3\r\nee\n\r\n1\r\nx\r\n0\r\n\r\nmore";
        for step in 1..body.len() {
            let (mut lines, mut read, mut rest) = (Lines::default(), Vec::new(), Vec::new());
            for part in body.chunks(step) {
                rest.extend_from_slice(part);
                let used = lines.read(&rest, |line| read.push(line.to_vec())).unwrap();
                rest.drain(..used);
            }
            assert!(lines.ended);
            assert_eq!(read, [&b"one"[..], b"two", b"three"], "{step}");
            assert_eq!(rest, b"more");
        }
    }
}

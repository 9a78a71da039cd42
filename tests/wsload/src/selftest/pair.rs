//! The subset of JSON that the test server understands.

/// Reads `{"<first>":"a","<second>":"b"}` as (a, b), without a JSON parser. Refuses any other spelling, escapes
/// included.
pub(super) fn json_pair<'a>(body: &'a [u8], first: &[u8], second: Option<&[u8]>) -> Option<(&'a [u8], &'a [u8])> {
    fn value<'b>(rest: &'b [u8], key: &[u8]) -> Option<(&'b [u8], &'b [u8])> {
        let rest = rest.strip_prefix(b"\"")?.strip_prefix(key)?.strip_prefix(b"\":\"")?;
        let end = memchr::memchr2(b'"', b'\\', rest)?;
        (rest[end] == b'"').then(|| (&rest[..end], &rest[end + 1..]))
    }
    let (a, rest) = value(body.strip_prefix(b"{")?, first)?;
    let Some(second) = second else { return Some((a, b"")) };
    let (b, rest) = value(rest.strip_prefix(b",")?, second)?;
    (rest == b"}").then_some((a, b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs() {
        assert_eq!(json_pair(br#"{"id":"u1"}"#, b"id", None), Some((&b"u1"[..], &b""[..])));
        assert_eq!(json_pair(br#"{"id":"u1","msg":"hello"}"#, b"id", Some(b"msg")), Some((&b"u1"[..], &b"hello"[..])));
        assert_eq!(json_pair(br#"{"id":"u1","msg":"a\"b"}"#, b"id", Some(b"msg")), None);
        assert_eq!(json_pair(br#"{"uid":"u1","x":2}"#, b"uid", None), Some((&b"u1"[..], &b""[..])));
        assert_eq!(json_pair(b"nonsense", b"id", None), None);
    }
}

//! Reads the bodies of requests, within the memory that all requests together may use.

use std::sync::Arc;

use axum::body::{Body, HttpBody as _};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use futures_util::StreamExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::base::message::Message;
use crate::edge::http::bounded::STANDSTILL;
use crate::edge::http::problem::{Problem, Reason};

/// Memory that is reserved for an announced body when its first bytes arrive.
const FIRST: usize = 16 << 10;

/// The memory for the bodies of all requests (`api.in_flight`), one permit for each byte.
#[derive(Debug, Clone)]
pub(super) struct Room(Arc<Semaphore>);

/// Memory that a request has taken. Dropping it gives the memory back.
pub(super) type RoomPermit = OwnedSemaphorePermit;

impl Room {
    pub(super) fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS))))
    }

    /// Takes memory for a part of a body.
    pub(super) fn take(&self, bytes: usize) -> Result<RoomPermit, Problem> {
        let taken = u32::try_from(bytes).ok().and_then(|bytes| self.0.clone().try_acquire_many_owned(bytes).ok());
        taken.ok_or_else(|| {
            Problem::new(Reason::Budget, "too many bytes of other requests are under way (api.in_flight)")
        })
    }
}

/// Reads a body of at most `limit` bytes; `key` is the setting with the limit. The bytes are a copy: the buffers in
/// which they arrive are larger than a message, and a message may wait in an outbox for long.
pub(super) async fn read(room: &Room, body: Body, limit: usize, key: &str) -> Result<(Bytes, RoomPermit), Problem> {
    let too_large = || Problem::new(Reason::TooLarge, format_args!("the body is larger than {limit} bytes ({key})"));
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > limit {
        return Err(too_large());
    }
    // Memory is taken as the bytes arrive: a client that only announces them takes none.
    let mut taken = room.take(0)?;
    let mut bytes = BytesMut::new();
    let mut pieces = body.into_data_stream();
    let stalled = |_| Problem::new(Reason::Timeout, format_args!("no data arrived for {STANDSTILL:?}"));
    while let Some(piece) = timeout(STANDSTILL, pieces.next()).await.map_err(stalled)? {
        let piece = piece.map_err(|error| Problem::bad(format_args!("the body is broken: {error}")))?;
        let length = bytes.len() + piece.len();
        if length > limit {
            return Err(too_large());
        }
        taken.merge(room.take(piece.len())?);
        if bytes.is_empty() {
            bytes.reserve(announced.min(length.max(FIRST)));
        }
        bytes.extend_from_slice(&piece);
    }
    // Without the room for growth: a message may wait in an outbox for long.
    let bytes =
        if bytes.capacity() > bytes.len() + bytes.len() / 8 { Bytes::copy_from_slice(&bytes) } else { bytes.freeze() };
    Ok((bytes, taken))
}

/// Returns a body as a message: binary for `application/octet-stream`, text for types of text and JSON, for what
/// `curl -d` sends, and without a type.
pub(super) fn message(headers: &HeaderMap, body: Bytes) -> Result<Message, Problem> {
    if headers.get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return Err(Problem::new(
            Reason::MediaType,
            "a body with a Content-Encoding is not understood: send it as it is",
        ));
    }
    let media_type = headers.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    let media_type = media_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let media_type = media_type.to_ascii_lowercase();
    match &*media_type {
        b"application/octet-stream" => Ok(Message::Binary(body)),
        b"" | b"application/json" | b"application/x-www-form-urlencoded" => text(body).map(Message::Text),
        other if other.starts_with(b"text/") => text(body).map(Message::Text),
        _ => {
            let known = "application/octet-stream for a binary message; text/plain or application/json for a text";
            Err(Problem::new(Reason::MediaType, format_args!("this Content-Type is not understood: send {known}")))
        }
    }
}

/// Returns a body as text.
pub(super) fn text(body: Bytes) -> Result<ByteString, Problem> {
    let advice = "send a binary message as application/octet-stream";
    ByteString::try_from(body).map_err(|_| Problem::bad(format_args!("the body is not UTF-8: {advice}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bodies_take_memory_until_they_are_dropped() {
        let room = Room::new(10);
        let read = |length: usize| read(&room, Body::from(vec![b'x'; length]), 8, "api.max_message");
        let (bytes, taken) = read(6).await.unwrap();
        assert_eq!((bytes.len(), taken.num_permits()), (6, 6));
        assert_eq!(read(5).await.unwrap_err().reason, Reason::Budget);
        drop(taken);
        assert!(read(8).await.is_ok());
        assert_eq!(read(9).await.unwrap_err().error, "the body is larger than 8 bytes (api.max_message)");
        let pieces = |count| {
            let pieces = (0..count).map(|_| Ok::<_, std::io::Error>(Bytes::from_static(b"xx")));
            Body::from_stream(futures_util::stream::iter(pieces))
        };
        assert_eq!(super::read(&room, pieces(4), 8, "key").await.unwrap().0.len(), 8);
        assert_eq!(super::read(&room, pieces(5), 8, "key").await.unwrap_err().reason, Reason::TooLarge);
    }

    #[test]
    fn the_type_of_a_body_decides_about_the_frame() {
        let message = |media_type: Option<&str>, body: &'static [u8]| {
            let mut headers = HeaderMap::new();
            media_type.map(|it| headers.insert(CONTENT_TYPE, it.parse().unwrap()));
            message(&headers, Bytes::from_static(body)).map_err(|problem| problem.reason)
        };
        let curl = Some("application/x-www-form-urlencoded");
        for media_type in [None, curl, Some("Text/Plain; charset=utf-8"), Some("application/json")] {
            assert_eq!(message(media_type, b"{}"), Ok(Message::Text("{}".into())), "{media_type:?}");
        }
        let binary = Message::Binary(Bytes::from_static(b"\xff"));
        assert_eq!(message(Some("application/octet-stream"), b"\xff"), Ok(binary));
        assert_eq!(message(Some("text/plain"), b"\xff"), Err(Reason::BadRequest));
        assert_eq!(message(Some("multipart/form-data; boundary=x"), b""), Err(Reason::MediaType));
    }
}

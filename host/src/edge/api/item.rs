//! One item of a batch or a stream: a message in JSON, and the result of sending it.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytestring::ByteString;
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::caller::Publisher;
use super::idempotency::key_of;
use super::publish::{Delivered, Push, Unreached, publish};
use super::shared::Shared;
use super::target::{MAX_UIDS, Named};
use crate::base::message::Message;
use crate::edge::http::problem::{Problem, Reason};

/// The longest id of an item, in bytes.
const MAX_ID: usize = 256;
/// The most characters of an error of the JSON reader.
const MAX_ERROR: usize = 200;

/// An item as it is sent: exactly one recipient and exactly one body.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Item<'a> {
    id: Option<String>,
    uid: Option<String>,
    uids: Option<List<String, { MAX_UIDS + 1 }>>,
    connection: Option<String>,
    group: Option<String>,
    everyone: Option<bool>,
    text: Option<String>,
    #[serde(borrow, default, deserialize_with = "present")]
    json: Option<&'a RawValue>,
    base64: Option<String>,
    key: Option<String>,
}

/// Reads a value that is there, even if it is `null`.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

/// Reads an object. The error is short, although it may quote the text.
pub(super) fn object<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, String> {
    if json.trim_ascii_start().first() != Some(&b'{') {
        return Err("it must be an object, like {…}".to_owned());
    }
    serde_json::from_slice(json).map_err(|error| error.to_string().chars().take(MAX_ERROR).collect())
}

/// The first elements of a list in JSON, at most `MOST`. The others take no memory.
pub(super) struct List<T, const MOST: usize>(pub(super) Vec<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Deserialize<'de> for List<T, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(FirstElements(PhantomData))
    }
}

struct FirstElements<T, const MOST: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for FirstElements<T, MOST> {
    type Value = List<T, MOST>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while list.len() < MOST {
            match elements.next_element()? {
                Some(element) => list.push(element),
                None => return Ok(List(list)),
            }
        }
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(List(list))
    }
}

/// The id of an item that is wrong otherwise.
#[derive(Deserialize)]
struct Labelled {
    id: Option<String>,
}

/// The result of an item.
#[derive(Debug, Serialize)]
pub(super) struct ItemResult {
    /// The id that the item has, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// The HTTP status that a push of its own would have had.
    pub(super) status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Who was reached.
    #[serde(flatten)]
    pub(super) delivered: Delivered,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    replayed: bool,
}

impl ItemResult {
    fn new(id: Option<String>, result: Result<Delivered, Unreached>) -> Self {
        match result {
            Ok(delivered) => {
                let replayed = delivered.is_replay;
                Self { id, status: 200, reason: None, error: None, delivered, replayed }
            }
            Err(Unreached { problem, delivered }) => {
                let (status, reason) = (problem.status().as_u16(), Some(problem.reason.word()));
                let replayed = delivered.is_replay;
                Self { id, status, reason, error: Some(problem.error), delivered: *delivered, replayed }
            }
        }
    }
}

/// Sends an item.
pub(super) async fn send(shared: &Arc<Shared>, publisher: &Publisher, json: &[u8]) -> ItemResult {
    let item: Item<'_> = match object(json) {
        Ok(item) => item,
        Err(error) => {
            let problem = Problem::bad(format_args!("this is no item: {error}"));
            let id = object(json).ok().and_then(|Labelled { id }| id).filter(|id| id.len() <= MAX_ID);
            return ItemResult::new(id, Err(problem.into()));
        }
    };
    let (id, push) = item.into_push(shared.config.max_message);
    let result = match push {
        Ok(push) => publish(shared, publisher, push).await,
        Err(problem) => Err(problem.into()),
    };
    ItemResult::new(id, result)
}

impl Item<'_> {
    /// Returns the item's id, and the message to send.
    fn into_push(self, max_message: usize) -> (Option<String>, Result<Push, Problem>) {
        if self.id.as_ref().is_some_and(|id| id.len() > MAX_ID) {
            return (None, Err(Problem::bad(format_args!("the id of an item must have at most {MAX_ID} bytes"))));
        }
        let Self { id, uid, uids, connection, group, everyone, text, json, base64, key } = self;
        let push = || {
            let uids = match (uid, uids) {
                (Some(_), Some(_)) => return Err(Problem::bad("name either uid or uids")),
                (uid, uids) => uid.into_iter().chain(uids.into_iter().flat_map(|List(uids)| uids)).collect(),
            };
            if everyone == Some(false) {
                return Err(Problem::bad("everyone must be true, or left out"));
            }
            let target = Named { uids, connection, group, everyone: everyone.is_some() }.target()?;
            let message = match (text, json, base64) {
                (Some(text), None, None) => Message::Text(text.into()),
                (None, Some(json), None) => Message::Text(ByteString::from(json.get())),
                (None, None, Some(base64)) => {
                    let bytes =
                        STANDARD.decode(base64).map_err(|error| Problem::bad(format_args!("base64: {error}")))?;
                    Message::Binary(bytes.into())
                }
                _ => return Err(Problem::bad("an item must have exactly one of text, json and base64")),
            };
            if message.len() > max_message {
                let problem = format_args!("the message is larger than {max_message} bytes (api.max_message)");
                return Err(Problem::new(Reason::TooLarge, problem));
            }
            let key = match key {
                None => None,
                Some(key) => {
                    key_of(key.as_bytes()).map_err(Problem::bad)?;
                    let is_text = matches!(message, Message::Text(_));
                    let about = format!("item {target:?} {is_text} ");
                    Some((key, Sha256::new().chain_update(about).chain_update(message.as_bytes()).finalize().into()))
                }
            };
            Ok(Push { target, message, key })
        };
        let push = push();
        (id, push)
    }
}

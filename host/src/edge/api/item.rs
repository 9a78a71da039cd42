//! One item of a batch or a stream: a message in JSON, and the result of sending it.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytestring::ByteString;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::caller::Publisher;
use super::idempotency::key_of;
use super::publish::{Delivered, Push, Unreached, publish};
use super::shared::Shared;
use super::target::Named;
use crate::base::message::Message;
use crate::edge::http::problem::{Problem, Reason};

/// An item as it is sent: exactly one recipient and exactly one body.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Item<'a> {
    id: Option<String>,
    uid: Option<String>,
    uids: Option<Vec<String>>,
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
                Self { id, status, reason, error: Some(problem.error), delivered, replayed: false }
            }
        }
    }
}

/// Sends an item.
pub(super) async fn send(shared: &Arc<Shared>, publisher: &Publisher, json: &[u8]) -> ItemResult {
    let item: Item<'_> = match serde_json::from_slice(json) {
        Ok(item) => item,
        Err(error) => {
            let problem = Problem::bad(format_args!("this is no item: {error}"));
            let id = serde_json::from_slice(json).ok().and_then(|Labelled { id }| id);
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
        let Self { id, uid, uids, connection, group, everyone, text, json, base64, key } = self;
        let push = || {
            let uids = match (uid, uids) {
                (Some(_), Some(_)) => return Err(Problem::bad("name either uid or uids")),
                (uid, uids) => uid.into_iter().chain(uids.into_iter().flatten()).collect(),
            };
            let target = Named { uids, connection, group, everyone: everyone == Some(true) }.target()?;
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

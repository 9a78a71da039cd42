//! What happens to a client, as lines for operators.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::SystemTime;

use bytestring::ByteString;
use serde::Serialize;

use crate::base::message::{ConnectionId, Message};

/// The most characters of a text that comes from a client or a plugin.
const MAX_TEXT: usize = 512;

/// Whether payloads show their beginning.
static SHOWS_PAYLOADS: AtomicBool = AtomicBool::new(false);

/// Sets whether events show the beginning of payloads (`admin.trace_payloads`).
pub fn show_payloads(show: bool) {
    SHOWS_PAYLOADS.store(show, Relaxed);
}

/// One step in the life of a client.
#[derive(Debug, Serialize)]
#[serde(tag = "what", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum TraceEvent {
    /// The client's upgrade request was accepted. The query is left out, because it may hold a token.
    Handshake {
        /// The client's address, after the trusted-proxy rules.
        address: SocketAddr,
        /// The path of the request.
        path: Text,
    },
    /// A packet of the client has arrived.
    Packet(Payload),
    /// A plugin was called.
    Call {
        /// The slot of the plugin.
        slot: String,
        /// The plugin's own name.
        plugin: String,
        /// The function that was called, as in `wit/`.
        function: &'static str,
        /// The generation that was called: the live one, if the call was refused before it began.
        generation: u64,
        /// The SHA-256 of its component.
        digest: String,
        /// How long the call took, in microseconds.
        micros: u64,
        /// Missing if the call succeeded.
        #[serde(skip_serializing_if = "Option::is_none")]
        failure: Option<Failure>,
    },
    /// An authenticator has judged the client.
    Verdict {
        /// The slot of the authenticator.
        slot: String,
        /// The function that judged: `greet` or `authenticate`.
        function: &'static str,
        /// `accept`, `challenge`, `pass` or `deny`.
        verdict: &'static str,
        /// The code of a denial.
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<u16>,
        /// The reason of a denial.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<Text>,
    },
    /// The client is registered under its uid.
    Login,
    /// An action of the router for this client was carried out.
    Action {
        /// The name of the action, as in `wit/router.wit`.
        action: &'static str,
        /// Whom it is for. Missing if it is for the client itself.
        #[serde(skip_serializing_if = "Option::is_none")]
        to: Option<Target>,
        /// The message or state that it carries.
        #[serde(flatten)]
        payload: Option<Payload>,
        /// What became of it. Missing if the action is about the session itself.
        #[serde(skip_serializing_if = "Option::is_none")]
        result: Option<Reached>,
    },
    /// A message for the client has come to its outbox, or has not.
    Message {
        /// `queued`, `outbox-full`, `over-budget` or `closing`.
        result: &'static str,
        /// The message.
        #[serde(flatten)]
        payload: Payload,
    },
    /// A message was for the uid, which has no connection here.
    Missed(Payload),
    /// The connection has ended.
    Closed {
        /// The code of the close frame. Missing if there was none.
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<u16>,
        /// The reason in the close frame.
        reason: Text,
        /// Who or what ended it, as in the metrics.
        cause: &'static str,
    },
}

/// Why a call failed.
#[derive(Debug, Serialize)]
pub struct Failure {
    /// The kind of the failure, as in the metrics.
    pub kind: &'static str,
    /// Why, in words.
    pub reason: Text,
}

/// The recipients of an action.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// The connections of a uid.
    Uid(Text),
    /// One connection.
    Connection(String),
    /// The members of a group.
    Group(Text),
    /// The members of a group except the client itself.
    GroupOthers(Text),
    /// Every authenticated connection.
    Everyone(bool),
}

/// What became of an action: a number of connections, by what happened there.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Reached {
    /// It was carried out.
    pub reached: usize,
    /// The outbox was full.
    #[serde(skip_serializing_if = "is_zero")]
    pub outbox_full: usize,
    /// All outboxes together had no room.
    #[serde(skip_serializing_if = "is_zero")]
    pub over_budget: usize,
    /// Why other gateways may not have carried it out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elsewhere: Option<&'static str>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// A payload: its size, and its beginning where `admin.trace_payloads` allows to show it.
#[derive(Debug, Serialize)]
pub struct Payload {
    bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Text>,
}

impl Payload {
    /// Describes a message.
    pub fn of(message: &Message) -> Self {
        Self::of_bytes(message.as_bytes())
    }

    /// Describes these bytes.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        let shown = SHOWS_PAYLOADS.load(Relaxed).then(|| {
            // A character has at most 4 bytes.
            let beginning = &bytes[..bytes.len().min(MAX_TEXT * 4)];
            Text::from(&*String::from_utf8_lossy(beginning))
        });
        Self { bytes: bytes.len(), payload: shown }
    }
}

/// A text that may be hostile: its beginning.
#[derive(Debug, Serialize)]
pub struct Text(String);

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        let mut characters = text.chars();
        let mut beginning: String = characters.by_ref().take(MAX_TEXT).collect();
        if characters.next().is_some() {
            beginning.push('…');
        }
        Self(beginning)
    }
}

/// One line.
#[derive(Serialize)]
struct Line<'a> {
    at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<&'a str>,
    #[serde(flatten)]
    event: &'a TraceEvent,
}

/// Returns an event as a JSON object, without a line end.
pub(super) fn line(id: Option<ConnectionId>, uid: Option<&ByteString>, event: &TraceEvent) -> Arc<str> {
    let at = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
    // A string: JavaScript's numbers are not exact enough for the ids of a cluster.
    let connection = id.map(|id| id.to_string());
    let line = Line { at, connection, uid: uid.map(|uid| &**uid), event };
    // Only maps with other keys than strings cannot be JSON, and there are none.
    serde_json::to_string(&line).unwrap_or_default().into()
}

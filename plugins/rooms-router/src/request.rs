use origin_packet::Unusable;
use serde_json::value::RawValue;

use crate::data::{self, MAX_DEPTH};
use crate::hotgate::gateway::types::Message;

/// The longest `id` of a packet, in bytes as it is written.
const MAX_ID: usize = 64;

/// A request of a client.
#[derive(Debug)]
pub(crate) enum Request<'a> {
    Join { room: String },
    Leave { room: String },
    Members { room: String },
    Publish { room: String, data: &'a RawValue },
    Send { to: String, data: &'a RawValue },
    Authenticate,
}

/// A packet, as far as it can be read.
pub(crate) struct Packet<'a> {
    /// The `id` of the packet.
    pub(crate) id: Option<&'a RawValue>,
    /// The request, or what is wrong with it.
    pub(crate) request: Result<Request<'a>, String>,
}

impl<'a> Packet<'a> {
    /// Reads a packet. Binary packets are read as text.
    pub(crate) fn read(message: &'a Message) -> Self {
        let text = match message {
            Message::Text(text) => Ok(text.as_str()),
            Message::Binary(bytes) => origin_packet::text(bytes),
        };
        match text.and_then(|text| origin_packet::fields(text, ["id", "type", "room", "to", "data"])) {
            Err(unusable) => Self { id: None, request: Err(unusable.to_string()) },
            Ok([id, kind, room, to, data]) => match id {
                Some(id) if !is_valid_id(id) => {
                    Self { id: None, request: Err(format!("`id` is not a string or a number of up to {MAX_ID} bytes")) }
                }
                id => Self { id, request: request(kind, room, to, data) },
            },
        }
    }
}

/// Returns whether an `id` is a string or a number, and small enough to be sent back.
fn is_valid_id(id: &RawValue) -> bool {
    id.get().len() <= MAX_ID
        && id.get().starts_with(|first: char| first == '"' || first == '-' || first.is_ascii_digit())
}

fn request<'a>(
    kind: Option<&RawValue>,
    room: Option<&RawValue>,
    to: Option<&RawValue>,
    data: Option<&'a RawValue>,
) -> Result<Request<'a>, String> {
    let words = |unusable: Unusable| unusable.to_string();
    let room = || origin_packet::uid("room", room).map_err(words);
    let data = || {
        let data = data.ok_or_else(|| Unusable::Missing("data").to_string())?;
        match data::depth(data) {
            depth if depth > MAX_DEPTH => Err(format!("`data` is nested deeper than {MAX_DEPTH}")),
            _ if !data::is_unicode(data) => Err("`data` is not Unicode text".to_owned()),
            _ => Ok(data),
        }
    };
    Ok(match origin_packet::uid("type", kind).map_err(words)?.as_str() {
        "join" => Request::Join { room: room()? },
        "leave" => Request::Leave { room: room()? },
        "members" => Request::Members { room: room()? },
        "publish" => Request::Publish { room: room()?, data: data()? },
        "send" => Request::Send { to: origin_packet::uid("to", to).map_err(words)?, data: data()? },
        "authenticate" => Request::Authenticate,
        _ => return Err("`type` is none of join, leave, members, publish, send and authenticate".into()),
    })
}

//! Reads packets and lines. They may hold anything, not only JSON objects. An error says what is
//! wrong, in at most 123 bytes: it fits a close frame.

use serde_json::{Map, Value};

use crate::bindings::hotgate::gateway::types::Message;

/// Returns the text of a packet. A binary packet is read as text.
pub fn text(packet: &Message) -> Result<&str, String> {
    match packet {
        Message::Text(text) => Ok(text),
        Message::Binary(bytes) => str::from_utf8(bytes).map_err(|_| "not UTF-8".into()),
    }
}

/// Returns the fields of a JSON object. serde_json refuses JSON that is nested too deeply, so no
/// packet can exhaust the stack.
pub fn object(json: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(json).map_err(|_| "not a JSON object".into())
}

/// Returns the uid in a field: a string, or an integer, which counts as its digits.
pub fn uid(fields: &Map<String, Value>, name: &str) -> Result<String, String> {
    let uid = match fields.get(name) {
        None => return Err(format!("`{name}` is missing")),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) if number.is_i64() || number.is_u64() => number.to_string(),
        Some(_) => return Err(format!("`{name}` is neither a string nor an integer")),
    };
    // The limits of the gateway. It would deny other uids, too, but not in your words.
    match uid.len() {
        1..=256 => Ok(uid),
        _ => Err(format!("`{name}` must have 1 to 256 bytes")),
    }
}

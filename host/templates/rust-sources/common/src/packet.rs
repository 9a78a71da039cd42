//! Reads what strangers send: JSON objects, at best. An error says what is wrong in words that fit
//! a close frame (123 bytes).

use serde_json::{Map, Value};

use crate::Message;

/// The text of a packet. A binary one is read as if it were text.
pub fn text(packet: &Message) -> Result<&str, String> {
    match packet {
        Message::Text(text) => Ok(text),
        Message::Binary(bytes) => str::from_utf8(bytes).map_err(|_| "not UTF-8".into()),
    }
}

/// The fields of a JSON object. serde_json refuses what is nested too deeply, so no packet can
/// exhaust the stack.
pub fn object(json: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(json).map_err(|_| "not a JSON object".into())
}

/// The uid in a field: a string, or an integer, which equals its digits.
pub fn uid(fields: &Map<String, Value>, name: &str) -> Result<String, String> {
    let uid = match fields.get(name) {
        None => return Err(format!("`{name}` is missing")),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) if number.is_i64() || number.is_u64() => number.to_string(),
        Some(_) => return Err(format!("`{name}` is neither a string nor an integer")),
    };
    // What the gateway takes. It would deny others, too, but not in your words.
    match uid.len() {
        1..=256 => Ok(uid),
        _ => Err(format!("`{name}` must have 1 to 256 bytes")),
    }
}

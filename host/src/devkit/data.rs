//! Values of case files: messages, and names that may be several.

use bytes::Bytes;
use serde::Deserialize;
use toml::Value;

use crate::base::message::Message;

/// A message or state: a string, or `{ hex = "00ff" }`.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Value")]
pub(super) struct Data(pub(super) Message);

impl Data {
    /// Returns the bytes of text or binary.
    pub(super) fn bytes(&self) -> Bytes {
        Bytes::copy_from_slice(self.0.as_bytes())
    }
}

impl TryFrom<Value> for Data {
    type Error = &'static str;

    fn try_from(value: Value) -> Result<Self, Self::Error> {
        const ALLOWED: &str = "must be a string, or bytes like { hex = \"00ff\" }";
        if let Value::String(text) = value {
            return Ok(Self(Message::Text(text.into())));
        }
        let table = value.as_table().filter(|table| table.len() == 1).ok_or(ALLOWED)?;
        let digits = table.get("hex").and_then(Value::as_str).ok_or(ALLOWED)?;
        hex::decode(digits).map(|bytes| Self(Message::Binary(bytes.into()))).map_err(|_| ALLOWED)
    }
}

/// One value, or several values of the same name.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "must be a string, or a list of strings")]
pub(super) enum Values {
    One(String),
    Several(Vec<String>),
}

impl Values {
    /// Returns the values as a list.
    pub(super) fn list(self) -> Vec<String> {
        match self {
            Self::One(value) => vec![value],
            Self::Several(values) => values,
        }
    }
}

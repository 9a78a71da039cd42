use serde::Serialize;
use serde_json::value::RawValue;

use crate::hotgate::gateway::types::Payload;

/// A message to clients: its type, and the fields that this type has.
#[derive(Default, Serialize)]
pub(crate) struct Say<'a> {
    #[serde(rename = "type")]
    pub(crate) kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) room: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) uid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) members: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) more: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) from: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) detail: Option<&'a str>,
    /// The `id` of the packet that this answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<&'a RawValue>,
}

impl Say<'_> {
    pub(crate) fn payload(&self) -> Payload {
        // Strings, numbers and raw JSON can always be written.
        Payload::Text(serde_json::to_string(self).unwrap_or_default())
    }
}

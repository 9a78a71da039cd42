use serde_json::value::RawValue;

use crate::unusable::Unusable;

/// Returns the text of a binary message.
///
/// # Errors
///
/// [`Unusable::NotUtf8`].
pub fn text(binary: &[u8]) -> Result<&str, Unusable> {
    str::from_utf8(binary).map_err(|_| Unusable::NotUtf8)
}

/// Returns the text of a JSON string; `None` for any other value, and for escapes that stand for no character.
pub(crate) fn string(value: &RawValue) -> Option<String> {
    serde_json::from_str(value.get()).ok()
}

//! Reads the JSON packets and lines of the origin protocol, for the default plugins and others.
//!
//! Whatever the input, nothing here panics, recurses or builds a tree: a value stays text ([`RawValue`]) until its
//! content is needed.

mod message;
mod uid;

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;

pub use message::message;
pub use uid::uid;

/// Why a packet or line cannot be used. Each text fits the 123 bytes of a close reason.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// A binary message does not hold text.
    #[error("not UTF-8")]
    NotUtf8,
    /// Not JSON (RFC 8259).
    #[error("not JSON: {0}")]
    NotJson(serde_json::Error),
    /// JSON, but not an object. Nothing more of it was read.
    #[error("not a JSON object")]
    NotAnObject,
    /// The object lacks this field.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// The field is of this other type.
    #[error("`{0}` is {1}, not a string or an integer")]
    WrongType(&'static str, &'static str),
    /// The field is a string with escapes that stand for no character, such as a lone surrogate.
    #[error("`{0}` is not Unicode text")]
    NotUnicode(&'static str),
    /// The field is the empty string.
    #[error("`{0}` is empty")]
    Empty(&'static str),
    /// The field is longer than a uid may be.
    #[error("`{0}` is longer than {max} bytes", max = uid::MAX_BYTES)]
    TooLong(&'static str),
}

/// Returns the text of a binary message.
///
/// # Errors
///
/// [`Unusable::NotUtf8`].
pub fn text(binary: &[u8]) -> Result<&str, Unusable> {
    str::from_utf8(binary).map_err(|_| Unusable::NotUtf8)
}

/// Returns the values of the fields with these names in a JSON object, as they are written there. If a field is given
/// more than once, the last one counts, whatever the others are.
///
/// # Errors
///
/// [`Unusable::NotJson`] or [`Unusable::NotAnObject`].
pub fn fields<'a, const N: usize>(json: &'a str, names: [&str; N]) -> Result<[Option<&'a RawValue>; N], Unusable> {
    let mut json = serde_json::Deserializer::from_str(json);
    json.deserialize_map(Fields(names)).and_then(|values| json.end().map(|()| values)).map_err(|error| {
        match error.classify() {
            Category::Data => Unusable::NotAnObject,
            Category::Io | Category::Syntax | Category::Eof => Unusable::NotJson(error),
        }
    })
}

/// Collects the fields with these names. Derived code would refuse a field that is given twice.
struct Fields<'n, const N: usize>([&'n str; N]);

impl<'de, const N: usize> Visitor<'de> for Fields<'_, N> {
    type Value = [Option<&'de RawValue>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut values = [None; N];
        while let Some(Text(key)) = map.next_key()? {
            match values.iter_mut().zip(self.0).find(|(_, name)| *name == key) {
                Some((value, _)) => *value = Some(map.next_value()?),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(values)
    }
}

/// A JSON string, borrowed if it has no escapes.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Returns the text of a JSON string; `None` for any other value, and for escapes that stand for no character.
fn string(value: &RawValue) -> Option<String> {
    serde_json::from_str(value.get()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(json: &str) -> String {
        fields(json, ["id"]).expect_err(json).to_string()
    }

    #[test]
    fn fields_are_found_wherever_they_stand() {
        let [id, msg, other] = fields(r#"{"x":{"id":0},"msg":null,"id": [1, 2] }"#, ["id", "msg", "other"]).unwrap();
        assert_eq!(id.map(RawValue::get), Some("[1, 2]"));
        assert_eq!(msg.map(RawValue::get), Some("null"));
        assert!(other.is_none());
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for json in [
            "",
            " ",
            "hello",
            "{",
            "{\"id\":\"u1\"",
            "{\"id\":\"u1\"} x",
            "{\"id\":\"u1\",}",
            "{'id':'u1'}",
            "{id:1}",
            "{\"id\":01}",
            "{\"id\":+1}",
            "{\"id\":NaN}",
            "{\"id\":\"\t\"}",
            "\u{feff}{\"id\":\"u1\"}",
            "{\"id\":\"u1\"}\0",
        ] {
            assert!(refusal(json).starts_with("not JSON: "), "{json}");
        }
        assert!(matches!(text(b"{\"id\":\"\xff\"}"), Err(Unusable::NotUtf8)));
    }

    #[test]
    fn other_json_than_an_object_is_refused() {
        for json in ["[]", "[{\"id\":1}]", "\"id\"", "5", "1.5", "true", "null"] {
            assert_eq!(refusal(json), "not a JSON object", "{json}");
        }
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = "[".repeat(500_000);
        let closed = format!("{deep}{}", "]".repeat(500_000));
        let packet = format!("{{\"x\":{closed},\"id\":{closed}}}");
        let [id] = fields(&packet, ["id"]).unwrap();
        assert!(uid("id", id).is_err());
        assert_eq!(id.and_then(message), Some(closed));
        assert!(refusal(&format!("{{\"x\":{deep}")).starts_with("not JSON: "));
    }

    #[test]
    fn every_refusal_fits_a_close_reason() {
        let lines = "\n".repeat(20_000_000);
        for end in ["{\"\t\":1}", "{\"\\ud800\":1}", "{\"\\ud800\\n\":1}", "{\"\\x\":1}", "{1:1}", "{\"a\"", "x"] {
            assert!(refusal(&format!("{lines}{end}")).len() <= 123, "{end}");
        }
        assert!(uid("id", None).is_err_and(|error| error.to_string().len() <= 123));
    }
}

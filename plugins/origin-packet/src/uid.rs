use serde_json::value::RawValue;

use crate::text::string;
use crate::unusable::{MAX_UID_BYTES, Unusable};

/// Returns the uid in a field: the text of a JSON string, or the digits of a JSON integer as they are written, so that
/// `7` and `"7"` are the same. `field` is the name of the field, for the error.
///
/// # Errors
///
/// If the field is missing, has another type or is not Unicode text, or if the uid is empty or longer than 256 bytes.
pub fn uid(field: &'static str, value: Option<&RawValue>) -> Result<String, Unusable> {
    let value = value.ok_or(Unusable::Missing(field))?;
    let uid = match value.get().as_bytes() {
        [b'"', ..] => string(value).ok_or(Unusable::NotUnicode(field))?,
        // The JSON is valid, so digits alone, after at most one sign, are an integer.
        [b'-' | b'0'..=b'9', digits @ ..] if digits.iter().all(u8::is_ascii_digit) => value.get().to_owned(),
        [b'n', ..] => return Err(Unusable::WrongType(field, "null")),
        [b't' | b'f', ..] => return Err(Unusable::WrongType(field, "a boolean")),
        [b'[', ..] => return Err(Unusable::WrongType(field, "an array")),
        [b'{', ..] => return Err(Unusable::WrongType(field, "an object")),
        _ => return Err(Unusable::WrongType(field, "a number with a fraction or exponent")),
    };
    match uid.len() {
        0 => Err(Unusable::Empty(field)),
        1..=MAX_UID_BYTES => Ok(uid),
        _ => Err(Unusable::TooLong(field)),
    }
}

#[cfg(test)]
mod tests {
    use crate::fields;

    fn uid(packet: &str) -> Result<String, String> {
        fields(packet, ["id"]).and_then(|[id]| super::uid("id", id)).map_err(|unusable| unusable.to_string())
    }

    #[test]
    fn a_string_is_taken_as_it_reads() {
        for (packet, expected) in [
            (r#"{"id":"u1"}"#, "u1"),
            (r#"{"id":" u 1 "}"#, " u 1 "),
            (r#"{"id":"\u00e9\ud83d\ude00\n"}"#, "é😀\n"),
            (r#"{"id":"名前"}"#, "名前"),
            (r#"{"id":"\u0000"}"#, "\0"),
            (r#"{"\u0069d":"escaped key"}"#, "escaped key"),
            ("\t {\n\"id\" : \"u1\" , \"x\":[1,{}] } \r\n", "u1"),
        ] {
            assert_eq!(uid(packet).as_deref(), Ok(expected), "{packet}");
        }
    }

    #[test]
    fn an_integer_is_taken_as_its_digits_are_written() {
        for digits in ["7", "0", "-0", "-12", "18446744073709551616", "123456789012345678901234567890"] {
            assert_eq!(uid(&format!(r#"{{"id": {digits} }}"#)).as_deref(), Ok(digits));
        }
    }

    #[test]
    fn of_a_field_given_twice_only_the_last_counts() {
        assert_eq!(uid(r#"{"id":"a","id":"b"}"#).as_deref(), Ok("b"));
        assert_eq!(uid(r#"{"id":[],"id":"b"}"#).as_deref(), Ok("b"));
        assert_eq!(uid(r#"{"id":"a","id":null}"#).unwrap_err(), "`id` is null, not a string or an integer");
    }

    #[test]
    fn anything_else_is_refused_in_words() {
        for (packet, expected) in [
            ("{}", "`id` is missing"),
            (r#"{"ID":"u1"}"#, "`id` is missing"),
            (r#"{"id":null}"#, "`id` is null, not a string or an integer"),
            (r#"{"id":true}"#, "`id` is a boolean, not a string or an integer"),
            (r#"{"id":false}"#, "`id` is a boolean, not a string or an integer"),
            (r#"{"id":["u1"]}"#, "`id` is an array, not a string or an integer"),
            (r#"{"id":{}}"#, "`id` is an object, not a string or an integer"),
            (r#"{"id":1.0}"#, "`id` is a number with a fraction or exponent, not a string or an integer"),
            (r#"{"id":1e3}"#, "`id` is a number with a fraction or exponent, not a string or an integer"),
            (r#"{"id":-1E3}"#, "`id` is a number with a fraction or exponent, not a string or an integer"),
            (r#"{"id":""}"#, "`id` is empty"),
            (r#"{"id":"\ud800"}"#, "`id` is not Unicode text"),
        ] {
            assert_eq!(uid(packet).unwrap_err(), expected, "{packet}");
        }
    }

    #[test]
    fn the_bound_is_256_bytes() {
        for (unit, most) in [("a", 256), ("é", 128)] {
            assert!(uid(&format!(r#"{{"id":"{}"}}"#, unit.repeat(most))).is_ok());
            let refused = uid(&format!(r#"{{"id":"{}"}}"#, unit.repeat(most + 1))).unwrap_err();
            assert_eq!(refused, "`id` is longer than 256 bytes");
        }
        assert!(uid(&format!(r#"{{"id":{}}}"#, "1".repeat(256))).is_ok());
        assert!(uid(&format!(r#"{{"id":{}}}"#, "1".repeat(257))).is_err());
    }
}

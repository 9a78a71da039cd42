//! Reads the JSON packets and lines of the origin protocol, for the default plugins and others.
//!
//! Whatever the input, nothing here panics, recurses or builds a tree: a value stays text ([`RawValue`]) until its
//! content is needed.

mod fields;
mod message;
mod text;
mod uid;
mod unusable;

pub use fields::fields;
pub use message::message;
pub use text::text;
pub use uid::uid;
pub use unusable::Unusable;

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

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

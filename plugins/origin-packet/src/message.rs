use serde_json::value::RawValue;

use crate::text::string;

/// Returns the message in a field: the text of a JSON string, any other value as compact JSON. `None` for a string with
/// escapes that stand for no character.
pub fn message(value: &RawValue) -> Option<String> {
    if value.get().starts_with('"') { string(value) } else { Some(compact(value.get())) }
}

/// Returns valid JSON without the white space between its parts. The content of strings, the form of numbers and the
/// order of keys stay as they are written.
fn compact(json: &str) -> String {
    let mut compact = String::with_capacity(json.len());
    let (mut in_string, mut escaped) = (false, false);
    compact.extend(json.chars().filter(|&c| {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => in_string = !in_string,
            ' ' | '\t' | '\n' | '\r' => return in_string,
            _ => {}
        }
        true
    }));
    compact
}

#[cfg(test)]
mod tests {
    use crate::fields;

    fn message(json: &str) -> Option<String> {
        let packet = format!(r#"{{"id":1,"msg": {json} }}"#);
        let [value] = fields(&packet, ["msg"]).expect("valid JSON");
        super::message(value.expect("the field is there"))
    }

    #[test]
    fn a_string_is_taken_as_it_reads() {
        for (json, expected) in [
            (r#""hi""#, "hi"),
            (r#""""#, ""),
            (r#"" two  spaces ""#, " two  spaces "),
            (r#""\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00""#, "\"\\/\u{8}\u{c}\n\r\té😀"),
            (r#""{\"a\": 1}""#, r#"{"a": 1}"#),
        ] {
            assert_eq!(message(json).as_deref(), Some(expected), "{json}");
        }
    }

    #[test]
    fn any_other_value_is_taken_as_its_compact_text() {
        for (json, expected) in [
            ("5", "5"),
            ("-0", "-0"),
            ("1.50E+3", "1.50E+3"),
            ("123456789012345678901234567890", "123456789012345678901234567890"),
            ("true", "true"),
            ("null", "null"),
            ("[ ]", "[]"),
            ("{ \"b\" : 1 ,\r\n\t\"a\" : [ 1.0 , \"x y\" ] }", r#"{"b":1,"a":[1.0,"x y"]}"#),
            (r#"[ "a \" b" , "\\" , " c " ]"#, r#"["a \" b","\\"," c "]"#),
            (r#"{ "k\" k" : "é 名 \u00e9" }"#, r#"{"k\" k":"é 名 \u00e9"}"#),
        ] {
            assert_eq!(message(json).as_deref(), Some(expected), "{json}");
        }
    }

    #[test]
    fn a_string_that_is_not_unicode_is_no_message() {
        assert_eq!(message(r#""\ud800""#), None);
    }
}

//! Compares the answers of a plugin with the expected answers of case files.

use toml::Value;

use super::expectation::FAILED;

/// In an expected answer: the name must be absent. No answer holds a boolean.
const NONE: Value = Value::Boolean(false);

/// Returns the differences between the expected and the actual answer, each with its path. Names that an expected table
/// leaves out are not compared. A name whose expected value is `false` must be absent. Lists are compared whole.
pub(super) fn differences(expected: &Value, actual: &Value) -> Vec<String> {
    let mut found = Vec::new();
    if actual.get(FAILED).is_some() && expected.get(FAILED).is_none() {
        found.push("the call failed".to_owned());
    }
    compare(String::new(), expected, actual, &mut found);
    found
}

fn compare(path: String, expected: &Value, actual: &Value, found: &mut Vec<String>) {
    let at = if path.is_empty() { String::new() } else { format!("{path}: ") };
    match (expected, actual) {
        (Value::Table(expected), Value::Table(actual)) => {
            for (name, wanted) in expected {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match actual.get(name) {
                    // A part of the text is enough: the text is for people.
                    Some(Value::String(words))
                        if ["refused", "refuse"].contains(&name.as_str())
                            && wanted.as_str().is_some_and(|wanted| words.contains(wanted)) => {}
                    Some(value) if *wanted == NONE => found.push(format!("{path}: expected none, got {value}")),
                    Some(value) => compare(path, wanted, value, found),
                    None if *wanted == NONE => {}
                    None => {
                        let present: Vec<_> = actual.keys().map(String::as_str).collect();
                        found.push(format!(
                            "{path}: expected {wanted}, got none; the answer has {}",
                            present.join(", ")
                        ));
                    }
                }
            }
        }
        (Value::Array(expected), Value::Array(actual)) => {
            for (index, wanted) in expected.iter().enumerate() {
                let path = format!("{path}[{index}]");
                match actual.get(index) {
                    Some(value) => compare(path, wanted, value, found),
                    None => found.push(format!("{path}: expected {wanted}, got nothing")),
                }
            }
            for (index, more) in actual.iter().enumerate().skip(expected.len()) {
                found.push(format!("{path}[{index}]: not expected: {more}"));
            }
        }
        _ if expected == actual => {}
        _ => found.push(format!("{at}expected {expected}, got {actual}")),
    }
}

#[cfg(test)]
mod tests {
    use crate::devkit::expectation::tests::value;

    #[track_caller]
    fn differ(expected: &str, actual: &str, differences: &[&str]) {
        assert_eq!(super::differences(&value(expected), &value(actual)), differences);
    }

    #[test]
    fn what_is_not_mentioned_is_not_compared() {
        let accept = r#"{ accept = { uid = "u1", reply = "hi", expires_at = 5 } }"#;
        differ(r#"{ accept = {} }"#, accept, &[]);
        differ(r#"{ accept = { uid = "u1" } }"#, accept, &[]);
        differ(r#"{ accept = { uid = "u2" } }"#, accept, &["accept.uid: expected \"u2\", got \"u1\""]);
        differ(r#"{ deny = { code = 1 } }"#, accept, &["deny: expected { code = 1 }, got none; the answer has accept"]);
        differ(r#""pass""#, r#""pass""#, &[]);
        differ(r#"{ refused = "missing" }"#, r#"{ refused = "`uid` is missing" }"#, &[]);
        differ(r#"{ refuse = "no room" }"#, r#"{ refuse = "there is no room x" }"#, &[]);
        differ("{}", r#"{ failed = "trap" }"#, &["the call failed"]);
        differ(r#"{ failed = "trap" }"#, r#"{ failed = "trap", why = "…" }"#, &[]);
    }

    #[test]
    fn what_must_not_be_there_is_false() {
        differ(r#"{ accept = { reply = false, expires_at = false } }"#, r#"{ accept = { uid = "u1" } }"#, &[]);
        let more = r#"{ accept = { uid = "u1", reply = "hi" } }"#;
        differ("{ accept = { reply = false } }", more, &["accept.reply: expected none, got \"hi\""]);
    }

    #[test]
    fn lists_are_compared_whole() {
        differ("[]", "[]", &[]);
        differ(r#"[{ reply = "a" }]"#, "[]", &["[0]: expected { reply = \"a\" }, got nothing"]);
        differ("[]", r#"[{ reply = "a" }]"#, &["[0]: not expected: { reply = \"a\" }"]);
        differ(r#"[{ reply = "a" }]"#, r#"[{ reply = "b" }]"#, &["[0].reply: expected \"a\", got \"b\""]);
    }
}

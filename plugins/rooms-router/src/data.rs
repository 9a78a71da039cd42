use serde_json::value::RawValue;

/// How deep `data` may be nested. JSON parsers have limits of their own, often about a hundred levels, and must not get
/// data that they cannot read.
pub(crate) const MAX_DEPTH: usize = 64;

/// Returns how deep arrays and objects are nested in a value, itself included.
pub(crate) fn depth(json: &RawValue) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in json.get().bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Returns whether every string in a value, including names of members, is Unicode text: each escaped surrogate is one
/// of a pair (RFC 8259 §8.2).
pub(crate) fn is_unicode(json: &RawValue) -> bool {
    // In valid JSON, a backslash stands in strings only, and the escaped character follows it.
    let mut rest = json.get();
    while let Some((_, escape)) = rest.split_once('\\') {
        rest = match unit(escape) {
            Some(0xd800..=0xdbff) => match escape[5..].strip_prefix('\\') {
                Some(low) if matches!(unit(low), Some(0xdc00..=0xdfff)) => &low[5..],
                _ => return false,
            },
            Some(0xdc00..=0xdfff) => return false,
            Some(_) => &escape[5..],
            None => &escape[1..],
        };
    }
    true
}

/// Returns the code unit of `uXXXX`; `None` for other escapes.
fn unit(escape: &str) -> Option<u16> {
    u16::from_str_radix(escape.strip_prefix('u')?.get(..4)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> &RawValue {
        serde_json::from_str(json).expect(json)
    }

    #[test]
    fn depth_is_that_of_arrays_and_objects() {
        for (json, expected) in [
            ("5", 0),
            (r#""[[{{""#, 0),
            (r#""\"[[""#, 0),
            (r#"["\\",[]]"#, 2),
            ("[]", 1),
            ("[[],[]]", 2),
            (r#"{"a":[{"]":{}}],"b":[]}"#, 4),
        ] {
            assert_eq!(depth(raw(json)), expected, "{json}");
        }
        assert_eq!(depth(raw(&format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)))), 100_000);
    }

    #[test]
    fn a_surrogate_is_one_of_a_pair() {
        for (json, expected) in [
            ("5", true),
            (r#""\n\u00e9\\""#, true),
            (r#""\ud83d\ude00""#, true),
            (r#""\uD83D\uDE00x\ud83d\ude00""#, true),
            (r#""\\ud800""#, true),
            (r#""\ud7ff\ue000""#, true),
            (r#""\ud800""#, false),
            (r#""\ud800x""#, false),
            (r#""\ud800\n""#, false),
            (r#""\ud800\ud800""#, false),
            (r#""\ud800\\udc00""#, false),
            (r#""\udc00""#, false),
            (r#""\ude00\ud83d""#, false),
            (r#""\\\udfff""#, false),
            (r#"[{"\udbff":1}]"#, false),
        ] {
            assert_eq!(is_unicode(raw(json)), expected, "{json}");
        }
    }
}

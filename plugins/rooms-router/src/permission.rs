use crate::hotgate::gateway::types::Attribute;

/// Returns whether a session may use a room or uid of this name. Its attributes of that kind decide, or the setting if
/// it has none.
pub(crate) fn allowed(attributes: &[Attribute], kind: &str, setting: &str, name: &str) -> bool {
    let mut own = attributes.iter().filter(|attribute| attribute.name == kind).peekable();
    match own.peek() {
        None => matches_any(setting, name),
        Some(_) => own.any(|attribute| matches_any(&attribute.value, name)),
    }
}

/// Returns whether one of the patterns between commas matches this name. A star matches the rest of the name, and only
/// at the end of a pattern.
pub(crate) fn matches_any(patterns: &str, name: &str) -> bool {
    patterns.split(',').map(str::trim).any(|pattern| match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    })
}

/// Returns whether one of the patterns between commas matches every name.
pub(crate) fn matches_all(patterns: &str) -> bool {
    patterns.split(',').any(|pattern| pattern.trim() == "*")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_a_name_or_the_beginning_of_names() {
        for (patterns, name, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("a", "A", false),
            ("*", "anything", true),
            ("a, b-* ,c", "b-1", true),
            ("a, b-* ,c", "b-", true),
            ("a, b-* ,c", "b", false),
            ("a, b-* ,c", "c", true),
            ("", "a", false),
            (",", "a", false),
            ("a*b", "axb", false),
            ("a*b", "a*b", true),
            ("a**", "a*b", true),
            ("a**", "ab", false),
            ("é*", "é1", true),
            ("é*", "e1", false),
        ] {
            assert_eq!(matches_any(patterns, name), expected, "{patterns} {name}");
        }
        assert!(matches_all("*") && matches_all("a, *") && !matches_all("a*,b") && !matches_all(""));
    }

    #[test]
    fn attributes_take_the_place_of_the_setting() {
        let attributes = |values: &[(&str, &str)]| -> Vec<Attribute> {
            values.iter().map(|(name, value)| Attribute { name: (*name).into(), value: (*value).into() }).collect()
        };
        let allowed = |values: &[(&str, &str)], name| allowed(&attributes(values), "rooms", "lobby", name);
        assert!(allowed(&[], "lobby") && allowed(&[("publish", "x")], "lobby"));
        assert!(!allowed(&[("rooms", "x")], "lobby") && !allowed(&[("rooms", "")], "lobby"));
        assert!(allowed(&[("rooms", "x"), ("other", "z"), ("rooms", "y")], "y"));
        assert!(!allowed(&[("rooms", "x"), ("other", "z"), ("rooms", "y")], "z"));
    }
}

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

/// A JSON object in which no name comes twice. The values stay text, so that deep nesting takes no stack.
///
/// RFC 7515 §4 and RFC 7519 §4 leave open what to do with a name that comes twice. Two readers, one that uses the first
/// value and one that uses the last, would disagree about who the client is. So such an object is refused.
pub(crate) struct Object<'a>(BTreeMap<Cow<'a, str>, &'a RawValue>);

impl<'a> Object<'a> {
    pub(crate) fn parse(json: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.get(name).copied()
    }

    /// Returns the value at a path: the name of a member, or a JSON pointer (RFC 6901) to a member of nested objects.
    pub(crate) fn find(&self, path: &str) -> Option<&'a RawValue> {
        let Some(path) = path.strip_prefix('/') else { return self.get(path) };
        let mut parts = path.split('/').map(|part| part.replace("~1", "/").replace("~0", "~"));
        let mut value = self.get(&parts.next()?)?;
        for part in parts {
            value = Object::parse(value.get().as_bytes())?.get(&part)?;
        }
        Some(value)
    }
}

/// Returns the text of a JSON string; `None` for any other value.
pub(crate) fn string(value: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Text<'_>>(value.get()).ok().map(|Text(text)| text)
}

/// A JSON string, borrowed if it has no escapes.
#[derive(serde::Deserialize, PartialEq, Eq, PartialOrd, Ord)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members)
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Object<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = BTreeMap::new();
        while let Some(Text(name)) = map.next_key()? {
            match members.entry(name) {
                Entry::Vacant(place) => place.insert(map.next_value()?),
                Entry::Occupied(_) => return Err(Error::custom("a name that comes twice")),
            };
        }
        Ok(Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(json: &str, path: &str) -> Option<String> {
        Object::parse(json.as_bytes())?.find(path).map(|value| value.get().to_owned())
    }

    #[test]
    fn a_path_is_a_name_or_a_pointer() {
        let json = r#"{"a":{"b":{"c":1},"x/y~z":2},"https://example.com/a":3,"":4,"d":[5]}"#;
        for (path, expected) in [
            ("a", Some(r#"{"b":{"c":1},"x/y~z":2}"#)),
            ("/a/b/c", Some("1")),
            ("/a/x~1y~0z", Some("2")),
            ("https://example.com/a", Some("3")),
            ("/", Some("4")),
            ("/d/0", None),
            ("/a/b/c/d", None),
            ("/a/x", None),
            ("b", None),
        ] {
            assert_eq!(find(json, path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn what_is_no_object_or_names_a_member_twice_is_none() {
        for json in
            ["", "[]", "5", "null", "\"a\"", "{", "{} {}", r#"{"a":1,"a":1}"#, r#"{"a":1,"\u0061":2}"#, "{'a':1}"]
        {
            assert!(Object::parse(json.as_bytes()).is_none(), "{json}");
        }
        assert!(Object::parse(b"{\"a\":\"\xff\"}").is_none());
        assert_eq!(find(r#"{"o":{"a":1,"a":2}}"#, "/o/a"), None);
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(500_000), "]".repeat(500_000));
        assert!(find(&deep, "a").is_some_and(|value| value.len() == 1_000_000));
        assert_eq!(find(&deep, "/a/b"), None);
    }
}

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;

use crate::unusable::Unusable;

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

//! Reads the settings of a plugin. Settings are environment variables; the host gives a plugin no other variables.
//!
//! An error is a text for whoever deploys the plugin. It names the setting and says what is allowed. It never quotes
//! the value, which may be a secret. An unknown name is an error, too: with a misspelt `JWT_AUDIENCE`, no audience
//! would be checked.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// The settings of one plugin, by their names. `Debug` shows only the names.
pub struct Settings(BTreeMap<String, String>);

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Settings {
    /// Reads the environment. `known` are the names that the plugin reads.
    ///
    /// # Errors
    ///
    /// If a name is not known, or a value is not UTF-8 or has an invisible character at an edge.
    pub fn from_environment(known: &[&str]) -> Result<Self, String> {
        let variables = std::env::vars_os().map(|(name, value)| {
            let name = name.to_string_lossy().into_owned();
            match value.into_string() {
                Ok(value) => Ok((name, value)),
                Err(_) => Err(format!("{name} is not UTF-8")),
            }
        });
        Self::new(variables.collect::<Result<Vec<_>, _>>()?, known)
    }

    /// Takes these settings. `known` are the names that the plugin reads.
    ///
    /// # Errors
    ///
    /// If a name is not known, or a value has an invisible character at an edge, such as a byte order mark or a
    /// zero-width space. Nobody writes one on purpose, and nobody would see why tokens and names do not match.
    pub fn new<N, V>(settings: impl IntoIterator<Item = (N, V)>, known: &[&str]) -> Result<Self, String>
    where
        N: Into<String>,
        V: Into<String>,
    {
        let settings: BTreeMap<String, String> =
            settings.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        if let Some(name) = settings.keys().find(|name| !known.contains(&name.as_str())) {
            return Err(format!("{name} is not a setting of this plugin; its settings are {}", known.join(", ")));
        }
        for (name, value) in &settings {
            if let Some(c) = edges(value).find(|c| is_invisible(*c)) {
                let code = u32::from(c);
                return Err(format!("{name} begins or ends with an invisible character (U+{code:04X}): remove it"));
            }
        }
        Ok(Self(settings))
    }

    /// Returns a value as it is, even an empty one.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Returns a value, which must not be empty if it is given.
    ///
    /// # Errors
    ///
    /// If the value is empty.
    pub fn text(&self, name: &str) -> Result<Option<&str>, String> {
        match self.get(name) {
            Some("") => Err(format!("{name} is empty: leave it out, or give it a value")),
            value => Ok(value),
        }
    }

    /// Returns a secret, which must not be empty if it is given. Its text is used as it is. White space at an edge is
    /// most likely a mistake that was made when the file was written or the secret copied.
    ///
    /// # Errors
    ///
    /// If the secret is empty, or begins or ends with white space.
    pub fn secret(&self, name: &str) -> Result<Option<&str>, String> {
        let secret = self.text(name)?;
        if secret.is_some_and(|secret| edges(secret).any(char::is_whitespace)) {
            return Err(format!("{name} begins or ends with white space or a line end: remove it"));
        }
        Ok(secret)
    }

    /// Returns the items of a value between commas, without the white space around them.
    ///
    /// # Errors
    ///
    /// If an item is empty.
    pub fn list(&self, name: &str) -> Result<Option<Vec<&str>>, String> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let items: Vec<&str> = value.split(',').map(str::trim).collect();
        if items.contains(&"") {
            return Err(format!("{name} is a list with an empty item; items stand between commas"));
        }
        Ok(Some(items))
    }

    /// Returns a whole number within a range, or the default if no value is given.
    ///
    /// # Errors
    ///
    /// If the value is something else.
    pub fn number<T>(&self, name: &str, default: T, range: RangeInclusive<T>) -> Result<T, String>
    where
        T: FromStr + PartialOrd + std::fmt::Display,
    {
        let Some(value) = self.get(name) else { return Ok(default) };
        match value.parse() {
            Ok(number) if range.contains(&number) => Ok(number),
            _ => Err(format!("{name} must be a whole number from {} to {}", range.start(), range.end())),
        }
    }

    /// Returns the choice whose word is the value, or the first choice if no value is given.
    ///
    /// # Errors
    ///
    /// If the value is none of the words.
    pub fn choice<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Result<T, String> {
        let value = self.get(name);
        match words.iter().find(|(word, _)| value.is_none_or(|value| value == *word)) {
            Some(&(_, choice)) => Ok(choice),
            None => {
                let words: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
                Err(format!("{name} must be {}", words.join(" or ")))
            }
        }
    }
}

/// Returns the first and the last character.
fn edges(text: &str) -> impl Iterator<Item = char> {
    text.chars().next().into_iter().chain(text.chars().next_back())
}

/// Returns whether a character is invisible: a control character that is no white space, or a format character of
/// Unicode.
fn is_invisible(c: char) -> bool {
    c.is_control() && !c.is_ascii_whitespace()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::Settings;

    const KNOWN: &[&str] = &["A", "B"];

    fn a(value: &str) -> Settings {
        Settings::new([("A", value)], KNOWN).unwrap()
    }

    #[test]
    fn what_is_not_given_has_its_default() {
        let settings = Settings::new([("B", "b")], KNOWN).unwrap();
        assert_eq!(settings.get("A"), None);
        assert_eq!(settings.text("A"), Ok(None));
        assert_eq!(settings.list("A"), Ok(None));
        assert_eq!(settings.number("A", 7, 0..=9), Ok(7));
        assert_eq!(settings.choice("A", &[("on", 1), ("off", 2)]), Ok(1));
    }

    #[test]
    fn what_is_given_is_read() {
        assert_eq!(a("").get("A"), Some(""));
        assert_eq!(a(" x ").text("A"), Ok(Some(" x ")));
        assert_eq!(a(" x, y ,z").list("A"), Ok(Some(vec!["x", "y", "z"])));
        assert_eq!(a("9").number("A", 7, 0..=9), Ok(9));
        assert_eq!(a("off").choice("A", &[("on", 1), ("off", 2)]), Ok(2));
    }

    #[test]
    fn what_nobody_sees_at_an_edge_is_refused() {
        for value in ["\u{feff}x", "x\u{200b}", "\u{202e}x", "\u{feff}", "x\u{7f}", "\0x"] {
            let refused = Settings::new([("A", value)], KNOWN).unwrap_err();
            assert!(refused.starts_with("A begins or ends with an invisible character (U+"), "{refused}");
        }
        assert_eq!(a("x\u{200b}y\n").text("A"), Ok(Some("x\u{200b}y\n")));
        for value in [" x", "x\n", "x\r", "\u{a0}x", "x\t"] {
            assert_eq!(a(value).secret("A").unwrap_err(), "A begins or ends with white space or a line end: remove it");
        }
        assert_eq!(a("x y").secret("A"), Ok(Some("x y")));
        assert!(a("").secret("A").unwrap_err().starts_with("A is empty"));
    }

    #[test]
    fn debug_shows_no_values() {
        assert_eq!(format!("{:?}", a("hunter2")), "{\"A\"}");
    }

    #[test]
    fn an_unknown_name_is_refused() {
        let refused = Settings::new([("AA", "secret")], KNOWN).unwrap_err();
        assert_eq!(refused, "AA is not a setting of this plugin; its settings are A, B");
    }

    #[test]
    fn a_value_that_cannot_be_is_refused_without_being_quoted() {
        assert_eq!(a("").text("A").unwrap_err(), "A is empty: leave it out, or give it a value");
        for value in ["", ",", "x,", "x, ,y"] {
            assert!(a(value).list("A").unwrap_err().starts_with("A is a list with an empty item"), "{value}");
        }
        for value in ["", "-1", "10", "1.5", "x", " 1", "99999999999999999999"] {
            assert_eq!(a(value).number("A", 7, 0..=9).unwrap_err(), "A must be a whole number from 0 to 9", "{value}");
        }
        let refused = a("On").choice("A", &[("on", 1), ("off", 2)]).unwrap_err();
        assert_eq!(refused, "A must be \"on\" or \"off\"");
    }
}

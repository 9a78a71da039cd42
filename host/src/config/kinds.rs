//! The kinds of values that keys take: how each kind is read, printed and described.

use std::fmt::Display;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;

use super::PluginSource;
use super::error::Wrong;
use super::units::{parse_duration, parse_size, show_duration, show_size};

/// One kind of value.
pub(super) trait Kind {
    /// The type of the value in the program.
    type Value;

    /// Reads `value`. Fails if it is not allowed.
    fn parse(&self, value: &DeValue<'_>) -> Result<Self::Value, Wrong>;

    /// Returns the value as TOML, which `parse` reads back.
    fn show(&self, value: &Self::Value) -> toml::Value;

    /// Describes the allowed values, in words that follow "must be".
    fn allowed(&self) -> String;

    /// Returns the error for a value that is not allowed.
    fn wrong(&self, value: &DeValue<'_>) -> Wrong {
        Wrong::new(value, format!("must be {}", self.allowed()))
    }
}

/// A number of bytes within a range.
pub(super) struct Size(pub RangeInclusive<usize>);

impl Kind for Size {
    type Value = usize;

    fn parse(&self, value: &DeValue<'_>) -> Result<usize, Wrong> {
        let bytes = match value {
            DeValue::String(text) => parse_size(text),
            other => integer(other).and_then(|number| number.try_into().ok()),
        };
        bytes.filter(|bytes| self.0.contains(bytes)).ok_or_else(|| self.wrong(value))
    }

    fn show(&self, value: &usize) -> toml::Value {
        show_size(*value).into()
    }

    fn allowed(&self) -> String {
        let (from, to) = (show_size(*self.0.start()), show_size(*self.0.end()));
        format!("a size from {from} to {to}: bytes, or like \"64KiB\"")
    }
}

/// A number of bytes within a range; or `None`, written as "auto": the program chooses it.
pub(super) struct SizeOrAuto(pub RangeInclusive<usize>);

impl Kind for SizeOrAuto {
    type Value = Option<usize>;

    fn parse(&self, value: &DeValue<'_>) -> Result<Option<usize>, Wrong> {
        if value.as_str() == Some("auto") {
            return Ok(None);
        }
        Size(self.0.clone()).parse(value).map(Some).map_err(|_| self.wrong(value))
    }

    fn show(&self, value: &Option<usize>) -> toml::Value {
        value.map_or_else(|| "auto".to_owned(), show_size).into()
    }

    fn allowed(&self) -> String {
        format!("{}; or \"auto\"", Size(self.0.clone()).allowed())
    }
}

/// A duration within a range.
pub(super) struct Time(pub RangeInclusive<Duration>);

impl Kind for Time {
    type Value = Duration;

    fn parse(&self, value: &DeValue<'_>) -> Result<Duration, Wrong> {
        let duration = match value {
            DeValue::String(text) => parse_duration(text),
            other => integer(other).and_then(|secs| secs.try_into().ok()).map(Duration::from_secs),
        };
        duration.filter(|it| self.0.contains(it)).ok_or_else(|| self.wrong(value))
    }

    fn show(&self, value: &Duration) -> toml::Value {
        show_duration(*value).into()
    }

    fn allowed(&self) -> String {
        let (from, to) = (show_duration(*self.0.start()), show_duration(*self.0.end()));
        format!("a duration from {from} to {to}: seconds, or like \"500ms\"")
    }
}

/// A duration within a range; or `None`, written as zero.
pub(super) struct TimeOrNever(pub RangeInclusive<Duration>);

impl Kind for TimeOrNever {
    type Value = Option<Duration>;

    fn parse(&self, value: &DeValue<'_>) -> Result<Option<Duration>, Wrong> {
        let range = Duration::ZERO..=*self.0.end();
        match Time(range).parse(value) {
            Ok(Duration::ZERO) => Ok(None),
            Ok(duration) if self.0.contains(&duration) => Ok(Some(duration)),
            _ => Err(self.wrong(value)),
        }
    }

    fn show(&self, value: &Option<Duration>) -> toml::Value {
        show_duration(value.unwrap_or_default()).into()
    }

    fn allowed(&self) -> String {
        format!("{}; or \"0s\" for never", Time(self.0.clone()).allowed())
    }
}

/// A whole number within a range.
pub(super) struct Count<T>(pub RangeInclusive<T>);

impl<T: Copy + Display + PartialOrd + TryFrom<i64>> Kind for Count<T> {
    type Value = T;

    fn parse(&self, value: &DeValue<'_>) -> Result<T, Wrong> {
        integer(value)
            .and_then(|number| T::try_from(number).ok())
            .filter(|number| self.0.contains(number))
            .ok_or_else(|| self.wrong(value))
    }

    fn show(&self, value: &T) -> toml::Value {
        value.to_string().parse::<i64>().unwrap_or(i64::MAX).into()
    }

    fn allowed(&self) -> String {
        format!("a whole number from {} to {}", self.0.start(), self.0.end())
    }
}

/// One of several numbers.
pub(super) struct OneOf(pub &'static [u16]);

impl Kind for OneOf {
    type Value = u16;

    fn parse(&self, value: &DeValue<'_>) -> Result<u16, Wrong> {
        let number = integer(value).and_then(|number| u16::try_from(number).ok());
        number.filter(|number| self.0.contains(number)).ok_or_else(|| self.wrong(value))
    }

    fn show(&self, value: &u16) -> toml::Value {
        i64::from(*value).into()
    }

    fn allowed(&self) -> String {
        self.0.iter().map(u16::to_string).collect::<Vec<_>>().join(" or ")
    }
}

/// One of several words.
pub(super) struct Choice<T: 'static>(pub &'static [(&'static str, T)]);

impl<T: Copy + PartialEq> Kind for Choice<T> {
    type Value = T;

    fn parse(&self, value: &DeValue<'_>) -> Result<T, Wrong> {
        let choice = self.0.iter().find(|(word, _)| Some(*word) == value.as_str());
        choice.map(|(_, choice)| *choice).ok_or_else(|| self.wrong(value))
    }

    fn show(&self, value: &T) -> toml::Value {
        let choice = self.0.iter().find(|(_, choice)| choice == value);
        choice.map_or("", |(word, _)| *word).into()
    }

    fn allowed(&self) -> String {
        let words: Vec<_> = self.0.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        match words.split_last() {
            Some((last, words)) if !words.is_empty() => format!("{} or {last}", words.join(", ")),
            _ => words.concat(),
        }
    }
}

/// Text of a certain form.
pub(super) struct Text<T> {
    /// Returns `None` if the text does not have this form.
    pub parse: fn(&str) -> Option<T>,
    pub show: fn(&T) -> String,
    pub allowed: &'static str,
}

impl<T> Kind for Text<T> {
    type Value = T;

    fn parse(&self, value: &DeValue<'_>) -> Result<T, Wrong> {
        value.as_str().and_then(self.parse).ok_or_else(|| self.wrong(value))
    }

    fn show(&self, value: &T) -> toml::Value {
        (self.show)(value).into()
    }

    fn allowed(&self) -> String {
        self.allowed.to_owned()
    }
}

/// The host of a `Host` header, in the form that [`host`] returns.
pub(super) const HOST: Text<String> = Text {
    parse: host,
    show: String::clone,
    allowed: "the name or IP address of a host, without a port, like \"hotgate.internal\" or \"::1\"",
};

/// Splits `HOST` or `HOST:PORT`, and checks neither part. An IPv6 address stands in brackets (RFC 3986 §3.2.2).
pub fn host_and_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

/// Returns a host in a normal form, in which equal hosts are equal texts: an IP address without brackets (as IPv4 if it
/// is mapped to IPv6), or a name in lower case without a dot at its end. Returns `None` for other text, such as a host
/// with a port.
pub fn host(text: &str) -> Option<String> {
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if bracketed.is_some() || text.contains(':') {
        let address: Ipv6Addr = bracketed.unwrap_or(text).parse().ok()?;
        return Some(address.to_canonical().to_string());
    }
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let is_label = |label: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        (1..=63).contains(&label.len()) && label.bytes().all(allowed)
    };
    let is_name = name.len() <= 253 && name.split('.').all(is_label);
    // A host that ends in a number is an address: clients do not look it up as a name.
    let is_number = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    (is_name && (!is_number || name.parse::<Ipv4Addr>().is_ok())).then_some(name)
}

/// A folder; or `None`, written as an empty text.
pub(super) const FOLDER: Text<Option<PathBuf>> = Text {
    parse: |text| (!text.contains('\0')).then(|| Some(PathBuf::from(text)).filter(|_| !text.is_empty())),
    show: |folder| folder.as_ref().map(|folder| folder.display().to_string()).unwrap_or_default(),
    allowed: "the path of a folder, or empty",
};

/// `true` or `false`.
pub(super) struct YesNo;

impl Kind for YesNo {
    type Value = bool;

    fn parse(&self, value: &DeValue<'_>) -> Result<bool, Wrong> {
        let word = value.as_bool().or_else(|| value.as_str().and_then(|text| text.parse().ok()));
        word.ok_or_else(|| self.wrong(value))
    }

    fn show(&self, value: &bool) -> toml::Value {
        (*value).into()
    }

    fn allowed(&self) -> String {
        "true or false".to_owned()
    }
}

/// A plugin's source. A path is returned as it is written: the caller, who knows the folder that it starts at, makes it
/// absolute.
pub(super) const SOURCE: Text<PluginSource> = Text {
    parse: |text| match text.strip_prefix("builtin:") {
        Some(name) if PluginSource::BUILTINS.contains(&name) => Some(PluginSource::Builtin(name.to_owned())),
        None if !text.is_empty() && !text.contains('\0') => Some(PluginSource::File(PathBuf::from(text))),
        _ => None,
    },
    show: PluginSource::to_string,
    allowed: "the path of a component, or builtin:NAME, where NAME is echo-router, hmac-auth, jwt-auth, origin-auth, \
              origin-router or rooms-router",
};

/// A list of values of one kind, without duplicates.
pub(super) struct List<K>(pub K);

impl<K: Kind<Value: PartialEq>> Kind for List<K> {
    type Value = Vec<K::Value>;

    fn parse(&self, value: &DeValue<'_>) -> Result<Self::Value, Wrong> {
        let items = value.as_array().ok_or_else(|| self.wrong(value))?;
        let mut values = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let value = self.0.parse(item.get_ref()).map_err(|wrong| wrong.in_list(index))?;
            if values.contains(&value) {
                return Err(Wrong::new(item.get_ref(), "is in the list twice").in_list(index));
            }
            values.push(value);
        }
        Ok(values)
    }

    fn show(&self, values: &Self::Value) -> toml::Value {
        values.iter().map(|value| self.0.show(value)).collect::<Vec<_>>().into()
    }

    fn allowed(&self) -> String {
        format!("a list, each item {}", self.0.allowed())
    }
}

/// Returns the value as an integer, if it is one.
fn integer(value: &DeValue<'_>) -> Option<i64> {
    let number = value.as_integer()?;
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

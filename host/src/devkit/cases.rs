//! Reads case files: conversations with a plugin, and the expected answers. `plugins/README.md` describes the format.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use bytestring::ByteString;
use serde::{Deserialize, Deserializer, de};
use toml::Value;
use toml::value::Datetime;

use super::MAX_TEXT;
use super::setting::{Written, settings};
use crate::base::message::{Attribute, Cause, Message};
use crate::config::{Settings, read_text};
use crate::plugin::Roles;

/// The cases of one plugin.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cases {
    /// The settings of every case that has none of its own.
    #[serde(default)]
    settings: Written,
    #[serde(rename = "case", default)]
    cases: Vec<Case>,
}

/// One conversation.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    pub(super) name: String,
    /// The time of the plugin's wall clock.
    #[serde(default, deserialize_with = "moment")]
    pub(super) clock: Option<SystemTime>,
    /// The seed of the plugin's random numbers.
    pub(super) random: Option<u64>,
    settings: Option<Written>,
    /// The folder of the case file.
    #[serde(skip)]
    folder: PathBuf,
    /// A part of the reason for which `lifecycle.check` must refuse the settings.
    pub(super) check: Option<String>,
    #[serde(default)]
    pub(super) handshake: Opening,
    #[serde(default)]
    pub(super) session: Client,
    /// The other connections.
    #[serde(default)]
    pub(super) online: Vec<Online>,
    #[serde(default)]
    pub(super) steps: Vec<Step>,
}

/// The handshake of the connection.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Opening {
    pub(super) path: String,
    pub(super) query: Option<String>,
    #[serde(deserialize_with = "address")]
    pub(super) remote_address: SocketAddr,
    #[serde(deserialize_with = "headers")]
    pub(super) headers: Vec<Attribute>,
}

impl Default for Opening {
    fn default() -> Self {
        let (path, remote_address) = ("/".to_owned(), SocketAddr::from(([127, 0, 0, 1], 40000)));
        Self { path, query: None, remote_address, headers: Vec::new() }
    }
}

/// The client whose session the router is called with.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Client {
    pub(super) uid: String,
    #[serde(deserialize_with = "attributes")]
    pub(super) attributes: Vec<Attribute>,
    pub(super) state: Data,
}

impl Default for Client {
    fn default() -> Self {
        Self { uid: "u1".to_owned(), attributes: Vec::new(), state: Data(Message::Text(ByteString::new())) }
    }
}

/// Another connection.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Online {
    pub(super) uid: String,
    #[serde(default)]
    pub(super) groups: Vec<String>,
}

/// One call of the plugin, and the expected answer.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Fields")]
pub(super) struct Step {
    pub(super) call: Call,
    /// What the answer must contain; `None` for any answer.
    pub(super) expect: Option<Value>,
}

/// A call of the plugin, with its input.
#[derive(Debug, Clone)]
pub(super) enum Call {
    Greet,
    Authenticate(Message),
    Opened,
    Route(Message),
    Closed(Closed),
    Push(ByteString),
}

impl Call {
    /// Returns the role that has this function.
    pub(super) fn role(&self) -> Roles {
        let authenticator = matches!(self, Self::Greet | Self::Authenticate(_));
        Roles { authenticator, router: !authenticator, publications: false }
    }
}

/// How a session ended.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Closed {
    #[serde(deserialize_with = "cause")]
    pub(super) cause: Cause,
    pub(super) code: Option<u16>,
    #[serde(default)]
    pub(super) groups: Vec<String>,
    #[serde(default)]
    pub(super) remaining: u32,
}

/// The causes, by their names in the contract.
const CAUSES: [(&str, Cause); 10] = [
    ("client", Cause::Client),
    ("plugin", Cause::Plugin),
    ("operator", Cause::Operator),
    ("silent", Cause::Silent),
    ("slow", Cause::Slow),
    ("replaced", Cause::Replaced),
    ("expired", Cause::Expired),
    ("protocol-error", Cause::ProtocolError),
    ("lost", Cause::Lost),
    ("shutdown", Cause::Shutdown),
];

/// A step as it is written: one of the calls, and the expected answer.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    greet: Option<bool>,
    authenticate: Option<Data>,
    opened: Option<bool>,
    route: Option<Data>,
    closed: Option<Closed>,
    push: Option<String>,
    expect: Option<Value>,
}

impl TryFrom<Fields> for Step {
    type Error = &'static str;

    fn try_from(fields: Fields) -> Result<Self, Self::Error> {
        let Fields { greet, authenticate, opened, route, closed, push, expect } = fields;
        let mut calls = [
            greet.filter(|greet| *greet).map(|_| Call::Greet),
            authenticate.map(|data| Call::Authenticate(data.0)),
            opened.filter(|opened| *opened).map(|_| Call::Opened),
            route.map(|data| Call::Route(data.0)),
            closed.map(Call::Closed),
            push.map(|line| Call::Push(line.into())),
        ]
        .into_iter()
        .flatten();
        match (calls.next(), calls.next()) {
            (Some(call), None) => Ok(Self { call, expect }),
            _ => Err("a step must have exactly one of greet, authenticate, opened, route, closed, push"),
        }
    }
}

/// A message or state: a string, or `{ hex = "00ff" }`.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Value")]
pub(super) struct Data(pub(super) Message);

impl Data {
    /// Returns the bytes of text or binary.
    pub(super) fn bytes(&self) -> Bytes {
        Bytes::copy_from_slice(self.0.as_bytes())
    }
}

impl TryFrom<Value> for Data {
    type Error = &'static str;

    fn try_from(value: Value) -> Result<Self, Self::Error> {
        const ALLOWED: &str = "must be a string, or bytes like { hex = \"00ff\" }";
        if let Value::String(text) = value {
            return Ok(Self(Message::Text(text.into())));
        }
        let table = value.as_table().filter(|table| table.len() == 1).ok_or(ALLOWED)?;
        let digits = table.get("hex").and_then(Value::as_str).ok_or(ALLOWED)?;
        hex::decode(digits).map(|bytes| Self(Message::Binary(bytes.into()))).map_err(|_| ALLOWED)
    }
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| de::Error::custom("remote_address must be an IP address and port, like 127.0.0.1:40000"))
}

fn moment<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SystemTime>, D::Error> {
    let written = Datetime::deserialize(deserializer)?;
    let time = humantime::parse_rfc3339_weak(&written.to_string());
    time.map(Some).map_err(|_| de::Error::custom("clock must be a time in UTC, like 2026-01-01T00:00:00Z"))
}

fn cause<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cause, D::Error> {
    let name = String::deserialize(deserializer)?;
    let known = CAUSES.into_iter().find(|(known, _)| *known == name).map(|(_, cause)| cause);
    known.ok_or_else(|| {
        let names: Vec<_> = CAUSES.iter().map(|(name, _)| *name).collect();
        de::Error::custom(format!("cause must be one of {}", names.join(", ")))
    })
}

impl Cases {
    /// Reads a case file. Blocks.
    ///
    /// # Errors
    /// What is wrong with the file, and where.
    pub(super) fn read(path: &Path) -> anyhow::Result<Vec<Case>> {
        let shown = path.display();
        let text = read_text(path, MAX_TEXT).with_context(|| format!("cannot read {shown}"))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        Self::parse(&text, folder).with_context(|| format!("{shown} is not a case file"))
    }

    pub(super) fn parse(text: &str, folder: &Path) -> anyhow::Result<Vec<Case>> {
        let Self { settings: common, mut cases } = toml::from_str(text)?;
        for case in &mut cases {
            if case.check.is_some() != case.steps.is_empty() {
                bail!("case \"{}\" needs either `check` or `steps`, not both", case.name);
            }
            case.settings.get_or_insert_with(|| common.clone());
            case.folder = folder.to_owned();
        }
        if cases.is_empty() {
            bail!("the file has no [[case]]");
        }
        Ok(cases)
    }
}

impl Case {
    /// Returns the settings of the plugin.
    pub(super) fn settings(&self) -> Settings {
        self.settings.as_ref().map(|written| settings(written, &self.folder)).unwrap_or_default()
    }
}

/// One value, or several values of the same name.
#[derive(Deserialize)]
#[serde(untagged, expecting = "must be a string, or a list of strings")]
enum Values {
    One(String),
    Several(Vec<String>),
}

fn attributes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Attribute>, D::Error> {
    let written = BTreeMap::<String, Values>::deserialize(deserializer)?;
    let values = written.into_iter().flat_map(|(name, values)| {
        let values = match values {
            Values::One(value) => vec![value],
            Values::Several(values) => values,
        };
        values.into_iter().map(move |value| Attribute { name: name.clone(), value })
    });
    Ok(values.collect())
}

/// Reads headers. Their names become lower case, as in the contract.
fn headers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Attribute>, D::Error> {
    let mut headers = attributes(deserializer)?;
    headers.iter_mut().for_each(|header| header.name.make_ascii_lowercase());
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn parse(text: &str) -> anyhow::Result<Vec<Case>> {
        Cases::parse(text, Path::new("/folder"))
    }

    #[test]
    fn a_case_is_read_with_what_it_does_not_say() {
        let cases = parse(
            r#"
            [settings]
            KEY = "common"
            [[case]]
            name = "first"
            clock = 2026-01-01T00:00:00Z
            steps = [
                { greet = true, expect = "pass" },
                { route = { hex = "00fF" } },
                { closed = { cause = "protocol-error" }, expect = [] },
            ]
            [[case]]
            name = "second"
            settings = { KEY = "own", OTHER = { file = "key" } }
            handshake = { headers = { "X-Twice" = ["a", "b"] } }
            check = "too short"
            "#,
        )
        .unwrap();
        assert_eq!(cases[0].clock, Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600)));
        assert_eq!((cases[0].session.uid.as_str(), cases[0].handshake.path.as_str()), ("u1", "/"));
        assert!(matches!(&cases[0].steps[1].call, Call::Route(Message::Binary(bytes)) if **bytes == [0, 255]));
        assert!(matches!(&cases[0].steps[2].call, Call::Closed(Closed { cause: Cause::ProtocolError, .. })));
        assert_eq!(cases[0].settings().read().unwrap()["KEY"], "common");
        assert_eq!(cases[1].settings().files().next(), Some(Path::new("/folder/key")));
        let headers: Vec<_> = cases[1].handshake.headers.iter().map(|header| (&*header.name, &*header.value)).collect();
        assert_eq!(headers, [("x-twice", "a"), ("x-twice", "b")]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, expected) in [
            ("[[case]]\nname = \"a\"\n", "needs either `check` or `steps`"),
            ("[[case]]\nname = \"a\"\nsteps = [{ greet = true, opened = true }]", "one of greet, authenticate"),
            ("[[case]]\nname = \"a\"\nsteps = [{ greet = false }]", "one of greet, authenticate"),
            ("", "the file has no [[case]]"),
            ("[[case]]\nname = \"a\"\nsteps = [{ route = { hex = \"0\" } }]", "{ hex = \"00ff\" }"),
            ("[[case]]\nname = \"a\"\nsteps = [{ route = { hex = \"+1\" } }]", "{ hex = \"00ff\" }"),
            ("[[case]]\nname = \"a\"\nsteps = [{ rout = \"x\" }]", "rout"),
            ("[[case]]\nname = \"a\"\nsteps = [{ closed = { cause = \"x\" } }]", "protocol-error"),
            (
                "[[case]]\nname = \"a\"\nhandshake = { remote_address = \"x\" }\nsteps = [{ greet = true }]",
                "127.0.0.1:40000",
            ),
            ("[[case]]\nname = \"a\"\nclock = 2026-01-01\nsteps = [{ greet = true }]", "in UTC"),
        ] {
            let error = format!("{:#}", parse(text).expect_err(text));
            assert!(error.contains(expected), "{error}");
        }
    }
}

//! A message that an internal system publishes by the HTTP API, as authors write it: in a case file, or in a flag.

use std::fmt;
use std::str::FromStr;

use bytestring::ByteString;
use serde::Deserialize;

use super::data::{Data, Values};
use crate::base::message::{ConnectionId, Message};
use crate::hub::command::Recipient;

/// The token of a publisher, unless a case names another one.
const TOKEN: &str = "default";

/// A message, its recipients, and who publishes it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct Publication {
    /// The name of the publisher's token.
    pub(super) token: ByteString,
    /// Several uids, or one other recipient.
    pub(super) to: Vec<Recipient>,
    pub(super) message: Message,
}

impl Publication {
    /// Returns a text to one uid, published with the default token.
    pub(super) fn to_uid(uid: &str, text: ByteString) -> Self {
        Self { token: TOKEN.into(), to: vec![Recipient::Uid(uid.into())], message: Message::Text(text) }
    }
}

/// A publication in a case file: `{ uid = "u1", message = "hello" }`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    token: Option<String>,
    uid: Option<Values>,
    connection: Option<u64>,
    group: Option<String>,
    everyone: Option<bool>,
    message: Data,
}

impl TryFrom<Written> for Publication {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let Written { token, uid, connection, group, everyone, message } = written;
        let uids = |uids: Values| uids.list().into_iter().map(|uid| Recipient::Uid(uid.into())).collect();
        let mut recipients = [
            uid.map(uids),
            connection.map(|id| vec![Recipient::Connection(ConnectionId(id))]),
            group.map(|group| vec![Recipient::Group(group.into())]),
            everyone.filter(|everyone| *everyone).map(|_| vec![Recipient::Everyone]),
        ]
        .into_iter()
        .flatten();
        match (recipients.next().filter(|to: &Vec<_>| !to.is_empty()), recipients.next()) {
            (Some(to), None) => {
                Ok(Self { token: token.map_or(TOKEN.into(), ByteString::from), to, message: message.0 })
            }
            _ => Err("publish must have exactly one of uid, connection, group, everyone"),
        }
    }
}

impl FromStr for Publication {
    type Err = String;

    /// Reads `uid:u1 hello`: a recipient, a space, and the text.
    fn from_str(written: &str) -> Result<Self, Self::Err> {
        const ALLOWED: &str = "must be a recipient and a text, like \"uid:u1 hello\": the recipient is uid:NAME, connection:NUMBER, \
             group:NAME or everyone";
        let (to, text) = written.split_once(' ').ok_or(ALLOWED)?;
        let to = match to.split_once(':') {
            Some(("uid", uid)) => Recipient::Uid(uid.into()),
            Some(("connection", id)) => Recipient::Connection(ConnectionId(id.parse().map_err(|_| ALLOWED)?)),
            Some(("group", group)) => Recipient::Group(group.into()),
            None if to == "everyone" => Recipient::Everyone,
            _ => return Err(ALLOWED.to_owned()),
        };
        Ok(Self { token: TOKEN.into(), to: vec![to], message: Message::Text(text.into()) })
    }
}

/// Writes the recipients as in a flag: `uid:u1 uid:u2`.
impl fmt::Display for Publication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, to) in self.to.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { " " })?;
            match to {
                Recipient::Uid(uid) => write!(f, "uid:{uid}")?,
                Recipient::Connection(id) => write!(f, "connection:{id}")?,
                Recipient::Group(group) | Recipient::GroupOthers(group) => write!(f, "group:{group}")?,
                Recipient::Everyone => f.write_str("everyone")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_is_a_recipient_and_a_text() {
        for (written, to, text) in [
            ("uid:u1 hello world", Recipient::Uid("u1".into()), "hello world"),
            ("uid:a:b ", Recipient::Uid("a:b".into()), ""),
            ("connection:7 x", Recipient::Connection(ConnectionId(7)), "x"),
            ("group:lobby x", Recipient::Group("lobby".into()), "x"),
            ("everyone x", Recipient::Everyone, "x"),
        ] {
            let publication: Publication = written.parse().unwrap();
            let expected = Publication { token: "default".into(), to: vec![to], message: Message::Text(text.into()) };
            assert_eq!(publication, expected, "{written}");
            assert!(written.starts_with(&publication.to_string()), "{publication}");
        }
        for wrong in ["", "uid:u1", "u1 hello", "connection:x hello", "everyone:x hello", "all hello"] {
            assert!(wrong.parse::<Publication>().unwrap_err().contains("uid:u1 hello"), "{wrong}");
        }
    }

    #[test]
    fn a_table_has_exactly_one_kind_of_recipient() {
        let read = |text: &str| toml::from_str::<Publication>(text).map_err(|error| error.message().to_owned());
        let several = read("uid = [\"u1\", \"u2\"]\ntoken = \"billing\"\nmessage = { hex = \"00ff\" }").unwrap();
        assert_eq!((several.to_string().as_str(), &*several.token), ("uid:u1 uid:u2", "billing"));
        assert_eq!(several.message, Message::Binary(vec![0, 255].into()));
        assert_eq!(read("everyone = true\nmessage = \"hi\"").unwrap().to_string(), "everyone");
        for wrong in ["", "uid = []", "everyone = false", "uid = \"u1\"\ngroup = \"g\""] {
            let error = read(&format!("{wrong}\nmessage = \"hi\"")).unwrap_err();
            assert!(error.contains("exactly one of uid, connection, group, everyone"), "{error}");
        }
        assert!(read("uid = \"u1\"").unwrap_err().contains("message"));
    }
}

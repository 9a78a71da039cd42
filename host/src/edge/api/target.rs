//! To whom a message of the API goes.

use std::collections::HashSet;

use axum::http::Uri;
use bytestring::ByteString;

use super::tokens::{Grant, Scope};
use crate::base::message::ConnectionId;
use crate::edge::http::problem::{Problem, Reason, shown};
use crate::edge::http::query::pairs;
use crate::hub::command::Recipient;
use crate::hub::registry::Registry;

/// The most uids of one message.
pub(super) const MAX_UIDS: usize = 1000;
/// The longest uid, and the longest name of a group, in bytes.
pub(super) const MAX_NAME: usize = 256;

/// The recipients of a message: exactly one kind of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// These uids, each once.
    Uids(Vec<ByteString>),
    /// One connection.
    Connection(ConnectionId),
    /// All connections of a group.
    Group(ByteString),
    /// All authenticated connections.
    Everyone,
}

/// The recipients that a request names, before they are checked.
#[derive(Debug, Default)]
pub(super) struct Named {
    pub(super) uids: Vec<String>,
    pub(super) connection: Option<String>,
    pub(super) group: Option<String>,
    pub(super) everyone: bool,
}

impl Target {
    /// Reads the query of a push.
    pub(super) fn in_query(uri: &Uri) -> Result<Self, Problem> {
        let mut named = Named::default();
        for (name, value) in pairs(uri)? {
            match &*name {
                "uid" => named.uids.push(value),
                "connection" if named.connection.is_none() => named.connection = Some(value),
                "group" if named.group.is_none() => named.group = Some(value),
                "everyone" if value == "true" => named.everyone = true,
                name => {
                    let name = shown(name);
                    let takes = "this path takes uid=TEXT (repeatable), connection=ID, group=NAME or everyone=true";
                    return Err(Problem::bad(format_args!("wrong query parameter {name}: {takes}")));
                }
            }
        }
        named.target()
    }

    /// Checks that a token may push to these recipients. A connection of a uid that the token may not see is answered
    /// like one that does not exist: the token must not learn of it.
    pub(super) fn permit(&self, grant: &Grant, registry: &Registry) -> Result<(), Problem> {
        match self {
            Self::Uids(uids) => uids.iter().try_for_each(|uid| grant.permit_uid(Scope::PushUid, uid)),
            Self::Connection(id) => {
                grant.permit(Scope::PushUid)?;
                check_visible(*id, grant, registry)
            }
            Self::Group(group) => grant.permit_group(Scope::PushGroup, group),
            Self::Everyone => grant.permit(Scope::PushEveryone),
        }
    }

    /// Returns one recipient for each uid, or the only recipient.
    pub(super) fn recipients(&self) -> Vec<Recipient> {
        match self {
            Self::Uids(uids) => uids.iter().cloned().map(Recipient::Uid).collect(),
            Self::Connection(id) => vec![Recipient::Connection(*id)],
            Self::Group(group) => vec![Recipient::Group(group.clone())],
            Self::Everyone => vec![Recipient::Everyone],
        }
    }

    /// Returns the uids, if there are several.
    pub(super) fn uids(&self) -> &[ByteString] {
        match self {
            Self::Uids(uids) if uids.len() > 1 => uids,
            _ => &[],
        }
    }

    /// Returns why the message has reached nobody.
    pub(super) fn offline(&self) -> &'static str {
        match self {
            Self::Uids(uids) if uids.len() == 1 => "nobody with this uid is connected",
            Self::Uids(_) => "nobody with one of these uids is connected",
            Self::Connection(_) => "there is no authenticated connection with this id",
            Self::Group(_) | Self::Everyone => "nobody is connected",
        }
    }
}

impl Named {
    /// Checks that the names are allowed, and that there is exactly one kind of recipient.
    pub(super) fn target(self) -> Result<Target, Problem> {
        let Self { mut uids, connection, group, everyone } = self;
        let kinds = [!uids.is_empty(), connection.is_some(), group.is_some(), everyone];
        if kinds.into_iter().filter(|is_there| *is_there).count() != 1 {
            return Err(Problem::bad("name exactly one kind of recipient: uid, connection, group or everyone"));
        }
        if let Some(id) = connection {
            return connection_id(&id).map(Target::Connection);
        }
        if let Some(group) = group {
            return group_name(group).map(Target::Group);
        }
        if everyone {
            return Ok(Target::Everyone);
        }
        if uids.len() > MAX_UIDS {
            return Err(Problem::new(Reason::TooLarge, format_args!("a message goes to at most {MAX_UIDS} uids")));
        }
        if uids.len() > 1 {
            let mut seen = HashSet::new();
            uids.retain(|uid| seen.insert(uid.clone()));
        }
        uids.into_iter().map(uid).collect::<Result<_, _>>().map(Target::Uids)
    }
}

/// Checks that a connection exists, and that the token may see its uid. The uid of a connection on another gateway is
/// not known here: such a connection is visible only to a token that may see every uid.
pub(super) fn check_visible(id: ConnectionId, grant: &Grant, registry: &Registry) -> Result<(), Problem> {
    let is_visible = match registry.cluster().filter(|own| own.is_foreign(id)) {
        Some(_) => grant.may_see_all(),
        None => registry.connection(id).is_some_and(|peer| grant.may_see(&peer.uid)),
    };
    let none = || Problem::new(Reason::Offline, "there is no authenticated connection with this id");
    is_visible.then_some(()).ok_or_else(none)
}

/// Checks a uid. One that is too long for a uid is allowed: nobody has it.
pub(super) fn uid(text: String) -> Result<ByteString, Problem> {
    if text.is_empty() { Err(Problem::bad("a uid must not be empty")) } else { Ok(text.into()) }
}

/// Checks the name of a group.
pub(super) fn group_name(text: String) -> Result<ByteString, Problem> {
    match (1..=MAX_NAME).contains(&text.len()) {
        true => Ok(text.into()),
        false => Err(Problem::bad(format_args!("the name of a group must have 1 to {MAX_NAME} bytes"))),
    }
}

/// Reads the id of a connection.
pub(super) fn connection_id(text: &str) -> Result<ConnectionId, Problem> {
    let id = text.parse().map(ConnectionId);
    id.map_err(|_| Problem::bad(format_args!("{}: the id of a connection must be a number", shown(text))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(query: &str) -> Result<Target, String> {
        Target::in_query(&format!("/v1/push?{query}").parse().unwrap()).map_err(|problem| problem.error)
    }

    #[test]
    fn a_query_names_one_kind_of_recipient() {
        assert_eq!(target("uid=%2B49+30"), Ok(Target::Uids(vec!["+49+30".into()])));
        assert_eq!(target("uid=a&uid=b&uid=a"), Ok(Target::Uids(vec!["a".into(), "b".into()])));
        assert_eq!(target("connection=17"), Ok(Target::Connection(ConnectionId(17))));
        assert_eq!(target("group=room%201"), Ok(Target::Group("room 1".into())));
        assert_eq!(target("everyone=true"), Ok(Target::Everyone));
        let kinds = "name exactly one kind of recipient: uid, connection, group or everyone";
        for (query, problem) in [
            ("", kinds),
            ("uid=a&group=g", kinds),
            ("everyone=true&connection=1", kinds),
            ("uid=", "a uid must not be empty"),
            ("uid", "a uid must not be empty"),
            ("group=", "the name of a group must have 1 to 256 bytes"),
            ("connection=x1", "x1: the id of a connection must be a number"),
        ] {
            assert_eq!(target(query).unwrap_err(), problem, "{query}");
        }
        for query in ["everyone=false", "user=a", "group=a&group=b"] {
            assert!(target(query).unwrap_err().starts_with("wrong query parameter"), "{query}");
        }
        let many = "uid=a&".repeat(MAX_UIDS + 1);
        assert_eq!(target(&many).unwrap_err(), "a message goes to at most 1000 uids");
    }
}

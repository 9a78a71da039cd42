//! The subjects of the cluster.

use std::fmt;

use crate::hub::cluster::id::Incarnation;

/// The largest frame, in bytes: a segment of 64 KiB, and what stands before it.
pub const MAX_FRAME: usize = (64 << 10) + 1024;

/// Where a frame is published to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// Every gateway, the sender included.
    All,
    /// The link of one gateway.
    Link(Incarnation),
    /// The window for snapshots of one gateway.
    Snapshots(Incarnation),
    /// The inbox of one gateway: the answer to a frame that came with this token.
    Inbox(Incarnation, u64),
}

/// The subscription that a frame came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Channel {
    /// What is published for every gateway.
    All,
    /// The own link.
    Link,
    /// The own window for snapshots.
    Snapshots,
    /// The own inbox.
    Inbox,
}

impl Channel {
    /// The subscriptions in the order in which they are made.
    pub(super) const EACH: [Self; 4] = [Self::All, Self::Link, Self::Snapshots, Self::Inbox];
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "all",
            Self::Link => "link",
            Self::Snapshots => "snapshots",
            Self::Inbox => "inbox",
        })
    }
}

/// What a message in the own inbox is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Letter {
    /// The server has processed every message before the one with this number.
    Echo(u64),
    /// A message of the check that begins each connection.
    Probe,
    /// An answer, or a notice, for the frame with this token.
    Token(u64),
}

/// Makes the subjects of one gateway.
#[derive(Debug, Clone)]
pub(super) struct Subjects {
    prefix: String,
    own: Incarnation,
    /// The beginning of every subject in the own inbox, with the dot.
    inbox: String,
}

impl Subjects {
    /// Makes the subjects below a prefix.
    pub(super) fn new(prefix: &str, own: Incarnation) -> Self {
        Self { prefix: prefix.to_owned(), own, inbox: format!("{prefix}.i.{own}.") }
    }

    /// Returns the incarnation of this gateway.
    pub(super) fn own(&self) -> Incarnation {
        self.own
    }

    /// Returns the subject of a target.
    pub(super) fn target(&self, target: Target) -> String {
        let prefix = &self.prefix;
        match target {
            Target::All => format!("{prefix}.all"),
            Target::Link(incarnation) => format!("{prefix}.n.{incarnation}"),
            Target::Snapshots(incarnation) => format!("{prefix}.s.{incarnation}"),
            Target::Inbox(incarnation, token) => format!("{prefix}.i.{incarnation}.{token}"),
        }
    }

    /// Returns the subject that a channel subscribes to.
    pub(super) fn subscription(&self, channel: Channel) -> String {
        match channel {
            Channel::All => self.target(Target::All),
            Channel::Link => self.target(Target::Link(self.own)),
            Channel::Snapshots => self.target(Target::Snapshots(self.own)),
            Channel::Inbox => format!("{}>", self.inbox),
        }
    }

    /// Returns the subject in the own inbox for answers with this token.
    pub(super) fn token(&self, token: u64) -> String {
        format!("{}{token}", self.inbox)
    }

    /// Returns the subject in the own inbox for an echo.
    pub(super) fn echo(&self, number: u64) -> String {
        format!("{}e.{number}", self.inbox)
    }

    /// Returns the subject in the own inbox for probes.
    pub(super) fn probe(&self) -> String {
        format!("{}p", self.inbox)
    }

    /// Returns what a message in the own inbox is about; `None` if its subject is none that this gateway made.
    pub(super) fn letter(&self, subject: &str) -> Option<Letter> {
        let rest = subject.strip_prefix(&self.inbox)?;
        match rest.strip_prefix("e.") {
            Some(number) => number.parse().ok().map(Letter::Echo),
            None if rest == "p" => Some(Letter::Probe),
            None => rest.parse().ok().map(Letter::Token),
        }
    }
}

/// Returns the token of the subject that a frame asks to be answered at, with the incarnation that asks.
pub(super) fn answer_address(reply: &str) -> Option<(Incarnation, u64)> {
    let mut words = reply.rsplit('.');
    let token = words.next()?.parse().ok()?;
    let incarnation = u64::from_str_radix(words.next()?, 16).ok()?;
    (words.next()? == "i").then_some((Incarnation(incarnation), token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_read_as_they_were_written() {
        let subjects = Subjects::new("hg", Incarnation(0xab));
        assert_eq!(subjects.subscription(Channel::Inbox), "hg.i.00000000000000ab.>");
        assert_eq!(subjects.letter(&subjects.token(7)), Some(Letter::Token(7)));
        assert_eq!(subjects.letter(&subjects.echo(8)), Some(Letter::Echo(8)));
        assert_eq!(subjects.letter(&subjects.probe()), Some(Letter::Probe));
        assert_eq!(subjects.letter("hg.i.00000000000000ac.7"), None);
        assert_eq!(subjects.letter("hg.i.00000000000000ab.seven"), None);
        assert_eq!(answer_address(&subjects.token(7)), Some((Incarnation(0xab), 7)));
        assert_eq!(answer_address("hg.n.00000000000000ab"), None);
    }
}

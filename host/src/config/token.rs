//! The tokens of the HTTP push API.

use std::fmt;
use std::path::PathBuf;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::files::BYTE_ORDER_MARK;

/// The fewest characters of a token: a shorter one could be guessed.
pub const MIN_TOKEN: usize = 32;
/// The most characters of a token: a longer one would not fit a header.
const MAX_TOKEN: usize = 1024;

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Push to uids and to connections.
    PushUid,
    /// Push to groups.
    PushGroup,
    /// Push to everyone.
    PushEveryone,
    /// Give lines to the router.
    Line,
    /// Ask who is online, and who is in a group.
    Query,
    /// Close and block connections.
    Kick,
    /// Add connections to groups, and remove them.
    Membership,
    /// Follow logins and departures.
    Events,
}

impl Scope {
    /// All scopes, with their words in the configuration.
    pub const ALL: [(&'static str, Self); 8] = [
        ("push:uid", Self::PushUid),
        ("push:group", Self::PushGroup),
        ("push:everyone", Self::PushEveryone),
        ("line", Self::Line),
        ("query", Self::Query),
        ("kick", Self::Kick),
        ("membership", Self::Membership),
        ("events", Self::Events),
    ];

    /// Returns the scope's word in the configuration.
    pub fn word(self) -> &'static str {
        Self::ALL.iter().find(|(_, scope)| *scope == self).map_or("", |(word, _)| word)
    }
}

/// A token of the HTTP push API, and what it allows.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiTokenConfig {
    /// The name, for the log and for error messages.
    pub name: String,
    /// The digest of the token, if the configuration has it.
    pub sha256: Option<TokenDigest>,
    /// The file with the token, if there is one.
    pub secret: Option<PathBuf>,
    /// What it allows.
    pub scopes: Vec<Scope>,
    /// Patterns of the uids that it allows this for; empty for all. `*` matches any run of characters.
    pub uids: Vec<String>,
    /// Patterns of the groups; empty for all.
    pub groups: Vec<String>,
    /// Requests and items a second; 0 for any number.
    pub rate: u32,
    /// The digest of the token, wherever the token is.
    pub digest: TokenDigest,
}

/// The SHA-256 digest of a token. Its `Debug` does not show it, since a weak token could be guessed from it.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    /// Returns the digest of a token.
    pub fn of(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }

    /// Compares two digests. This takes the same time wherever they differ.
    pub fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }

    /// Reads a digest from 64 hexadecimal digits.
    pub(super) fn parse(hex: &str) -> Option<Self> {
        let mut digest = [0; 32];
        hex::decode_to_slice(hex, &mut digest).ok().map(|()| Self(digest))
    }
}

/// Displays it as 64 hexadecimal digits.
impl fmt::Display for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenDigest")
    }
}

/// Returns the token in the content of a file, without white space around it. Returns `None` if the content is no
/// token: one word of ASCII characters, long enough that it cannot be guessed.
pub fn token_in(content: &[u8]) -> Option<&str> {
    let text = content.strip_prefix(BYTE_ORDER_MARK).unwrap_or(content).trim_ascii();
    let fits = (MIN_TOKEN..=MAX_TOKEN).contains(&text.len()) && text.iter().all(u8::is_ascii_graphic);
    str::from_utf8(text).ok().filter(|_| fits)
}

//! A token in the state folder. It opens one listener: for everything, or only to read.

use std::{fmt, io};

use subtle::ConstantTimeEq as _;

use crate::base::state::StateFolder;
use crate::config::{MIN_TOKEN, TokenDigest, token_in};

/// The name of the admin token's file in the state folder.
pub const ADMIN_FILE: &str = "admin-token";
/// The name of the file in the state folder with the admin token that only reads.
pub const READ_FILE: &str = "admin-read-token";
/// The name of the API token's file in the state folder.
pub const API_FILE: &str = "api-token";

/// A token. Its `Debug` does not show it.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// Reads the token in this file of the state folder, or makes one of 32 random bytes. Blocks.
    ///
    /// # Errors
    /// If there is no state folder, or the file is not private or contains no token.
    pub fn create(state: &StateFolder, file: &str) -> io::Result<Self> {
        Self::parse(file, &state.create_secret(file, || Ok(Self::random()?.0.into_bytes()))?)
    }

    /// Makes a token of 32 random bytes.
    ///
    /// # Errors
    /// If the system has no random bytes.
    pub fn random() -> io::Result<Self> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        Ok(Self(hex::encode(bytes)))
    }

    /// Returns the token in the content of this file.
    ///
    /// # Errors
    /// If the content is not a token.
    pub fn parse(file: &str, content: &[u8]) -> io::Result<Self> {
        let problem =
            || io::Error::other(format!("{file}: the token must be one word of at least {MIN_TOKEN} characters"));
        token_in(content).map(|text| Self(text.to_owned())).ok_or_else(problem)
    }

    /// Returns the token itself.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Returns the value of an `Authorization` header with this token.
    pub fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// Returns the digest of the token.
    pub fn digest(&self) -> TokenDigest {
        TokenDigest::of(self.0.as_bytes())
    }

    /// Returns `true` if an `Authorization` header has this token. The comparison takes the same time wherever the two
    /// differ.
    pub fn is_in(&self, header: &[u8]) -> bool {
        bearer(header).is_some_and(|given| self.0.as_bytes().ct_eq(given).into())
    }
}

/// Returns the token in an `Authorization` header (RFC 6750 §2.1).
pub(in crate::edge) fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = header.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_itself_opens() {
        let token = Token::parse(ADMIN_FILE, b"0123456789abcdef0123456789abcdef\n").unwrap();
        assert!(token.is_in(token.header().as_bytes()));
        let by_an_editor = Token::parse(ADMIN_FILE, b"\xef\xbb\xbf0123456789abcdef0123456789abcdef\r\n").unwrap();
        assert_eq!(by_an_editor.header(), token.header());
        assert!(token.is_in(b"bearer 0123456789abcdef0123456789abcdef"));
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "0123456789abcdef0123456789abcdef",
            "Basic 0123456789abcdef0123456789abcdef",
            "Bearer 0123456789abcdef0123456789abcde",
            "Bearer 0123456789abcdef0123456789abcdeF",
            "Bearer 0123456789abcdef0123456789abcdef0",
        ] {
            assert!(!token.is_in(wrong.as_bytes()), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for content in ["", "\n", "short", "0123456789abcdef 0123456789abcdef", "ä123456789abcdef0123456789abcdef"] {
            assert!(Token::parse(ADMIN_FILE, content.as_bytes()).is_err(), "{content:?}");
        }
    }

    #[test]
    fn it_is_made_once_and_never_shown() {
        let place = tempfile::tempdir().unwrap();
        let state = StateFolder::open(Some(&place.path().join("state")));
        let token = Token::create(&state, ADMIN_FILE).unwrap();
        assert_eq!(Token::create(&state, ADMIN_FILE).unwrap().header(), token.header());
        assert_eq!(token.header().len(), "Bearer ".len() + 64);
        assert_eq!(format!("{token:?}"), "Token");
    }
}

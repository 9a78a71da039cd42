//! The tokens of the HTTP push API.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use toml::de::DeValue;

use super::error::Wrong;
use super::files::{BYTE_ORDER_MARK, absolute, read_file};
use super::kinds::{Choice, Kind, Text};

/// The most tokens. Each request is compared with all of them.
pub(super) const MAX_TOKENS: usize = 1000;

/// The fewest characters of a token: a shorter one could be guessed.
pub const MIN_TOKEN: usize = 32;
/// The most characters of a token: a longer one would not fit a header.
const MAX_TOKEN: usize = 1024;
/// The most bytes of a token's file. White space around the token is allowed.
pub const MAX_TOKEN_FILE: usize = 4096;

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
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// A name in the certificate of its client, in place of a token.
    pub client_certificate: Option<String>,
    /// How a request shows that it has the token.
    pub credential: Credential,
}

/// How a request shows that it has a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// It contains the token with this digest.
    Token(TokenDigest),
    /// Its client has a certificate with this name.
    Certificate(String),
}

impl ApiTokenConfig {
    /// Completes a token that was read from a file in `folder`: checks its keys and finds its digest. `others` are the
    /// tokens before it. Blocks while the token's file is read.
    ///
    /// # Errors
    /// The key that is wrong, and what is wrong with it. Never the token or its digest.
    pub(super) fn complete(&mut self, folder: &Path, others: &[Self]) -> Result<(), (&'static str, String)> {
        if self.name.is_empty() {
            return Err(("name", format!("must be set: {}", TOKEN_NAME.allowed())));
        }
        if let Some(other) = others.iter().position(|other| other.name == self.name) {
            return Err(("name", format!("\"{}\" is the name of api.token[{other}], too", self.name)));
        }
        if self.scopes.is_empty() {
            return Err(("scopes", format!("must be set: a list, each item {}", SCOPES.allowed())));
        }
        let (key, credential) = match (self.sha256, &mut self.secret, &self.client_certificate) {
            (Some(digest), None, None) => ("sha256", Credential::Token(digest)),
            (None, Some(file), None) => {
                *file = absolute(folder, file).map_err(|problem| ("secret", problem))?;
                let problem = |error| ("secret", format!("cannot use the file {}: {error}", file.display()));
                ("secret", Credential::Token(digest_in(file).map_err(problem)?))
            }
            (None, None, Some(name)) => ("client_certificate", Credential::Certificate(name.clone())),
            (None, None, None) => {
                let problem =
                    format!("sha256, secret or client_certificate must be set: {}", TokenDigestKind.allowed());
                return Err(("sha256", problem));
            }
            (Some(_), Some(_), _) => return Err(("secret", "must not be set beside sha256".to_owned())),
            (Some(_), _, Some(_)) => return Err(("client_certificate", "must not be set beside sha256".to_owned())),
            (_, Some(_), Some(_)) => return Err(("client_certificate", "must not be set beside secret".to_owned())),
        };
        if let Some(other) = others.iter().position(|other| other.credential == credential) {
            return Err((key, format!("is the same token as api.token[{other}]")));
        }
        self.credential = credential;
        Ok(())
    }
}

/// Returns the digest of the token in a file. Blocks.
fn digest_in(file: &Path) -> io::Result<TokenDigest> {
    let content = read_file(file, MAX_TOKEN_FILE)?;
    let token = content.as_deref().and_then(token_in).map(|token| TokenDigest::of(token.as_bytes()));
    token.ok_or_else(|| io::Error::other(format!("it must contain one word of at least {MIN_TOKEN} characters")))
}

/// The SHA-256 digest of a token. Its `Debug` does not show it, since a weak token could be guessed from it.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    /// Returns the digest of a token.
    pub fn of(token: &[u8]) -> Self {
        Self(<Sha256 as sha2::Digest>::digest(token).into())
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

/// Words of the scopes.
pub(super) const SCOPES: Choice<Scope> = Choice(&Scope::ALL);

/// The name of a token.
pub(super) const TOKEN_NAME: Text<String> = Text {
    parse: |text| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        ((1..=64).contains(&text.len()) && text.bytes().all(allowed)).then(|| text.to_owned())
    },
    show: String::clone,
    allowed: "a name of 1 to 64 letters, digits, \"-\", \"_\" and \".\"",
};

/// Checks the name of a token.
///
/// # Errors
/// If it is not allowed.
pub fn token_name(text: &str) -> Result<String, String> {
    (TOKEN_NAME.parse)(text).ok_or_else(|| format!("must be {}", TOKEN_NAME.allowed()))
}

/// A name in a certificate; or `None`, written as an empty text.
pub(super) const CERTIFICATE_NAME: Text<Option<String>> = Text {
    parse: |text| {
        let allowed = text.len() <= 256 && text.bytes().all(|byte| byte.is_ascii_graphic());
        allowed.then(|| Some(text.to_owned()).filter(|_| !text.is_empty()))
    },
    show: |name| name.clone().unwrap_or_default(),
    allowed: "a subject alternative name of a certificate, like \"billing.internal\", or empty",
};

/// A pattern of uids or groups.
pub(super) const PATTERN: Text<String> = Text {
    parse: |text| (1..=256).contains(&text.len()).then(|| text.to_owned()),
    show: String::clone,
    allowed: "a pattern of at most 256 bytes, like \"shop-*\"",
};

/// A digest; or `None`, written as an empty text. Errors do not show the value, since it may be the token itself.
pub(super) struct TokenDigestKind;

impl Kind for TokenDigestKind {
    type Value = Option<TokenDigest>;

    fn parse(&self, value: &DeValue<'_>) -> Result<Self::Value, Wrong> {
        let digest = match value.as_str() {
            Some("") => Some(None),
            other => other.and_then(TokenDigest::parse).map(Some),
        };
        digest.ok_or_else(|| Wrong::secret(format!("must be {}", self.allowed())))
    }

    fn show(&self, value: &Self::Value) -> toml::Value {
        value.map(|digest| digest.to_string()).unwrap_or_default().into()
    }

    fn allowed(&self) -> String {
        "64 hexadecimal digits, or empty if secret or client_certificate is set".to_owned()
    }
}

/// The file with a token; or `None`, written as an empty table. Errors do not show the value, since it may be the token
/// itself.
pub(super) struct SecretFile;

impl Kind for SecretFile {
    type Value = Option<PathBuf>;

    fn parse(&self, value: &DeValue<'_>) -> Result<Self::Value, Wrong> {
        let file = match value.as_table() {
            Some(table) if table.is_empty() => return Ok(None),
            Some(table) if table.len() == 1 => table.get("file").and_then(|file| file.get_ref().as_str()),
            _ => None,
        };
        let file = file.filter(|file| !file.is_empty() && !file.contains('\0'));
        file.map(|file| Some(file.into())).ok_or_else(|| Wrong::secret(format!("must be {}", self.allowed())))
    }

    fn show(&self, value: &Self::Value) -> toml::Value {
        let entry = |file: &PathBuf| ("file".to_owned(), file.display().to_string().into());
        toml::Value::Table(value.iter().map(entry).collect())
    }

    fn allowed(&self) -> String {
        "{ file = \"path\" }, or {} if sha256 or client_certificate is set".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::{Config, ConfigError, Overrides};

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";
    const DIGEST: &str = "3eb1da4a7c8b3f0cbaf2d4fa4d6c5c0dc1d6e4f9a7c1f5dfb0d1d4c3b2a19080";

    fn load(text: &str) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &str| fs::write(folder.path().join(name), content).unwrap();
        file("hotgate.toml", text);
        file("token", &format!("{TOKEN}\n"));
        file("short", &TOKEN[1..]);
        let loaded = Config::load(Some(&folder.path().join("hotgate.toml")), &Overrides::default());
        loaded.map_err(|error: ConfigError| error.to_string().replace(&format!("{}/", folder.path().display()), ""))
    }

    #[test]
    fn a_token_is_a_digest_or_the_content_of_a_file() {
        let text = format!(
            "[[api.token]]\nname = \"a\"\nsha256 = \"{DIGEST}\"\nscopes = [\"push:uid\", \"events\"]\nuids = [\"a*\"]\n\
             [[api.token]]\nname = \"b\"\nsecret = {{ file = \"token\" }}\nscopes = [\"line\"]\nrate = 3"
        );
        let tokens = load(&text).unwrap().api.tokens;
        assert_eq!(tokens[0].credential, Credential::Token(TokenDigest::parse(DIGEST).unwrap()));
        assert_eq!(tokens[0].scopes, [Scope::PushUid, Scope::Events]);
        assert_eq!((tokens[0].uids.as_slice(), tokens[0].rate), (&["a*".to_owned()][..], 0));
        assert_eq!(tokens[1].credential, Credential::Token(TokenDigest::of(TOKEN.as_bytes())));
        assert_eq!(tokens[1].rate, 3);
        assert!(tokens[1].secret.as_ref().is_some_and(|file| file.is_absolute()));
        let shown = format!("{tokens:?}");
        assert!(!shown.contains(DIGEST) && !shown.contains(TOKEN), "{shown}");
    }

    #[test]
    fn what_is_printed_loads_to_equal_tokens() {
        let text = format!(
            "[[api.token]]\nname = \"a\"\nsha256 = \"{DIGEST}\"\nscopes = [\"kick\"]\ngroups = [\"*\"]\nrate = 1\n\
             [[api.token]]\nname = \"b\"\nsha256 = \"{}\"\nscopes = [\"line\"]",
            DIGEST.replace('3', "4")
        );
        let config = load(&text).unwrap();
        let printed = config.to_toml();
        assert_eq!(load(&printed), Ok(config), "{printed}");
    }

    #[test]
    fn what_is_wrong_is_named_and_never_shown() {
        let (digest, other) = (format!("sha256 = \"{DIGEST}\""), format!("sha256 = \"{}\"", DIGEST.replace('3', "4")));
        let token = |name: &str, lines: &str| format!("[[api.token]]\nname = \"{name}\"\n{lines}\n");
        let a = token("a", &format!("{digest}\nscopes = [\"line\"]"));
        for (text, problem) in [
            ("api.token = 1".to_owned(), "1: api.token: must be at most 1000 tables, each headed [[api.token]]"),
            ("api.tokens = []".to_owned(), "1: api.tokens: unknown key; allowed here: listen, mode, group,"),
            ("[[api.token]]\nscopes = [\"line\"]".to_owned(), "1: api.token[0].name: must be set: a name of 1 to 64"),
            (token("a b", ""), "2: api.token[0].name = \"a b\": must be a name of 1 to 64 letters"),
            (
                token("a", &digest),
                "1: api.token[0].scopes: must be set: a list, each item \"push:uid\", \"push:group\"",
            ),
            (token("a", "scopes = []"), "3: api.token[0].scopes: must be set: a list"),
            (token("a", "scopes = [\"push\"]"), "3: api.token[0].scopes[0] = \"push\": must be \"push:uid\","),
            (token("a", "scopes = [\"line\", \"line\"]"), "3: api.token[0].scopes[1] = \"line\": is in the list twice"),
            (
                token("a", "scopes = [\"line\"]"),
                "1: api.token[0].sha256: sha256, secret or client_certificate must be set: 64",
            ),
            (
                token("a", &format!("{digest}\nsecret = {{ file = \"token\" }}\nscopes = [\"line\"]")),
                "4: api.token[0].secret: must not be set beside sha256",
            ),
            (token("a", &format!("sha256 = \"{TOKEN}\"")), "3: api.token[0].sha256: must be 64 hexadecimal digits"),
            (
                token("a", &format!("secret = \"{TOKEN}\"")),
                "3: api.token[0].secret: must be { file = \"path\" }, or {}",
            ),
            (token("a", &format!("secret = {{ fil = \"{TOKEN}\" }}")), "3: api.token[0].secret: must be { file ="),
            (
                token("a", "secret = { file = \"nowhere\" }\nscopes = [\"line\"]"),
                "3: api.token[0].secret: cannot use the file nowhere: No such file",
            ),
            (
                token("a", "secret = { file = \"short\" }\nscopes = [\"line\"]"),
                "3: api.token[0].secret: cannot use the file short: it must contain one word of at least 32 characters",
            ),
            (
                a.clone() + &token("a", &format!("{other}\nscopes = [\"line\"]")),
                "6: api.token[1].name: \"a\" is the name of api.token[0], too",
            ),
            (
                a.clone() + &token("b", &format!("{digest}\nscopes = [\"line\"]")),
                "7: api.token[1].sha256: is the same token as api.token[0]",
            ),
            (token("a", "uids = [\"\"]"), "3: api.token[0].uids[0] = \"\": must be a pattern of at most 256 bytes"),
            (token("a", "rate = -1"), "3: api.token[0].rate = -1: must be a whole number from 0 to"),
            (token("a", "scope = \"line\""), "3: api.token[0].scope: unknown key; allowed here: name, sha256, secret,"),
        ] {
            let error = load(&text).expect_err(&text);
            assert!(error.starts_with(&format!("hotgate.toml:{problem}")), "{error}\n not: {problem}");
            assert!(!error.contains(TOKEN) && !error.contains(&TOKEN[1..]), "{error}");
        }
    }
}
